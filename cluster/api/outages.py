"""What the log says while the API cannot be listed or watched: when it begins, what goes on, and when it is over.

A process copies up to nine kinds, and each is asked for again and again. If each failure were a line, an API server
that is away for an hour would be a thousand lines, and the one that says why would be lost among them. So the kinds say
it together:

1. the first failure at once, and another one where it fails in another way;
2. what fails after ten seconds, and then every five minutes, all kinds in one line;
3. when everything works again, after how long.

Where the API comes and goes, at most ``LINES`` lines are written at once and one in ten seconds from then on. The next
line counts what was left out. Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from cluster.api.errors import ApiError, Unreachable

GATHER_S = 10.0
REMIND_S = 300.0
LINES = 6
PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """For the log."""

    text: str
    extra: dict[str, Any]
    over: bool = False
    """That it works again."""


@dataclass(slots=True)
class _Outage:
    since: float
    say_at: float
    errors: set[str] = field(default_factory=set)
    """What was said of why."""
    kinds: set[str] = field(default_factory=set)
    """What has failed since then."""
    failures: int = 0


class Outages:
    """See the module's docstring. One thread at a time."""

    def __init__(self) -> None:
        self._failing: dict[Hashable, str] = {}
        self._outage: _Outage | None = None
        self._full_at = 0.0
        """When as many lines may be written at once as ever."""
        self._left_out = 0

    def failed(self, who: Hashable, kind: str, error: ApiError | str, now: float) -> Line | None:
        """A request of ``who``, which follows ``kind``, has failed."""
        self._failing[who] = kind
        outage = self._outage = self._outage or _Outage(now, now + GATHER_S)
        outage.kinds.add(kind)
        outage.failures += 1
        why = _why(error)
        if why in outage.errors and now < outage.say_at:
            return None
        kinds = sorted(set(self._failing.values())) if why in outage.errors else [kind]
        seconds = round(now - outage.since, 1)
        extra = {"resources": kinds, "error": str(error), "failures": outage.failures, "seconds": seconds}
        line = self._line(Line("list or watch failed", extra), now)
        if line is not None:
            if why in outage.errors:
                outage.say_at = now + REMIND_S
            outage.errors.add(why)
        return line

    def works(self, who: Hashable, now: float) -> Line | None:
        """``who`` is told of changes, or has nothing to be told of."""
        self._failing.pop(who, None)
        if self._failing or (outage := self._outage) is None:
            return None
        extra = {"resources": sorted(outage.kinds), "seconds": round(now - outage.since, 1)}
        line = self._line(Line("lists and watches work again", extra, over=True), now)
        if line is not None:
            self._outage = None
        return line

    def _line(self, line: Line, now: float) -> Line | None:
        """None: there were too many. What it would have said is said when something is next told."""
        if self._full_at > now + (LINES - 1) * PAUSE_S:
            self._left_out += 1
            return None
        self._full_at = max(self._full_at, now) + PAUSE_S
        if self._left_out:
            line.extra["left_out"], self._left_out = self._left_out, 0
        return line


def _why(error: ApiError | str) -> str:
    """Errors of one cause are alike."""
    if isinstance(error, Unreachable):
        return "unreachable"
    return f"{error.status} {error.reason}" if isinstance(error, ApiError) else error
