"""Two times that no clock shows, in seconds of whatever clock they are compared with, and waits that double."""

from __future__ import annotations

NEVER = float("inf")
"""A time that will not come."""
LONG_AGO = float("-inf")
"""A time before all times."""

MOST_DOUBLINGS = 64
"""Beyond every longest wait; a float holds no thousand of them."""


def doubled(first_s: float, times: int, longest_s: float) -> float:
    """A wait of ``first_s`` seconds that has doubled so many times, and is never longer than ``longest_s``."""
    return min(first_s * 2.0 ** min(times, MOST_DOUBLINGS), longest_s)
