"""Ends this speaker so that nothing moves: another speaker stands in for it until the node's next one is there.

1. The speaker names a stand-in in its heartbeats: one that is able on each link on which this one answers for anything,
   and speaks the families that it takes there. It claims nothing new, and goes on answering for everything.
2. It has its stand-in when that says on each of these links that it stands in for this session, with all its claims.
   Whom this one stands in for itself, the other has to stand in for, too. From then on both answer, and say the same.
3. The speaker says three times, within 60 ms, that it ends now and that another one stands in for it. Then it ends.

A stand-in that has not said so after 300 ms is replaced by the next one. Where nobody is heard who can stand in now or
soon, or nobody has after two seconds, the addresses are released, and other nodes claim them. Both times are longer by
1 ms for each address, since a stand-in says it when it answers for all of them.

Who stands in is decided by a hash of both nodes' names, so that many that restart at once name many.

Not promised: that an address stays which a speaker of a release without this skill could hold: such a one would not
count the claims of a session that is not heard. As long as one is heard, addresses are released.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from cluster.addresses import Family, family_of
from cluster.objects import NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName
from speaker.protocol.absences import Absences
from speaker.protocol.claims import ClaimLog
from speaker.protocol.heartbeat import STANDS_IN
from speaker.protocol.peers import Peer
from speaker.protocol.roster import Roster
from speaker.protocol.sessions import Sessions
from speaker.protocol.settings import RestartMode
from speaker.protocol.standing import Standing
from speaker.protocol.standing_in import StandIns

PATIENCE_S = 0.3  # for one that was named
LONGEST_S = 2.0  # in all
MORE_S = 0.001  # of both, for each address


class End(enum.Enum):
    """How a speaker ends."""

    NAMES = enum.auto()
    """It waits for a stand-in."""
    STOOD_IN = enum.auto()
    """It has one."""
    RELEASES = enum.auto()
    """It has none."""


class Restarting:
    """Sans-IO; emits ``Decision``. ``answered_on`` says on which links anything is answered for in this node's name."""

    def __init__(
        self,
        session: int,
        roster: Roster,
        log: ClaimLog,
        *,
        sessions: Sessions,
        absences: Absences,
        stand_ins: StandIns,
        answered_on: Callable[[], frozenset[LinkName]],
    ) -> None:
        self.stand_in = 0
        """The session that is to stand in; 0: none."""
        self._session = session
        self._roster = roster
        self._log = log
        self._sessions = sessions
        self._absences = absences
        self._stand_ins = stand_ins
        self._answered_on = answered_on
        self._links: frozenset[LinkName] = frozenset()
        self._families: frozenset[Family] = frozenset()
        """Of the addresses that this node holds."""
        self._tried: set[int] = set()
        self._until = self._ends_at = NEVER

    @property
    def active(self) -> bool:
        """Whether a stand-in is waited for."""
        return self._ends_at < NEVER

    def next_deadline(self) -> float:
        return self._until

    def begin(self, now: float) -> End:
        """This speaker is to end."""
        self._links = self._answered_on()
        self._families = frozenset(map(family_of, self._log.claims))
        self._ends_at = now + LONGEST_S + self._more()
        return self.review(now)

    def review(self, now: float) -> End:
        """How things are now."""
        roster = self._roster
        if not self._may_name():
            return self._over(End.RELEASES)
        for peer in roster.peers.values():
            if self._stands_in(peer):
                self.stand_in = peer.session
                roster.report("Restarts", stand_in=peer.node, addresses=len(self._log.claims))
                return self._over(End.STOOD_IN)
        if now >= self._ends_at:
            return self._over(End.RELEASES)
        named = self._sessions.peer(self.stand_in)
        if now < self._until and named is not None and self._could(named):
            return End.NAMES
        candidate = self._next()
        if candidate is None and not self._may_be_able():
            return self._over(End.RELEASES)
        if candidate is None:
            self._until = self._ends_at
            return End.NAMES
        self._tried.add(candidate.session)
        self.stand_in, self._until = candidate.session, min(now + PATIENCE_S + self._more(), self._ends_at)
        return End.NAMES

    def _over(self, end: End) -> End:
        self._until = self._ends_at = NEVER
        if end is End.RELEASES:
            self.stand_in = 0
        return end

    def _may_name(self) -> bool:
        """Whether there is anything to stand in for, and everybody would know what it means."""
        roster = self._roster
        return (
            roster.settings.restart_mode is RestartMode.STAND_IN
            and bool(self._log.claims or self._stand_ins)
            and bool(self._links or not self._log.claims)
            and roster.all_have(STANDS_IN)
        )

    def _more(self) -> float:
        return MORE_S * len(self._log.claims)

    def _next(self) -> Peer | None:
        """The next to be named; those that were are named again when all have been."""
        peers = (self._roster.peers.get(node) for node in self._order())
        could = [peer for peer in peers if peer is not None and self._could(peer)]
        fresh = [peer for peer in could if peer.session not in self._tried]
        if not fresh:
            self._tried.clear()
            fresh = could
        return fresh[0] if fresh else None

    def _order(self) -> list[NodeName]:
        links = self._links or frozenset(self._roster.links)
        orders = [self._absences.order(self._roster.node, link, self._needed(link), LONG_AGO) for link in sorted(links)]
        return list(dict.fromkeys(node for order in orders for node in order))

    def _could(self, peer: Peer) -> bool:
        """Whether a peer is able wherever this node answers for anything."""
        links = self._links_of(peer)
        return (
            not peer.restarting
            and bool(links)
            and all(
                self._lives_on(peer, link)
                and (sighting := peer.sightings[link]).standing is Standing.ALIVE
                and sighting.able_since is not None
                for link in links
            )
        )

    def _may_be_able(self) -> bool:
        """Whether somebody is heard who could stand in later: one that has just started, or that a late loop fenced."""
        return any(
            not peer.stand_in and all(self._lives_on(peer, link) for link in links)
            for peer in self._roster.peers.values()
            if (links := self._links_of(peer))
        )

    def _links_of(self, peer: Peer) -> frozenset[LinkName]:
        """Where the peer has to stand in: where this node answers for anything, or else wherever it was heard."""
        return self._links or frozenset(peer.sightings)

    def _lives_on(self, peer: Peer, link: LinkName) -> bool:
        """Whether it does, and speaks there what who stands in has to."""
        sighting = peer.sightings.get(link)
        return (
            sighting is not None and sighting.standing is not Standing.DEAD and self._needed(link) <= sighting.families
        )

    def _needed(self, link: LinkName) -> frozenset[Family]:
        """The families that who stands in has to speak on the link."""
        here = self._roster.links.get(link)
        return here.state.families & self._families if here is not None else self._families

    def _stands_in(self, peer: Peer) -> bool:
        """Whether it says everywhere that it stands in for this session and all that this one stands in for."""
        log = self._log
        for link in self._links:
            said = self._absences.said_of(self._session, link, peer.session)
            if said is None or (said.version, said.digest) != (log.version, log.digest):
                return False
        return all(
            self._absences.said_of(session, link, peer.session) is not None
            for session, links in self._stand_ins.sessions()
            for link in links
        ) and bool(self._links or self._stand_ins)
