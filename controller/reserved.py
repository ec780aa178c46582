"""Addresses that the cluster uses itself: its nodes', and the ranges of its Services and Pods. No Service may get one.

A pool that contains some is common (a pool 192.168.1.0/24 on the network that the nodes are in) and goes on working
with the rest. What is reserved is kept as ranges, each with what it is; where two contain the same address the more
telling one speaks: node, then Service range, then Pod range.

The sources are ``Node.status.addresses`` of every type, ``Node.spec.podCIDRs`` and the ServiceCIDR objects. A server
older than Kubernetes 1.33 has no such objects: its Service range is then not known. The ClusterIPs that the controller
sees would not replace it, since it watches only Services of type LoadBalancer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from cluster.addresses import AddressError, Range, RangeMap, parse_address, parse_range
from cluster.objects import Node, ServiceCIDR


class Use(Enum):
    """What the cluster uses an address for. The value is the reason of a pool's condition ``Overlapping``."""

    NODE = "NodeAddress"
    SERVICES = "ServiceRange"
    PODS = "PodRange"


@dataclass(frozen=True, slots=True)
class Reserved:
    use: Use
    owner: str
    """The node, or the ServiceCIDR."""
    source: str
    """The address or range, as its owner writes it."""

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

    @property
    def advice(self) -> str:
        """What to use instead; completes "…; "."""
        if self.use is Use.NODE:
            return "use an address of its subnet that nothing has and DHCP does not give out, or the type NodePort"
        return "use addresses outside the cluster's own ranges"


@dataclass(frozen=True, slots=True)
class _Source:
    """What one object reserves."""

    use: Use
    owner: str
    texts: tuple[str, ...]

    def ranges(self) -> Iterator[tuple[Range, Reserved]]:
        for text in self.texts:
            try:
                block = _address(text) if self.use is Use.NODE else parse_range(text)
            except AddressError:  # a host name; a range that no pool can contain
                continue
            yield block, Reserved(self.use, self.owner, text)


class Reservations:
    """What is reserved now, put together from what is observed. One thread only."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str], tuple[_Source, ...]] = {}
        self._ranges: RangeMap[Reserved] | None = None

    def set_node(self, name: str, node: Node | None) -> None:
        """A node as the API shows it; None: it is gone."""
        if node is None:
            self._set("Node", name)
            return
        addresses = tuple(each.address for each in node.status.addresses)
        self._set("Node", name, _Source(Use.NODE, name, addresses), _Source(Use.PODS, name, node.spec.pod_cidrs))

    def set_service_cidr(self, name: str, view: ServiceCIDR | None) -> None:
        """A range of ClusterIPs; None: it is gone."""
        self._set("ServiceCIDR", name, *((_Source(Use.SERVICES, name, view.spec.cidrs),) if view else ()))

    def _set(self, kind: str, name: str, *sources: _Source) -> None:
        before = self._sources.pop((kind, name), ())
        if sources:
            self._sources[kind, name] = sources
        if sources != before:
            self._ranges = None

    @property
    def ranges(self) -> RangeMap[Reserved]:
        """Everything that is reserved: the same object until something else is."""
        if self._ranges is None:
            self._ranges = reserved_ranges(source for each in self._sources.values() for source in each)
        return self._ranges


def reserved_ranges(sources: Iterable[_Source]) -> RangeMap[Reserved]:
    """Disjoint ranges, the more telling source first."""
    order = list(Use)
    result: RangeMap[Reserved] = RangeMap()
    for source in sorted(sources, key=lambda each: (order.index(each.use), each.owner)):
        for block, what in source.ranges():
            for piece in result.gaps(block):
                result.add(piece, what)
    return result


def _address(text: str) -> Range:
    address = parse_address(text)
    return Range(address.family, address.value, address.value)
