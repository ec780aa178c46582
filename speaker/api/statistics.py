"""What the announcer said of itself last, and the ARP traffic by address that it has told of so far.

The announcer tells its statistics each second; of the addresses it names those that had traffic since the time before,
so they are added up here. An address that is held no more is forgotten. Any thread may read. The time of a pass of the
announcer's loop is CLOCK_BOOTTIME, as its own is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cluster.objects import AddressText
from speaker.channel import Stats

LOOP_AGE_LIMIT_S = 5.0
"""The announcer tells its statistics each second; five that are missing are no health."""


class Totals(NamedTuple):
    answered: Mapping[AddressText, int]
    """Requests that got a Reply."""
    gratuitous: Mapping[AddressText, int]
    """Gratuitous frames sent."""


class Statistics:
    """See the module's docstring. ``now`` is when the watcher began."""

    def __init__(self, now: float) -> None:
        self.latest: Stats | None = None
        self._loop_at = now
        self._answered: dict[AddressText, int] = {}
        self._gratuitous: dict[AddressText, int] = {}

    def add(self, stats: Stats) -> None:
        self.latest = stats
        self._loop_at = stats.loop_at
        for totals, lately in ((self._answered, stats.answered), (self._gratuitous, stats.gratuitous)):
            for address, count in lately.items():
                totals[address] = totals.get(address, 0) + count

    def forget(self, address: AddressText) -> None:
        self._answered.pop(address, None)
        self._gratuitous.pop(address, None)

    def heard(self, now: float) -> None:
        """The announcer has said anything at all."""
        if self.latest is None:
            self._loop_at = now

    def totals(self) -> Totals:
        """As of now."""
        return Totals(self._answered.copy(), self._gratuitous.copy())

    def loop_age(self, now: float) -> float:
        """Seconds since the announcer's last pass, as far as it was told of; before, since anything was heard of it."""
        return max(0.0, now - self._loop_at)

    def stall(self, now: float) -> str | None:
        """Why the announcer's loop is not healthy; None: it turns."""
        age = self.loop_age(now)
        return f"the announcer's last loop was {age:.1f} s ago" if age > LOOP_AGE_LIMIT_S else None
