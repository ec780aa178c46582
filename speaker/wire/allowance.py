"""How many of something a rate allows now: a token bucket, without a clock."""

from __future__ import annotations


class Allowance:
    """``per_second`` of something, and ``most`` at once."""

    def __init__(self, per_second: float, most: float, now: float = 0.0) -> None:
        self._per_second = per_second
        self._most = most
        self._left = most
        self._at = now

    def take(self, count: int, now: float) -> bool:
        """Whether so many are allowed now; if so, they are taken."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < count:
            return False
        self._left -= count
        return True

    def ready_at(self, count: int) -> float:
        """When so many are allowed."""
        return self._at + max(0.0, count - self._left) / self._per_second
