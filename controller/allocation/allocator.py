"""Which address a Service gets, or why none: one pure question to the pools and the ledger.

The order of choice is MetalLB's.

1. A Service that asks for addresses gets exactly those, or is refused. Where it asks for one and should have both
   families, the other one comes from the same pool.
2. A Service that names a pool gets an address of that pool, or is refused.
3. Any other Service asks every pool that assigns automatically and is for it: first those with ``serviceAllocation``,
   then those without. Of either, a pool comes first that has what suits the Service best (both families, then the
   primary one, then the other), then the one with the higher priority, then by name.
4. A pool gives its first address, in the order of ``spec.addresses``, that is free or may be shared.
5. All addresses of a Service come from one pool.
6. A NodeIPPool stands in the same order as an IPAddressPool. It gives all the addresses that ``node_allocation``
   chooses. Which ones cannot be asked for, so a Service that asks for addresses gets none from it.

A refusal says why not, pool by pool. Its ``Reason`` is the same word in the Service's condition, in the metric's label
and in the log.

Example: with the pools ``a`` (10.0.0.0/31, both taken) and ``b`` (10.1.0.0/24) a Service that asks for nothing gets
10.1.0.0. One that asks for pool ``a`` is refused with ``PoolExhausted``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.addresses import Address, Family
from cluster.config import Config, Pool
from cluster.node_pools import NodePool
from cluster.objects import PoolName
from cluster.selectors import matches_any
from cluster.sharing import ON_A_NODE, Sharer
from controller.allocation.ledger import Ledger
from controller.allocation.node_allocation import NodeNeed, NodeSupply, from_nodes
from controller.allocation.outcomes import Allocation, PoolRefusal, Reason, Refusal, refusal_of
from controller.nodeip.view import NodeView


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """What one Service needs and asks for."""

    sharer: Sharer
    families: tuple[tuple[Family, ...], ...]
    """What would do, best first: the families of the addresses that the Service would get."""
    namespace: str = ""
    namespace_labels: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    pool: PoolName | None = None
    """The only pool to take from (annotation ``metallb.io/address-pool``)."""
    addresses: tuple[Address, ...] = ()
    """Exactly these addresses (annotation ``metallb.io/loadBalancerIPs`` or ``spec.loadBalancerIP``), and of a family
    that none of them is of any one."""
    former: tuple[Address, ...] = ()
    """What it had before it was deleted, preferred to others where it can be had (``releases``)."""
    of_nodes: NodeNeed | None = None
    """What it needs of nodes; None: nothing but what ``sharer`` says."""

    @property
    def node_need(self) -> NodeNeed:
        return self.of_nodes or NodeNeed(Sharer(self.sharer.service, *ON_A_NODE))

    def sharer_on(self, address: Address, ledger: Ledger) -> Sharer:
        """On which terms it shares this address."""
        return self.node_need.sharer if ledger.is_of_nodes(address) else self.sharer


AnyPool = Pool | NodePool
NOTHING_KNOWN = NodeSupply(NodeView(), lambda _: True)


def allocate(
    config: Config, ledger: Ledger, want: AddressRequest, nodes: NodeSupply = NOTHING_KNOWN
) -> Allocation | Refusal:
    """Choose addresses for a Service, or say why there are none. Nothing is recorded in the ledger. The cost does not
    grow with the size of pools or with the number of addresses taken."""
    if want.addresses:
        return _allocate_exactly(config, ledger, want)
    if want.pool is not None:
        return _allocate_from_named(config, ledger, want, want.pool, nodes)
    return _allocate_automatically(config, ledger, want, nodes)


@dataclass(frozen=True, slots=True)
class Staying:
    """What a Service may keep of the addresses that it has, whatever it asks for."""

    addresses: tuple[Address, ...] = ()
    """At most one of each family that the Service needs, all of one pool; in the order in which it has them."""
    lost: Refusal | None = None
    """Why an address that the Service needs may not stay."""


def what_may_stay(config: Config, ledger: Ledger, want: AddressRequest, present: tuple[Address, ...]) -> Staying:
    """What the Service may keep of the addresses that it has at present.

    ``autoAssign`` is not asked: a pool that stops giving addresses by itself takes none away.

    Where two addresses turn out to be of different pools, the one of the primary family stays.
    """
    needed = want.families[0]
    kept: dict[Family, Address] = {}
    lost: dict[Family, Refusal] = {}
    fitting = [each for each in present if each.family in needed]
    for address in sorted(fitting, key=lambda each: needed.index(each.family)):
        if address.family in kept:
            continue
        pool = _pool_of_all(config, ledger, want, (*kept.values(), address))
        refusal = pool if isinstance(pool, Refusal) else why_in_use(ledger, want, (address,))
        if refusal is None:
            kept[address.family] = address
        else:
            lost.setdefault(address.family, refusal)
    if not kept and not lost:
        names = ", ".join(address.text for address in present)
        detail = f"{names} does not fit the Service, whose ClusterIPs need {_families_text(needed)}"
        return Staying(lost=Refusal(Reason.WRONG_FAMILY, detail))
    staying = tuple(address for address in present if address in kept.values())
    return Staying(staying, next((lost[family] for family in needed if family in lost and family not in kept), None))


def complete(config: Config, ledger: Ledger, want: AddressRequest, kept: tuple[Address, ...]) -> Allocation | Refusal:
    """Add the families that a Service lacks to the addresses that it keeps, from the same pool."""
    pool = config.pool_of(kept[0])
    if pool is None:
        return Refusal(Reason.ADDRESS_NOT_IN_POOL, f"{kept[0].text} is in no pool")
    needed = want.families[0]
    missing = tuple(family for family in needed if family not in {address.family for address in kept})
    added = _from_pool(ledger, want, pool, missing)
    if added is None:
        return refusal_of((_why_empty(ledger, pool, missing),))
    return Allocation(pool.name, tuple(sorted((*kept, *added), key=lambda each: needed.index(each.family))))


def suffices(want: AddressRequest, addresses: tuple[Address, ...]) -> bool:
    """Whether addresses of these families would do for the Service."""
    families = {address.family for address in addresses}
    return any(families == set(choice) for choice in want.families)


def why_not_requested(config: Config, want: AddressRequest, present: tuple[Address, ...]) -> str | None:
    """How the addresses differ from what the Service asks for; None: they do not."""
    if not set(want.addresses) <= set(present):
        return "the Service asks for " + ", ".join(address.text for address in want.addresses)
    pool = config.pool_of(present[0])
    if want.pool is not None and pool is not None and pool.name != want.pool:
        return f'the Service asks for pool "{want.pool}"'
    return None


def _allocate_exactly(config: Config, ledger: Ledger, want: AddressRequest) -> Allocation | Refusal:
    if (refusal := _why_not_of_nodes(config, want)) is not None:
        return refusal
    families = [address.family for address in want.addresses]
    wanted = want.families[0]
    if len(families) > len(set(families)) or not set(families) <= set(wanted):
        names = ", ".join(address.text for address in want.addresses)
        return Refusal(
            Reason.INVALID_REQUEST,
            f"the Service asks for {names}, but by its ClusterIPs it needs {_families_text(wanted)}, one of each",
        )
    ordered = tuple(sorted(want.addresses, key=lambda address: wanted.index(address.family)))
    pool = _pool_of_all(config, ledger, want, ordered)
    if isinstance(pool, Refusal):
        return pool
    if want.pool is not None and pool.name != want.pool:
        detail = f'{ordered[0].text} belongs to pool "{pool.name}", and the Service asks for pool "{want.pool}"'
        return Refusal(Reason.ADDRESS_NOT_IN_POOL, detail)
    if (refusal := why_in_use(ledger, want, ordered)) is not None:
        return refusal
    return Allocation(pool.name, ordered) if suffices(want, ordered) else complete(config, ledger, want, ordered)


def _why_not_of_nodes(config: Config, want: AddressRequest) -> Refusal | None:
    """Why a Service that can only mean addresses of nodes does not get those that it asks for; None: it may mean
    others."""
    if want.pool in config.node_pools:
        name = want.pool
    elif want.pool is None and not any(config.pool_of(address) for address in want.addresses):
        name = next(iter(config.node_pools), None)
    else:
        return None
    if name is None:
        return None
    return Refusal(
        Reason.INVALID_REQUEST,
        f"the Service asks for {', '.join(address.text for address in want.addresses)}, but which addresses of nodes "
        f'it gets cannot be asked for; to have them from pool "{name}", ask for that pool and for no address',
    )


def _pool_of_all(
    config: Config, ledger: Ledger, want: AddressRequest, addresses: tuple[Address, ...]
) -> Pool | Refusal:
    """The pool that gives out these addresses, if it may give them to this Service."""
    pools = []
    for address in addresses:
        has_it = any(each.service == want.sharer.service for each in ledger.having(address))
        if not has_it and (reserved := ledger.withheld(address)) is not None:
            return Refusal(Reason.ADDRESS_RESERVED, f"{address.text} is {reserved.text}; {reserved.advice}")
        pool = config.pool_of(address)
        if pool is None:
            named = config.elsewhere if want.pool is None and not config.pools else (want.pool,)
            why = _why_missing(config, *(name for name in named if name is not None))
            return Refusal(Reason.ADDRESS_NOT_IN_POOL, f"{address.text} is in no pool{why}")
        if ledger.place(pool.name, address) is None:
            detail = f'{address.text} ends in .0 or .255, which pool "{pool.name}" leaves out (avoidBuggyIPs)'
            return Refusal(Reason.ADDRESS_NOT_IN_POOL, detail)
        pools.append(pool)
    first = pools[0]
    for address, pool in zip(addresses, pools, strict=True):
        if pool.name != first.name:
            detail = f'{addresses[0].text} is in pool "{first.name}" and {address.text} in pool "{pool.name}"'
            return Refusal(Reason.ADDRESS_NOT_IN_POOL, f"{detail}; a Service's addresses come from one pool")
    if (excluded := why_not_for(first, want)) is not None:
        return Refusal(excluded.reason, f'pool "{first.name}" {excluded.detail}', (excluded,))
    return first


def why_in_use(ledger: Ledger, want: AddressRequest, addresses: tuple[Address, ...]) -> Refusal | None:
    """Why others that have them do not let the Service have these addresses too."""
    for address in addresses:
        sharer = want.sharer_on(address, ledger)
        if (other := ledger.conflict(address, sharer)) is not None:
            why = sharer.why_not_with(other)
            return Refusal(Reason.ADDRESS_IN_USE, f"{address.text} is in use: {why}")
    return None


def _allocate_from_named(
    config: Config, ledger: Ledger, want: AddressRequest, name: PoolName, nodes: NodeSupply
) -> Allocation | Refusal:
    pool = config.pools.get(name) or config.node_pools.get(name)
    if pool is None:
        if name in config.unreadable:
            return Refusal(Reason.POOL_UNREADABLE, f'pool "{name}" cannot be honoured as it is written; see its status')
        return Refusal(Reason.UNKNOWN_POOL, f'there is no pool "{name}"{_why_missing(config, name)}')
    if (excluded := why_not_for(pool, want)) is not None:
        return refusal_of((excluded,))
    for families in want.families:
        if (found := _ask(ledger, want, pool, families, nodes)) is not None:
            return found
    return refusal_of((_why_none(ledger, want, pool, nodes),))


def _allocate_automatically(
    config: Config, ledger: Ledger, want: AddressRequest, nodes: NodeSupply
) -> Allocation | Refusal:
    asked: list[AnyPool] = []
    refused: list[PoolRefusal] = []
    for pool in _in_order((*config.pools.values(), *config.node_pools.values())):
        if not pool.auto_assign:
            detail = "gives addresses only to Services that ask for it (autoAssign is false)"
            refused.append(PoolRefusal(pool.name, Reason.AUTO_ASSIGN_OFF, detail))
        elif (excluded := why_not_for(pool, want)) is not None:
            refused.append(excluded)
        else:
            asked.append(pool)
    if want.former and (again := _former_allocation(ledger, want, asked, nodes)) is not None:
        return again
    dedicated = [pool for pool in asked if pool.allocation is not None]
    for group in (dedicated, asked[len(dedicated) :]):
        for families in want.families:
            for pool in group:
                if (found := _ask(ledger, want, pool, families, nodes)) is not None:
                    return found
    refused = [_why_none(ledger, want, pool, nodes) for pool in asked] + refused
    for name in sorted(config.unreadable):
        detail = "cannot be honoured as it is written; see its status"
        refused.append(PoolRefusal(name, Reason.POOL_UNREADABLE, detail))
    if not refused:
        why = _why_missing(config, *config.elsewhere)
        return Refusal(Reason.NO_POOL, f"there is no IPAddressPool to take an address from{why}")
    return refusal_of(tuple(refused))


def _in_order(pools: Iterable[AnyPool]) -> list[AnyPool]:
    """Pools with ``serviceAllocation`` first, by priority (low before high, zero and negative last), then by name."""

    def rank(pool: AnyPool) -> tuple[int, int, int, str]:
        if pool.allocation is None:
            return (1, 0, 0, pool.name)
        priority = pool.allocation.priority
        return (0, 0, priority, pool.name) if priority > 0 else (0, 1, -priority, pool.name)

    return sorted(pools, key=rank)


def _ask(
    ledger: Ledger, want: AddressRequest, pool: AnyPool, families: tuple[Family, ...], nodes: NodeSupply
) -> Allocation | None:
    """What a pool of either kind has of each family; None: not all of them."""
    if isinstance(pool, NodePool):
        found = from_nodes(nodes, ledger, pool, want.node_need, (families,))
        return found if isinstance(found, Allocation) else None
    addresses = _from_pool(ledger, want, pool, families)
    return None if addresses is None else Allocation(pool.name, addresses)


def _why_none(ledger: Ledger, want: AddressRequest, pool: AnyPool, nodes: NodeSupply) -> PoolRefusal:
    """Why a pool that is for this Service has nothing for it."""
    if isinstance(pool, Pool):
        return _why_empty(ledger, pool, _all_families(want))
    found = from_nodes(nodes, ledger, pool, want.node_need, want.families)
    if isinstance(found, Allocation):
        raise AssertionError("it was asked")
    return found


def _from_pool(
    ledger: Ledger, want: AddressRequest, pool: Pool, families: tuple[Family, ...]
) -> tuple[Address, ...] | None:
    """The first address of each family, or None where one is missing."""
    addresses = []
    for family in families:
        former = _former(ledger, want, pool, family)
        address = former or ledger.first_free(pool.name, family)
        if want.sharer.sharing_key and former is None:
            shared = ledger.first_shared(pool.name, family, want.sharer)
            if shared is not None and (address is None or _earlier(ledger, pool, shared, address)):
                address = shared
        if address is None:
            return None
        addresses.append(address)
    return tuple(addresses)


def _former(ledger: Ledger, want: AddressRequest, pool: Pool, family: Family) -> Address | None:
    """What it had of the pool, if it can have it again."""
    for address in want.former:
        can_be_had = ledger.place(pool.name, address) is not None and ledger.withheld(address) is None
        if address.family is family and can_be_had and ledger.conflict(address, want.sharer) is None:
            return address
    return None


def _former_allocation(
    ledger: Ledger, want: AddressRequest, pools: Iterable[AnyPool], nodes: NodeSupply
) -> Allocation | None:
    """All that it had, whichever of the pools it was from; None where that cannot be had, or something better can."""
    for families in want.families:
        for pool in pools:
            if isinstance(pool, NodePool):
                continue
            former = [_former(ledger, want, pool, family) for family in families]
            if (found := tuple(address for address in former if address)) and len(found) == len(families):
                return Allocation(pool.name, found)
        if any(_ask(ledger, want, pool, families, nodes) for pool in pools):
            return None
    return None


def _earlier(ledger: Ledger, pool: Pool, one: Address, other: Address) -> bool:
    first, second = ledger.place(pool.name, one), ledger.place(pool.name, other)
    return first is not None and second is not None and first < second


def why_not_for(pool: AnyPool, want: AddressRequest) -> PoolRefusal | None:
    """Why ``serviceAllocation`` keeps the Service out of the pool; None: it does not."""
    allocation = pool.allocation
    if allocation is None:
        return None
    if (allocation.namespaces or allocation.namespace_selectors) and not (
        want.namespace in allocation.namespaces
        or matches_any(allocation.namespace_selectors, want.namespace_labels or {})
    ):
        detail = f'is not for namespace "{want.namespace}" (serviceAllocation)'
        return PoolRefusal(pool.name, Reason.POOL_NOT_FOR_SERVICE, detail)
    if allocation.service_selectors and not matches_any(allocation.service_selectors, want.labels or {}):
        detail = "is not for Services with these labels (serviceAllocation.serviceSelectors)"
        return PoolRefusal(pool.name, Reason.POOL_NOT_FOR_SERVICE, detail)
    return None


def _all_families(want: AddressRequest) -> tuple[Family, ...]:
    return tuple(dict.fromkeys(family for choice in want.families for family in choice))


def _why_empty(ledger: Ledger, pool: Pool, families: tuple[Family, ...]) -> PoolRefusal:
    """Why a pool that is for this Service has nothing for it."""
    details = []
    reason = Reason.WRONG_FAMILY
    for family in families:
        size = pool.size(family)
        taken, available = ledger.counts(pool.name, family)
        if size == 0:
            details.append(f"has no {family.text} addresses")
        elif available == 0:
            reason = Reason.ADDRESS_RESERVED if taken == 0 else Reason.POOL_EXHAUSTED
            details.append(f"has no free {family.text} address ({taken} of {size} in use)")
    if reason is not Reason.WRONG_FAMILY and (withheld := ledger.withheld_of(pool.name)):
        block, what = withheld[0]
        more = f" and {len(withheld) - 1} more" if len(withheld) > 1 else ""
        details.append(f"does not give out {block.short_text}, {what.text}{more}; {what.advice}")
    return PoolRefusal(pool.name, reason, " and ".join(details))


def _why_missing(config: Config, *names: PoolName) -> str:
    """Why there may be no pool, as the end of a sentence: one of these names is in a namespace that does not count, or
    pools cannot be applied."""
    hints = [
        f'pool "{name}" of namespace "{config.elsewhere[name]}" does not count, since the controller reads another'
        for name in names
        if name in config.elsewhere
    ][:1]
    if config.obstacle:
        hints.append(config.obstacle)
    return "".join(f"; {hint}" for hint in hints)


def _families_text(families: tuple[Family, ...]) -> str:
    return " and ".join(family.text for family in families)
