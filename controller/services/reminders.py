"""A Service that waits is told again why, before the Event that says so is forgotten.

``kubectl describe`` shows Events, and no conditions of a Service. The API server forgets an Event after an hour. So a
Service that still waits then is told once more, with the reason that is right by then: once in ``AGAIN_S``, however
many wait.

After a start it is not known when they were told last. They are told within ``FIRST_S``, so that a start by itself
writes nothing.
"""

from __future__ import annotations

import random

from controller.services.alarms import Alarms

AGAIN_S = 3300.0
"""kube-apiserver keeps Events for an hour (``--event-ttl``)."""
FIRST_S = 600.0


class Reminders:
    """Services are known by their keys. Times are monotonic seconds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._alarms = Alarms()
        self._waiting: set[str] = set()

    def waits(self, key: str, now: float, *, told: bool) -> None:
        """It has no address, or not the one that it asks for. ``told``: an Event says so now."""
        if told or key not in self._waiting:
            within = AGAIN_S if told else FIRST_S
            self._alarms.set(key, now + within * self._rng.uniform(0.8, 1.0))  # not all at the same moment
            self._waiting.add(key)

    def forget(self, key: str) -> None:
        """It has what it needs, or is gone."""
        if key in self._waiting:
            self._waiting.discard(key)
            self._alarms.set(key, None)

    def due(self, now: float) -> list[str]:
        """The Services that are to be told again now. Each is to be told, or forgotten."""
        return self._alarms.due(now)
