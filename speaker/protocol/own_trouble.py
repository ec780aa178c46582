"""Trouble of one's own: the loop is late, or behind with reading what came, or on a link the kernel does not take
heartbeats, or has thrown frames away that were for us.

What follows for the others is decided elsewhere (``roster``, ``suspicion``): nobody is declared dead, or D grows. Here
it is said, as a decision: as it begins, and once in ``REPEAT_S`` while it lasts or happens again, so that whoever reads
it knows that it is so still, and a network that refuses ten frames a second does not fill the log.
"""

from __future__ import annotations

from speaker.link import LinkName
from speaker.protocol.roster import Roster

LATENESS_HALF_LIFE_S = 1.0
FULL_QUEUE_S = 0.5
"""What is added to D when frames were lost here: some heartbeats of each peer, for the time of a full queue. It is also
the most that is added for what has not been read."""
REPEAT_S = 60.0
"""Seconds until the same is said again of the same link."""


class OwnTrouble:
    """Times are those of the protocol."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._refused: dict[LinkName, str] = {}
        """Links whose heartbeats the kernel does not take, and why."""
        self._said: dict[tuple[str, LinkName], float] = {}
        """When each was said last; of links that there are."""

    def late(self, seconds: float, passed: float) -> None:
        """The loop was late by so many seconds, and so many have passed since it was asked last. Lateness fades."""
        fading = 0.5 ** (passed / LATENESS_HALF_LIFE_S)
        self._roster.own_lateness = max(seconds, self._roster.own_lateness * fading)

    def behind(self, seconds: float) -> None:
        """What arrived in the last so many seconds may not have been read. It counts as lateness, and fades like it."""
        self._roster.own_lateness = max(self._roster.own_lateness, min(seconds, FULL_QUEUE_S))

    def cannot_send(self, link: LinkName, error: str, now: float) -> None:
        """The kernel takes no heartbeats for this link, until ``can_send``."""
        self._refused[link] = error
        self._report("CannotSend", link, now, error=error)

    def can_send(self, link: LinkName) -> None:
        self._refused.pop(link, None)

    def frames_lost(self, link: LinkName, now: float) -> None:
        """Frames for us were dropped before they were read."""
        self.behind(FULL_QUEUE_S)
        self._report("ReceiveOverflow", link, now)

    def repeat(self, now: float) -> None:
        """Say again what lasts. To be called now and then."""
        for link, error in list(self._refused.items()):
            if link in self._roster.links:
                self._report("CannotSend", link, now, error=error)
            else:
                del self._refused[link]

    def _report(self, reason: str, link: LinkName, now: float, **fields: str) -> None:
        said_at = self._said.get((reason, link))
        if said_at is not None and now - said_at < REPEAT_S:
            return
        self._said = {told: at for told, at in self._said.items() if told[1] in self._roster.links}
        self._said[reason, link] = now
        self._roster.report(reason, link=link, **fields)
