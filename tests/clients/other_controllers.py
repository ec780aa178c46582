"""Which addresses other programs would give a Service on these nodes, as their sources have it.

As in ``readers``: each function does what one function of such a program does, and its docstring says which.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ENABLE = "svccontroller.k3s.cattle.io/enablelb"
POOL = "svccontroller.k3s.cattle.io/lbpool"
Body = Mapping[str, Any]


def service_lb(nodes: Iterable[Body], service_labels: Mapping[str, str], families: Sequence[str]) -> list[str]:
    """k3s-io/k3s, ``pkg/cloudprovider/servicelb.go``: on which nodes ``newDaemonSet`` has pods, and which of their
    addresses ``podIPs`` and ``filterByIPFamily`` show when all pods are ready."""
    nodes = list(nodes)
    wanted: dict[str, str] = {}
    if any(ENABLE in _labels(each) for each in nodes):
        wanted[ENABLE] = "true"
        if service_labels.get(POOL):
            wanted[POOL] = service_labels[POOL]
    chosen = [each for each in nodes if wanted.items() <= _labels(each).items()]
    shown = _external_or_internal(chosen)
    return [each for family in families for each in sorted(shown) if _family(each) == family]


def node_ipam(nodes: Iterable[Body], families: Sequence[str]) -> list[str]:
    """cilium/cilium, ``operator/pkg/nodeipam/nodesvclb.go``, ``getNodeLoadBalancerIngresses``, of the nodes that the
    match labels select and ``shouldIncludeNode`` (``node_predicates.go``) lets pass."""
    return sorted(_external_or_internal([each for each in nodes if _included(each)], families))


def _included(node: Body) -> bool:
    taints = {each["key"] for each in node["spec"].get("taints", ())}
    return (
        node["metadata"].get("deletionTimestamp") is None
        and "node.kubernetes.io/exclude-from-external-load-balancers" not in _labels(node)
        and "ToBeDeletedByClusterAutoscaler" not in taints
    )


def _external_or_internal(nodes: Iterable[Body], families: Sequence[str] = ("IPv4", "IPv6")) -> set[str]:
    """The ExternalIPs of all, or where there is none of any family the InternalIPs."""
    found: dict[str, set[str]] = {"ExternalIP": set(), "InternalIP": set()}
    for node in nodes:
        for each in node["status"]["addresses"]:
            if each["type"] in found and _family(each["address"]) in families:
                found[each["type"]].add(each["address"])
    return found["ExternalIP"] or found["InternalIP"]


def _labels(node: Body) -> dict[str, str]:
    labels: dict[str, str] = node["metadata"]["labels"]
    return labels


def _family(address: str) -> str:
    return f"IPv{ipaddress.ip_address(address).version}"
