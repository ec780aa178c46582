"""Heartbeats + now -> who else is there: peers, their flags, their claims, their signs of life.

**Identity.** A peer is a node with one session. Another session of the same node counts only once it names our present
session; then the former one is retired and never counts again. So a recording cannot bring anybody back.

**Life.** Each (peer, link) pair is a *sighting*: alive, suspected or dead there (``suspicion`` decides). Any believed
heartbeat is a sign of life, except from a peer that hears nobody while we hear others: it cannot be asked for anything,
so it does not count.

**Several links.** Liveness is per link; a peer's claims are taken from any link. A peer counts for an address while it
is alive on any of the links where the address may be answered. A link that is down declares nobody dead.

Every table has a bound: 256 nodes, 256 unconfirmed sessions, 4,096 retired ones, eight neighbours per link, and the
claims of ``ClaimMirror``.
"""

from __future__ import annotations

from collections import OrderedDict

from cluster.objects import AddressText, NodeName
from speaker.detector import SUSPICION_INTERVALS, Detector
from speaker.effects import ArpSeen, LinkState, Mac
from speaker.heartbeat import (
    MAX_AGE_MS,
    SUSPECTED,
    ClaimPart,
    Drop,
    Envelope,
    Flag,
    Heartbeat,
    HeartbeatError,
    ReplayWindow,
    unpack_heard,
)
from speaker.plan import LinkName
from speaker.roster import NEIGHBOURS, NEVER, Peer, Pending, Roster, Segment, Sighting, Standing

MAX_PEERS = 256
MAX_PENDING = 256
MAX_RETIRED = 4096
PENDING_S = 5.0  # an unconfirmed session not heard for longer is forgotten
FOREVER = (1 << 64) - 1
ABLE, STARTING, LEAVING = int(Flag.ABLE), int(Flag.STARTING), int(Flag.LEAVING)
ANSWER, CUT_OFF = int(Flag.ANSWER), int(Flag.CUT_OFF)


class Membership:
    """Sans-IO: fills the roster."""

    def __init__(self, session: int, roster: Roster) -> None:
        self.session = session
        self._roster = roster
        self._by_session: dict[int, Peer] = {}
        self._by_mac: dict[Mac, NodeName] = {}
        self._retired: OrderedDict[int, int] = OrderedDict()
        """Session -> its datagrams up to this sequence never count again."""
        self._duplicate_reported_at = NEVER

    # ------------------------------------------------------------------------------------------------ links

    def set_links(self, states: tuple[LinkState, ...], now: float) -> bool:
        """Take over the links as they are now. One that came up is fenced; what was heard on it is not held against
        anybody. Returns whether one did."""
        fenced = False
        known = self._roster.links
        self._roster.links = {}
        for state in states:
            segment = known.get(state.name) or Segment(state)
            came_up = state.up and not segment.state.up
            if state.gateway != segment.state.gateway:
                segment.gateway_at, segment.ask_next = NEVER, NEVER
            segment.state = state
            if not state.up:
                segment.quiet_since = None
            self._roster.links[state.name] = segment
            if came_up:
                self.fence(state.name, now)
                fenced = True
        for peer in self._roster.peers.values():
            for link in [link for link in peer.sightings if link not in self._roster.links]:
                self._roster.forget_suspicion(peer, peer.sightings[link])
                del peer.sightings[link]
                self._roster.mark_claims(peer, f"loss of link {link}")
        self._roster.changed = True
        self._roster.check_at = now
        return fenced

    def fence(self, link: LinkName, now: float) -> None:
        """We were away from this link: suspend it, and count nobody's silence from before."""
        segment = self._roster.links[link]
        segment.fenced_since = now
        segment.ask_next = now
        for peer, sighting in self._roster.on(link):
            if sighting.standing is not Standing.DEAD:
                sighting.life_at = now
                sighting.detector.skip(sighting.detector.interval, now)
                self._roster.forget_suspicion(peer, sighting)
                sighting.standing = Standing.ALIVE
        self._roster.changed = True
        self._roster.check_at = now

    # ------------------------------------------------------------------------------------------------ receiving

    def receive(self, link: LinkName, source: AddressText, envelope: Envelope, now: float, *, by_group: bool) -> None:
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
            sighting.by_group_at = now if by_group else sighting.by_group_at
        mirror = peer.mirror
        changes = mirror.take_part(message) if isinstance(message, ClaimPart) else mirror.take_step(message)
        for address, claim in changes.items():
            self._roster.note_claimant(address, peer.node, claim is not None)
            self._roster.dirty_addresses[address] = f"released by {peer.node}"
        self._note_behind(peer, now)

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
        pending = self._roster.pending.get(session)
        if pending is None:
            self._forget_pending(now)
            if len(self._roster.pending) >= MAX_PENDING:
                raise HeartbeatError(Drop.TABLE_FULL)
            pending = Pending(NodeName(message.node), ReplayWindow(), link, source, Mac(message.mac), now, now)
            self._roster.pending[session] = pending
            self._roster.speak_now = True
        if not self._fresh(pending, envelope.sequence):
            return None
        pending.link, pending.address, pending.heard_at = link, source, now
        names_us = any(session == self.session for session, _ in unpack_heard(message.heard))
        if not names_us:
            self._roster.speak_now = True
            return None
        if pending.node == self._roster.node:
            if now - self._duplicate_reported_at > self._roster.settings.defence_gap_s:
                self._duplicate_reported_at = now
                self._roster.report("DuplicateNode", address=source)
            return None
        former = self._roster.peers.get(pending.node)
        if former is None and len(self._roster.peers) >= MAX_PEERS and not self._make_room():
            raise HeartbeatError(Drop.TABLE_FULL)
        del self._roster.pending[session]
        if former is not None:
            self._remove(former, retire_at=FOREVER)
            self._roster.report("PeerDead", node=former.node, proof="new session")
        peer = Peer(pending.node, session, pending.window, pending.newest)
        self._roster.peers[peer.node] = peer
        self._by_session[session] = peer
        return peer

    def _forget_pending(self, now: float) -> None:
        pending = self._roster.pending
        for session in [session for session, other in pending.items() if now - other.heard_at > PENDING_S]:
            del pending[session]

    def _make_room(self) -> bool:
        for peer in self._roster.peers.values():
            if all(sighting.standing is Standing.DEAD for sighting in peer.sightings.values()):
                self._remove(peer, retire_at=peer.window.newest)
                return True
        return False

    def _remove(self, peer: Peer, retire_at: int) -> None:
        """Its session's datagrams up to this sequence never count again."""
        for sighting in peer.sightings.values():
            self._roster.forget_suspicion(peer, sighting)
            self._by_mac.pop(sighting.mac, None)
        self._roster.suspects.pop(peer.session, None)
        del self._roster.peers[peer.node]
        del self._by_session[peer.session]
        self._retired[peer.session] = retire_at
        while len(self._retired) > MAX_RETIRED:
            self._retired.popitem(last=False)
        self._roster.mark_claims(peer, f"death of {peer.node}")
        for address in peer.mirror.claims:
            self._roster.note_claimant(address, peer.node, False)
        self._roster.changed = True

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
        if self._roster.links[link].unproven:
            self._roster.check_at = now
        sighting.prefixes = message.prefixes
        hears = self._read_heard(peer, link, sighting, message.heard, now)
        if message.flags & LEAVING:
            self._remove(peer, retire_at=FOREVER)
            self._roster.report("PeerDead", node=peer.node, link=link, proof="left")
            return
        if message.flags & ANSWER:
            self._roster.speak_now = True
        if hears or not any(
            other is not peer and theirs.standing is Standing.ALIVE for other, theirs in self._roster.on(link)
        ):
            self._take_life(peer, link, sighting, message, now)
        able = bool(message.flags & ABLE)
        if able != (sighting.able_since is not None):
            sighting.able_since = now if able else None
            self._roster.changed = True
        sighting.starting = bool(message.flags & STARTING)
        peer.mirror.note(message.version, message.digest)
        self._note_behind(peer, now)
        for session, version in message.asks:
            if session == self.session:
                self._roster.asked_of_us[version] = None

    def _read_heard(self, peer: Peer, link: LinkName, sighting: Sighting, packed: bytes, now: float) -> bool:
        """Take what the peer says about us and about those whom anybody suspects. Returns whether it shows that its
        sender can hear: everybody answers a suspicion at once, so who says one and has heard nobody for 2.5 short
        intervals hears nobody."""
        suspicions: dict[int, int] = {}
        youngest_ms = MAX_AGE_MS + 1
        for session, how in unpack_heard(packed):
            age_ms = how & MAX_AGE_MS
            if session == self.session:
                sighting.hears_us_at = max(sighting.hears_us_at, now - age_ms / 1000)
            elif self._roster.suspects and (suspect := self._roster.suspects.get(session)) is not None:
                theirs = suspect.sightings.get(link)
                if theirs is not None and theirs.suspicion is not None:
                    theirs.suspicion.told_at = max(theirs.suspicion.told_at, now - age_ms / 1000)
            if how < SUSPECTED:
                youngest_ms = min(youngest_ms, how)
                continue
            answered = suspicions[session] = peer.suspicions.get(session, 0) + 1
            if answered <= 3:
                self._roster.speak_now = True
                if session == self.session:
                    self._roster.unicast[(link, sighting.contact)] = None
        peer.suspicions = suspicions
        if not suspicions:
            return youngest_ms <= MAX_AGE_MS
        self._roster.alarm_until = max(self._roster.alarm_until, now + self._roster.settings.idle_interval_s)
        return youngest_ms <= SUSPICION_INTERVALS * self._roster.settings.interval_s * self._roster.scale * 1000

    def _take_life(self, peer: Peer, link: LinkName, sighting: Sighting, message: Heartbeat, now: float) -> None:
        interval = message.due_ms / 1000
        cut_off = bool(message.flags & CUT_OFF)
        if sighting.standing is Standing.ALIVE and not cut_off:
            sighting.detector.heard(interval, now)
        elif sighting.standing is Standing.ALIVE:
            sighting.detector.skip(interval, now)
        else:
            silence = now - sighting.life_at
            if sighting.life_at > NEVER and silence > self._roster.detection(sighting, now) and not cut_off:
                sighting.detector.false_alarm(now)
            sighting.detector.skip(interval, now)
            self._roster.forget_suspicion(peer, sighting)
            if sighting.standing is Standing.DEAD:
                self._roster.mark_claims(peer, f"return of {peer.node}")
                self._roster.speak_now = True
            sighting.standing = Standing.ALIVE
            self._roster.changed = True
            self._roster.report("PeerAlive", node=peer.node, link=link)
        sighting.life_at = now
        self._roster.check_at = min(self._roster.check_at, now + sighting.detector.suspicion())

    def _note_behind(self, peer: Peer, now: float) -> None:
        if peer.mirror.in_step:
            peer.behind_since = None
        elif peer.behind_since is None:
            peer.behind_since = now

    def refused(self, link: LinkName, to: AddressText, now: float) -> None:
        """The kernel at ``to`` says that no speaker listens there (ICMP port unreachable, RFC 792)."""
        for peer in list(self._roster.suspects.values()):
            sighting = peer.sightings.get(link)
            if sighting is not None and sighting.suspicion is not None and sighting.address == to:
                sighting.suspicion.refused_at = now
                self._roster.check_at = now

    def arp(self, seen: ArpSeen, now: float) -> NodeName | None:
        """Take an ARP frame as a sign that its sender is there. Returns the peer whose MAC it carries."""
        segment = self._roster.links.get(seen.link)
        if segment is None:
            return None
        node = self.whose(seen.sender_mac)
        if node is not None:
            peer = self._roster.peers.get(node)
            sighting = peer.sightings.get(seen.link) if peer is not None else None
            suspicion = sighting.suspicion if sighting is not None else None
            if peer is not None and suspicion is not None and seen.is_reply and seen.sender in peer.mirror.claims:
                suspicion.served_at = now
            return node
        if seen.sender == segment.state.gateway:
            segment.gateway_at = now
        else:
            segment.neighbours[seen.sender_mac] = (seen.sender, now)
            segment.neighbours.move_to_end(seen.sender_mac)
            while len(segment.neighbours) > NEIGHBOURS:
                segment.neighbours.popitem(last=False)
        if self._roster.suspects:
            self._roster.check_at = now
        return None

    def whose(self, mac: Mac) -> NodeName | None:
        """The speaker that has this MAC."""
        node = self._by_mac.get(mac)
        if node is not None:
            return node
        return next((pending.node for pending in self._roster.pending.values() if pending.mac == mac), None)
