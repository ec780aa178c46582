"""Links on which we may not know what others hold, and when we do again.

A node that was away — its loop was late, or a link came up or is new — does not know who has taken over meanwhile. The
link is *fenced* (``OwnLinks.fence``): answering is suspended there, peers are asked for their claims, and answering
is resumed after an interval in which somebody was heard and whose claims are known. If nobody is heard: after a stall,
answering is resumed after the detection floor, and without gratuitous frames (the link is *quiet*) until somebody is
heard; after a link came up, not for 40 s, since a switch may still block the port. Claims stay, and are said, all the
while.

A link that came up, or is new, is *listened on*, too: nothing new is claimed there for as long as at a start. And
while a peer is *doubted* that was silent for longer than D and is back (``Link.doubted``), nothing is answered, for
a second at most.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.objects import AddressText
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName
from speaker.protocol.claims import ClaimLog
from speaker.protocol.effects import SendGratuitous
from speaker.protocol.roster import Link, Roster

BEHIND_PATIENCE_S = 1.0  # for peers' claims that are known to exist and do not come


class Fencing:
    """Lifts what ``links`` and ``membership`` have put up, by the time."""

    def __init__(
        self, roster: Roster, log: ClaimLog, links_of: Callable[[AddressText, float], frozenset[LinkName]]
    ) -> None:
        self._roster = roster
        self._log = log
        self._links_of = links_of
        self._looked_at = LONG_AGO

    def lift(self, now: float) -> None:
        """Go on answering, and claiming, where that is due."""
        settings, self._looked_at = self._roster.settings, now
        for name, link in self._roster.links.items():
            since, quiet_since = link.fenced_since, link.quiet_since
            if since is None and quiet_since is not None and self._roster.third_party_since(name, quiet_since):
                link.quiet_since = None
                self._roster.changed = True
            self._end_doubts(link, now)
            if link.listening_until > LONG_AGO and now >= link.listening_until:
                link.listening_until = LONG_AGO
                self._roster.changed = self._roster.speak_now = True
            if since is None or not link.state.up or now < since + settings.interval_s:
                continue
            heard = self._roster.third_party_since(name, since)
            patience = settings.link_silence_s if link.came_up else settings.detection_floor_s
            if heard and self._roster.behind(name, now, BEHIND_PATIENCE_S):
                continue
            if not heard and now < since + patience:
                continue
            link.fenced_since = None
            self._roster.changed = True
            self._roster.speak_now = True
            if heard:
                link.quiet_since = None
            elif quiet_since is None:
                link.quiet_since = now
            resumed = tuple(address for address in self._log.claims if name in self._links_of(address, now))
            if resumed:
                self._roster.report("Resumed", link=name, addresses=len(resumed), heard=int(heard))
                if heard:
                    self._roster.emit(SendGratuitous(resumed))

    def _listening_ends(self) -> float:
        """When we are able to claim on a link that was new."""
        until = (link.listening_until for link in self._roster.links.values() if link.state.up)
        return min((at for at in until if at > LONG_AGO), default=NEVER)

    def _doubts_end(self) -> float:
        """When the claims of a peer that is back have had their time to come."""
        since = (at for link in self._roster.links.values() for at in link.doubted.values())
        return min(since, default=NEVER) + BEHIND_PATIENCE_S

    def _end_doubts(self, link: Link, now: float) -> None:
        for session in [s for s, at in link.doubted.items() if now >= at + BEHIND_PATIENCE_S]:
            del link.doubted[session]
            self._roster.changed = True

    def next_deadline(self) -> float:
        interval_s = self._roster.settings.interval_s
        fenced = [
            since + interval_s
            for link in self._roster.links.values()
            if (since := link.fenced_since) is not None and since + interval_s > self._looked_at
        ]
        return min(self._doubts_end(), self._listening_ends(), *fenced)
