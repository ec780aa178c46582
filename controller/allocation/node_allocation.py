"""What a NodeIPPool gives to one Service: the choice of ``controller.nodeip``, with what other Services have already.

1. ``NodeSupply`` is what the nodes give while the configuration and the nodes are as they are. An address that an
   IPAddressPool contains is not in it, since the speakers would answer for that address on the LAN.
2. A node on which another Service has a port of this one is left out, as far as it is the address that both would
   show. The ledger knows: on addresses of nodes it is the ports alone that matter (``cluster.sharing``).
3. An allocation or a refusal says which addresses were denied for that reason. The Service is to be judged again when
   one of them is given back.

A Service that is served keeps what it has against others: the ledger has its ports, and does not count them against
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cluster.addresses import Address, Family
from cluster.node_pools import NodePool
from cluster.objects import NodeName, PoolName
from cluster.sharing import Sharer
from controller.allocation.ledger import Ledger
from controller.allocation.outcomes import Allocation, PoolRefusal, Reason
from controller.nodeip.choice import NodeAddresses, NodeRequest, NodesOfPool, Shown, choose
from controller.nodeip.guards import PortKey
from controller.nodeip.reasons import LeftOut
from controller.nodeip.view import NodeView
from controller.nodeip.words import why_nothing


@dataclass(frozen=True, slots=True)
class NodeNeed:
    """What one Service needs of nodes."""

    sharer: Sharer
    """On addresses of nodes."""
    key: str = ""
    """The same for the Service's whole life: its UID."""
    local: bool = False
    """Whether only nodes with a ready endpoint serve it (``externalTrafficPolicy: Local``)."""


class NodeSupply:
    """See the module's docstring. ``is_in_pool``: ``Ledger.is_in_pool``, which says the same as long as this one is
    used."""

    def __init__(self, view: NodeView, is_in_pool: Callable[[Address], bool]) -> None:
        self.view = view
        self._is_in_pool = is_in_pool
        self._pools: dict[PoolName, NodesOfPool] = {}

    def of(self, pool: PoolName) -> NodesOfPool | None:
        """What the pool's nodes give to any Service; None: it is not known yet."""
        if pool not in self._pools:
            found = self.view.of(pool)
            if found is None:
                return None
            self._pools[pool] = self._without_pools_of_speakers(found)
        return self._pools[pool]

    def _without_pools_of_speakers(self, of_pool: NodesOfPool) -> NodesOfPool:
        shown: dict[NodeName, Shown] = {}
        left_out = {name: dict(reasons) for name, reasons in of_pool.left_out.items()}
        for name, by_family in of_pool.shown.items():
            passed: dict[Family, tuple[Address, ...]] = {}
            for family, addresses in by_family.items():
                if free := tuple(each for each in addresses if not self._is_in_pool(each)):
                    passed[family] = free
                else:
                    left_out.setdefault(name, {})[family] = LeftOut.IN_ADDRESS_POOL
            if passed:
                shown[name] = passed
        return replace(of_pool, shown=shown, left_out=left_out)


def from_nodes(
    supply: NodeSupply, ledger: Ledger, pool: NodePool, need: NodeNeed, families: tuple[tuple[Family, ...], ...]
) -> Allocation | PoolRefusal:
    """Addresses of the pool's nodes, of the first of the combinations of ``families`` that can be had; or why there are
    none. Nothing is recorded in the ledger. The cost grows with the nodes of the pool."""
    of_pool = supply.of(pool.name)
    if of_pool is None:
        return PoolRefusal(pool.name, Reason.NO_NODE, "gives nothing yet, since nothing is known of the nodes")
    denied: frozenset[Address] = frozenset()
    first: PoolRefusal | None = None
    for combination in families:
        outcome = _of_families(supply.view, ledger, of_pool, need, combination)
        denied |= outcome.denied
        if isinstance(outcome, Allocation):
            return replace(outcome, denied=denied)
        first = first or outcome
    if first is None:
        raise ValueError("a Service needs some family")
    return replace(first, denied=denied)


def _of_families(
    view: NodeView, ledger: Ledger, of_pool: NodesOfPool, need: NodeNeed, families: tuple[Family, ...]
) -> Allocation | PoolRefusal:
    conflicts = dict(_conflicts(ledger, of_pool, need, families))
    denied = frozenset(address for address, _ in conflicts.values())
    request = NodeRequest(
        need.key,
        (families,),
        tuple(PortKey(*port) for port in need.sharer.ports),
        view.local_nodes(need.sharer.service) if need.local else None,
    )
    found = choose(
        of_pool,
        request,
        proxy=view.proxy,
        listeners=view.listeners,
        node_ports=view.node_ports,
        taken=conflicts,
    )
    name = of_pool.pool.name
    if isinstance(found, NodeAddresses):
        return Allocation(name, found.addresses, found.left_out, denied)
    user = _user(need.sharer, conflicts[min(conflicts)][1]) if conflicts else None
    return PoolRefusal(name, Reason(found.reason.value), why_nothing(found, families, user), found.left_out, denied)


def _conflicts(
    ledger: Ledger, of_pool: NodesOfPool, need: NodeNeed, families: tuple[Family, ...]
) -> Iterator[tuple[NodeName, tuple[Address, Sharer]]]:
    """The nodes on which another Service has a port, each with one address and one Service: as long as that one stays,
    the node is left out."""
    for name, shown in of_pool.shown.items():
        for family in families:
            for address in shown.get(family, ()):
                if (other := ledger.conflict(address, need.sharer)) is not None:
                    yield name, (address, other)


def _user(one: Sharer, other: Sharer) -> tuple[str, PortKey] | None:
    clash = next((port for port in one.ports if port in other.ports), None)
    return None if clash is None else (other.service, PortKey(*clash))
