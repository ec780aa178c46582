"""How long something took, counted by its length: what the announcer counts and the watcher shows as a histogram."""

from __future__ import annotations

from bisect import bisect_left

from msgspec import Struct

BOUNDS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds in seconds; what took longer than the last is counted apart."""


class Durations(Struct, frozen=True, array_like=True, gc=False):
    """A histogram of seconds."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    """Up to each of the bounds and longer than the one before, and beyond the last."""
    seconds: float = 0.0
    """All together."""

    def with_one(self, seconds: float) -> Durations:
        """The same, and one more."""
        at = bisect_left(BOUNDS_S, seconds)
        return Durations((*self.counts[:at], self.counts[at] + 1, *self.counts[at + 1 :]), self.seconds + seconds)
