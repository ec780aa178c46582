"""Whose turn it is to be judged: first of those who wait for an address, then of the others, the oldest.

Due is whoever something was observed about; that turn comes in any case. Whoever waits for an address gets a turn when
a pool has something to give, and loses it when nothing is left by then. There may be no time for all turns at once; the
rest keep their place. After a start it is everybody's turn, and whoever comes without an address meanwhile does not
wait for ten thousand who have one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from cluster.objects import PoolName
from cluster.rightful import Age

Rank = tuple[bool, Age]
"""Whether it has an address already, and how old it is."""


class Turns:
    """Services are known by their keys. ``rank_of`` gives a Service's rank, None where it is gone."""

    def __init__(self, rank_of: Callable[[str], Rank | None]) -> None:
        self.freed: set[PoolName] = set()
        """The pools that have had something to give since nobody was left whose turn it was."""
        self._rank_of = rank_of
        self._arrived: set[str] = set()
        self._queue: list[tuple[Rank, str]] = []
        self._queued: set[str] = set()
        self._due: set[str] = set()

    def __len__(self) -> int:
        return len(self._queue) + len(self._arrived)

    def give(self, *keys: str) -> None:
        """These are due."""
        self._arrived.update(keys)

    def offer(self, freed: Iterable[PoolName], waiting: Iterable[str]) -> None:
        """These pools have something to give, for which these may wait."""
        self.freed.update(freed)
        self._line_up(waiting)

    def next(self) -> tuple[str, bool] | None:
        """Whose turn it is next, and whether it is due; None when nobody is left."""
        self._due |= self._arrived
        self._line_up(self._arrived)
        self._arrived.clear()
        if not self._queue:
            self.freed.clear()
            self._due.clear()
            return None
        _, key = heapq.heappop(self._queue)
        self._queued.discard(key)
        due = key in self._due
        self._due.discard(key)
        return key, due

    def _line_up(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key not in self._queued and (rank := self._rank_of(key)) is not None:
                self._queued.add(key)
                heapq.heappush(self._queue, (rank, key))
