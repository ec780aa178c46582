"""The ledger: which Service has which address, and what each pool still has to give.

**Mechanism.** One table says who has an address. Beside it every pool keeps its free addresses as intervals of
*places*: place 0 is the first address in the order of ``spec.addresses``, and so on. So "the first free address in the
order in which it is to be given out" is the least place, and the cost of everything grows with gaps, never with the
size of a pool: a /8 and an IPv6 /64 cost the same.

Addresses that may be shared are listed by the terms on which they are (``cluster.sharing``). So the first that suits is
found at the cost of the different sets of ports under one key, and not of the addresses.

What the cluster uses itself (``reserved``) is withheld: it is cut out of the free places. A Service that has such an
address keeps it; nobody new shares it, and when it is given back nobody gets it.

**Not judged here.** The ledger records what it is told, also two Services that should not share; ``conflict`` tells
beforehand. An address may be taken that is in no pool (its pool shrank, or cannot be read just now): it stays in the
table, and is taken in whichever pool comes to contain it.

**Example.** Of a pool ``10.0.0.0/30`` with 10.0.0.1 taken the places 0, 2 and 3 are free, as two intervals.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from cluster.addresses import Address, Family, Range, RangeMap
from cluster.config import Pool, is_buggy
from cluster.objects import PoolName
from cluster.sharing import ON_A_NODE, Company, Port, Sharer, Sharers, Terms
from controller.allocation.intervals import IntervalSet, SortedIntegers
from controller.allocation.reserved import Reserved

_Entry = str | Sharer | Sharers
"""Who has an address. Most share with nobody, and then the Service's name says everything and weighs the least."""


def _entry(sharer: Sharer) -> _Entry:
    return sharer if sharer.sharing_key else sharer.service


def _sharer(entry: str | Sharer) -> Sharer:
    return entry if isinstance(entry, Sharer) else Sharer(entry)


def _terms(entry: _Entry) -> Terms | None:
    return None if isinstance(entry, str) else entry.terms


@dataclass(slots=True)
class _Shard:
    """One pool's addresses of one family."""

    pool: PoolName
    avoid_buggy_ips: bool
    firsts: list[int]
    """The place of each range's first address, in order of place …"""
    values: list[int]
    """… and that address."""
    size: int
    """Addresses that it gives out: all but those withheld."""
    last: int
    """The last place."""
    free: IntervalSet
    withholds: bool
    """Whether any address is withheld."""
    aside: IntervalSet
    """Those of the free places that are given out last."""
    taken: int = 0
    kept: int = 0
    """Those of the taken ones that are withheld."""
    shared: dict[Company, dict[frozenset[Port], SortedIntegers]] = field(default_factory=dict)
    """Company → ports in use → the places of the addresses that are shared on these terms."""

    def list_shared(self, terms: Terms, place: int) -> None:
        company, ports = terms
        by_ports = self.shared.setdefault(company, {})
        if ports not in by_ports:
            by_ports[ports] = SortedIntegers(self.last)
        by_ports[ports].add(place)

    def unlist_shared(self, terms: Terms, place: int) -> None:
        company, ports = terms
        by_ports = self.shared[company]
        by_ports[ports].remove(place)
        if not by_ports[ports]:
            del by_ports[ports]
            if not by_ports:
                del self.shared[company]


@dataclass(slots=True)
class _Index:
    """Where each range of one family begins and ends, in order of address, and where its places are."""

    lows: list[int] = field(default_factory=list)
    highs: list[int] = field(default_factory=list)
    places: list[tuple[_Shard, int]] = field(default_factory=list)
    """The place of the range's first address in its shard."""


@dataclass(slots=True)
class _Shards:
    pool: Pool
    withheld: tuple[Range, ...] = ()
    """In the order of the pool's ranges."""
    by_family: dict[Family, _Shard] = field(default_factory=dict)


