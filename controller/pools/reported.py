"""One object on which the controller reports: what it wrote there last, and when it may write again. Pure.

1. At most one request about it is under way.
2. After a failure, and after conflicts in a row, it waits (``retry``).
3. What an API server dropped is not written again: the object is as the last write left it, and does not say so.
4. What somebody else keeps replacing is written again after ``AGAIN_S``, twice as long each time.

Times are monotonic seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from cluster.node_pools import NodeIPPool
from cluster.objects import ConfigurationState, IPAddressPool, L2Advertisement
from cluster.resources import Resource
from cluster.times import LONG_AGO
from controller.changes import Change, Write
from controller.retry import CONFLICTS_AT_ONCE, retry_delay

AGAIN_S = (1.0, 300.0)
"""Seconds until the same is said once more on an object where somebody else replaces it: at first, and at most."""
CALM_S = 3600.0
"""After so long the next time is the first again."""

Configured = IPAddressPool | NodeIPPool | L2Advertisement
View = Configured | ConfigurationState


@dataclass(slots=True)
class Reported:
    """See the module's docstring."""

    resource: Resource[Any]
    name: str
    view: View | None = None
    known: bool = True
    """Whether ``view`` is what the API has; a ConfigurationState is read once, not watched."""
    counters_not_before: float = 0.0
    """When its counters may be written again."""
    _in_flight: bool = False
    _attempts: int = 0
    _not_before: float = 0.0
    """After a failure."""
    _said: dict[str, Any] | None = None
    """The status of the last write …"""
    _said_at: str = ""
    """… and the ``resourceVersion`` that the object had after it."""
    _sent: float = LONG_AGO
    """When the last write was decided."""
    _again_s: float = AGAIN_S[0]
    """How long after it the same may be said once more."""

    def opens(self, change: Change) -> float | None:
        """From when on the change may be sent; None: not as things stand."""
        if self._in_flight:
            return None
        if not isinstance(change, Write) or _words(change) != self._said:
            return self._not_before
        if self.view is not None and self.view.metadata.resource_version == self._said_at:
            return None  # the server dropped it
        return max(self._not_before, self._sent + self._again_s)  # somebody else replaced it

    def sent(self, change: Change, now: float) -> None:
        if isinstance(change, Write):
            again = _words(change) == self._said and now - self._sent < CALM_S
            self._again_s = min(2 * self._again_s, AGAIN_S[1]) if again else AGAIN_S[0]
            self._sent = now
        self._in_flight = True

    def answered(self, change: Change, view: View | None) -> None:
        """The change was made; the object as it is now, or None where it is gone."""
        self._in_flight, self._attempts = False, 0
        if isinstance(change, Write) and view is not None:
            self._said, self._said_at = _words(change), view.metadata.resource_version

    def superseded(self, now: float, rng: random.Random) -> None:
        """Somebody else wrote first."""
        self._in_flight = False
        self._attempts += 1
        if self._attempts > CONFLICTS_AT_ONCE:
            self._not_before = now + retry_delay(self._attempts, 0.0, rng)

    def failed(self, retry_after: float, now: float, rng: random.Random) -> None:
        """The change could not be made."""
        self._in_flight = False
        self._attempts += 1
        self._not_before = now + retry_delay(self._attempts, retry_after, rng)


def _words(change: Write) -> dict[str, Any]:
    """What a write says, whenever it says it."""
    status = dict(change.body.get("status", {}))
    conditions = status.pop("conditions", [])
    return status | {each["type"]: each | {"lastTransitionTime": None} for each in conditions}
