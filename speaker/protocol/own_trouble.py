"""Trouble of one's own on a link: the kernel does not take heartbeats, or has thrown frames away that were for us.

What follows for the others is decided elsewhere (``roster``, ``suspicion``): nobody is declared dead, or D grows. Here
it is said, as a decision: as it begins, and once in ``REPEAT_S`` while it lasts or happens again, so that whoever reads
it knows that it is so still, and a network that refuses ten frames a second does not fill the log.
"""

from __future__ import annotations

from speaker.link import LinkName
from speaker.protocol.roster import Roster

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

    def cannot_send(self, link: LinkName, error: str, now: float) -> None:
        """The kernel takes no heartbeats for this link, until ``can_send``."""
        self._refused[link] = error
        self._report("CannotSend", link, now, error=error)

    def can_send(self, link: LinkName) -> None:
        self._refused.pop(link, None)

    def frames_lost(self, link: LinkName, now: float) -> None:
        """Frames for us were dropped before they were read."""
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
