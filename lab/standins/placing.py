"""The scheduler's decision: which node a pod goes to that names none, as those of a Deployment.

It goes to the node with the fewest pods of the same labels, of those that are connected and not cordoned; among equals
to the first by name. So each revision of a Deployment is spread by itself, as Kubernetes does it. What a pod asks of
its node (affinity, taints, resources) is not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from lab.standins.views import Pod


def place(pod: Pod, pods: Iterable[Pod], nodes: Iterable[str], bound: Mapping[str, str]) -> str | None:
    """The node for a pod; None: there is none. ``bound`` has the nodes of pods, by uid, that do not show it yet."""
    load = Counter(
        each.spec.node_name or bound.get(each.metadata.uid, "")
        for each in pods
        if each.metadata.deletion_timestamp is None
        and (each.metadata.namespace, each.metadata.labels) == (pod.metadata.namespace, pod.metadata.labels)
    )
    return min(nodes, key=lambda node: (load[node], node), default=None)
