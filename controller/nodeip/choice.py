"""Which addresses of nodes a Service gets from a NodeIPPool.

``nodes_of_pool`` decides what all Services of the pool have in common, once whenever a node changes:

1. A node counts when the pool selects it, nothing says that it may not be shown, and a guard lets an address pass.
2. For each family one source counts for all nodes: the first of ``spec.addresses`` by which any node that counts has an
   address that a guard lets pass. Nodes without it are left out. With ``spec.mix`` each node gives its own first.

``choose`` decides for one Service:

3. Nodes are left out that listen on a port of the Service themselves, or on which another Service has it; and with
   ``externalTrafficPolicy: Local`` those without a ready endpoint.
4. The Service gets the first of the combinations of families that would do, of which each family has a node. Nodes
   that are drained are left out where the others have all these families.
5. Of more than ``spec.maxNodes`` nodes those are chosen that have the most of these families, then by rendezvous hash
   of the Service and the node. Where these would all lack a family, the last makes way for the first that has it. A
   node that comes replaces at most one other; one that goes is replaced by one.
6. The order is the Service's order of families, and in each the numeric order of addresses.

Behind 1:1 NAT ``nodes_of_pool`` says as well where each address of a selected node is delivered (``Delivery``): at all
addresses of the same family that the node has by the first of ``spec.deliveredAddresses`` by which it has any. The same
guards judge them, ``spec.allowedCIDRs`` included. An address that is delivered as it is has no delivery.

The same input gives the same result, whatever came before. Each node that is selected and not shown has a reason.

Not promised: the last node with an ExternalIP that goes makes the others' InternalIPs count, where both are sources. A
pool that must not do so names one source only.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from cluster.addresses import Address, Family
from cluster.node_pools import AddressSource, NodePool
from cluster.objects import NodeName
from controller.nodeip.guards import (
    AddressGuard,
    ClusterRanges,
    GuardedPort,
    Listeners,
    PortKey,
    ServiceProxy,
    guarded_port,
    refused_proxy,
)
from controller.nodeip.nodes import NodeOffer
from controller.nodeip.reasons import LeftOut, NodePoolRefusalReason

FORBIDDEN = frozenset(
    {
        LeftOut.UNREACHABLE_ADDRESS,
        LeftOut.SERVICE_RANGE,
        LeftOut.POD_RANGE,
        LeftOut.ANOTHER_NODES,
        LeftOut.NOT_ALLOWED,
        LeftOut.IN_ADDRESS_POOL,
    }
)
"""What a guard says of an address."""
WITHOUT_ADDRESS = FORBIDDEN | {LeftOut.UNREADABLE, LeftOut.NO_ADDRESS, LeftOut.OTHER_SOURCE}
"""Of a node that could be shown, if only it had the right address."""

Shown = Mapping[Family, tuple[Address, ...]]
"""The addresses that a node gives, of each family of which it has any."""


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """What one Service needs."""

    key: str
    """Of the hash: the same for the Service's whole life (its UID)."""
    families: tuple[tuple[Family, ...], ...]
    """What would do, best first: the families of the addresses that the Service would get."""
    ports: tuple[PortKey, ...] = ()
    local: frozenset[NodeName] | None = None
    """Nodes with a ready endpoint, where the traffic policy is Local; None: any node will do."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where 1:1 NAT delivers what is sent to one address of a node."""

    node: NodeName
    addresses: tuple[Address, ...]
    """As destination of the packets that reach the node."""
    refused: LeftOut | None = None
    """Why there are none, where the node names some: what a guard says of the first."""


@dataclass(frozen=True, slots=True)
class NodesOfPool:
    """What a pool's nodes give to any Service."""

    pool: NodePool
    shown: Mapping[NodeName, Shown]
    sources: Mapping[Family, AddressSource]
    """Which source counts for all nodes; empty with ``spec.mix``."""
    left_out: Mapping[NodeName, Mapping[Family, LeftOut]]
    """Of each selected node the families of which it gives nothing."""
    delivered: Mapping[Address, Delivery] = field(default_factory=dict)
    """By what a selected node may show, whether it does at present or not."""
    drained: frozenset[NodeName] = frozenset()
    """Selected nodes that people have taken out of use."""


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    addresses: tuple[Address, ...]
    """In the order in which the status has them."""
    nodes: frozenset[NodeName]
    """Whose they are."""
    left_out: Mapping[NodeName, LeftOut]
    """Every other node that the pool selects."""


