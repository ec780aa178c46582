"""The scheduler's decision: which node a pod goes to that names none, as those of a Deployment.

It goes to the node with the fewest pods of the same labels, of those that are connected and not cordoned; among equals
to the first by name. What a pod asks of its node (affinity, taints, resources) is not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from lab.standins.views import Pod

REVISION_LABEL = "pod-template-hash"
"""Of a Deployment's pods; those of all its revisions are spread together."""


def place(pod: Pod, pods: Iterable[Pod], nodes: Iterable[str], bound: Mapping[str, str]) -> str | None:
    """The node for a pod; None: there is none. ``bound`` has the nodes of pods, by uid, that do not show it yet."""
    load = Counter(
        each.spec.node_name or bound.get(each.metadata.uid, "")
        for each in pods
        if each.metadata.deletion_timestamp is None and _kind(each) == _kind(pod)
    )
    return min(nodes, key=lambda node: (load[node], node), default=None)


def _kind(pod: Pod) -> tuple[str, frozenset[tuple[str, str]]]:
    labels = ((key, value) for key, value in pod.metadata.labels.items() if key != REVISION_LABEL)
    return pod.metadata.namespace, frozenset(labels)
