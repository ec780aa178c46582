"""What a Pod says of its node: the ports that it takes there, and whether it is kube-proxy.

A Pod takes the ``hostPort`` of its containers; on the host's network every declared port is one. One that is bound to
a loopback address is in nobody's way. A Pod that has ended takes nothing.

kube-proxy is a Pod of ``kube-system`` with the label ``k8s-app: kube-proxy`` (kubeadm, EKS, RKE2) or
``component: kube-proxy`` (GKE).

Most Pods say nothing of this. ``kept_pod`` leaves of them what a copy needs, and nothing else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple

from cluster.objects import NodeName, kept_meta
from cluster.pods import HostContainer, HostPod, HostPodSpec, HostPodStatus
from controller.nodeip.guards import PortKey

PROXY_NAMESPACE = "kube-system"
PROXY_LABELS = {"k8s-app": "kube-proxy", "component": "kube-proxy"}
"""One of them is enough."""
_ENDED = frozenset({"Succeeded", "Failed"})
_MODE_FLAG = "--proxy-mode"


class ProxyPod(NamedTuple):
    """kube-proxy of a node."""

    ready: bool
    mode: str
    """As its command line has it; empty: it does not."""


@dataclass(frozen=True, slots=True)
class PodOnNode:
    node: NodeName
    ports: frozenset[PortKey]
    proxy: ProxyPod | None = None


def read_pod(pod: HostPod) -> PodOnNode | None:
    """What it says of its node; None: nothing."""
    if not pod.spec.node_name or pod.status.phase in _ENDED:
        return None
    ports = frozenset(_host_ports(pod))
    proxy = _proxy(pod) if is_proxy(pod) else None
    return PodOnNode(pod.spec.node_name, ports, proxy) if ports or proxy is not None else None


def kept_pod(pod: HostPod) -> HostPod:
    """The Pod with what ``read_pod`` reads."""
    says = read_pod(pod)
    kept = kept_meta(pod.metadata, {} if says is None else pod.metadata.labels)
    if says is None:
        return HostPod(kept)
    return HostPod(kept, pod.spec, HostPodStatus(pod.status.phase, pod.status.conditions if says.proxy else ()))


def is_proxy(pod: HostPod) -> bool:
    labels: Mapping[str, str] = pod.metadata.labels
    return pod.metadata.namespace == PROXY_NAMESPACE and any(
        labels.get(key) == value for key, value in PROXY_LABELS.items()
    )


def _containers(spec: HostPodSpec) -> Iterator[HostContainer]:
    yield from spec.init_containers  # those that go on beside the others, too
    yield from spec.containers


def _host_ports(pod: HostPod) -> Iterator[PortKey]:
    for container in _containers(pod.spec):
        for port in container.ports:
            if port.host_port and not _is_loopback(port.host_ip):
                yield PortKey(intern(port.protocol), port.host_port)


def _is_loopback(host_ip: str) -> bool:
    try:
        return ipaddress.ip_address(host_ip).is_loopback
    except ValueError:  # empty: all addresses
        return False


def _proxy(pod: HostPod) -> ProxyPod:
    ready = any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions)
    words = [word for each in pod.spec.containers for word in (*each.command, *each.args)]
    for position, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == _MODE_FLAG:
            return ProxyPod(ready, value if equals else "".join(words[position + 1 : position + 2]))
    return ProxyPod(ready, "")
