"""Sessions that are not heard any more, while their nodes' kernels live: their claims count on, as all others see it.

A speaker that restarts holds what it held: its node goes on forwarding, and its next session claims the same again at
the same epochs. Meanwhile another speaker *stands in* for the session: it answers for its addresses with the node's MAC
(``standing_in``), and says so in each heartbeat. The session is *absent*. A session becomes absent when

- it says that it ends and who stands in for it;
- a new session of the node is heard from the same place before the former one was taken for dead;
- its node's kernel refuses a datagram and leaves a question for an address unanswered, but answers for the node's own
  address: the process ended without a word;
- it is suspected or dead, and another speaker says that it stands in for it.

While it is absent its claims count on each link on which somebody stands in for it, or should. It is able to nothing.
On a link on which nobody could stand in for it when that began, not even one that it named, it is dead.

**Who stands in.** Where nobody does, or the stand-in dies, the speakers that could come in an order that is the same
for all of them: by a hash of both nodes' names. One could whose kernel speaks on the link each family that the session
has addresses of and speaks there. The first asks the node's kernel for the node's own address, and stands in if that
answers; each next one waits for 100 ms more. Two that stand in do no harm, since their answers are the same. If nobody
has stood in after half a second, the session is dead there.

**The end.** The absence ends on a link when nobody stands in there any more, and the last one who did lives: then the
node is dead, or its new session holds everything. If claims of the new session are not known here yet, those of the
former one count on for a second at most. A datagram of the session itself ends the absence, too: it lives.

**Bounds**, also against a member that has the key: 64 absences. A session that is heard is not absent, whoever says so,
unless it said so itself. It is not heard where this node was away and has not heard it since. What a member says of a
session that was never heard counts only where its node is not heard.

Not promised: that a dead node is not stood in for where a switch answers ARP in its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from hashlib import blake2b

from cluster.addresses import Family, family_of
from cluster.objects import NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName, Mac
from speaker.protocol.detector import Detector
from speaker.protocol.effects import AskAddress
from speaker.protocol.heartbeat import STANDS_IN, StoodIn, unpack_address, unpack_families
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import NO_NEWS, News
from speaker.protocol.peers import Absence, Peer, Sighting, claims_of
from speaker.protocol.replay import ReplayWindow
from speaker.protocol.roster import Roster
from speaker.protocol.sessions import FOREVER, Sessions
from speaker.protocol.settings import RestartMode
from speaker.protocol.standing import Standing

MAX_ABSENCES = 64
NOBODY_S = 0.5  # without anybody who stands in, until the session is dead
KNOWN_S = 1.0  # for the claims of the node's new session to be known
TURN_S = 0.1  # of each speaker that could stand in, before the next one does
ASKING = 4  # of those that could, who ask the node's kernel
ASK_GAP_S = 0.05


class Absences:
    """Keeps the roster's absences. Sans-IO; emits ``AskAddress`` and ``Decision``."""

    def __init__(self, session: int, roster: Roster, sessions: Sessions, mirrors: Mirrors) -> None:
        self._session = session
        """Our own."""
        self._roster = roster
        self._sessions = sessions
        self._mirrors = mirrors
        self._said: dict[tuple[LinkName, int], dict[int, StoodIn]] = {}
        """By link and speaker, whom it says to stand in for."""
        self._asked_at: dict[NodeName, float] = {}
        self._look_at = NEVER

    # ------------------------------------------------------------------------------------------------ questions

    def peer(self, session: int) -> Peer | None:
        """The absent session."""
        absent = (each.peer for each in self._roster.absences.values())
        return next((peer for peer in absent if peer.session == session), None)

    def _all(self) -> list[Absence]:
        return list(self._roster.absences.values())

    def of(self, node: NodeName) -> Absence | None:
        return self._roster.absences.get(node)

    def said_of(self, session: int, link: LinkName, by: int) -> StoodIn | None:
        """What a speaker says on the link of a session that it stands in for."""
        return self._said.get((link, by), {}).get(session)

    def spoken_for(self, session: int, by: int) -> Peer | None:
        """The absent session, if a speaker stands in for it."""
        peer = self.peer(session)
        return peer if peer is not None and self._roster.absences[peer.node].links_of(by) else None

    def stood_in_by(self, session: int) -> list[tuple[Peer, list[LinkName]]]:
        """The absent sessions that a speaker stands in for, and where."""
        return [(absence.peer, links) for absence in self._all() if (links := absence.links_of(session))]

    def order_of(self, peer: Peer, link: LinkName, now: float) -> list[NodeName]:
        """The nodes whose speakers could stand in for a peer on a link on which it was heard, the first first."""
        return self.order(peer.node, link, needed(peer, link), now)

    def order(self, node: NodeName, link: LinkName, families: Set[Family], now: float) -> list[NodeName]:
        """The nodes whose speakers could stand in for one of another node on a link, for addresses of these families,
        the first first."""
        roster = self._roster
        able = [
            peer.node
            for peer, sighting in roster.on(link)
            if sighting.standing is Standing.ALIVE
            and sighting.able_since is not None
            and peer.skills & STANDS_IN
            and not peer.restarting
            and families <= sighting.families
        ]
        if self._can_stand_in(link, now) and self.speaks(link, families):
            able.append(roster.node)
        others = (each for each in able if each != node)
        return sorted(others, key=lambda each: blake2b(f"{node} {each}".encode(), digest_size=8).digest())

    def may_begin(self, peer: Peer, now: float) -> bool:
        """Whether somebody could stand in for a peer somewhere, and all others would know what that means."""
        roster = self._roster
        return (
            bool(peer.skills & STANDS_IN)
            and bool(peer.mirror.claims or not peer.mirror.in_step)
            and not peer.ignored
            and roster.settings.restart_mode is RestartMode.STAND_IN
            and roster.all_have(STANDS_IN)
            and peer.node not in roster.absences
            and len(roster.absences) < MAX_ABSENCES
            and any(self._could_be_stood_in_for(peer, link, now) for link in peer.sightings)
        )

    def _could_be_stood_in_for(self, peer: Peer, link: LinkName, now: float) -> bool:
        """Whether somebody could: one that is known here to be able, or the one that the peer named."""
        if peer.sightings[link].standing is Standing.DEAD:
            return False
        named = peer.stand_in == self._session or self._lives(peer.stand_in, link)
        return named or bool(self.order_of(peer, link, now))

    def speaks(self, link: LinkName, families: Set[Family]) -> bool:
        """Whether this node's kernel speaks these families on the link."""
        here = self._roster.links.get(link)
        return here is not None and families <= here.state.families

    def _can_stand_in(self, link: LinkName, now: float) -> bool:
        here = self._roster.links.get(link)
        mode = self._roster.settings.restart_mode
        return self._roster.able and mode is RestartMode.STAND_IN and here is not None and here.open(now)

    # ------------------------------------------------------------------------------------------------ beginning

    def begin(self, peer: Peer, why: str, now: float, *, ended: bool = False) -> News:
        """The session of a peer is absent from now on; ``ended``: for good, so that nothing of it counts again."""
        self._sessions.remove(peer)
        if ended:
            self._sessions.retire(peer.session)
        absence = self._roster.absences[peer.node] = Absence(peer, now)
        news = News(changed=True)
        for link, sighting in peer.sightings.items():
            sighting.able_since, sighting.starting = None, False
            if self._could_be_stood_in_for(peer, link, now):
                sighting.standing = Standing.ALIVE
            elif sighting.standing is not Standing.DEAD:
                sighting.standing = Standing.DEAD
                news.claims = claims_of(peer, f"death of {peer.node}")
        peer.restarting, peer.stand_in = False, 0
        for (link, by), said in self._said.items():
            if peer.session in said and link in peer.sightings:
                absence.on(link).note_stand_in(by)
                news.add(self._count_on(peer, peer.sightings[link]))
        self._roster.report("PeerAway", node=peer.node, why=why)
        self._look_at = now
        return news

    def heard(self, link: LinkName, by: int, entries: Iterable[StoodIn], now: float) -> News:
        """A speaker, perhaps this one, says whom it stands in for on the link."""
        before, said = self._said.get((link, by), {}), {entry.session: entry for entry in entries}
        if not before and not said:
            return NO_NEWS
        news = News()
        if said:
            if not before:
                speaking = {self._session, *(peer.session for peer in self._roster.peers.values())}
                self._said = {key: each for key, each in self._said.items() if key[1] in speaking}
            self._said[link, by] = said
        elif before:
            del self._said[link, by]
        for entry in said.values():
            news.add(self._take(entry, link, by, now))
        for session in before.keys() - said.keys():
            absence = self._roster.absences.get(NodeName(before[session].node))
            if absence is not None and absence.peer.session == session:
                news.add(self._stop(absence, link, by, now))
        return news

    def _take(self, entry: StoodIn, link: LinkName, by: int, now: float) -> News:
        news = News()
        absence = self._absence_of(entry, now, news)
        if absence is None:
            return news
        peer = absence.peer
        sighting = peer.sightings.get(link)
        if sighting is None:
            addresses = tuple(map(unpack_address, entry.addresses))
            mac = Mac(entry.mac)
            sighting = Sighting(
                addresses[0], mac, Detector(self._roster.settings.interval_s, now), now, LinkName(entry.link)
            )
            sighting.other_address = addresses[1] if len(addresses) > 1 else None
            sighting.families = unpack_families(entry.families)
            peer.sightings[link] = sighting
            self._roster.by_mac[mac] = peer.node
        absence.on(link).note_stand_in(by)
        news.add(self._count_on(peer, sighting))
        news.changed |= self._mirrors.note(peer, entry.version, entry.digest, now)
        return news

    def _count_on(self, peer: Peer, sighting: Sighting) -> News:
        """The claims of an absent session count where it was heard so."""
        if sighting.standing is not Standing.DEAD:
            return NO_NEWS
        sighting.standing = Standing.ALIVE
        return News(changed=True, claims=claims_of(peer, f"absence of {peer.node}"))

    def _absence_of(self, entry: StoodIn, now: float, news: News) -> Absence | None:
        """The absence that a speaker tells of, if that may be so."""
        roster, node = self._roster, NodeName(entry.node)
        absence = roster.absences.get(node)
        if absence is not None and absence.peer.session == entry.session:
            return absence
        if entry.session == self._session or len(roster.absences) >= MAX_ABSENCES:
            return None
        peer = roster.peers.get(node)
        if peer is not None and peer.session == entry.session:
            if absence is not None or self._is_heard(peer):
                return None
            news.add(self.begin(peer, "stood in for", now))
            return roster.absences[node]
        if absence is not None or self._holds_already(peer, node):
            return None
        absent = Peer(node, entry.session, ReplayWindow(), skills=STANDS_IN)
        absence = roster.absences[node] = Absence(absent, now)
        roster.report("PeerAway", node=node, why="stood in for")
        return absence

    def _is_heard(self, peer: Peer) -> bool:
        """Whether the peer is heard somewhere: since this node was away itself, where it was."""
        for link, sighting in peer.sightings.items():
            here = self._roster.links.get(link)
            away = here is not None and here.fencing.suspended and sighting.heard_at < here.fencing.since
            if sighting.standing is Standing.ALIVE and not away:
                return True
        return False

    def _holds_already(self, peer: Peer | None, node: NodeName) -> bool:
        """Whether the node's present session, this one perhaps, claims by itself."""
        if node == self._roster.node:
            return False
        able = peer is not None and any(
            each.standing is Standing.ALIVE and each.able_since is not None for each in peer.sightings.values()
        )
        return able and peer is not None and not peer.restarting

    # ------------------------------------------------------------------------------------------------ in time

    def look(self, at: float) -> None:
        self._look_at = min(self._look_at, at)

    def next_deadline(self) -> float:
        return self._look_at

    def review(self, now: float) -> News:
        """See who stands in for whom by now, ask the kernels of those for whom nobody does, and end what is over."""
        self._look_at = NEVER
        if not self._roster.absences:
            return NO_NEWS
        news = News()
        for absence in self._all():
            if news_of_links := self._forget_links(absence):
                news.add(news_of_links)
                continue
            for link, sighting in list(absence.peer.sightings.items()):
                if sighting.standing is not Standing.DEAD:
                    news.add(self._review_link(absence, link, now))
            if absence.orphaned() and absence.peer.node in self._roster.absences:
                self._ask_kernel(absence, now)
        return news

    def _forget_links(self, absence: Absence) -> News | None:
        """Forget what is known of links that this node has no more, or by other names; and the session, if it was known
        by none that is left."""
        for link in absence.links.keys() - absence.peer.sightings.keys():
            del absence.links[link]
        return None if absence.peer.sightings else self._remove(absence.peer, f"loss of links to {absence.peer.node}")

    def _review_link(self, absence: Absence, link: LinkName, now: float) -> News:
        here = absence.on(link)
        for session in [each for each in here.by if each != self._session and not self._lives(each, link)]:
            del here.by[session]
            self._said.pop((link, session), None)
        if here.over_at < NEVER:
            successor = self._roster.peers.get(absence.peer.node)
            if now >= here.over_at or successor is None or successor.behind_since is None:
                return self._end_on(absence, link, now)
            self.look(here.over_at)
        elif not here.by:
            here.orphaned_since = min(here.orphaned_since, now)
            if now >= here.orphaned_since + NOBODY_S:
                return self._end_on(absence, link, now)
            self.look(here.orphaned_since + NOBODY_S)
        return News()

    def _lives(self, session: int, link: LinkName) -> bool:
        peer = self._sessions.peer(session)
        sighting = peer.sightings.get(link) if peer is not None else None
        return sighting is not None and sighting.standing is not Standing.DEAD

    def _ask_kernel(self, absence: Absence, now: float) -> None:
        """Ask the node's kernel for its own address, if it may soon be this node's turn to stand in."""
        peer = absence.peer
        self.look(now + ASK_GAP_S)
        if now < self._asked_at.get(peer.node, LONG_AGO) + ASK_GAP_S or peer.node == self._roster.node:
            return
        self._asked_at = {node: at for node, at in self._asked_at.items() if node in self._roster.absences}
        self._asked_at[peer.node] = now
        for link, _ in absence.orphaned():
            if link in self._roster.links and self._roster.node in self.order_of(peer, link, now)[:ASKING]:
                ask_kernel(self._roster, peer.sightings[link], link)

    def mine(self, now: float) -> list[tuple[Peer, LinkName]]:
        """The sessions for which it is this node's turn to stand in, and where."""
        found = []
        fresh = now - self._roster.settings.detection_floor_s
        for absence in self._roster.absences.values():
            peer = absence.peer
            for link, since in absence.orphaned() if peer.node != self._roster.node else ():
                order = self.order_of(peer, link, now) if link in self._roster.links else []
                if self._roster.node not in order or peer.sightings[link].kernel_at < fresh:
                    continue
                due = since + order.index(self._roster.node) * TURN_S
                if now >= due:
                    found.append((peer, link))
                self.look(due if due > now else now + ASK_GAP_S)
        return found

    # ------------------------------------------------------------------------------------------------ ending

    def revoke(self, peer: Peer, link: LinkName, now: float) -> News:
        """The session is heard: it is a peer again."""
        del self._roster.absences[peer.node]
        self._sessions.add(peer)
        self._roster.report("PeerAlive", node=peer.node, link=link)
        return News(changed=True, look_at=now, claims=claims_of(peer, f"return of {peer.node}"))

    def _stop(self, absence: Absence, link: LinkName, by: int, now: float) -> News:
        """Who stood in on the link does so no more."""
        here = absence.links.get(link)
        if here is None or by not in here.by:
            return News()
        del here.by[by]
        if link not in absence.peer.sightings:  # this node has it no more
            return News()
        if not here.by:
            here.over_at = now + KNOWN_S
        self.look(now)
        return self._review_link(absence, link, now)

    def _end_on(self, absence: Absence, link: LinkName, now: float) -> News:
        """Nobody stands in for the session there any more."""
        peer = absence.peer
        absence.links.pop(link, None)
        if link in peer.sightings:  # it is not, where the link has gone
            peer.sightings[link].standing = Standing.DEAD
        why = f"death of {peer.node}"
        news = News(changed=True, claims=claims_of(peer, why))
        returned = peer.node == self._roster.node or peer.node in self._roster.peers
        if returned:
            self._roster.report("PeerBack", node=peer.node, link=link, away_ms=int((now - absence.since) * 1000))
        else:
            self._roster.report("PeerDead", node=peer.node, link=link, proof="nobody stands in for it")
        if all(each.standing is Standing.DEAD for each in peer.sightings.values()):
            news.add(self._remove(peer, why))
        return news

    def _remove(self, peer: Peer, why: str) -> News:
        """The session is absent nowhere any more."""
        del self._roster.absences[peer.node]
        news = self._mirrors.forget(peer, why)
        news.changed = True
        self._mirrors.trust(peer)
        if not self._sessions.is_retired(peer.session, FOREVER):
            self._sessions.retire(peer.session, peer.window.newest)
        if peer.node != self._roster.node and peer.node not in self._roster.peers:
            self._sessions.forget_macs(peer)
        return news


def needed(peer: Peer, link: LinkName) -> frozenset[Family]:
    """The families that who stands in for the peer has to speak on the link: those of its addresses, if they are known,
    that it speaks there itself."""
    spoken = peer.sightings[link].families
    return spoken & peer.mirror.families if peer.mirror.in_step else spoken


def ask_kernel(roster: Roster, sighting: Sighting, link: LinkName) -> None:
    """Ask a node's kernel alone for the node's own address on the link, in each family in which it was heard."""
    families = roster.links[link].state.families
    for address, mac in sighting.contacts:
        if family_of(address) in families:
            roster.emit(AskAddress(link, address, mac))