@dataclass(frozen=True, slots=True)
class NodePoolRefusal:
    reason: NodePoolRefusalReason
    left_out: Mapping[NodeName, LeftOut] = field(default_factory=dict)
    """Every node that the pool selects, where it is the nodes that lack something."""
    port: GuardedPort | None = None
    """With ``PORT_GUARDED``."""


def nodes_of_pool(
    pool: NodePool, offers: Iterable[NodeOffer], absences: Mapping[NodeName, LeftOut], ranges: ClusterRanges
) -> NodesOfPool:
    """``offers``: of every Node of the cluster, read for ``pool.all_sources``. ``absences``: what keeps nodes out
    beside what they say themselves (``damping``)."""
    offers = tuple(offers)
    guard = AddressGuard(pool, offers, ranges)
    selected = [offer for offer in offers if pool.selects(offer.labels)]
    absent = {each.name: why for each in selected if (why := each.absence or absences.get(each.name)) is not None}
    admitted = [_Admitted(each, pool, guard) for each in selected]
    present = [each for each in admitted if each.name not in absent]
    shown: dict[NodeName, dict[Family, tuple[Address, ...]]] = {}
    left_out = {name: dict.fromkeys(Family, why) for name, why in absent.items()}
    counting: dict[Family, AddressSource] = {}
    for family in Family:
        if not pool.mix and family in pool.families:
            having = (source for source in pool.sources if any(each.by(source, family) for each in present))
            if (source := next(having, None)) is not None:
                counting[family] = source
        sources = pool.sources if pool.mix else tuple(filter(None, [counting.get(family)]))
        for node in present:
            addresses = _first(node, sources, family) if family in pool.families else ()
            if addresses:
                shown.setdefault(node.name, {})[family] = addresses
            else:
                left_out.setdefault(node.name, {})[family] = node.why_not(family)
    delivered = {address: delivery for each in admitted for address, delivery in each.deliveries()}
    drained = frozenset(each.name for each in selected if each.drained)
    return NodesOfPool(pool, shown, counting, left_out, delivered, drained)


class _Admitted:
    """A node that the pool selects, with the addresses that the guard lets pass."""

    def __init__(self, offer: NodeOffer, pool: NodePool, guard: AddressGuard) -> None:
        self.name = offer.name
        self._offer, self._pool = offer, pool
        self._passed: dict[tuple[AddressSource, Family], list[Address]] = {}
        self._refused: dict[tuple[AddressSource, Family], LeftOut] = {}
        for source, addresses in offer.found.items():
            for address in addresses:
                why = guard.refuses(offer.name, address)
                if why is None:
                    self._passed.setdefault((source, address.family), []).append(address)
                else:
                    self._refused.setdefault((source, address.family), why)

    def by(self, source: AddressSource, family: Family) -> tuple[Address, ...]:
        return tuple(self._passed.get((source, family), ()))

    def why_not(self, family: Family) -> LeftOut:
        """Of a node that gives nothing of the family."""
        if family in self._pool.families:
            if any(self.by(source, family) for source in self._pool.sources):
                return LeftOut.OTHER_SOURCE
            if (refused := self._why_refused(self._pool.sources, family)) is not None:
                return refused
            if any(source in self._offer.unreadable for source in self._pool.sources):
                return LeftOut.UNREADABLE
        return LeftOut.NO_ADDRESS

    def _why_refused(self, sources: Iterable[AddressSource], family: Family) -> LeftOut | None:
        """What the guard says of the first address of these sources that it refuses."""
        return next((why for each in sources if (why := self._refused.get((each, family))) is not None), None)

    def deliveries(self) -> Iterator[tuple[Address, Delivery]]:
        """Of each address that may be shown for it and is delivered elsewhere, or should be."""
        for family in self._pool.families if self._pool.delivered else ():
            addresses = _first(self, self._pool.delivered, family)
            refused = None if addresses else self._why_refused(self._pool.delivered, family)
            for public in {each for source in self._pool.sources for each in self.by(source, family)}:
                if refused is not None or (addresses and public not in addresses):
                    yield public, Delivery(self.name, addresses, refused)


def _first(node: _Admitted, sources: Iterable[AddressSource], family: Family) -> tuple[Address, ...]:
    return next((found for source in sources if (found := node.by(source, family))), ())


