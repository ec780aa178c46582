"""What a Node says of itself that more than one program asks."""

from __future__ import annotations

from cluster.objects import Node

EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
"""With any value: no load balancer sends traffic there (KEP-1143)."""
OUT_OF_SERVICE_TAINT = "node.kubernetes.io/out-of-service"
"""Somebody says that the node is down for good (KEP-2268)."""


def is_ready(node: Node) -> bool:
    """Whether its kubelet lives and is well, by Kubernetes' own judgement."""
    return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)
