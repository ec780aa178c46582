"""How long the announcer's loop is away from its sockets: its turns, counted by their length.

A turn that lasts is a death to the others, if it lasts long enough; which turns do, only their distribution shows.
"""

from __future__ import annotations

from bisect import bisect_left

BOUNDS_S = (0.001, 0.005, 0.02, 0.1, 0.5)
"""Upper bounds in seconds; turns that are longer than the last are counted apart."""
NO_TURNS = (0,) * (len(BOUNDS_S) + 1)


class Turns:
    """A histogram of seconds."""

    def __init__(self) -> None:
        self._counts = list(NO_TURNS)
        self.seconds = 0.0
        """All turns together."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Turns up to each of the bounds and longer than the one before, and beyond the last."""
        return tuple(self._counts)

    def note(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds
