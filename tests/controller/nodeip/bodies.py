"""Nodes as the API has them, and as the core reads them."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.addresses import Family, parse_address
from cluster.node_pools import AddressSource, NodePool
from cluster.objects import Node, NodeName, PoolName
from controller.nodeip.choice import NodesOfPool, nodes_of_pool
from controller.nodeip.guards import ClusterRanges
from controller.nodeip.nodes import read_node
from controller.nodeip.reasons import LeftOut

V4, V6 = Family.IPV4, Family.IPV6
EXTERNAL, INTERNAL = AddressSource("ExternalIP"), AddressSource("InternalIP")
LABEL = AddressSource("Label", "node-public-ip")
ANNOTATION = AddressSource("Annotation", "example.com/public-ips")


def node_body(
    name: str,
    *,
    external: str = "",
    internal: str = "",
    label: str = "",
    annotation: str = "",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    taints: tuple[str, ...] = (),
    ready: str = "True",
    since: str | None = None,
    deleted: bool = False,
) -> dict[str, Any]:
    """``external`` and ``internal``: with spaces between several addresses."""
    return {
        "metadata": {
            "name": name,
            "labels": (labels or {}) | ({LABEL.key: label} if label else {}),
            "annotations": (annotations or {}) | ({ANNOTATION.key: annotation} if annotation else {}),
            "deletionTimestamp": "2026-01-01T00:00:00Z" if deleted else None,
        },
        "spec": {"taints": [{"key": key, "effect": "NoExecute"} for key in taints]},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": name},
                *({"type": "ExternalIP", "address": each} for each in external.split()),
                *({"type": "InternalIP", "address": each} for each in internal.split()),
            ],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}],
        },
    }


def node(name: str, **fields: Any) -> Node:
    return msgspec.convert(node_body(name, **fields), Node)


def pool_of(**fields: Any) -> NodePool:
    return NodePool(PoolName("nodes"), **fields)


def read_all(
    pool: NodePool,
    *nodes: Node,
    absences: dict[str, LeftOut] | None = None,
    ranges: ClusterRanges | None = None,
) -> NodesOfPool:
    offers = [read_node(each, pool.all_sources) for each in nodes]
    absent = {NodeName(name): why for name, why in (absences or {}).items()}
    return nodes_of_pool(pool, offers, absent, ranges or ClusterRanges())


def texts(*addresses: str) -> tuple[str, ...]:
    """In canonical form."""
    return tuple(parse_address(each).text for each in addresses)
