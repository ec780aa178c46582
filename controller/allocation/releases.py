"""Which address a Service had before it was deleted: it gets the same one when it is created again.

1. When a Service is deleted its addresses are remembered under its name, the latest of each pool, a bounded number.
2. The list stands in the pool's status (``recentReleases``), and is read from there at a start.
3. A Service of that name prefers what it had. Other Services prefer addresses that are remembered for nobody; where
   there are no others they get those too.
4. A Service that shows an address is remembered no more.

Not promised: the address, once the pool has nothing else to give. What is released while no controller runs is not
remembered.

Example: ``default/web`` had 192.0.2.4 and is deleted. Ten new Services get the ten lowest of the other free addresses;
then ``default/web`` is created, and gets 192.0.2.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace

from cluster.addresses import Address, AddressError, parse_address
from cluster.config import Pool
from cluster.objects import PoolName, RecentRelease
from controller.allocation.ledger import Ledger
from controller.changes import Moment


@dataclass(frozen=True, slots=True)
class RememberedRelease:
    service: str
    """``namespace/name``."""
    addresses: tuple[Address, ...]
    time: str = ""
    """RFC 3339; empty until ``stamp``."""


class Releases:
    """At most ``limit`` of each pool. One thread only; keeps the ledger's ``give_last`` up to date."""

    def __init__(self, ledger: Ledger, limit: int) -> None:
        self._ledger = ledger
        self._limit = limit
        self._pools: dict[PoolName, dict[str, RememberedRelease]] = {}
        """By pool and Service, the oldest first."""
        self._pool_of: dict[str, PoolName] = {}
        self._remembered: Counter[Address] = Counter()
        self._unstamped: list[tuple[PoolName, str]] = []

    def former(self, service: str) -> tuple[Address, ...]:
        """What the Service had; empty where nothing is remembered."""
        pool = self._pool_of.get(service)
        return self._pools[pool][service].addresses if pool is not None else ()

    def of(self, pool: PoolName) -> list[RememberedRelease]:
        """What is remembered of a pool, the newest first."""
        return list(reversed(self._pools.get(pool, {}).values()))

    def remember(self, pool: PoolName, service: str, addresses: tuple[Address, ...]) -> None:
        """The Service is gone, and had these addresses of the pool. Of each family the first is remembered."""
        first = {address.family: address for address in reversed(addresses)}
        self._add(
            pool,
            RememberedRelease(service, tuple(address for address in addresses if first.get(address.family) == address)),
        )
        self._unstamped.append((pool, service))

    def forget(self, service: str) -> None:
        """The Service has an address again."""
        pool = self._pool_of.pop(service, None)
        if pool is None:
            return
        for address in self._pools[pool].pop(service).addresses:
            self._remembered[address] -= 1
            if not self._remembered[address]:
                del self._remembered[address]
                self._ledger.give_last(address, last=False)

    def stamp(self, now: Moment) -> None:
        """Give the time to what was remembered since the last call."""
        for pool, service in self._unstamped:
            if (release := self._pools.get(pool, {}).get(service)) is not None and not release.time:
                self._pools[pool][service] = replace(release, time=now.text)
        self._unstamped.clear()

    def restore(self, recorded: Iterable[RecentRelease], pool_of: Callable[[Address], Pool | None]) -> None:
        """Take in the list of a pool's status, the newest first. What cannot be read, or is in no pool, is left out."""
        for each in reversed(list(recorded)):
            try:
                addresses = tuple(parse_address(text) for text in each.addresses)
            except AddressError:
                continue
            pool = pool_of(addresses[0]) if addresses else None
            if pool is not None and "/" in each.service:
                self._add(pool.name, RememberedRelease(each.service, addresses, each.time))

    def regroup(self, pool_of: Callable[[Address], Pool | None], departed: Container[PoolName] = ()) -> None:
        """The pools are other ones now: a release belongs to the pool that its first address is in. Those of pools that
        may come back (``departed``) stay with them."""
        everything = [release for releases in self._pools.values() for release in releases.values()]
        for release in everything:
            pool = pool_of(release.addresses[0])
            if pool is None:
                if self._pool_of[release.service] not in departed:
                    self.forget(release.service)
            elif pool.name != self._pool_of[release.service]:
                self._add(pool.name, release)

    def _add(self, pool: PoolName, release: RememberedRelease) -> None:
        self.forget(release.service)
        if not self._limit:
            return
        releases = self._pools.setdefault(pool, {})
        if len(releases) >= self._limit:
            self.forget(next(iter(releases)))
        releases[release.service] = release
        self._pool_of[release.service] = pool
        for address in release.addresses:
            self._remembered[address] += 1
            self._ledger.give_last(address, last=True)
