"""What a Node says of itself that more than one program asks."""

from __future__ import annotations

from cluster.objects import Node


def is_ready(node: Node) -> bool:
    """Whether its kubelet lives and is well, by Kubernetes' own judgement."""
    return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)
