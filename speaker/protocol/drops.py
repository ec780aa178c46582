"""Counts the datagrams that are dropped, and reports those of somebody who may be one of us and is not understood.

Everybody on the LAN can send such datagrams. So one sender is reported once in ten minutes, and 64 are remembered.
"""

from __future__ import annotations

from cluster.objects import AddressText
from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.protocol.datagram import Drop, HeartbeatError
from speaker.protocol.roster import Roster

STRANGE = {
    Drop.NONSENSE: "MemberNonsense",
    Drop.OTHER_VERSION: "OtherVersion",
    Drop.UNKNOWN_FEATURE: "OtherVersion",
}
"""What is not understood of somebody who may be one of us, and what is reported."""
STRANGE_GAP_S = 600.0  # between two decisions about one sender
MAX_STRANGE = 64  # senders remembered


class Drops:
    """Emits ``Decision``."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._counters: dict[str, int] = {}
        self._strange: dict[AddressText, float] = {}

    def note(self, link: LinkName, source: AddressText, error: HeartbeatError, now: float) -> None:
        """A datagram was dropped."""
        self._count(f"heartbeats_dropped:{error.reason.value}")
        if error.reason in STRANGE and now - self._strange.get(source, LONG_AGO) >= STRANGE_GAP_S:
            self._strange = {who: at for who, at in self._strange.items() if now - at < STRANGE_GAP_S}
            if len(self._strange) < MAX_STRANGE:
                self._strange[source] = now
                self._roster.report(STRANGE[error.reason], link=link, address=source, what=str(error))

    def counters(self) -> dict[str, int]:
        """By reason."""
        return dict(self._counters)

    def _count(self, name: str) -> None:
        self._counters[name] = self._counters.get(name, 0) + 1