class Ledger:
    """Which Service has which address. Not thread-safe: one thread decides."""

    def __init__(self, pools: Mapping[PoolName, Pool] = MappingProxyType({})) -> None:
        self._entries: dict[Family, dict[int, _Entry]] = {family: {} for family in Family}
        self._shards: dict[PoolName, _Shards] = {}
        self._indexes: dict[Family, _Index] = {family: _Index() for family in Family}
        self.reserved: RangeMap[Reserved] = RangeMap()
        """What is never given out; set by ``set_pools``."""
        self.departed: tuple[Range, ...] = ()
        """What pools contained that were deleted a moment ago. This and the next are set by the caller."""
        self.node_addresses: Container[object] = frozenset()
        """Those that are known to be nodes'."""
        self._given_last: set[Address] = set()
        self.set_pools(pools)

    def set_pools(self, pools: Mapping[PoolName, Pool], reserved: RangeMap[Reserved] | None = None) -> bool:
        """Use these pools from now on, and give out nothing that is ``reserved`` (None: as before). Says whether there
        is anything else to give out now. It costs as much as the pools that changed; if any did, as much as all that is
        taken."""
        self.reserved = self.reserved if reserved is None else reserved
        withheld = {name: self._withheld_of(pool) for name, pool in pools.items()}
        stale = {
            name
            for name, shards in self._shards.items()
            if not _same_places(shards.pool, pools.get(name)) or shards.withheld != withheld[name]
        }
        fresh = {name for name in pools if name in stale or name not in self._shards}
        for name in stale:
            del self._shards[name]
        for name, pool in pools.items():
            if name in fresh:
                self._shards[name] = _shards_of(pool, withheld[name], self.reserved)
            else:
                self._shards[name].pool = pool
        self._indexes = {family: self._index_of(family) for family in Family}
        if fresh:
            for address in self._given_last:
                found = self._locate(address)
                if found is not None and found[0].pool in fresh and not self._withholds(found[0], address):
                    _move(found[0].free, found[0].aside, found[1])
            for family, entries in self._entries.items():
                for value, entry in entries.items():
                    found = self._locate(Address(family, value))
                    if found is not None and found[0].pool in fresh:
                        self._mark_taken(Address(family, value), *found, _terms(entry))
        return bool(stale or fresh)

    def withheld(self, address: Address) -> Reserved | None:
        """What the cluster uses the address for; None: it may be given out."""
        found = self.reserved.find(address)
        return found[1] if found else None

    def withheld_of(self, pool: PoolName) -> list[tuple[Range, Reserved]]:
        """What the pool contains and does not give out."""
        return [each for block in self._shards[pool].pool.ranges for each in self.reserved.within(block)]

    def _withheld_of(self, pool: Pool) -> tuple[Range, ...]:
        return tuple(piece for block in pool.ranges for piece, _ in self.reserved.within(block))

    def _withholds(self, shard: _Shard, address: Address) -> bool:
        return shard.withholds and self.withheld(address) is not None

    def _index_of(self, family: Family) -> _Index:
        ranges = []
        for shards in self._shards.values():
            shard = shards.by_family.get(family)
            if shard is not None:
                blocks = [block for block in shards.pool.ranges if block.family is family]
                ranges += [
                    (block.first, block.last, (shard, place)) for block, place in zip(blocks, shard.firsts, strict=True)
                ]
        ranges.sort(key=lambda each: each[0])
        return _Index([each[0] for each in ranges], [each[1] for each in ranges], [each[2] for each in ranges])

    def _locate(self, address: Address) -> tuple[_Shard, int] | None:
        """The address's place, in the shard of the pool that gives it out; None: no pool does."""
        index = self._indexes[address.family]
        at = bisect_right(index.lows, address.value) - 1
        if at < 0 or index.highs[at] < address.value:
            return None
        shard, first = index.places[at]
        if shard.avoid_buggy_ips and is_buggy(address):
            return None
        return shard, first + address.value - index.lows[at]

    def having(self, address: Address) -> tuple[Sharer, ...]:
        """Those that have the address, and on which terms they share it."""
        entry = self._entries[address.family].get(address.value)
        if isinstance(entry, Sharers):
            return entry.all
        return () if entry is None else (_sharer(entry),)

    def conflict(self, address: Address, asking: Sharer) -> Sharer | None:
        """One of those that have the address, with which ``asking`` cannot share it; None: it can have it."""
        entry = self._entries[address.family].get(address.value)
        if entry is None:
            return None
        if isinstance(entry, Sharers):
            return entry.conflict(asking)
        other = _sharer(entry)
        return None if other.service == asking.service or asking.why_not_with(other) is None else other

    def take(self, address: Address, sharer: Sharer) -> bool:
        """Record that a Service has it, or its new terms. Whether the terms on which others may join have changed."""
        entries = self._entries[address.family]
        entry = entries.get(address.value)
        found = self._locate(address)
        if entry is None:
            entries[address.value] = _entry(sharer)
            if found is not None:
                self._mark_taken(address, *found, sharer.terms)
            return False
        before = _terms(entry) if found is not None else None
        if isinstance(entry, Sharers):
            if sharer in entry:
                return False
            entry.put(sharer)
        else:
            present = _sharer(entry)
            if present == sharer:
                return False
            entry = _entry(sharer) if present.service == sharer.service else Sharers((present, sharer))
            entries[address.value] = entry
        if found is not None and not self._withholds(found[0], address):
            _relist(*found, before, _terms(entry))
        return True

    def give_back(self, address: Address, service: str) -> PoolName | None:
        """The Service has the address no more. Returns the pool that has something to give because of it."""
        entries = self._entries[address.family]
        entry = entries.get(address.value)
        if entry is None:
            return None
        found = self._locate(address)
        before, after = _terms(entry) if found is not None else None, None
        if isinstance(entry, Sharers):
            if not entry.drop(service):
                return None
            if len(entry) == 1:
                entries[address.value] = _entry(entry.all[0])
            after = _terms(entries[address.value]) if found is not None else None
        elif _sharer(entry).service == service:
            del entries[address.value]
        else:
            return None
        if found is None:
            return self.pool_around(address)
        shard, place = found
        withheld = self._withholds(shard, address)
        if not withheld:
            _relist(shard, place, before, after)
        if address.value not in entries:
            shard.taken -= 1
            if withheld:
                shard.kept -= 1
            else:
                self._places(shard, address).add(place, place)
        return shard.pool

    def _mark_taken(self, address: Address, shard: _Shard, place: int, terms: Terms | None) -> None:
        shard.taken += 1
        if self._withholds(shard, address):
            shard.kept += 1
            return
        self._places(shard, address).remove(place)
        if terms is not None:
            shard.list_shared(terms, place)

    def pool_around(self, address: Address) -> PoolName | None:
        """The pool whose ranges contain the address, whether or not it gives it out."""
        index = self._indexes[address.family]
        at = bisect_right(index.lows, address.value) - 1
        return index.places[at][0].pool if at >= 0 and address.value <= index.highs[at] else None

    def is_in_pool(self, address: Address) -> bool:
        """Whether a pool contains the address, or one did that was deleted a moment ago."""
        return self.pool_around(address) is not None or any(address in block for block in self.departed)

    def is_of_nodes(self, address: Address) -> bool:
        """Whether the address is shared as one of a node (``cluster.sharing``): it is in no pool, and is known to be a
        node's, or was when it was taken. So those who share the address of a node that goes leave it, and none of them
        is in another's way."""
        if address not in self.node_addresses:
            entry = self._entries[address.family].get(address.value)
            if entry is None or isinstance(entry, str) or entry.company != ON_A_NODE:
                return False
        return not self.is_in_pool(address)

    def sharer(self, address: Address, service: str) -> Sharer | None:
        """On which terms the Service has the address; None: it has not."""
        entry = self._entries[address.family].get(address.value)
        if isinstance(entry, Sharers):
            return entry.get(service)
        found = None if entry is None else _sharer(entry)
        return found if found is not None and found.service == service else None

    def give_last(self, address: Address, *, last: bool) -> None:
        """Whether the address, while nobody has it, is given out only where the pool has no other."""
        if last == (address in self._given_last):
            return
        self._given_last ^= {address}
        found = self._locate(address)
        if found is None or address.value in self._entries[address.family] or self._withholds(found[0], address):
            return
        shard, place = found
        _move(*((shard.free, shard.aside) if last else (shard.aside, shard.free)), place)

    def _places(self, shard: _Shard, address: Address) -> IntervalSet:
        """Where the address is while it is free."""
        return shard.aside if address in self._given_last else shard.free

    def first_free(self, pool: PoolName, family: Family) -> Address | None:
        """The first address of the pool that nobody has."""
        shard = self._shards[pool].by_family.get(family)
        while shard is not None and (place := _least(shard)) is not None:
            address = _address_at(shard, family, place)
            if not (shard.avoid_buggy_ips and is_buggy(address)):
                return address
            shard.free.remove(place)  # never given out, so never given back: looked at once
        return None

    def first_shared(self, pool: PoolName, family: Family, asking: Sharer) -> Address | None:
        """The first address of the pool that others have and ``asking`` may share."""
        shard = self._shards[pool].by_family.get(family)
        company = asking.company
        if shard is None or company is None:
            return None
        best: int | None = None
        for ports, places in shard.shared.get(company, {}).items():
            place = places.least()
            if place is not None and (best is None or place < best) and ports.isdisjoint(asking.ports):
                best = place
        return None if best is None else _address_at(shard, family, best)

    def place(self, pool: PoolName, address: Address) -> int | None:
        """Where in the pool's order of allocation the address stands; None: the pool does not give it out."""
        found = self._locate(address)
        return found[1] if found is not None and found[0].pool == pool else None

    def counts(self, pool: PoolName, family: Family) -> tuple[int, int]:
        """How many addresses of the pool are taken, and how many it still has to give."""
        shard = self._shards[pool].by_family.get(family)
        return (shard.taken, shard.size - (shard.taken - shard.kept)) if shard else (0, 0)


