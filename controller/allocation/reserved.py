"""Addresses that the cluster uses itself: its nodes', and the ranges of its Services and Pods. No Service gets one.

A pool that contains some is common, for instance 192.168.1.0/24 on the network that the nodes are in. It gives out the
rest. The sources are

1. ``Node.status.addresses``, of every type;
2. ``ServiceCIDR`` objects;
3. ``Node.spec.podCIDRs``;
4. the Subnet-Router anycast address (RFC 4291 §2.6.1) of the subnet of each IPv6 address of a node: every node
   forwards, so the kernel of each answers for it.

Where two of them contain the same address the earlier in this list speaks.

Not promised: the Service range of a server older than Kubernetes 1.33, which has no ServiceCIDR objects. The ClusterIPs
that the controller sees would not replace it, since it watches only Services of type LoadBalancer. Nor the anycast
address of a LAN whose prefix is longer than 64 bits: no API object has a node's prefix length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from cluster.addresses import AddressError, Family, Range, RangeMap, parse_address, parse_range
from cluster.objects import Node, ServiceCIDR

INTERFACE_BITS = 64  # of an address on any subnet to which stateless configuration applies; RFC 4291 §2.5.1


class Use(Enum):
    """What the cluster uses an address for. The value is the reason of a pool's condition ``Overlapping``."""

    NODE = "NodeAddress"
    SERVICES = "ServiceRange"
    PODS = "PodRange"
    ROUTERS = "AnycastAddress"


@dataclass(frozen=True, slots=True)
class Reserved:
    use: Use
    owner: str
    """The node, or the ServiceCIDR."""
    source: str
    """The address or range, as its owner writes it; of an anycast address, the node's address beside it."""

    @property
    def text(self) -> str:
        """Completes "192.0.2.1 is …"."""
        match self.use:
            case Use.NODE:
                return f'an address of node "{self.owner}"'
            case Use.SERVICES:
                return f'in the Service range {self.source} (ServiceCIDR "{self.owner}")'
            case Use.PODS:
                return f'in the Pod range {self.source} of node "{self.owner}"'
            case Use.ROUTERS:
                return f'the Subnet-Router anycast address of node "{self.owner}" ({self.source})'

    @property
    def advice(self) -> str:
        """What to use instead; completes "…; "."""
        if self.use in {Use.NODE, Use.ROUTERS}:
            return "use an address of its subnet that nothing has and DHCP does not give out, or the type NodePort"
        return "use addresses outside the cluster's own ranges"


Reserving = tuple[Use, tuple[str, ...]]
"""A use, and the addresses or ranges as an object writes them."""


class Reservations:
    """What is reserved now, put together from what is observed. One thread only."""

    def __init__(self) -> None:
        self._written: dict[tuple[str, str], tuple[Reserving, ...]] = {}
        """By kind and name of the object."""
        self._blocks: dict[tuple[str, str], list[tuple[Range, Reserved]]] = {}
        self._ranges: RangeMap[Reserved] | None = None

    def set_node(self, name: str, node: Node | None) -> None:
        """A node as the API shows it; None: it is gone."""
        if node is None:
            self._set("Node", name)
            return
        addresses = tuple(each.address for each in node.status.addresses)
        self._set("Node", name, (Use.NODE, addresses), (Use.PODS, node.spec.pod_cidrs), (Use.ROUTERS, addresses))

    def set_service_cidr(self, name: str, view: ServiceCIDR | None) -> None:
        """A range of ClusterIPs; None: it is gone."""
        self._set("ServiceCIDR", name, *(((Use.SERVICES, view.spec.cidrs),) if view else ()))

    def _set(self, kind: str, name: str, *written: Reserving) -> None:
        if self._written.get((kind, name), ()) == written:
            return
        self._written[kind, name] = written
        self._blocks[kind, name] = [each for use, texts in written for each in _read(use, name, texts)]
        if not written:
            del self._written[kind, name], self._blocks[kind, name]
        self._ranges = None

    @property
    def ranges(self) -> RangeMap[Reserved]:
        """Everything that is reserved: the same object until something else is."""
        if self._ranges is None:
            self._ranges = _disjoint([each for blocks in self._blocks.values() for each in blocks])
        return self._ranges


def _read(use: Use, owner: str, texts: tuple[str, ...]) -> Iterator[tuple[Range, Reserved]]:
    for text in texts:
        try:
            block = _block(use, text)
        except AddressError:  # a host name; a range that no pool can contain
            continue
        if block is not None:
            yield block, Reserved(use, owner, text)


def _block(use: Use, text: str) -> Range | None:
    """What is reserved by what an object writes."""
    if use in {Use.SERVICES, Use.PODS}:
        return parse_range(text)
    address = parse_address(text)
    if use is Use.NODE:
        return Range(address.family, address.value, address.value)
    if address.family is Family.IPV4:
        return None
    anycast = address.value >> INTERFACE_BITS << INTERFACE_BITS
    return Range(address.family, anycast, anycast)


def _disjoint(blocks: list[tuple[Range, Reserved]]) -> RangeMap[Reserved]:
    """The same without overlap: one use after the other, and of one use in order."""
    result: RangeMap[Reserved] = RangeMap()
    blocks.sort(key=lambda each: (each[0].family, each[0].first, each[1].owner))
    for use in Use:
        pieces: list[tuple[Range, Reserved]] = []
        family, end = None, 0
        for block, what in blocks:
            if what.use is not use:
                continue
            start = block.first if block.family is not family else max(block.first, end)
            family, end = block.family, max(start, block.last + 1)
            if start <= block.last:
                pieces += ((piece, what) for piece in result.gaps(Range(block.family, start, block.last)))
        result.add_all(pieces)
    return result
