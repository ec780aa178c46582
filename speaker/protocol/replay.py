"""Which datagrams of a session were believed already: a recording of one counts never."""

from __future__ import annotations


class ReplayWindow:
    """Accepts each sequence of one session once, and lets the network reorder within the last 256 (RFC 4303 §3.4.3)."""

    WIDTH = 256

    __slots__ = ("_seen", "newest")

    def __init__(self) -> None:
        self.newest = -1
        self._seen = 0  # bit i: newest - i was accepted

    def accept(self, sequence: int) -> bool:
        ahead = sequence - self.newest
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & ((1 << self.WIDTH) - 1) if ahead < self.WIDTH else 1
            self.newest = sequence
            return True
        if -ahead >= self.WIDTH or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True
