"""How long the announcer's loop is away from its sockets: its passes, counted by their length.

A pass that lasts long enough is a death to the other speakers. Their distribution shows whether any does; an average
would hide it.
"""

from __future__ import annotations

from bisect import bisect_left

BOUNDS_S = (0.001, 0.005, 0.02, 0.1, 0.5)
"""Upper bounds in seconds; passes that are longer than the last are counted apart."""
NO_PASSES = (0,) * (len(BOUNDS_S) + 1)


class Passes:
    """A histogram of seconds."""

    def __init__(self) -> None:
        self._counts = list(NO_PASSES)
        self.seconds = 0.0
        """All passes together."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Passes up to each of the bounds and longer than the one before, and beyond the last."""
        return tuple(self._counts)

    def note(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds
