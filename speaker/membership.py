"""Who else is there: peers, whether they live, what they claim; and whether we can hear at all.

**Identity.** A peer is a node with one session. Another session of the same node counts only once it names our present
session; then the former one is retired and never counts again. So a recording cannot bring anybody back.

**Life.** Each (peer, link) pair is a *sighting*: alive, suspected or dead there. Any believed heartbeat is a sign of
life, except from a peer that hears nobody while we hear others: it cannot be asked for anything, so it does not count.

**Suspicion** is silence of 2.5 announced intervals, or to ignore two questions about another suspect. It is said in the
next heartbeat, at once; the suspect is asked by unicast, and an address that it holds is asked for by ARP; both again
after 50 ms, and each 100 ms while it lasts. Who hears a suspicion says at once when it last heard the suspect.

**Death** needs all of: nobody who answers has heard the suspect for longer than D; the suspect's MAC did not answer
for its address; every peer has answered or ignored two questions; and a frame from a third party since the suspicion,
which proves that we can hear. Third parties are the other peers not known to be dead, the gateway and the last eight
neighbours, each if heard in the last five minutes. Where there is none, carrier is the proof. A datagram refused by the
suspect's kernel and one unanswered ARP question are a death at once.

**Isolation** is a suspicion without that proof: then we may be the ones who are cut off, and claim nothing.

**Several links.** Liveness is per link; a peer's claims are taken from any link. A peer counts for an address while it
is alive on any of the links where the address may be answered. A link that is down declares nobody dead.

Every table has a bound: 256 nodes, 256 unconfirmed sessions, 4,096 retired ones, eight neighbours per link, and the
claims of ``ClaimMirror``.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cluster.objects import AddressText, NodeName
from speaker.claims import ClaimMirror
from speaker.detector import SUSPICION_INTERVALS, Detector
from speaker.effects import ArpSeen, AskAddress, Effect, LinkState, Mac, Report
from speaker.heartbeat import (
    ClaimPart,
    Drop,
    Envelope,
    Flag,
    Heard,
    Heartbeat,
    HeartbeatError,
    ReplayWindow,
    unpack_heard,
)
from speaker.plan import LinkName
from speaker.settings import Settings

MAX_PEERS = 256
MAX_PENDING = 256
MAX_RETIRED = 4096
NEIGHBOURS = 8
PENDING_S = 5.0  # an unconfirmed session not heard for longer is forgotten
SLOW_QUESTIONS_S = 3.0  # a suspicion older than this is asked about once a second
NEVER = float("-inf")


class Standing(enum.Enum):
    ALIVE = "alive"
    SUSPECTED = "suspected"
    DEAD = "dead"


@dataclass(slots=True)
class Suspicion:
    since: float
    ask_next: float
    questions: int = 0
    address: AddressText | None = None
    """Held by the suspect, asked for by ARP."""
    address_asked_at: float = float("inf")
    told_at: float = NEVER
    """The latest time at which a peer says that it heard the suspect."""
    served_at: float = NEVER
    """The suspect's MAC last answered for an address that it holds."""
    refused_at: float = NEVER
    """Its kernel refused a datagram."""


@dataclass(slots=True)
class Sighting:
    """One peer on one link."""

    address: AddressText
    mac: Mac
    detector: Detector
    heard_at: float
    """Last believed datagram."""
    life_at: float = NEVER
    """Last sign of life."""
    able_since: float | None = None
    starting: bool = False
    hears_us_at: float = NEVER
    """When it last heard us on this link, as it says."""
    prefixes: tuple[str, ...] = ()
    standing: Standing = Standing.DEAD
    suspicion: Suspicion | None = None


@dataclass(slots=True)
class Peer:
    node: NodeName
    session: int
    window: ReplayWindow
    newest: int = -1
    """Sequence of its newest heartbeat."""
    sightings: dict[LinkName, Sighting] = field(default_factory=dict)
    mirror: ClaimMirror = field(default_factory=ClaimMirror)
    behind_since: float | None = None
    """Since when we lack some of its claims."""
    suspicions: dict[int, int] = field(default_factory=dict)
    """Session that it suspects -> how often we answered that."""


@dataclass(slots=True)
class Pending:
    """A session that has not named ours yet."""

    node: NodeName
    window: ReplayWindow
    link: LinkName
    address: AddressText
    mac: Mac
    first_at: float
    heard_at: float
    newest: int = -1


