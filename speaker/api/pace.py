"""How fast a speaker writes what only people read: status objects and their Events.

All speakers share an API server with the controller, and with the users who wait for an address. So ``Pace`` spreads
the writes:

1. A few go out at once: an allowance of ``BURST``, of which one grows back each ``REFILL_S``. What changes now and then
   is on record immediately.
2. Beyond it each write is followed by a rest of ``REST`` times what it took. A server that has much to do answers
   later, and is asked less often.
3. While Services are being given addresses (one was seen without, or got its first, within ``QUIET_S``) only the
   allowance is used. What has waited for ``HOLD_S`` goes out all the same, with rests of ``CROWDED_REST`` times.

A write is late by ``HOLD_S`` at most, and by what waits before it.

Example: a node takes over 1,000 Services from one that died. Ten status objects are written at once, and the others one
after the other: each takes 5 ms and is followed by 10 ms of rest, so the last is written after some 15 s.
"""

from __future__ import annotations

BURST = 10
REFILL_S = 1.0
REST = 2.0
CROWDED_REST = 8.0
QUIET_S = 2.0
HOLD_S = 60.0


class Pace:
    """When the next write may begin. Time in monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._whole_at = now
        """When the allowance is whole again, if nothing more is written."""
        self._ended_at = now
        self._took_s = 0.0
        """The last write."""
        self._crowded_until = now

    def crowd(self, now: float) -> None:
        """Somebody waits for an address, or did until now."""
        self._crowded_until = now + QUIET_S

    def wrote(self, began: float, ended: float) -> None:
        """A write is over, whatever came of it."""
        self._whole_at = min(max(self._whole_at, began) + REFILL_S, ended + BURST * REFILL_S)
        self._ended_at, self._took_s = ended, ended - began

    def next_at(self, waiting_since: float, now: float) -> float:
        """When the next write may begin, of which the oldest waits since then: ``now`` or later."""
        allowed_at = self._whole_at - (BURST - 1) * REFILL_S
        rested_at = self._ended_at + REST * self._took_s
        if now < self._crowded_until:
            slowly_at = max(waiting_since + HOLD_S, self._ended_at + CROWDED_REST * self._took_s)
            rested_at = max(rested_at, min(self._crowded_until, slowly_at))
        return max(now, min(allowed_at, rested_at))
