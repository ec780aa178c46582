"""Which of many failures to log: the first of its kind at once, then one a minute with how many there were.

A network that takes no frame fails ten times a second and more. A log that says each of them says nothing any more.
"""

from __future__ import annotations

from collections.abc import Hashable

from cluster.times import LONG_AGO

SAY_AGAIN_S = 60.0
MAX_KINDS = 256
"""Kinds that are remembered; the one not said for longest is forgotten, and is new when it comes again."""


class Failures:
    """Failures by kind. A kind is any value; each gets lines of its own."""

    def __init__(self) -> None:
        self._said: dict[Hashable, tuple[float, int]] = {}
        """When each was said last, and how many came since. In the order of the former."""

    def note(self, kind: Hashable, now: float) -> int:
        """One more. How many to say now, with this one: none, if that has time."""
        said_at, since = self._said.get(kind, (LONG_AGO, 0))
        if now < said_at + SAY_AGAIN_S:
            self._said[kind] = said_at, since + 1
            return 0
        self._said.pop(kind, None)
        self._said[kind] = now, 0
        if len(self._said) > MAX_KINDS:
            del self._said[next(iter(self._said))]
        return since + 1
