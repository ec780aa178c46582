"""The ledger: which Service holds which address, and what each pool still has to give.

One table says who holds an address. Beside it every pool keeps its free addresses as intervals of *places*: place 0 is
the first address of the pool's first range, and so on in the order of ``spec.addresses``, so that the next address to
give is the least free place. Taking, giving back and counting cost the same in a /29 and in an IPv6 /64 with a million
taken.

An address may be held that no pool contains (its pool shrank, or cannot be read just now): it stays in the table, and
is taken in whichever pool comes to contain it. The ledger does not judge: it records what it is told, also two holders
that should not share; ``conflict`` tells beforehand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.addresses import Address, Family, RangeMap
from cluster.config import Pool, is_buggy
from cluster.objects import PoolName
from controller.intervals import IntervalSet


@dataclass(frozen=True, slots=True)
class Holder:
    """A Service in its role as holder of an address."""

    service: str
    """``namespace/name``."""
    sharing_key: str = ""
    """Annotation ``metallb.io/allow-shared-ip``; empty: shares with nobody, and the rest is left empty too."""
    backends: str = ""
    """What the traffic policy demands of those who share: with Local the selector, with Cluster nothing."""
    ports: tuple[tuple[str, int], ...] = ()
    """(protocol, port), sorted."""

    def why_not_with(self, other: Holder) -> str | None:
        """Why the two cannot share an address; None: they can."""
        if not other.sharing_key:
            return f"{other.service} holds it and shares it with nobody"
        if not self.sharing_key:
            return f"{other.service} holds it, and sharing needs the annotation metallb.io/allow-shared-ip"
        if self.sharing_key != other.sharing_key:
            return f'{other.service} holds it with the sharing key "{other.sharing_key}"'
        if self.backends != other.backends:
            return f"{other.service} holds it with another externalTrafficPolicy or, being Local, another selector"
        clash = next((port for port in self.ports if port in other.ports), None)
        if clash is not None:
            return f"{other.service} holds it and uses port {clash[1]}/{clash[0]} too"
        return None


@dataclass(slots=True)
class _Shard:
    """One pool's addresses of one family."""

    places: RangeMap[int]
    """Each range with the place of its first address."""
    firsts: list[int]
    """The place of each range's first address, in order of place …"""
    values: list[int]
    """… and that address."""
    size: int
    free: IntervalSet
    taken: int = 0


@dataclass(slots=True)
class _Shards:
    pool: Pool
    by_family: dict[Family, _Shard] = field(default_factory=dict)


