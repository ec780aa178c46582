"""Measures how long one peer may be silent on one link before that means something.

Two numbers describe a peer: how late its heartbeats usually come, smoothed as RFC 6298 §2 smooths round trips, and how
much that varies. D is the silence after which the peer may be declared dead: the interval that it announced, plus its
lateness, plus four deviations, within a floor and a ceiling. Loss counts as lateness, so a lossy link makes D longer by
itself. A silence beyond D that turned out to be none doubles D for ten minutes.

``suspicion`` decides what silence means.

Heartbeats that were due and did not come are counted when the next one does: one for each interval. One that is late by
half an interval or more counts as missed.
"""

from __future__ import annotations

from cluster.times import LONG_AGO

SUSPICION_INTERVALS = 2.5
DOUBLED_S = 600.0  # after a false alarm


class Detector:
    """Of one peer on one link. Times in seconds."""

    __slots__ = ("_doubled_until", "_due_at", "deviation", "heartbeats", "interval", "lateness", "missed")

    def __init__(self, interval: float, now: float) -> None:
        self.interval = interval
        """What the peer announced last."""
        self.heartbeats = 0
        """That were heard."""
        self.missed = 0
        """That were not, though they were due."""
        self.lateness = 0.0
        self.deviation = 0.0
        self._due_at = now + interval
        self._doubled_until = LONG_AGO

    def heard(self, interval: float, now: float) -> None:
        """A heartbeat that announces the next one within ``interval``."""
        late = now - self._due_at
        if late > -self.interval / 2:  # one sent early, to answer, says nothing about lateness
            late = max(late, 0.0)
            self.deviation += (abs(late - self.lateness) - self.deviation) / 4
            self.lateness += (late - self.lateness) / 8
            self.missed += int(late / self.interval + 0.5)
        self.heartbeats += 1
        self.skip(interval, now)

    def skip(self, interval: float, now: float) -> None:
        """Expect the next one from now on, without judging the last: the gap was not the peer's fault."""
        self.interval = interval
        self._due_at = now + interval

    def false_alarm(self, now: float) -> None:
        self._doubled_until = now + DOUBLED_S

    def suspicion(self) -> float:
        """Silence that makes the peer a suspect."""
        return SUSPICION_INTERVALS * self.interval

    def detection(self, now: float, floor: float, ceiling: float, own_lateness: float) -> float:
        """D: silence longer than this may be a death. ``own_lateness`` is how late the listener's own loop runs."""
        d = max(self.interval + self.lateness + 4 * self.deviation, floor) + own_lateness
        if now < self._doubled_until:
            d *= 2
        return min(d, max(ceiling, floor))
