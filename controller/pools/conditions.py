"""The conditions of a pool or an advertisement beside ``Valid``.

``Exhausted`` and ``Overlapping`` on an IPAddressPool are True when something is wrong. ``PoolsExist``, ``NodesMatch``
and ``InterfacesExist`` on an L2Advertisement are False then. Each is always there, so that "not wrong" differs from
"not looked at". A message names what is meant, a few of it at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cluster.addresses import Family, Range
from cluster.config import Advertisement, Pool, Problem
from cluster.listing import first_few
from cluster.objects import Condition, NodeName
from cluster.selectors import matches_any
from controller.allocation.reserved import Reserved, Use
from controller.changes import shortened

OVERLAP = "Overlap"
"""``Problem.word`` of a pool that is not in force because of another one."""

Labels = Mapping[str, str]


def exhausted(pool: Pool | None, counts: Mapping[Family, tuple[int, int]]) -> Condition:
    """``counts``: addresses taken and available, by family."""
    if pool is None:
        return Condition("Exhausted", "Unknown", "NotInForce", "no version of the pool is in force")
    details = []
    for family, (taken, available) in counts.items():
        size = pool.size(family)
        if size and not available:
            reserved = f", {size - taken} never given out" if size > taken else ""
            details.append(f"no free {family.text} address ({taken} of {size} in use{reserved})")
    if not details:
        return Condition("Exhausted", "False", "AddressesAvailable")
    return Condition("Exhausted", "True", "NoFreeAddress", "; ".join(details))


def overlapping(pool: Pool | None, problem: Problem | None, withheld: Sequence[tuple[Range, Reserved]]) -> Condition:
    """``withheld``: what the pool in force contains of the cluster's own addresses."""
    if problem is not None and problem.word == OVERLAP:
        return Condition("Overlapping", "True", "Pool", shortened(problem.reason))
    if pool is None:
        return Condition("Overlapping", "Unknown", "NotInForce", "no version of the pool is in force")
    if not withheld:
        return Condition("Overlapping", "False", "Disjoint")
    order = list(Use)
    first = min((what for _, what in withheld), key=lambda what: order.index(what.use))
    names = first_few([f"{block.short_text} is {what.text}" for block, what in withheld])
    message = f"never given out: {names}; the rest of the pool is"
    return Condition("Overlapping", "True", first.use.value, shortened(message))


def pools_exist(advertisement: Advertisement, pools: Iterable[str]) -> Condition:
    """``pools``: the names of those in the API, in force or not."""
    there = set(pools)
    missing = [name for name in advertisement.pool_names if name not in there]
    if missing:
        names = first_few([f'"{name}"' for name in missing])
        return Condition("PoolsExist", "False", "UnknownPool", shortened(f"there is no IPAddressPool {names}"))
    if advertisement.pools is not None and not advertisement.pools and not advertisement.pool_names:
        return Condition("PoolsExist", "False", "NoMatchingPool", "spec.ipAddressPoolSelectors match no IPAddressPool")
    return Condition("PoolsExist", "True", "Found")


def matching_nodes(advertisement: Advertisement, nodes: Mapping[NodeName, Labels]) -> list[NodeName]:
    selectors = advertisement.node_selectors
    return [name for name, labels in nodes.items() if not selectors or matches_any(selectors, labels)]


def nodes_match(advertisement: Advertisement, matching: Sequence[NodeName]) -> Condition:
    if matching:
        return Condition("NodesMatch", "True", "Found")
    detail = "spec.nodeSelectors match no node" if advertisement.node_selectors else "there is no node"
    return Condition("NodesMatch", "False", "NoMatchingNode", f"{detail}: nobody announces")


def interfaces_exist(
    advertisement: Advertisement, matching: Sequence[NodeName], without: Mapping[NodeName, frozenset[str]]
) -> Condition:
    """``without``: the advertisements whose interfaces a node lacks, as its speaker says. A node that lacks what others
    have is usual; it is worth a word only when there is no other."""
    if not advertisement.interfaces:
        return Condition("InterfacesExist", "True", "AnyInterface")
    heard = [node for node in matching if node in without]
    if any(advertisement.name not in without[node] for node in heard):
        return Condition("InterfacesExist", "True", "Found")
    if not heard or len(heard) < len(matching):
        return Condition(
            "InterfacesExist", "Unknown", "NotReported", "not every speaker on a matching node has reported"
        )
    names = first_few([f'"{name}"' for name in advertisement.interfaces])
    message = f"no matching node has an interface {names} that can announce: nobody announces"
    return Condition("InterfacesExist", "False", "NoMatchingInterface", shortened(message))