class Ledger:
    """Who holds what. Not thread-safe: one thread decides."""

    def __init__(self) -> None:
        self._holders: dict[Address, tuple[Holder, ...]] = {}
        self._sharing: dict[str, set[Address]] = {}
        """Addresses held under each sharing key."""
        self._shards: dict[PoolName, _Shards] = {}
        self._owners: RangeMap[PoolName] = RangeMap()

    def set_pools(self, pools: Mapping[PoolName, Pool]) -> None:
        """From now on these pools. Costs as much as the pools that changed, and the holders if any did."""
        stale = {name for name, shards in self._shards.items() if not _same_places(shards.pool, pools.get(name))}
        fresh = {name for name in pools if name in stale or name not in self._shards}
        for name in stale:
            del self._shards[name]
        for name, pool in pools.items():
            if name in fresh:
                self._shards[name] = _shards_of(pool)
            else:
                self._shards[name].pool = pool
        self._owners = RangeMap()
        for name, pool in pools.items():
            for block in pool.ranges:
                self._owners.add(block, name)
        if fresh:
            for address in self._holders:
                found = self._owners.find(address)
                if found is not None and found[1] in fresh:
                    self._mark(address, taken=True)

    def holders(self, address: Address) -> tuple[Holder, ...]:
        return self._holders.get(address, ())

    def conflict(self, address: Address, asking: Holder) -> str | None:
        """Why ``asking`` cannot hold the address beside those who do; None: it can."""
        for other in self._holders.get(address, ()):
            if other.service != asking.service and (reason := asking.why_not_with(other)) is not None:
                return reason
        return None

    def take(self, address: Address, holder: Holder) -> None:
        """Record a holder, or the holder's new sharing terms."""
        before = self._holders.get(address, ())
        if holder in before:
            return
        if not before:
            self._mark(address, taken=True)
        self._set(address, (*(each for each in before if each.service != holder.service), holder))

    def give_back(self, address: Address, service: str) -> PoolName | None:
        """The Service does not hold the address any more. Returns the pool that has something to give because of it."""
        before = self._holders.get(address, ())
        after = tuple(each for each in before if each.service != service)
        if len(after) == len(before):
            return None
        self._set(address, after)
        if not after:
            self._mark(address, taken=False)
        found = self._owners.find(address)
        return found[1] if found else None

    def first_free(self, pool: PoolName, family: Family) -> Address | None:
        """The first address of the pool that nobody holds."""
        shards = self._shards[pool]
        shard = shards.by_family.get(family)
        while shard is not None and (place := shard.free.least()) is not None:
            index = bisect_right(shard.firsts, place) - 1
            address = Address(family, shard.values[index] + place - shard.firsts[index])
            if not (shards.pool.avoid_buggy_ips and is_buggy(address)):
                return address
            shard.free.remove(place)  # never given out, so never given back: looked at once
        return None

    def first_shared(self, pool: PoolName, family: Family, asking: Holder) -> Address | None:
        """The first address of the pool that others hold and ``asking`` may share."""
        best: tuple[int, Address] | None = None
        for address in self._sharing.get(asking.sharing_key, ()):
            place = self.place(pool, address)
            if address.family is not family or place is None or self.conflict(address, asking) is not None:
                continue
            if best is None or place < best[0]:
                best = (place, address)
        return best[1] if best else None

    def place(self, pool: PoolName, address: Address) -> int | None:
        """Where in the pool's order of allocation the address stands; None: the pool does not give it out."""
        shards = self._shards.get(pool)
        shard = shards.by_family.get(address.family) if shards else None
        if shards is None or shard is None or (shards.pool.avoid_buggy_ips and is_buggy(address)):
            return None
        found = shard.places.find(address)
        return found[1] + address.value - found[0].first if found else None

    def counts(self, pool: PoolName, family: Family) -> tuple[int, int]:
        """How many addresses of the pool are held, and how many it still has to give."""
        shard = self._shards[pool].by_family.get(family)
        return (shard.taken, shard.size - shard.taken) if shard else (0, 0)

    def _set(self, address: Address, after: tuple[Holder, ...]) -> None:
        for holder in self._holders.get(address, ()):
            if holder.sharing_key and (held := self._sharing.get(holder.sharing_key)) is not None:
                held.discard(address)
                if not held:
                    del self._sharing[holder.sharing_key]
        for holder in after:
            if holder.sharing_key:
                self._sharing.setdefault(holder.sharing_key, set()).add(address)
        if after:
            self._holders[address] = after
        else:
            self._holders.pop(address, None)

    def _mark(self, address: Address, *, taken: bool) -> None:
        found = self._owners.find(address)
        place = self.place(found[1], address) if found else None
        if found is None or place is None:
            return
        shard = self._shards[found[1]].by_family[address.family]
        if taken:
            shard.free.remove(place)
            shard.taken += 1
        else:
            shard.free.add(place, place)
            shard.taken -= 1


def _same_places(before: Pool, after: Pool | None) -> bool:
    return after is not None and (before.ranges, before.avoid_buggy_ips) == (after.ranges, after.avoid_buggy_ips)


def _shards_of(pool: Pool) -> _Shards:
    shards = _Shards(pool)
    for family in Family:
        blocks = [block for block in pool.ranges if block.family is family]
        if not blocks:
            continue
        shard = _Shard(RangeMap(), [], [], pool.size(family), IntervalSet())
        place = 0
        for block in blocks:
            shard.places.add(block, place)
            shard.firsts.append(place)
            shard.values.append(block.first)
            place += block.count
        shard.free.add(0, place - 1)
        shards.by_family[family] = shard
    return shards
