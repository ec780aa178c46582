"""The EndpointSlice controller's decision: a Service and the pods of its namespace in, its EndpointSlices out.

A Service has slices of each of its families. A pod belongs to a Service whose selector matches its labels, as soon as
the pod has an address of that family. It is listed while it is not ready, and marked so. Pods in which a named target
port is a different number go to different slices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.addresses import parse_address
from cluster.objects import Service, ServicePort
from cluster.slices import SERVICE_NAME_LABEL
from lab.standins.views import Pod

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "lab.berthlb.io"
MAX_ENDPOINTS = 100  # Kubernetes' own default

Ports = tuple[tuple[str, str, int], ...]
"""Name, protocol and number of each port."""


def wanted_slices(service: Service, pods: Iterable[Pod]) -> list[dict[str, Any]]:
    """The Service's EndpointSlices, as objects for the API, in an order that stays the same."""
    selector = service.spec.selector
    if not selector or service.spec.type == "ExternalName":
        return []
    selected = [pod for pod in pods if selector.items() <= pod.metadata.labels.items()]
    selected.sort(key=lambda pod: pod.metadata.name)
    return [each for family in service.spec.ip_families for each in _slices_in(family, service, selected)]


def _slices_in(family: str, service: Service, pods: Iterable[Pod]) -> list[dict[str, Any]]:
    """The slices of one family."""
    groups: dict[Ports, list[dict[str, Any]]] = {}
    for pod in pods:
        for address in pod.status.addresses:
            if parse_address(address).family.text == family:
                groups.setdefault(_ports(service, pod), []).append(_endpoint(service, pod, address))
    if not groups:
        groups[()] = []
    slices: list[dict[str, Any]] = []
    for ports, endpoints in sorted(groups.items()):
        for start in range(0, max(1, len(endpoints)), MAX_ENDPOINTS):
            part = endpoints[start : start + MAX_ENDPOINTS]
            slices.append(_slice(family, service, len(slices), ports, part))
    return slices


def _ports(service: Service, pod: Pod) -> Ports:
    found: list[tuple[str, str, int]] = []
    for port in service.spec.ports:
        number = _number(port, pod)
        if number is not None:
            found.append((port.name, port.protocol, number))
    return tuple(found)


def _number(port: ServicePort, pod: Pod) -> int | None:
    """The port of the pod that a Service port leads to; None where the pod has no port of that name."""
    target = port.target_port
    if target is None:
        return port.port
    if isinstance(target, int):
        return target
    return next((p.container_port for p in pod.ports if p.name == target and p.protocol == port.protocol), None)


def _endpoint(service: Service, pod: Pod, address: str) -> dict[str, Any]:
    terminating = pod.metadata.deletion_timestamp is not None
    ready = (pod.status.ready and not terminating) or service.spec.publish_not_ready_addresses
    return {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": pod.status.ready, "terminating": terminating},
        "nodeName": pod.spec.node_name,
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.metadata.namespace,
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        },
    }


def _slice(family: str, service: Service, index: int, ports: Ports, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    meta = service.metadata
    owner = {"apiVersion": "v1", "kind": "Service", "name": meta.name, "uid": meta.uid}
    return {
        "metadata": {
            "name": f"{meta.name}-{family.lower()}-{index}",
            "namespace": meta.namespace,
            "labels": {SERVICE_NAME_LABEL: meta.name, MANAGED_BY: MANAGER},
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": name, "protocol": protocol, "port": number} for name, protocol, number in ports],
    }