@dataclass(slots=True)
class Segment:
    """One link, and what proves that it works."""

    state: LinkState
    gateway_at: float = NEVER
    gateway_mac: Mac | None = None
    gateway_ask_next: float = NEVER
    neighbours: OrderedDict[Mac, tuple[AddressText, float]] = field(default_factory=OrderedDict)
    fenced_since: float | None = None
    """Answering is suspended here since then (``fencing`` in ``protocol``)."""
    unproven: bool = False
    """Somebody is suspected, and nothing has proved since that we can hear."""
    isolated: bool = False
    """And that has lasted for longer than D."""


class Membership:
    """Sans-IO; ``dirty_nodes`` and ``dirty_addresses`` tell the owner of this what changed since it last cleared
    them."""

    def __init__(self, node: NodeName, session: int, settings: Settings, emit: Callable[[Effect], None]) -> None:
        self.node = node
        self.session = session
        self.own_lateness = 0.0
        self.links: dict[LinkName, Segment] = {}
        self.peers: dict[NodeName, Peer] = {}
        self.pending: dict[int, Pending] = {}
        self.claimants: dict[AddressText, dict[NodeName, None]] = {}
        """Who claims an address, alive or not, as far as is known."""
        self.dirty_addresses: dict[AddressText, str] = {}
        """Claims on these, or the standing of who made them, changed; and why."""
        self.changed = False
        """Somebody's standing or ability changed."""
        self.speak_now = False
        """Somebody waits for a heartbeat of ours."""
        self.unicast: dict[tuple[LinkName, AddressText], None] = {}
        """Who is to get that heartbeat by unicast too."""
        self.asked_of_us: dict[int, None] = {}
        """Versions after which peers want our claims."""
        self.alarm_until = NEVER
        """Until then peers look for somebody: heartbeats come quickly."""
        self.scale = 1.0
        """Interval and floor grow above 50 holders."""
        self._settings = settings
        self._emit = emit
        self._by_session: dict[int, Peer] = {}
        self._by_mac: dict[Mac, NodeName] = {}
        self._retired: OrderedDict[int, int] = OrderedDict()
        self._suspects: dict[int, Peer] = {}
        self._check_at = float("inf")
        self._duplicate_reported_at = NEVER

    # ------------------------------------------------------------------------------------------------ questions

    def hears(self, node: NodeName, links: Iterable[LinkName]) -> bool:
        """Whether the peer is believed alive, suspected or not, on any of the links."""
        peer = self.peers.get(node)
        return peer is not None and any(
            (sighting := peer.sightings.get(link)) is not None and sighting.standing is not Standing.DEAD
            for link in links
        )

    def able_since(self, node: NodeName, links: Iterable[LinkName], starting: bool = False) -> float | None:
        """Since when the peer is believed able to claim on any of the links; ``None`` if it is not. With ``starting``
        one that will be able soon counts too."""
        peer = self.peers.get(node)
        if peer is None:
            return None
        for link in links:
            sighting = peer.sightings.get(link)
            if sighting is None or sighting.standing is not Standing.ALIVE:
                continue
            if sighting.able_since is not None:
                return sighting.able_since
            if starting and sighting.starting:
                return sighting.life_at
        return None

    def may_claim(self, link: LinkName) -> bool:
        """Whether something new may be claimed there: it is up, not fenced, and we know that we can hear."""
        segment = self.links.get(link)
        return segment is not None and segment.state.up and segment.fenced_since is None and not segment.unproven

    @property
    def suspicious(self) -> bool:
        return bool(self._suspects)

    def third_party_since(self, link: LinkName, since: float) -> bool:
        """Whether anybody was heard on the link after ``since``."""
        segment = self.links[link]
        return (
            segment.gateway_at > since
            or any(at > since for _, at in segment.neighbours.values())
            or any(sighting.heard_at > since for _, sighting in self._on(link))
        )

    def behind(self, link: LinkName, now: float, patience: float) -> bool:
        """Whether some live peer there has claims that we have not heard yet, for less than ``patience``."""
        return any(
            peer.behind_since is not None
            and now - peer.behind_since < patience
            and sighting.standing is not Standing.DEAD
            for peer, sighting in self._on(link)
        )

    def heard(self, link: LinkName, now: float) -> list[Heard]:
        """Everybody heard on the link, for our heartbeat."""
        entries = [
            Heard(session, int((now - pending.heard_at) * 1000), False)
            for session, pending in self.pending.items()
            if pending.link == link
        ]
        entries += [
            Heard(peer.session, int((now - sighting.life_at) * 1000), sighting.standing is Standing.SUSPECTED)
            for peer, sighting in self._on(link)
            if sighting.standing is not Standing.DEAD
        ]
        return entries

    def deaf_to_us(self, link: LinkName, now: float, interval: float) -> list[AddressText]:
        """Addresses of live peers on the link that multicast does not reach."""
        late = [
            sighting.address
            for _, sighting in self._on(link)
            if sighting.standing is not Standing.DEAD
            and now - sighting.hears_us_at > 2.5 * interval + sighting.detector.interval
        ]
        waiting = (p for p in self.pending.values() if p.link == link and now - p.first_at > 2.5 * interval)
        return late + [pending.address for pending, _ in zip(waiting, range(NEIGHBOURS), strict=False)]

    def asks(self, now: float) -> list[tuple[int, int]]:
        """(session, version) of the peers whose claims we lack for more than a moment."""
        return [
            (peer.session, peer.mirror.version)
            for peer in self.peers.values()
            if peer.behind_since is not None
            and now - peer.behind_since >= self._settings.early_gap_s
            and any(sighting.standing is not Standing.DEAD for sighting in peer.sightings.values())
        ]

    def detection(self, sighting: Sighting, now: float) -> float:
        """D of a peer on a link, in seconds."""
        return sighting.detector.detection(
            now,
            self._settings.detection_floor_s * self.scale,
            self._settings.detection_ceiling_s * self.scale,
            self.own_lateness,
        )

    def _on(self, link: LinkName) -> Iterable[tuple[Peer, Sighting]]:
        for peer in self.peers.values():
            sighting = peer.sightings.get(link)
            if sighting is not None:
                yield peer, sighting

    def _suspects_on(self, link: LinkName) -> list[tuple[Peer, Suspicion]]:
        return [
            (peer, sighting.suspicion)
            for peer in self._suspects.values()
            if (sighting := peer.sightings.get(link)) is not None and sighting.suspicion is not None
        ]

    # ------------------------------------------------------------------------------------------------ links

    def set_links(self, states: tuple[LinkState, ...], now: float) -> bool:
        """Take over the links as they are now. One that came up is fenced; what was heard on it is not held against
        anybody. Returns whether one did."""
        fenced = False
        known = self.links
        self.links = {}
        for state in states:
            segment = known.get(state.name) or Segment(state)
            came_up = state.up and not segment.state.up
            if state.gateway != segment.state.gateway:
                segment.gateway_at, segment.gateway_mac, segment.gateway_ask_next = NEVER, None, NEVER
            segment.state = state
            self.links[state.name] = segment
            if came_up:
                self.fence(state.name, now)
                fenced = True
        for peer in self.peers.values():
            for link in [link for link in peer.sightings if link not in self.links]:
                self._forget_suspicion(peer, peer.sightings[link])
                del peer.sightings[link]
                self._mark_claims(peer, f"loss of link {link}")
        self.changed = True
        self._check_at = now
        return fenced

    def _mark_claims(self, peer: Peer, why: str) -> None:
        self.dirty_addresses.update(dict.fromkeys(peer.mirror.claims, why))

    def fence(self, link: LinkName, now: float) -> None:
        """We were away from this link: suspend it, and count nobody's silence from before."""
        segment = self.links[link]
        segment.fenced_since = now
        segment.gateway_ask_next = now
        for peer, sighting in self._on(link):
            if sighting.standing is not Standing.DEAD:
                sighting.life_at = now
                sighting.detector.skip(sighting.detector.interval, now)
                self._forget_suspicion(peer, sighting)
                sighting.standing = Standing.ALIVE
        self.changed = True
        self._check_at = now

    # ------------------------------------------------------------------------------------------------ receiving

    def receive(self, link: LinkName, source: AddressText, envelope: Envelope, now: float) -> None:
        """Take an authenticated datagram. Raises ``HeartbeatError`` for one that does not count."""
        session, message = envelope.session, envelope.message
        if session == self.session:
            raise HeartbeatError(Drop.OWN)
        if envelope.sequence <= self._retired.get(session, -1):
            raise HeartbeatError(Drop.REPLAYED)
        peer = self._by_session.get(session)
        if isinstance(message, Heartbeat):
            if peer is None:
                peer = self._introduce(link, source, envelope, message, now)
                if peer is None:
                    return
            elif message.node != peer.node:
                raise HeartbeatError(Drop.MALFORMED, "a session has one node")
            elif not self._fresh(peer, envelope.sequence):
                return
            self._hear(peer, link, source, message, now)
            return
        if peer is None:
            raise HeartbeatError(Drop.UNKNOWN_SESSION)
        if not peer.window.accept(envelope.sequence):
            raise HeartbeatError(Drop.REPLAYED)
        sighting = peer.sightings.get(link)
        if sighting is not None:
            sighting.heard_at = now
        mirror = peer.mirror
        changes = mirror.take_part(message) if isinstance(message, ClaimPart) else mirror.take_step(message)
        for address, claim in changes.items():
            self._note_claimant(address, peer.node, claim is not None)
            self.dirty_addresses[address] = f"released by {peer.node}"
        self._note_behind(peer, now)

    def _note_claimant(self, address: AddressText, node: NodeName, claims: bool) -> None:
        if claims:
            self.claimants.setdefault(address, {})[node] = None
            return
        claimants = self.claimants.get(address)
        if claimants is not None:
            claimants.pop(node, None)
            if not claimants:
                del self.claimants[address]

    @staticmethod
    def _fresh(party: Peer | Pending, sequence: int) -> bool:
        """False for a heartbeat that a newer one overtook: it has nothing to say any more."""
        if not party.window.accept(sequence):
            raise HeartbeatError(Drop.REPLAYED)
        fresh = sequence > party.newest
        party.newest = max(party.newest, sequence)
        return fresh

    def _introduce(
        self, link: LinkName, source: AddressText, envelope: Envelope, message: Heartbeat, now: float
    ) -> Peer | None:
        """A session that is not known: it waits until it names ours."""
        session = envelope.session
        pending = self.pending.get(session)
        if pending is None:
            if len(self.pending) >= MAX_PENDING:
                raise HeartbeatError(Drop.TABLE_FULL)
            pending = Pending(NodeName(message.node), ReplayWindow(), link, source, Mac(message.mac), now, now)
            self.pending[session] = pending
            self.speak_now = True
        if not self._fresh(pending, envelope.sequence):
            return None
        pending.link, pending.address, pending.heard_at = link, source, now
        names_us = any(entry.session == self.session for entry in unpack_heard(message.heard))
        if not names_us:
            self.speak_now = True
            return None
        if pending.node == self.node:
            if now - self._duplicate_reported_at > self._settings.defence_gap_s:
                self._duplicate_reported_at = now
                self._report("DuplicateNode", address=source)
            return None
        former = self.peers.get(pending.node)
        if former is None and len(self.peers) >= MAX_PEERS and not self._make_room():
            raise HeartbeatError(Drop.TABLE_FULL)
        del self.pending[session]
        if former is not None:
            self._remove(former, retire_at=(1 << 64) - 1)
            self._report("PeerDead", node=former.node, proof="new session")
        peer = Peer(pending.node, session, pending.window, pending.newest)
        self.peers[peer.node] = peer
        self._by_session[session] = peer
        return peer

    def _make_room(self) -> bool:
        for peer in self.peers.values():
            if all(sighting.standing is Standing.DEAD for sighting in peer.sightings.values()):
                self._remove(peer, retire_at=peer.window.newest)
                return True
        return False

    def _remove(self, peer: Peer, retire_at: int) -> None:
        """Its session's datagrams up to this sequence never count again."""
        for sighting in peer.sightings.values():
            self._forget_suspicion(peer, sighting)
            self._by_mac.pop(sighting.mac, None)
        self._suspects.pop(peer.session, None)
        del self.peers[peer.node]
        del self._by_session[peer.session]
        self._retired[peer.session] = retire_at
        while len(self._retired) > MAX_RETIRED:
            self._retired.popitem(last=False)
        self._mark_claims(peer, f"death of {peer.node}")
        for address in peer.mirror.claims:
            self._note_claimant(address, peer.node, False)
        self.changed = True

    def _hear(self, peer: Peer, link: LinkName, source: AddressText, message: Heartbeat, now: float) -> None:
        sighting = peer.sightings.get(link)
        if sighting is None:
            sighting = Sighting(source, Mac(message.mac), Detector(message.due_ms / 1000, now), now)
            peer.sightings[link] = sighting
        if sighting.mac != message.mac or sighting.address != source:
            self._by_mac.pop(sighting.mac, None)
            sighting.mac, sighting.address = Mac(message.mac), source
        self._by_mac[sighting.mac] = peer.node
        sighting.heard_at = now
        if self.links[link].unproven:
            self._check_at = now
        sighting.prefixes = message.prefixes
        entries = unpack_heard(message.heard)
        self._read_heard(peer, link, sighting, entries, now)
        if message.flags & Flag.LEAVING:
            self._remove(peer, retire_at=(1 << 64) - 1)
            self._report("PeerDead", node=peer.node, link=link, proof="left")
            return
        if message.flags & Flag.ANSWER:
            self.speak_now = True
        self._take_life(peer, link, sighting, message, now)
        able = bool(message.flags & Flag.ABLE)
        if able != (sighting.able_since is not None):
            sighting.able_since = now if able else None
            self.changed = True
        sighting.starting = bool(message.flags & Flag.STARTING)
        peer.mirror.note(message.version, message.digest)
        self._note_behind(peer, now)
        for session, version in message.asks:
            if session == self.session:
                self.asked_of_us[version] = None

    def _read_heard(self, peer: Peer, link: LinkName, sighting: Sighting, entries: list[Heard], now: float) -> None:
        """What the peer says about us and about those whom anybody suspects."""
        suspicions: dict[int, int] = {}
        for entry in entries:
            if entry.session == self.session:
                sighting.hears_us_at = max(sighting.hears_us_at, now - entry.age_ms / 1000)
            elif (suspect := self._suspects.get(entry.session)) is not None:
                theirs = suspect.sightings.get(link)
                if theirs is not None and theirs.suspicion is not None:
                    theirs.suspicion.told_at = max(theirs.suspicion.told_at, now - entry.age_ms / 1000)
            if entry.suspected:
                self.alarm_until = max(self.alarm_until, now + self._settings.idle_interval_s)
                answered = peer.suspicions.get(entry.session, 0)
                suspicions[entry.session] = answered + 1
                if answered < 3:
                    self.speak_now = True
                    if entry.session == self.session:
                        self.unicast[(link, sighting.address)] = None
        peer.suspicions = suspicions

    def _take_life(self, peer: Peer, link: LinkName, sighting: Sighting, message: Heartbeat, now: float) -> None:
        if not self._hears_somebody(unpack_heard(message.heard)) and any(
            other is not peer and theirs.standing is Standing.ALIVE for other, theirs in self._on(link)
        ):
            return
        interval = message.due_ms / 1000
        if sighting.standing is Standing.ALIVE:
            sighting.detector.heard(interval, now)
        else:
            if sighting.life_at > NEVER and now - sighting.life_at > self.detection(sighting, now):
                sighting.detector.false_alarm(now)
            sighting.detector.skip(interval, now)
            self._forget_suspicion(peer, sighting)
            if sighting.standing is Standing.DEAD:
                self._mark_claims(peer, f"return of {peer.node}")
                self.speak_now = True
            sighting.standing = Standing.ALIVE
            self.changed = True
            self._report("PeerAlive", node=peer.node, link=link)
        sighting.life_at = now
        self._check_at = min(self._check_at, now + sighting.detector.suspicion())

    def _hears_somebody(self, entries: list[Heard]) -> bool:
        """Whether a heartbeat shows that its sender can hear. Everybody answers a suspicion at once, so who says one
        and has heard nobody for 2.5 short intervals hears nobody."""
        suspicious = any(entry.suspected for entry in entries)
        recent_ms = SUSPICION_INTERVALS * self._settings.interval_s * self.scale * 1000
        return any(not entry.suspected and (not suspicious or entry.age_ms <= recent_ms) for entry in entries)

    def _note_behind(self, peer: Peer, now: float) -> None:
        if peer.mirror.in_step:
            peer.behind_since = None
        elif peer.behind_since is None:
            peer.behind_since = now

    def refused(self, link: LinkName, to: AddressText, now: float) -> None:
        """The kernel at ``to`` says that no speaker listens there (ICMP port unreachable, RFC 792)."""
        for peer in list(self._suspects.values()):
            sighting = peer.sightings.get(link)
            if sighting is not None and sighting.suspicion is not None and sighting.address == to:
                sighting.suspicion.refused_at = now
                self._check_at = now

    def arp(self, seen: ArpSeen, now: float) -> NodeName | None:
        """Take an ARP frame as a sign that its sender is there. Returns the peer whose MAC it carries."""
        segment = self.links.get(seen.link)
        if segment is None:
            return None
        node = self.whose(seen.sender_mac)
        if node is not None:
            peer = self.peers.get(node)
            sighting = peer.sightings.get(seen.link) if peer is not None else None
            suspicion = sighting.suspicion if sighting is not None else None
            if peer is not None and suspicion is not None and seen.is_reply and seen.sender in peer.mirror.claims:
                suspicion.served_at = now
            return node
        if seen.sender == segment.state.gateway:
            segment.gateway_at, segment.gateway_mac = now, seen.sender_mac
        else:
            segment.neighbours[seen.sender_mac] = (seen.sender, now)
            segment.neighbours.move_to_end(seen.sender_mac)
            while len(segment.neighbours) > NEIGHBOURS:
                segment.neighbours.popitem(last=False)
        if self._suspects:
            self._check_at = now
        return None

    def whose(self, mac: Mac) -> NodeName | None:
        """The speaker that has this MAC."""
        node = self._by_mac.get(mac)
        if node is not None:
            return node
        return next((pending.node for pending in self.pending.values() if pending.mac == mac), None)

    # ------------------------------------------------------------------------------------------------ time

    def next_deadline(self) -> float:
        return self._check_at

    def check(self, now: float) -> None:
        """Suspect the silent, ask about suspects, declare the dead."""
        if now < self._check_at:
            return
        for session in [s for s, pending in self.pending.items() if now - pending.heard_at > PENDING_S]:
            del self.pending[session]
        deadlines = [now + PENDING_S]
        for link, segment in self.links.items():
            if not segment.state.up:
                continue
            if segment.state.gateway is not None:
                if now >= segment.gateway_ask_next:
                    self._ask_gateway(link, segment, segment.state.gateway, now)
                deadlines.append(segment.gateway_ask_next)
            isolated = False
            ignored = self._ignored_since(link, now)
            for peer, sighting in list(self._on(link)):
                if sighting.standing is Standing.ALIVE:
                    if now - sighting.life_at < sighting.detector.suspicion() and sighting.heard_at >= ignored:
                        deadlines.append(sighting.life_at + sighting.detector.suspicion())
                        continue
                    self._suspect(peer, link, sighting, now)
                suspicion = sighting.suspicion
                if suspicion is not None:
                    self._pursue(peer, link, sighting, suspicion, now)
                    at, lonely = self._judge(peer, link, sighting, suspicion, now)
                    deadlines += [at, suspicion.ask_next]
                    isolated = isolated or lonely
            unproven = any(
                self._proof(link, peer, suspicion, now) is None for peer, suspicion in self._suspects_on(link)
            )
            self.changed = self.changed or unproven != segment.unproven
            segment.unproven = unproven
            if isolated != segment.isolated:
                segment.isolated = isolated
                self.changed = True
                self._report("Isolated" if isolated else "Rejoined", link=link)
        self._check_at = max(min(deadlines), now + 0.001)

    def _ignored_since(self, link: LinkName, now: float) -> float:
        """Who was not heard since then has ignored two questions about somebody, and becomes a suspect too."""
        patience = 2 * self._settings.question_gap_s
        asked = [s.since for _, s in self._suspects_on(link) if now - s.since >= patience]
        return max(asked, default=NEVER)

    def _ask_gateway(self, link: LinkName, segment: Segment, gateway: AddressText, now: float) -> None:
        unanswered = segment.gateway_at < segment.gateway_ask_next
        segment.gateway_ask_next = now + self._settings.third_party_s / 5
        self._emit(AskAddress(link, gateway, None if unanswered else segment.gateway_mac))

    def _suspect(self, peer: Peer, link: LinkName, sighting: Sighting, now: float) -> None:
        sighting.standing = Standing.SUSPECTED
        sighting.suspicion = Suspicion(now, now, address=min(peer.mirror.claims, default=None))
        self._suspects[peer.session] = peer
        self.changed = True
        self._report("PeerSuspected", node=peer.node, link=link, silent_ms=int((now - sighting.life_at) * 1000))

    def _pursue(self, peer: Peer, link: LinkName, sighting: Sighting, suspicion: Suspicion, now: float) -> None:
        """Ask everybody who may know, when it is time to."""
        if now < suspicion.ask_next:
            return
        suspicion.questions += 1
        if suspicion.questions == 1:
            gap = self._settings.question_gap_s
        elif now - suspicion.since < SLOW_QUESTIONS_S:
            gap = self._settings.interval_s
        else:
            gap = self._settings.idle_interval_s
        suspicion.ask_next = now + gap
        self.speak_now = True
        self.unicast[(link, sighting.address)] = None
        if suspicion.address not in peer.mirror.claims:
            suspicion.address = min(peer.mirror.claims, default=None)
            suspicion.address_asked_at = float("inf")
        if suspicion.address is not None:
            self._emit(AskAddress(link, suspicion.address))
            suspicion.address_asked_at = min(suspicion.address_asked_at, now)
        others = [theirs for other, theirs in self._on(link) if other is not peer and theirs.standing is Standing.ALIVE]
        if any(theirs.heard_at > suspicion.since for theirs in others) or (others and suspicion.questions == 1):
            return  # they prove that we hear
        segment = self.links[link]
        if segment.state.gateway is not None:
            self._emit(AskAddress(link, segment.state.gateway, segment.gateway_mac))
        for mac, (address, _) in segment.neighbours.items():
            self._emit(AskAddress(link, address, mac))

    def _judge(
        self, peer: Peer, link: LinkName, sighting: Sighting, suspicion: Suspicion, now: float
    ) -> tuple[float, bool]:
        """Declare the suspect dead if that is proved. Otherwise: when to look again, and whether what is missing is
        the proof that we can hear."""
        gap = self._settings.question_gap_s
        if suspicion.refused_at > sighting.life_at and suspicion.served_at < suspicion.since:
            unanswered_at = suspicion.address_asked_at + gap
            if now >= unanswered_at:
                self._bury(peer, link, sighting, "refused by its kernel", now)
                return now, False
            if unanswered_at < float("inf"):
                return unanswered_at, False
        life_at = max(sighting.life_at, suspicion.told_at, suspicion.served_at)
        due = life_at + self.detection(sighting, now)
        answered_by = suspicion.since + 2 * gap
        for other, theirs in self._on(link):
            if other is not peer and theirs.standing is Standing.ALIVE and theirs.heard_at < suspicion.since:
                due = max(due, answered_by)
        if suspicion.address is not None:
            due = max(due, suspicion.since + 2 * gap)
        if now < due:
            return due, False
        proof = self._proof(link, peer, suspicion, now)
        if proof is None:
            return suspicion.ask_next, True
        self._bury(peer, link, sighting, proof, now)
        return now, False

    def _proof(self, link: LinkName, suspect: Peer, suspicion: Suspicion, now: float) -> str | None:
        """What shows that we can hear, although we do not hear the suspect."""
        segment = self.links[link]
        since = max(suspicion.since, suspicion.told_at, suspicion.served_at)
        recently = now - self._settings.third_party_s
        known = False
        for other, theirs in self._on(link):
            if other is not suspect and theirs.standing is not Standing.DEAD:
                if theirs.heard_at > since:
                    return f"peer {other.node}"
                known = True
        for name, at in [("gateway", segment.gateway_at)] + [
            (f"neighbour {address}", at) for address, at in segment.neighbours.values()
        ]:
            if at > since:
                return name
            known = known or at > recently
        return None if known or segment.fenced_since is not None else "carrier"

    def _bury(self, peer: Peer, link: LinkName, sighting: Sighting, proof: str, now: float) -> None:
        self._forget_suspicion(peer, sighting)
        sighting.standing = Standing.DEAD
        self.changed = True
        self._mark_claims(peer, f"death of {peer.node}")
        silent_ms = int((now - sighting.life_at) * 1000)
        self._report("PeerDead", node=peer.node, link=link, proof=proof, silent_ms=silent_ms)

    def _forget_suspicion(self, peer: Peer, sighting: Sighting) -> None:
        sighting.suspicion = None
        self._check_at = NEVER
        if all(theirs.suspicion is None for theirs in peer.sightings.values()):
            self._suspects.pop(peer.session, None)

    def _report(self, reason: str, **fields: str | int | float) -> None:
        self._emit(Report(reason, fields))