def _relist(shard: _Shard, place: int, before: Terms | None, after: Terms | None) -> None:
    if before is not None:
        shard.unlist_shared(before, place)
    if after is not None:
        shard.list_shared(after, place)


def _address_at(shard: _Shard, family: Family, place: int) -> Address:
    at = bisect_right(shard.firsts, place) - 1
    return Address(family, shard.values[at] + place - shard.firsts[at])


def _least(shard: _Shard) -> int | None:
    place = shard.free.least()
    return shard.aside.least() if place is None else place


def _move(source: IntervalSet, target: IntervalSet, place: int) -> None:
    source.remove(place)
    target.add(place, place)


def _same_places(before: Pool, after: Pool | None) -> bool:
    return after is not None and (before.ranges, before.avoid_buggy_ips) == (after.ranges, after.avoid_buggy_ips)


def _shards_of(pool: Pool, withheld: tuple[Range, ...], reserved: RangeMap[Reserved]) -> _Shards:
    shards = _Shards(pool, withheld)
    for family in Family:
        blocks = [block for block in pool.ranges if block.family is family]
        if not blocks:
            continue
        last = sum(block.count for block in blocks) - 1
        size = pool.size(family) - replace(pool, ranges=withheld).size(family)
        free, aside = IntervalSet(last), IntervalSet(last)
        shard = _Shard(pool.name, pool.avoid_buggy_ips, [], [], size, last, free, bool(withheld), aside)
        place = 0
        for block in blocks:
            shard.firsts.append(place)
            shard.values.append(block.first)
            for piece in reserved.gaps(block):
                shard.free.add(place + piece.first - block.first, place + piece.last - block.first)
            place += block.count
        shards.by_family[family] = shard
    return shards
