"""The API requests about Services: one at a time of each, no more often than allowed, and again after a failure.

A request that may not be sent now is not kept, since something else may be right by then. The Service is judged again
when the time has come (``take_due``).
"""

from __future__ import annotations

import random
from typing import Any

from cluster.resources import SERVICES, Resource
from controller.changes import Change, EventNote, Moment, Patch, Read, Tell, Write
from controller.retry import CONFLICTS_AT_ONCE, retry_delay
from controller.services.alarms import Alarms
from controller.services.pace import ADDRESSES, WORDS
from controller.services.tracked import Tracked


class ApiRequests:
    """See the module's docstring. One thread only."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._alarms = Alarms()
        self._made: list[Change | Tell] = []

    def take(self) -> list[Change | Tell]:
        """What is to be carried out since the last call, in order."""
        made, self._made = self._made, []
        return made

    # -------------------------------------------------------------------- what is wanted

    def read(self, tracked: Tracked, resource: Resource[Any]) -> None:
        meta = tracked.view.metadata
        tracked.in_flight = True
        self._made.append(Read(resource, meta.namespace, meta.name, meta.uid))

    def tell(self, tracked: Tracked, notes: tuple[EventNote, ...]) -> None:
        self._made.append(Tell(notes, tracked.view.metadata))

    def write(self, tracked: Tracked, patch: Patch, decision: str, notes: tuple[EventNote, ...], now: Moment) -> bool:
        """Patch the Service, if it may be written already; says whether it is done."""
        body, subresource = patch
        if not self._may_write(tracked, now.monotonic, addresses="loadBalancer" in body.get("status", ())):
            return False
        tracked.in_flight = True
        meta = tracked.view.metadata
        self._made.append(
            Write(
                SERVICES,
                meta.namespace,
                meta.name,
                body,
                decision,
                uid=meta.uid,
                subresource=subresource,
                events=notes,
                about=meta,
            )
        )
        return True

    def _may_write(self, tracked: Tracked, now: float, *, addresses: bool) -> bool:
        """Whether the Service's allowance has a write left, which is then spent."""
        rate = ADDRESSES if addresses else WORDS
        whole_at = tracked.addresses_whole_at if addresses else tracked.words_whole_at
        if now < (opens := rate.opens(whole_at)):
            self.wake(tracked, opens)
            return False
        if addresses:
            tracked.addresses_whole_at = rate.spent(whole_at, now)
        else:
            tracked.words_whole_at = rate.spent(whole_at, now)
        return True

    # -------------------------------------------------------------------- what became of it

    def answered(self, tracked: Tracked) -> None:
        self._ended(tracked)
        tracked.attempts = 0

    def superseded(self, tracked: Tracked, attempts: int, now: Moment) -> None:
        """Somebody else wrote first, and has done so ``attempts`` times in a row before. From ``CONFLICTS_AT_ONCE`` on
        the next request waits."""
        tracked.attempts = attempts + 1
        if tracked.attempts > CONFLICTS_AT_ONCE:
            self._retry_later(tracked, 0.0, now)

    def failed(self, tracked: Tracked, retry_after: float, now: Moment) -> None:
        self._ended(tracked)
        tracked.attempts += 1
        self._retry_later(tracked, retry_after, now)

    def _ended(self, tracked: Tracked) -> None:
        tracked.in_flight = tracked.overtaken = False
        tracked.decided = None

    def _retry_later(self, tracked: Tracked, retry_after: float, now: Moment) -> None:
        tracked.retry_at = now.monotonic + retry_delay(tracked.attempts, retry_after, self._rng)
        self.wake(tracked, tracked.retry_at)

    # -------------------------------------------------------------------- when

    def may_ask(self, tracked: Tracked) -> bool:
        """Whether something may be asked about it now."""
        return not tracked.in_flight and tracked.retry_at is None

    def wake(self, tracked: Tracked, at: float | None) -> None:
        """Have the Service judged then though nothing is observed, if it is not judged before; None: do not."""
        self._alarms.set(tracked.view.key, at)

    def due(self, tracked: Tracked, now: Moment) -> None:
        """The moment of this Service has come."""
        if tracked.retry_at is not None and tracked.retry_at <= now.monotonic:
            tracked.retry_at = None

    def take_due(self, now: Moment) -> list[str]:
        """Those whose moment has come."""
        return self._alarms.due(now.monotonic)

    def next_deadline(self) -> float | None:
        """The first of these moments, in monotonic seconds."""
        return self._alarms.next()
