"""Says whose a datagram is: one node, one session, one machine.

A peer is a node with one session. Another session of the same node counts only once one of its heartbeats names *this
node's* present session, which no recording from before can do. What the former session has said never counts again;
neither does what it says later, if both come from one place. What the former session claims goes on counting while
another speaker stands in for it (``absences``).

**Two machines with one name.** Another session waits while the former one lives in another place. The machine that was
there first stays the peer, unless it says that it yields.

**Two machines with our name.** The one that is able stays; of two such the one with the lower session. The other one
yields: it answers for nothing until its twin has been silent for five seconds. Both say so (``DuplicateNode``).

**Bounds**, also against a member that has the key: 1,024 nodes, 1,024 sessions that have not named ours.
"""

from __future__ import annotations

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO
from speaker.link import LinkName, Mac
from speaker.protocol.absences import Absences
from speaker.protocol.crowd import MAX_PEERS
from speaker.protocol.datagram import Drop, Envelope, HeartbeatError
from speaker.protocol.heartbeat import Flag, Heartbeat, how_heard
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import News
from speaker.protocol.peers import Peer, Pending
from speaker.protocol.replay import ReplayWindow
from speaker.protocol.roster import Roster
from speaker.protocol.sessions import FOREVER, Sessions
from speaker.protocol.standing import Standing

MAX_PENDING = 1024
PENDING_S = 5.0  # an unconfirmed session not heard for longer is forgotten
TWIN_S = 5.0  # of silence, until a node that has our name is believed to be gone
ABLE, YIELDS = int(Flag.ABLE), int(Flag.YIELDS)


class Identity:
    """Admits sessions to the roster, and removes them."""

    def __init__(
        self, session: int, roster: Roster, *, sessions: Sessions, mirrors: Mirrors, absences: Absences
    ) -> None:
        self.session = session
        """Our own."""
        self._roster = roster
        self._sessions = sessions
        self._mirrors = mirrors
        self._absences = absences
        self._duplicate_reported_at = LONG_AGO
        self._yields_until = LONG_AGO

    def introduce(
        self, link: LinkName, source: AddressText, envelope: Envelope, message: Heartbeat, now: float
    ) -> tuple[Peer | None, News]:
        """Take a session that is not known. It is a peer from now on if it names ours, and its node has no other that
        lives; until then it waits."""
        news = News()
        session = envelope.session
        pending = self._roster.pending.get(session)
        if pending is None:
            self._forget_pending(now)
            if len(self._roster.pending) >= MAX_PENDING:
                raise HeartbeatError(Drop.TABLE_FULL)
            away = self._absences.peer(session)
            window = away.window if away is not None else ReplayWindow()
            pending = Pending(NodeName(message.node), window, link, source, Mac(message.mac), now, now)
            self._roster.pending[session] = pending
            news.speak = True
        if not pending.window.accept(envelope.sequence):
            raise HeartbeatError(Drop.REPLAYED)
        pending.link, pending.address, pending.heard_at = link, source, now
        names_us = how_heard(message.heard, self.session) is not None
        if not names_us:
            news.speak = True
            return None, news
        if pending.node == self._roster.node:
            self._meet_twin(session, pending, message, now)
            news.changed = True
            return None, news
        former, away = self._roster.peers.get(pending.node), self._absences.peer(session)
        if away is not None and former is None and away.node == pending.node:
            del self._roster.pending[session]
            return away, self._absences.revoke(away, link, now)
        if former is not None and self._lives_elsewhere(former, pending, now, yields=bool(message.flags & YIELDS)):
            return None, news
        if former is None and len(self._roster.peers) >= MAX_PEERS:
            news.add(self._make_room(now))
        del self._roster.pending[session]
        if former is not None:
            elsewhere = not any(sighting.is_at(source, Mac(message.mac)) for sighting in former.sightings.values())
            if not elsewhere and self._absences.may_begin(former, now):
                news.add(self._absences.begin(former, "new session", now, ended=True))
            else:
                news.add(self.remove(former, now, retire_at=former.window.newest if elsewhere else FOREVER))
                self._roster.report("PeerDead", node=former.node, proof="new session")
        peer = Peer(pending.node, session, pending.window)
        self._sessions.add(peer)
        return peer, news

    def remove(self, peer: Peer, now: float, retire_at: int = FOREVER) -> News:
        """Its session's datagrams up to this sequence never count again."""
        self._sessions.remove(peer)
        self._sessions.forget_macs(peer)
        self._sessions.retire(peer.session, retire_at)
        self._mirrors.trust(peer)
        news = self._mirrors.forget(peer, f"death of {peer.node}")
        news.changed, news.look_at = True, now
        return news

    def yields(self, now: float) -> bool:
        """Whether another machine with our name is there, and it is ours to be silent."""
        return now < self._yields_until

    def _lives_elsewhere(self, former: Peer, pending: Pending, now: float, *, yields: bool) -> bool:
        """Whether a node's former session may still be another machine's: it comes from another place, and is not
        known to be dead, nor the one of the two that yields. Silence alone does not say that it is dead: what blocks
        its datagrams leaves its answers. Where nobody is declared dead, since we cannot send, silence is all there
        is."""
        if any(sighting.is_at(pending.address, pending.mac) for sighting in former.sightings.values()):
            return False
        heard = [
            sighting
            for link, sighting in former.sightings.items()
            if sighting.standing is not Standing.DEAD
            and sighting.heard_at > LONG_AGO
            and (self._roster.judges(link) or now - sighting.heard_at < sighting.detector.suspicion())
        ]
        return bool(heard) and (yields or not any(sighting.yields for sighting in heard))

    def _meet_twin(self, session: int, twin: Pending, message: Heartbeat, now: float) -> None:
        """Another machine has our name. One of the two is able and stays; if both are, the one of the lower session.
        Able is who says so, on both sides. Nobody yields to one that says that it yields itself."""
        able, own = bool(message.flags & ABLE), self._roster.able and self._roster.links[twin.link].open(now)
        if message.flags & YIELDS:
            stays = not self.yields(now) or self.session < session
        else:
            stays = (not own, self.session) < (not able, session)
        if not stays:
            self._yields_until = now + TWIN_S
        elif message.flags & YIELDS:
            self._yields_until = LONG_AGO
        if now - self._duplicate_reported_at > self._roster.settings.defence_gap_s:
            self._duplicate_reported_at = now
            self._roster.report(
                "DuplicateNode",
                node=twin.node,
                link=twin.link,
                address=twin.address,
                mac=twin.mac.hex(":"),
                yields=int(self.yields(now)),
            )

    def _forget_pending(self, now: float) -> None:
        pending = self._roster.pending
        for session in [session for session, other in pending.items() if now - other.heard_at > PENDING_S]:
            del pending[session]

    def _make_room(self, now: float) -> News:
        """Remove a peer that is dead on all links. Raises ``HeartbeatError`` where there is none."""
        for peer in self._roster.peers.values():
            if all(sighting.standing is Standing.DEAD for sighting in peer.sightings.values()):
                return self.remove(peer, now, retire_at=peer.window.newest)
        raise HeartbeatError(Drop.TABLE_FULL)
