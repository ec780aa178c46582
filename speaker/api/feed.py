"""When the announcer is sent the Plan and its changes, and how much of them at once.

``PlanFeed`` says what to send now (``take``) and when to ask again (``next_deadline``):

1. The whole Plan goes out once, when every cache is synced that it is made of: a Plan made of half of the Services
   would take addresses away.
2. A change after quiet goes out at once, and so do ``AT_ONCE`` in a row; of many more, one goes out each ``SPACING_S``.
   Meanwhile what comes in gathers (``rest_until``), so that a burst becomes a few larger changes.
3. Nothing goes out while the announcer has not read what was sent before: changes gather for as long as it takes.
4. What is large goes out in parts (``parts``), all of them at once.

An API server that is away changes nothing: no object changes, and the last Plan stays. Nothing is sent twice, and
nothing that was sent is taken back; a change that is undone while it gathers is not sent at all. Times are monotonic
seconds.

Example: ten Services are made within 100 ms. The first four changes go out as they come; the others go out in one or
two changes, 50 ms apart.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from speaker.api.configuration import ConfigReader
from speaker.api.planner import Planner
from speaker.channel import WholePlan
from speaker.parts import change_in_parts, plan_in_parts
from speaker.plan import PlanChange

SPACING_S = 0.05  # between two changes of the Plan, where there are many
AT_ONCE = 4  # changes that go out without waiting; one more after each such time

logger = logging.getLogger(__name__)


class PlanFeed:
    """See the module's docstring. ``reads``: the announcer has read all that it was sent."""

    def __init__(self, planner: Planner, configuration: ConfigReader) -> None:
        self._planner = planner
        self._configuration = configuration
        self.begun = False
        """Whether the whole Plan was sent."""
        self._whole_at = 0.0
        """When as many changes may go out at once as ever."""

    def next_deadline(self, *, reads: bool) -> float | None:
        """When a change is to be sent; None: nothing has changed, or it cannot be sent whatever the time."""
        if not self.begun or not reads:
            return None
        if self._planner.pending or self._configuration.touched:
            return self._next_at
        over_at = self._configuration.next_deadline()
        return None if over_at is None else max(over_at, self._next_at)

    def rest_until(self, *, reads: bool) -> float | None:
        """Until when nothing may be sent whatever changes; None: there is no such time."""
        return self._next_at if self.begun and reads else None

    def take(self, now: float, *, synced: bool, reads: bool) -> Sequence[WholePlan | PlanChange] | None:
        """What to send now, after whatever has changed; empty: it changes nothing in the Plan. None: nothing is due.
        ``synced``: every cache is that the Plan is made of."""
        if not self.begun:
            return self._take_plan(now) if synced else None
        due = self.next_deadline(reads=reads)
        return self._take_change(now) if due is not None and now >= due else None

    @property
    def _next_at(self) -> float:
        return self._whole_at - (AT_ONCE - 1) * SPACING_S

    def _take_plan(self, now: float) -> Sequence[WholePlan]:
        self.begun = True
        self._planner.set_config(self._configuration.read(now))
        self._planner.take_change()
        plan = self._planner.plan()
        logger.info("first plan", extra={"revision": plan.revision, "bundles": len(plan.bundles)})
        return list(plan_in_parts(plan))

    def _take_change(self, now: float) -> Sequence[PlanChange]:
        self._planner.set_config(self._configuration.read(now))
        change = self._planner.take_change()
        if change is None:
            return []
        self._whole_at = max(self._whole_at, now) + SPACING_S
        counts = {"changed": len(change.changed), "removed": len(change.removed)}
        logger.info("plan", extra={"revision": change.revision, **counts})
        return list(change_in_parts(change))