def choose(
    of_pool: NodesOfPool,
    want: NodeRequest,
    *,
    proxy: ServiceProxy,
    listeners: Listeners,
    node_ports: range = ClusterRanges().node_ports,
    taken: Container[NodeName] = (),
) -> NodeAddresses | NodePoolRefusal:
    """The addresses for one Service, or why there are none. ``taken``: nodes on which other Services have its ports.
    The cost grows with the nodes of the pool."""
    pool = of_pool.pool
    if (refused := refused_proxy(proxy, allow_other=pool.allow_other_proxies)) is not None:
        return NodePoolRefusal(refused)
    if (port := guarded_port(want.ports, pool.allow_ports, node_ports)) is not None:
        return NodePoolRefusal(NodePoolRefusalReason.PORT_GUARDED, port=port)
    needed = frozenset(each for each in want.ports if each.port not in pool.allow_ports)
    left_out: dict[NodeName, LeftOut] = {}
    serving: dict[NodeName, Shown] = {}
    for name, shown in of_pool.shown.items():
        if name in taken or needed & listeners.get(name, frozenset()):
            left_out[name] = LeftOut.PORT_IN_USE
        elif want.local is not None and name not in want.local:
            left_out[name] = LeftOut.NO_ENDPOINT
        else:
            serving[name] = shown
    families = next((each for each in want.families if _can_have(each, serving, pool.max_nodes)), None)
    in_use = {name: shown for name, shown in serving.items() if name not in of_pool.drained}
    if families is not None and _can_have(families, in_use, pool.max_nodes):
        left_out |= dict.fromkeys(serving.keys() - in_use.keys(), LeftOut.DRAINED)
        serving = in_use
    asked = families or want.families[0]
    for name, reasons in of_pool.left_out.items():
        if name not in left_out and not any(family in serving.get(name, {}) for family in asked):
            left_out[name] = next(reasons[family] for family in asked if family in reasons)
    if families is None:
        for name in serving.keys() - left_out.keys():  # it has some of the families, and not all
            left_out[name] = next(why for family in asked if (why := of_pool.left_out[name].get(family)))
        return NodePoolRefusal(_nothing(left_out, serving), left_out)
    able = [name for name in serving if name not in left_out]
    able.sort(key=lambda name: (-sum(family in serving[name] for family in families), _score(want.key, name), name))
    chosen = able[: pool.max_nodes]
    for family in families:
        if not any(family in serving[name] for name in chosen):  # all nodes have one family each
            chosen[-1] = next(name for name in able if family in serving[name])
    left_out |= {name: LeftOut.BEYOND_MAX for name in able if name not in chosen}
    addresses = tuple(
        address
        for family in families
        for address in sorted({each for name in chosen for each in serving[name].get(family, ())})
    )
    return NodeAddresses(addresses, frozenset(chosen), left_out)


def _can_have(families: tuple[Family, ...], serving: Mapping[NodeName, Shown], max_nodes: int | None) -> bool:
    """Whether as many nodes as there may be can have an address of each family between them."""
    if max_nodes is not None and max_nodes < len(families):
        return any(shown.keys() >= set(families) for shown in serving.values())
    return all(any(family in shown for shown in serving.values()) for family in families)


def _nothing(left_out: Mapping[NodeName, LeftOut], serving: Mapping[NodeName, Shown]) -> NodePoolRefusalReason:
    """Why the Service gets nothing: what stands in the way of the nodes that are nearest to being shown."""
    reasons = set(left_out.values())
    if serving:
        return NodePoolRefusalReason.NO_FAMILY
    if LeftOut.PORT_IN_USE in reasons:
        return NodePoolRefusalReason.PORT_IN_USE
    if LeftOut.NO_ENDPOINT in reasons:
        return NodePoolRefusalReason.NO_NODE
    if reasons & FORBIDDEN:
        return NodePoolRefusalReason.ADDRESS_NOT_ALLOWED
    return NodePoolRefusalReason.NO_FAMILY if reasons & WITHOUT_ADDRESS else NodePoolRefusalReason.NO_NODE


def _score(key: str, node: NodeName) -> bytes:
    """Rendezvous hash: the lower, the sooner chosen."""
    return blake2b(f"{node}\0{key}".encode(), digest_size=8).digest()
