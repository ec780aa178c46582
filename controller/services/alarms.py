"""When a Service is to be judged again though nothing is observed: after a failure, a pause, a contest.

One moment for each Service, the latest that was set. To set one and to find those that are due costs the same with one
Service and with ten thousand.
"""

from __future__ import annotations

import heapq


class Alarms:
    """Services are known by their keys, times are monotonic seconds."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        """With what was set once and is not so any more."""

    def set(self, key: str, at: float | None) -> None:
        """Wake this Service then, instead of when it was set before; None: not at all."""
        if self._at.get(key) == at:
            return
        if at is None:
            del self._at[key]
        else:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + 16:
            self._heap = [(at, key) for key, at in self._at.items()]
            heapq.heapify(self._heap)

    def at(self, key: str) -> float | None:
        """When this Service is woken."""
        return self._at.get(key)

    def next(self) -> float | None:
        """When the first is due."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[str]:
        """Those whose moment has come. They are not woken again."""
        woken = []
        while (first := self.next()) is not None and first <= now:
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            woken.append(key)
        return woken
