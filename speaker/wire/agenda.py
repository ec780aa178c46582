"""When the announcer's loop has something to do, and what it owes before it does it: a core without a clock.

There are two timers. The *protocol's* is kept apart, because the protocol judges who is silent: whatever has arrived is
read first, or our own delay would be taken for another's silence. The *rest* is everything else: gratuitous frames,
news for the watcher, filters, housekeeping.

A pass of the loop that begins late by half the detection floor is told so (docs/protocol.md, rule 9): others may have
taken over by then.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.times import NEVER
from speaker.wire.gratuitous import SLACK_S

LOOK_AGAIN_S = 0.002
"""Seconds after which more may have arrived than the selector told of."""
JUDGING_LATE_S = 0.05
"""For so long the protocol waits until all that has arrived is read; a flood must not hold it off for longer."""
HOUSEKEEPING_S = 1.0
"""Seconds between statistics, and between attempts at what failed (a socket on an interface)."""
FAREWELL_S = 20.0
"""Seconds in which, after SIGTERM, another speaker must have been found that stands in, or the releases must have been
said (three times)."""


class Agenda:
    """Times are CLOCK_BOOTTIME seconds."""

    def __init__(self, late_s: float, now: float) -> None:
        self._late_s = late_s
        self._protocol_at = NEVER
        self._rest_at = now
        self._housekeeping_at = now
        self._ends_at = NEVER

    # ---------------------------------------------------------------- what there is to do

    def set_protocol(self, deadline: float | None, now: float) -> None:
        """When the protocol has something to do; ``None``: never. What is due already (``LONG_AGO``: at once; or what
        had to wait for something else) is owed since this was first said, until the protocol has judged (`judged`):
        it is no sign that the loop was away."""
        if deadline is None:
            self._protocol_at = NEVER
        else:
            self._protocol_at = deadline if deadline > now else min(self._protocol_at, now)

    def judged(self) -> None:
        """The protocol has done what it had to do by now."""
        self._protocol_at = NEVER

    def rest_now(self) -> None:
        """Something of the rest may have to be done earlier than was known: look in this pass."""
        self._rest_at = 0.0

    def set_rest(self, moments: Iterable[float | None], now: float) -> None:
        """All of the rest was looked at, and is due again at the earliest of these. What has been due for longer had to
        wait for something else (a watcher), and is owed from now on: it is no sign that the loop was away."""
        soonest = min((self._housekeeping_at, self._ends_at, *(at for at in moments if at is not None)))
        self._rest_at = max(soonest, now)

    def end_soon(self, now: float) -> bool:
        """Say goodbye and end; whether this is news."""
        if self.ending:
            return False
        self._ends_at = now + FAREWELL_S
        return True

    # ---------------------------------------------------------------- what is due

    def deadline(self) -> float:
        """When the next pass begins, if nothing comes in before."""
        return min(self._protocol_at, self._rest_at)

    def lateness(self, began: float) -> float:
        """Seconds by which a pass began after its time, where that is too late to know any more who holds what; 0
        otherwise."""
        late = began - self.deadline()
        return late if late > self._late_s else 0.0

    def protocol_is_due(self, now: float) -> bool:
        return now >= self._protocol_at

    def must_read_first(self, looked_at: float, unread: bool, now: float) -> bool:
        """Whether there may be something that tells of peers and that the pass, which looked for it at ``looked_at``,
        has not read."""
        return unread or now > looked_at + LOOK_AGAIN_S

    def may_judge(self, unread: bool, now: float) -> bool:
        """Whether the protocol may judge who is silent: all was read, or that takes too long."""
        return not unread or now >= self._protocol_at + JUDGING_LATE_S

    def rest_is_due(self, now: float) -> bool:
        """A loop that is awake a little before the time need not be woken again for it."""
        return now >= self._rest_at - SLACK_S

    def take_housekeeping(self, now: float) -> bool:
        """Whether the house is to be kept now; the next time is a second later."""
        if now < self._housekeeping_at - SLACK_S:
            return False
        self._housekeeping_at = now + HOUSEKEEPING_S
        return True

    @property
    def ending(self) -> bool:
        return self._ends_at < NEVER

    def is_over(self, released: bool, now: float) -> bool:
        """Whether the loop may end: it was asked to, and all is ``released`` or the time for that is up."""
        return self.ending and (released or now >= self._ends_at)
