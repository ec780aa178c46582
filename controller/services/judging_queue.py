"""The queue of the Services that are to be judged: first those that wait for an address, then the others, oldest first.

1. A Service is due (``add``) when something was observed that concerns it. It is judged in any case.
2. A Service that waits for an address is offered (``offer``) what a pool has to give. By the time that it is first in
   the queue others may have taken it; then it is passed over.
3. ``pop`` gives the next one. There may be no time for all of them at once; the rest keep their places.

A Service is in the queue once, whatever happens to it meanwhile. Its place is that of its rank when it entered.

Example: after a start ten thousand Services are due. One that comes without an address meanwhile is judged next, since
those that have one can wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from cluster.objects import PoolName
from cluster.rightful import Age

Rank = tuple[bool, Age]
"""Whether it has an address already, and how old it is."""


class JudgingQueue:
    """Services are known by their keys. ``rank_of`` gives a Service's rank, None where it is gone."""

    def __init__(self, rank_of: Callable[[str], Rank | None]) -> None:
        self.freed: set[PoolName] = set()
        """The pools that have been offered since the queue was last empty."""
        self._rank_of = rank_of
        self._arrived: set[str] = set()
        self._heap: list[tuple[Rank, str]] = []
        self._queued: set[str] = set()
        self._due: set[str] = set()

    def __len__(self) -> int:
        return len(self._heap) + len(self._arrived)

    def add(self, *keys: str) -> None:
        """Put these into the queue, as due."""
        self._arrived.update(keys)

    def offer(self, freed: Iterable[PoolName], waiting: Iterable[str]) -> None:
        """These pools have something to give, for which these may wait."""
        self.freed.update(freed)
        self._enqueue(waiting)

    def pop(self) -> tuple[str, bool] | None:
        """The next Service, and whether it is due; None: the queue is empty."""
        self._due |= self._arrived
        self._enqueue(self._arrived)
        self._arrived.clear()
        if not self._heap:
            self.freed.clear()
            self._due.clear()
            return None
        _, key = heapq.heappop(self._heap)
        self._queued.discard(key)
        due = key in self._due
        self._due.discard(key)
        return key, due

    def _enqueue(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key not in self._queued and (rank := self._rank_of(key)) is not None:
                self._queued.add(key)
                heapq.heappush(self._heap, (rank, key))
