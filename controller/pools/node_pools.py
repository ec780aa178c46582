"""What is said of a NodeIPPool beside ``Valid``: the condition ``NodesMatch`` and the counters.

``NodesMatch`` is False when the pool selects no node. Where some of the selected nodes give nothing, its message names
them and why; that may lag like a counter.

Until Pods, EndpointSlices and Leases have been read nothing new is said. So a controller that begins writes nothing
where nothing has changed.
"""

from __future__ import annotations

from cluster.listing import first_few
from cluster.node_pools import NodeIPPoolStatus, NodePool
from cluster.objects import Condition, find_condition
from controller.changes import shortened
from controller.nodeip.cluster import NodePoolFigures


def nodes_match(pool: NodePool | None, figures: NodePoolFigures | None, shown: NodeIPPoolStatus) -> Condition | None:
    """``pool``: the version in force. ``figures``: None while nothing is known. ``shown``: what the status has. None:
    what is there stays."""
    if pool is None:
        return Condition("NodesMatch", "Unknown", "NotInForce", "no version of the pool is in force")
    if figures is None:
        if find_condition(shown.conditions, "NodesMatch") is not None:
            return None
        message = "Pods, EndpointSlices and Leases are not read yet: no Service gets a node's address"
        return Condition("NodesMatch", "Unknown", "NotRead", message)
    if not figures.selected:
        detail = "spec.nodeSelectors match no node" if pool.node_selectors else "there is no node"
        return Condition("NodesMatch", "False", "NoMatchingNode", f"{detail}: no Service gets an address")
    if not figures.left_out:
        return Condition("NodesMatch", "True", "Found")
    names = first_few([f'"{name}" ({why.value})' for name, why in figures.left_out.items()])
    message = f"{len(figures.left_out)} of {figures.selected} nodes give no address: {names}"
    return Condition("NodesMatch", "True", "Found", shortened(message))


def counters(pool: NodePool | None, figures: NodePoolFigures | None, shown: NodeIPPoolStatus) -> dict[str, int]:
    """The counters that differ from what the status shows; the first time that they are known, all of them."""
    if figures is None:
        if pool is not None:
            return {}
        figures = NodePoolFigures()
    said = find_condition(shown.conditions, "NodesMatch")
    wanted = {
        "selectedNodes": (figures.selected, shown.selected_nodes),
        "usableNodes": (figures.usable, shown.usable_nodes),
        "assignedServices": (figures.services, shown.assigned_services),
    }
    first = said is None or said.reason == "NotRead"
    return {field: count for field, (count, present) in wanted.items() if first or count != present}
