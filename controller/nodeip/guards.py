"""What node-IP mode must not do to the nodes: take a port that they need, or show an address that is not the node's.

An address in a Service's status makes every kube-proxy take the Service's ports of that address, on every node. On a
node's own address that cuts off what the node itself listens with: SSH, the API server, the kubelet.

1. **Ports.** ``guarded_port`` names the first port of a Service that nodes need, from a table of well-known ones and
   the range of NodePorts. What a node is seen to listen on (``Listeners``) is in use on that node only.
   ``spec.allowPorts`` lifts both.
2. **Addresses.** ``AddressGuard`` refuses addresses that reach no node, those in the ranges of Services and Pods,
   those of another node, and those outside ``spec.allowedCIDRs``. A kubelet can write its own labels, annotations and
   addresses. So an address that a Node has in its status is another's for every other Node, whatever these write; one
   that two Nodes have in their status, or that two write and none has, is neither's.
3. **Proxies.** kube-proxy in IPVS mode binds the addresses to an interface of every node, and then no node reaches
   another by them. What another proxy does is not known; ``spec.allowOtherProxies`` is a person's word that it works.

Not promised: a port that a process opens without a pod, on a node without a speaker, is not seen.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from cluster.addresses import Address, Family, Range
from cluster.node_pools import NodePool
from cluster.objects import NodeName
from controller.nodeip.nodes import NodeOffer
from controller.nodeip.reasons import LeftOut, NodePoolRefusalReason


class PortKey(NamedTuple):
    """A port as Kubernetes tells them apart."""

    protocol: str
    """TCP, UDP or SCTP."""
    port: int

    @property
    def text(self) -> str:
        """As people write it: ``22/TCP``."""
        return f"{self.port}/{self.protocol}"


class GuardedPort(NamedTuple):
    key: PortKey
    need: str
    """What needs it; completes "22/TCP is …"."""


Listeners = Mapping[NodeName, frozenset[PortKey]]
"""By node what its hostPort and hostNetwork pods, and its speaker, say that it listens on."""

NODE_PORTS = range(30000, 32768)
"""The API server's default for ``--service-node-port-range``."""

_TCP, _UDP = frozenset({"TCP"}), frozenset({"UDP"})
_NEEDED = (
    (_TCP, range(22, 23), "for SSH"),
    (_TCP | _UDP, range(53, 54), "for the node's resolver"),
    (_UDP, range(67, 69), "for DHCP"),
    (_TCP, range(179, 180), "for BGP"),
    (_UDP, range(546, 548), "for DHCPv6"),
    (_TCP, range(2379, 2381), "for etcd"),
    (_TCP, range(4240, 4241), "for Cilium's health checks"),
    (_UDP, range(4789, 4790), "for the overlay (VXLAN)"),
    (_TCP, range(5473, 5474), "for Calico's Typha"),
    (_UDP, range(6081, 6082), "for the overlay (Geneve)"),
    (_TCP, range(6443, 6444), "for the API server"),
    (_TCP | _UDP, range(7946, 7947), "for MetalLB's speakers"),
    (_UDP, range(7948, 7949), "for the speakers' heartbeats"),
    (_UDP, range(8472, 8473), "for the overlay (VXLAN)"),
    (_TCP, range(9345, 9346), "for RKE2's supervisor"),
    (_TCP, range(10248, 10260), "for the kubelet, kube-proxy and the control plane"),
    (_UDP, range(51820, 51822), "for the overlay (WireGuard)"),
)
"""(protocols, ports, what needs them)."""


def guarded_port(
    ports: Iterable[PortKey], allowed: frozenset[int], node_ports: range = NODE_PORTS
) -> GuardedPort | None:
    """The first of a Service's ports that nodes need, and that is not allowed all the same."""
    for key in ports:
        if key.port in allowed:
            continue
        if key.port in node_ports:
            return GuardedPort(key, f"in the range of NodePorts ({node_ports[0]}-{node_ports[-1]})")
        for protocols, needed, need in _NEEDED:
            if key.port in needed and key.protocol in protocols:
                return GuardedPort(key, need)
    return None


class ServiceProxy(Enum):
    """What carries traffic for Services, as far as it is known."""

    IPTABLES = "iptables"
    NFTABLES = "nftables"
    IPVS = "ipvs"
    OTHER = "other"
    """Unknown, or in eBPF."""


def refused_proxy(proxy: ServiceProxy, *, allow_other: bool) -> NodePoolRefusalReason | None:
    """Why node addresses do not work with the proxy; None: they do, or somebody says so."""
    match proxy:
        case ServiceProxy.IPVS:
            return NodePoolRefusalReason.PROXY_IPVS
        case ServiceProxy.OTHER if not allow_other:
            return NodePoolRefusalReason.PROXY_UNKNOWN
        case _:
            return None


@dataclass(frozen=True, slots=True)
class ClusterRanges:
    """Where the cluster's own addresses come from."""

    services: tuple[Range, ...] = ()
    pods: tuple[Range, ...] = ()
    node_ports: range = field(default=NODE_PORTS)


def _range(text: str) -> Range:
    network = ipaddress.ip_network(text)
    return Range(Family(network.version), int(network.network_address), int(network.broadcast_address))


UNREACHABLE = tuple(
    _range(text)
    for text in (
        "0.0.0.0/8",  # "this network", RFC 1122 §3.2.1.3
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata service of clouds
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/127",  # unspecified, loopback
        "fe80::/10",
        "ff00::/8",
    )
)


class AddressGuard:
    """Judges addresses of nodes for one pool, by what all Nodes of the cluster have."""

    def __init__(self, pool: NodePool, offers: Iterable[NodeOffer], ranges: ClusterRanges) -> None:
        self._pool, self._ranges = pool, ranges
        self._own: defaultdict[Address, set[NodeName]] = defaultdict(set)
        self._written: defaultdict[Address, set[NodeName]] = defaultdict(set)
        for offer in offers:
            for address in offer.own:
                self._own[address].add(offer.name)
            for addresses in offer.found.values():
                for address in addresses:
                    self._written[address].add(offer.name)

    def refuses(self, node: NodeName, address: Address) -> LeftOut | None:
        """Why this address may not be shown for the node; None: it may."""
        if _within(address, UNREACHABLE):
            return LeftOut.UNREACHABLE_ADDRESS
        if _within(address, self._ranges.services):
            return LeftOut.SERVICE_RANGE
        if _within(address, self._ranges.pods):
            return LeftOut.POD_RANGE
        if (self._own.get(address) or self._written.get(address, set())) - {node}:
            return LeftOut.ANOTHER_NODES
        return None if self._pool.allows(address) else LeftOut.NOT_ALLOWED


def _within(address: Address, blocks: tuple[Range, ...]) -> bool:
    return any(address in block for block in blocks)
