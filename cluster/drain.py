"""Says whether people have taken a node out of use, and why.

A node is *drained* by any of these:

1. The annotation ``berthlb.io/drain``, with a reason as its value. An empty one counts, too.
2. The taint ``node.kubernetes.io/out-of-service``: somebody says that the node is down for good (KEP-2268).
3. ``kubectl cordon``, if the speakers have ``--drain-cordoned``.

A drained node hands over what other nodes can hold, and keeps the rest. The label that excludes a node from load
balancers is stronger: such a node keeps nothing that another node can hold, and takes nothing over.

Not promised: anything about the node's pods. Take ``kubectl drain`` for these.
"""

from __future__ import annotations

from cluster.nodes import OUT_OF_SERVICE_TAINT
from cluster.objects import Node

DRAIN_ANNOTATION = "berthlb.io/drain"


def drained_by(node: Node, *, cordon: bool) -> str:
    """Why a node is drained, for people; empty where it is not. ``cordon``: an unschedulable node counts."""
    annotations = node.metadata.annotations
    if DRAIN_ANNOTATION in annotations:
        reason = annotations[DRAIN_ANNOTATION]
        return f"annotation {DRAIN_ANNOTATION}" + (f": {reason}" if reason else "")
    if any(taint.key == OUT_OF_SERVICE_TAINT for taint in node.spec.taints):
        return f"taint {OUT_OF_SERVICE_TAINT}"
    return "cordoned" if cordon and node.spec.unschedulable else ""
