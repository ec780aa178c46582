"""Decisions of kubelets and of the node controller: what is known of the nodes, and what the API should say about it.

A node that is connected is Ready. From a node without power or cable nothing is heard. After a grace period its Node
becomes Ready=Unknown and its pods not ready, and a taint keeps new pods away, as in Kubernetes. Until then the API goes
on saying what it said. There is no I/O here; ``now`` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Literal

from cluster.addresses import Family
from lab.layout import Host
from lab.standins.views import Pod

UNREACHABLE = "node.kubernetes.io/unreachable"

Heard = Literal["connected", "silent", "lost"]
"""``silent``: within the grace period. ``lost``: beyond it."""


@dataclass
class NodeState:
    """One node, as its kubelet and the node controller know it."""

    host: Host
    grace: float
    connected: bool = False
    silent_since: float = float("-inf")
    powered: bool = False
    running: set[str] = field(default_factory=set)
    """Pods whose process listens."""
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the pods on this node, by ``namespace/name``: one of each of the node's pod networks, in their order. A pod
    keeps its addresses as long as it exists."""
    uids: dict[str, str] = field(default_factory=dict)
    """Of the same pods: another pod of the same name is another pod."""

    def connect(self) -> None:
        self.connected = self.powered = True

    def disconnect(self, now: float, *, power: bool) -> None:
        if self.connected:
            self.silent_since = now
        self.connected = False
        if not power:
            self.powered = False
            self.running.clear()

    def heard(self, now: float) -> Heard:
        if self.connected:
            return "connected"
        return "lost" if now - self.silent_since >= self.grace else "silent"

    def deadline(self, now: float) -> float | None:
        """When ``heard`` will change by itself."""
        return self.silent_since + self.grace if self.heard(now) == "silent" else None

    def addresses_for(self, pod: Pod) -> tuple[str, ...]:
        """The pod's addresses: those that it has, or the lowest that are free."""
        if pod.key not in self.addresses:
            taken = {address for addresses in self.addresses.values() for address in addresses}
            self.uids[pod.key] = pod.metadata.uid
            self.addresses[pod.key] = tuple(
                _address_in(ip_network(network), pod.status.addresses, taken)
                for network in self.host.pod_networks.values()
            )
        return self.addresses[pod.key]

    def forget(self, pod: str) -> None:
        self.addresses.pop(pod, None)
        self.uids.pop(pod, None)
        self.running.discard(pod)


def _address_in(network: IPv4Network | IPv6Network, had: Iterable[str], taken: Collection[str]) -> str:
    """The address of this network that a pod had, where nobody else has it; otherwise the lowest that is free."""
    hosts = (str(address) for address in network.hosts())
    next(hosts)  # the first is the node's own, where there is a pod bridge
    mine = (address for address in had if address not in taken and ip_address(address) in network)
    return next(mine, None) or next(address for address in hosts if address not in taken)


def node_object(host: Host) -> dict[str, Any]:
    """A new Node, as its kubelet registers it; behind NAT with the labels of ``examples/seeds/multicloud-nodes.yaml``,
    as its owner would label it."""
    networks = list(host.pod_networks.values())
    labels = {
        "kubernetes.io/hostname": host.name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "lab",
    }
    if public := host.public_addresses.get(Family.IPV4):
        labels |= {
            "use-as-loadbalancer": "public",
            "node-public-ip": public,
            "node-private-ip": host.addresses[Family.IPV4],
        }
    return {
        "metadata": {"name": host.name, "labels": labels},
        "spec": {"podCIDR": next(iter(networks)), "podCIDRs": networks},
    }


def node_status(host: Host, time: str, *, ready: bool) -> dict[str, Any]:
    """A patch of a Node's status."""
    condition = {
        "type": "Ready",
        "status": "True" if ready else "Unknown",
        "reason": "KubeletReady" if ready else "NodeStatusUnknown",
        "message": "the lab's kubelet is ready" if ready else "Kubelet stopped posting node status.",
        "lastTransitionTime": time,
        "lastHeartbeatTime": time,
    }
    addresses = [{"type": "InternalIP", "address": address} for address in host.addresses.values()]
    addresses += [{"type": "ExternalIP", "address": address} for address in host.public_addresses.values()]
    addresses.append({"type": "Hostname", "address": host.name})
    return {"status": {"addresses": addresses, "conditions": [condition]}}


def node_taints(*, ready: bool) -> dict[str, Any]:
    """A patch of a Node's taints."""
    taints = [{"key": UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    return {"spec": {"taints": None if ready else taints}}


def pod_status(pod: Pod, host: Host, addresses: Sequence[str], time: str, *, ready: bool) -> dict[str, Any]:
    """A patch of a Pod's status."""
    state = {"running": {"startedAt": time}} if ready else {"waiting": {"reason": "ContainerCreating"}}
    fixed = {"imageID": "", "restartCount": 0}
    containers = [
        {"name": each.name, "image": each.image, "ready": ready, "started": ready, "state": state, **fixed}
        for each in pod.spec.containers
    ]
    status = "True" if ready else "False"
    return {
        "status": {
            "phase": "Running",
            "hostIP": host.address,
            "hostIPs": [{"ip": address} for address in host.addresses.values()],
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
            "conditions": [
                {"type": kind, "status": status, "lastTransitionTime": time} for kind in ("Ready", "ContainersReady")
            ],
            "containerStatuses": containers,
        }
    }
