"""Pools that were deleted a moment ago, and may be made again at once.

``kubectl replace --force`` deletes an object and makes it anew. Helm and Argo CD do so at each upgrade with a pool that
is a hook. For some milliseconds or seconds there is no such pool.

1. A pool that was deleted protects its Services for ``GRACE_S``: they keep the addresses that they have from it, as
   they do from a pool that cannot be read.
2. It gives out nothing, and what it contained is shared as before. An address that another pool has come to contain is
   that pool's.
3. A controller that starts meanwhile knows such pools only by the Services' annotations. Each pool that one of them
   names and that is not there counts as deleted at that moment.
"""

from __future__ import annotations

from cluster.addresses import Range
from cluster.config import GRACE_S, Config
from cluster.objects import PoolName


class DepartedPools:
    """See the module's docstring. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[PoolName, float | None] = {}
        """None: since a moment ago, the time is not known yet."""
        self._ranges: dict[PoolName, tuple[Range, ...]] = {}
        """Of the IPAddressPools among them, as far as they were in force here."""

    @property
    def names(self) -> frozenset[PoolName]:
        return frozenset(self._until)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What the IPAddressPools among them contained, as far as that is known."""
        return tuple(block for blocks in self._ranges.values() for block in blocks)

    def configured(self, before: Config, after: Config) -> None:
        """The configuration changed: what is not in it any more departs, what is in it again is there."""
        there = after.pool_names
        for name in before.pool_names - there:
            self._until[name] = None
            if name in before.pools:
                self._ranges[name] = before.pools[name].ranges
        for name in there & self._until.keys():
            self._forget(name)

    def named(self, name: PoolName, config: Config) -> None:
        """At the start: a Service's annotation names this pool. It departs if it is not there."""
        if name and name not in config.pool_names:
            self._until[name] = None

    def expire(self, now: float) -> bool:
        """Forget the pools whose time is over; says whether there were any. The time of those that departed since the
        last call begins now."""
        self._until = {name: now + GRACE_S if until is None else until for name, until in self._until.items()}
        over = [name for name, until in self._until.items() if until is not None and until <= now]
        for name in over:
            self._forget(name)
        return bool(over)

    def _forget(self, name: PoolName) -> None:
        del self._until[name]
        self._ranges.pop(name, None)

    def next_deadline(self) -> float | None:
        """When ``expire`` has something to do. After ``configured`` and ``named`` it is to be called at once."""
        return min((until for until in self._until.values() if until is not None), default=None)
