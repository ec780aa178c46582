"""Heartbeats + now -> who else is there: peers, their flags, their claims, their signs of life.

**Identity.** A peer is a node with one session. Another session of the same node counts only once it names our present
session; then what the former one has said never counts again, nor what it says later if both come from one place. So a
recording cannot bring anybody back. The other session waits while the former one lives in another place: then two
machines have one name, and the one that was there first stays the peer, unless it yields. Of two machines with *our*
name the one that is able stays, of two such the one with the lower session; the other yields (``yields``): it
answers for nothing until the twin has been silent for five seconds.

**Life.** Each (peer, link) pair is a *sighting*: alive, suspected or dead there (``suspicion`` decides). Any believed
heartbeat is a sign of life, except from a peer that hears nobody while we hear others: it cannot be asked for
anything, so it does not count.

**Return.** A peer that was silent for longer than D and is back may have claimed what we hold. Until its claims are
known, for a second at most, nothing is answered on the link (``Segment.doubted``). D is doubled for it only where it
heard us all the while: if neither heard the other, the network was cut, and the silence was what it seemed.

**Several links.** Liveness is per link; a peer's claims are taken from any link. What it says on one link of the
subnets there, and of those on its other links, tells where an address belongs (``subnets``). A link that is down
declares nobody dead. One that is new, or came up, is fenced, and nothing is claimed on it for as long as at a start:
everybody who holds something there will have been heard by then.

Every table has a bound, also against a member that has the key: 256 nodes, 256 unconfirmed sessions, 4,096 retired
ones, eight neighbours and 64 subnets per link, 60,000 claims of all peers together, 4,096 messages that wait for
others. Who claims more than there can be is ignored, and named.
"""

from __future__ import annotations

from collections import OrderedDict

from cluster.objects import AddressText, NodeName
from speaker.detector import SUSPICION_INTERVALS, Detector
from speaker.effects import ArpSeen, LinkState, Mac
from speaker.heartbeat import (
    BY_GROUP,
    MAX_AGE_MS,
    RETURNED,
    SUSPECTED,
    ClaimPart,
    ClaimStep,
    Drop,
    Envelope,
    Flag,
    Heartbeat,
    HeartbeatError,
    ReplayWindow,
    Unknown,
    unpack_heard,
)
from speaker.plan import LinkName
from speaker.roster import NEIGHBOURS, NEVER, Peer, Pending, Roster, Segment, Sighting, Standing
from speaker.subnets import networks_of, said_lately

MAX_PEERS = 256
MAX_PENDING = 256
MAX_RETIRED = 4096
MAX_NETWORKS = 64
MAX_ALL_CLAIMS = 60_000  # of all peers: 20,000 addresses, each claimed by three for a moment
MAX_WAITING = 4096  # claim messages of all peers that wait for others before them
PENDING_S = 5.0  # an unconfirmed session not heard for longer is forgotten
TWIN_S = 5.0  # of silence, until a node that has our name is believed to be gone
NETWORKS_GAP_S = 60.0  # between notes of when a subnet was last said
FOREVER = (1 << 64) - 1
ABLE, STARTING, LEAVING = int(Flag.ABLE), int(Flag.STARTING), int(Flag.LEAVING)
ANSWER, CUT_OFF, YIELDS = int(Flag.ANSWER), int(Flag.CUT_OFF), int(Flag.YIELDS)


class Membership:
    """Sans-IO: fills the roster."""

    def __init__(self, session: int, roster: Roster) -> None:
        self.session = session
        self.able = False
        """Whether we can claim, as we say on links that are open."""
        self.claims_refused = 0
        """That were heard and need a feature that we lack."""
        self._roster = roster
        self._by_session: dict[int, Peer] = {}
        self._by_mac: dict[Mac, NodeName] = {}
        self._retired: OrderedDict[int, int] = OrderedDict()
        """Session -> its datagrams up to this sequence never count again."""
        self._duplicate_reported_at = NEVER
        self._yields_until = NEVER
        self._claims = 0
        """Of all peers together."""
        self._waiting = 0
        """Claim messages of all peers that wait for others."""

    # ------------------------------------------------------------------------------------------------ links

    def set_links(self, states: tuple[LinkState, ...], began: bool, now: float) -> bool:
        """Take over the links as they are now, known by their index. One that is new since heartbeats ``began`` to
        flow, or came up, is fenced and listened on; what was heard on it is not held against anybody. Returns whether
        there is one."""
        roster = self._roster
        former = {segment.state.index: segment for segment in roster.links.values()}
        self._remember_own_networks(now)
        kept = [(state, former.pop(state.index, None)) for state in states]
        gone = [segment.state.name for segment in former.values()]
        self._name_links(gone, {segment.state.name: state.name for state, segment in kept if segment is not None})
        roster.links = {}
        fenced = False
        for state, known in kept:
            came_up = state.up and (began if known is None else not known.state.up)
            segment = known or Segment(state, shared=self._was_shared(state, now))
            if state.gateway != segment.state.gateway:
                segment.gateway_at, segment.ask_next = NEVER, NEVER
            segment.state = state
            if not state.up:
                segment.quiet_since = None
            roster.links[state.name] = segment
            if came_up:
                for _, sighting in roster.on(state.name):
                    sighting.heard_at = NEVER
                self.fence(state.name, now)
                segment.listening_until = now + roster.settings.listening_s
                fenced = True
        roster.changed = True
        roster.check_at = now
        return fenced

    def _name_links(self, gone: list[LinkName], names: dict[LinkName, LinkName]) -> None:
        """Forget whom we heard on links that are gone, and know the others by the names that their links have now."""
        for peer in self._roster.peers.values():
            for link in gone:
                if link in peer.sightings:
                    self._roster.forget_suspicion(peer, peer.sightings[link])
                    del peer.sightings[link]
                    self._roster.mark_claims(peer, f"loss of link {link}")
            peer.sightings = {names[link]: sighting for link, sighting in peer.sightings.items()}
        for pending in self._roster.pending.values():
            pending.link = names.get(pending.link, pending.link)
        for segment in self._roster.links.values():
            segment.also = {names[link]: at for link, at in segment.also.items() if link in names}

    def fence(self, link: LinkName, now: float) -> None:
        """We were away from this link: suspend it, and count nobody's silence from before."""
        segment = self._roster.links[link]
        segment.fenced_since = now
        segment.ask_next = now
        self.excuse(link, now)
        self._roster.changed = True

    def excuse(self, link: LinkName, now: float) -> None:
        """Count nobody's silence from before."""
        for peer, sighting in self._roster.on(link):
            if sighting.standing is not Standing.DEAD:
                sighting.life_at = now
                sighting.detector.skip(sighting.detector.interval, now)
                self._roster.forget_suspicion(peer, sighting)
                sighting.standing = Standing.ALIVE
        self._roster.check_at = now

    # ------------------------------------------------------------------------------------------------ receiving

    def receive(self, link: LinkName, source: AddressText, envelope: Envelope, now: float, *, by_group: bool) -> None:
        """Take an authenticated datagram. Raises ``HeartbeatError`` for one that does not count."""
        session, message = envelope.session, envelope.message
        if session == self.session:
            self._note_own(link, source, now)
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
                raise HeartbeatError(Drop.NONSENSE, "a session has one node")
            elif not self._fresh(peer, link, envelope.sequence):
                return
            self._hear(peer, link, source, message, now, by_group=by_group)
            return
        if peer is None:
            raise HeartbeatError(Drop.UNKNOWN_SESSION)
        if not peer.window.accept(envelope.sequence):
            raise HeartbeatError(Drop.REPLAYED)
        sighting = peer.sightings.get(link)
        if sighting is not None:
            sighting.heard_at = now
            if by_group:
                sighting.by_group_at = now
        if isinstance(message, Unknown):
            raise HeartbeatError(Drop.UNKNOWN_KIND, f"kind {message.kind}")
        if not peer.ignored:
            self._take_claims(peer, message, now)
            self._note_behind(peer, now)

    def _take_claims(self, peer: Peer, message: ClaimStep | ClaimPart, now: float) -> None:
        mirror = peer.mirror
        had, waited, strange = mirror.size, mirror.waiting, len(mirror.strange)
        if self._waiting >= MAX_WAITING and mirror.would_wait(message):
            raise HeartbeatError(Drop.TABLE_FULL)  # it is asked for again
        changes = mirror.take_part(message) if isinstance(message, ClaimPart) else mirror.take_step(message)
        self._claims += mirror.size - had
        self.claims_refused += max(0, len(mirror.strange) - strange)
        self._waiting += mirror.waiting - waited
        for address, claim in changes.items():
            self._roster.note_claimant(address, peer.node, claim is not None)
            self._roster.dirty_addresses[address] = f"released by {peer.node}"
            if claim is not None:
                peer.claimed_at = now
        if self._claims > MAX_ALL_CLAIMS:
            self._ignore(max(self._roster.peers.values(), key=lambda other: other.mirror.size))

    def _ignore(self, peer: Peer) -> None:
        """Its claims count no more, in this session of its."""
        peer.ignored = True
        self._forget_claims(peer, f"nonsense of {peer.node}")
        peer.behind_since = None
        contact = next((sighting.contact for sighting in peer.sightings.values()), None)
        where = {"address": contact[0], "mac": contact[1].hex(":")} if contact is not None else {}
        self._roster.report("MemberNonsense", node=peer.node, what="more claims than there can be", **where)

    def _forget_claims(self, peer: Peer, why: str) -> None:
        self._roster.mark_claims(peer, why)
        for address in peer.mirror.claims:
            self._roster.note_claimant(address, peer.node, False)
        self._claims -= peer.mirror.size
        self._waiting -= peer.mirror.waiting
        peer.mirror.clear()

    def _note_own(self, link: LinkName, source: AddressText, now: float) -> None:
        """A datagram of ours came back. On another link than it went out on: both are one segment."""
        for name, segment in self._roster.links.items():
            if name != link and any(prefix.partition("/")[0] == source for prefix in segment.state.prefixes):
                for one, other in ((name, link), (link, name)):
                    if other not in self._roster.links[one].also:
                        self._roster.networks_changed = True
                    self._roster.links[one].also[other] = now

    @staticmethod
    def _fresh(peer: Peer, link: LinkName, sequence: int) -> bool:
        """False for a heartbeat that a newer one overtook on this link: it has nothing to say any more. What was said
        on another link at the same time has no part in this."""
        if not peer.window.accept(sequence):
            raise HeartbeatError(Drop.REPLAYED)
        sighting = peer.sightings.get(link)
        if sighting is None:
            return True
        fresh = sequence > sighting.newest
        sighting.newest = max(sighting.newest, sequence)
        return fresh

    def _introduce(
        self, link: LinkName, source: AddressText, envelope: Envelope, message: Heartbeat, now: float
    ) -> Peer | None:
        """A session that is not known: it waits until it names ours, and its node has no other that lives."""
        session = envelope.session
        pending = self._roster.pending.get(session)
        if pending is None:
            self._forget_pending(now)
            if len(self._roster.pending) >= MAX_PENDING:
                raise HeartbeatError(Drop.TABLE_FULL)
            pending = Pending(NodeName(message.node), ReplayWindow(), link, source, Mac(message.mac), now, now)
            self._roster.pending[session] = pending
            self._roster.speak_now = True
        if not pending.window.accept(envelope.sequence):
            raise HeartbeatError(Drop.REPLAYED)
        pending.link, pending.address, pending.heard_at = link, source, now
        names_us = any(session == self.session for session, _ in unpack_heard(message.heard))
        if not names_us:
            self._roster.speak_now = True
            return None
        if pending.node == self._roster.node:
            self._meet_twin(session, pending, message, now)
            return None
        former = self._roster.peers.get(pending.node)
        if former is not None and self._lives_elsewhere(former, pending, yields=bool(message.flags & YIELDS)):
            return None
        if former is None and len(self._roster.peers) >= MAX_PEERS and not self._make_room():
            raise HeartbeatError(Drop.TABLE_FULL)
        del self._roster.pending[session]
        if former is not None:
            elsewhere = all(sighting.contact != (source, message.mac) for sighting in former.sightings.values())
            self._remove(former, retire_at=former.window.newest if elsewhere else FOREVER)
            self._roster.report("PeerDead", node=former.node, proof="new session")
        peer = Peer(pending.node, session, pending.window)
        self._roster.peers[peer.node] = peer
        self._by_session[session] = peer
        return peer

    def _lives_elsewhere(self, former: Peer, pending: Pending, *, yields: bool) -> bool:
        """Whether a node's former session may still be another machine's: it comes from another place, and is not
        known to be dead, nor the one of the two that yields. Silence alone does not say that it is dead: what blocks
        its datagrams leaves its answers."""
        place = (pending.address, pending.mac)
        if any(sighting.contact == place for sighting in former.sightings.values()):
            return False
        heard = [
            sighting
            for link, sighting in former.sightings.items()
            if sighting.standing is not Standing.DEAD and sighting.heard_at > NEVER and self._roster.judges(link)
        ]
        return bool(heard) and (yields or not any(sighting.yields for sighting in heard))

    def _meet_twin(self, session: int, twin: Pending, message: Heartbeat, now: float) -> None:
        """Another machine has our name. One of the two is able and stays; if both are, the one of the lower session.
        Able is who says so, on both sides. Nobody yields to one that says that it yields itself."""
        able, own = bool(message.flags & ABLE), self.able and self._roster.links[twin.link].open(now)
        if message.flags & YIELDS:
            stays = not self.yields(now) or self.session < session
        else:
            stays = (not own, self.session) < (not able, session)
        if not stays:
            self._yields_until = now + TWIN_S
        elif message.flags & YIELDS:
            self._yields_until = NEVER
        self._roster.changed = True
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

    def yields(self, now: float) -> bool:
        """Whether another machine with our name is there, and it is ours to be silent."""
        return now < self._yields_until

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
            self._by_mac.pop(sighting.other_mac, None)
        self._roster.suspects.pop(peer.session, None)
        del self._roster.peers[peer.node]
        del self._by_session[peer.session]
        self._trust(peer)
        self._retired[peer.session] = retire_at
        while len(self._retired) > MAX_RETIRED:
            self._retired.popitem(last=False)
        self._forget_claims(peer, f"death of {peer.node}")
        self._roster.changed = True

    def _hear(
        self, peer: Peer, link: LinkName, source: AddressText, message: Heartbeat, now: float, *, by_group: bool
    ) -> None:
        sighting = peer.sightings.get(link)
        if sighting is None:
            interval = self._interval(message)
            sighting = Sighting(source, Mac(message.mac), Detector(interval, now), now, LinkName(message.link))
            peer.sightings[link] = sighting
        first = sighting.link == message.link or now - sighting.link_at >= sighting.detector.suspicion()
        if first:
            self._note_interface(peer, sighting, source, message)
            sighting.link_at = now
        elif sighting.other_mac != message.mac:
            self._by_mac.pop(sighting.other_mac, None)
            sighting.other_mac = Mac(message.mac)
            self._by_mac[sighting.other_mac] = peer.node
        sighting.heard_at = now
        if by_group:
            sighting.by_group_at = now
        segment = self._roster.links[link]
        segment.alone = False
        if not segment.shared:
            segment.shared = self._roster.networks_changed = True
        if segment.unproven:
            self._roster.check_at = now
        if first:
            self._note_networks(segment, sighting, message, now)
        hears, heard_all_along = self._read_heard(peer, link, sighting, message.heard, now)
        if message.flags & LEAVING:
            self._remove(peer, retire_at=FOREVER)
            self._roster.report("PeerDead", node=peer.node, link=link, proof="left")
            return
        if message.flags & ANSWER or (sighting.standing is Standing.DEAD and not hears):
            self._roster.speak_now = True
            self._roster.unicast[(link, sighting.contact)] = None  # what we say to the group may not reach it
        if not peer.ignored:
            peer.mirror.note(message.version, message.digest)
            self._note_behind(peer, now)
        if hears or not any(
            other is not peer and theirs.standing is Standing.ALIVE for other, theirs in self._roster.on(link)
        ):
            self._take_life(peer, link, sighting, message, now, heard_all_along=heard_all_along)
        able = bool(message.flags & ABLE) and not peer.ignored
        if first and able != (sighting.able_since is not None):
            sighting.able_since = now if able else None
            self._roster.changed = True
        sighting.starting, sighting.yields = bool(message.flags & STARTING), bool(message.flags & YIELDS)
        for session, version in message.asks:
            if session == self.session:
                self._roster.asked_of_us[version] = None

    def _note_interface(self, peer: Peer, sighting: Sighting, source: AddressText, message: Heartbeat) -> None:
        """The interface by which the peer is on this link. Another one of its on the same segment counts only when
        this one has been silent for as long as makes a suspect: else the two would take turns."""
        if sighting.mac != message.mac or sighting.address != source:
            self._by_mac.pop(sighting.mac, None)
            sighting.mac, sighting.address = Mac(message.mac), source
        self._by_mac[sighting.mac] = peer.node
        if sighting.link != message.link:
            sighting.link = LinkName(message.link)
            self._roster.changed = True

    def _interval(self, message: Heartbeat) -> float:
        """Seconds until the peer's next heartbeat as it says, but no longer than anybody's may be."""
        return min(message.due_ms / 1000, self._roster.settings.idle_interval_s * max(self._roster.scale, 1.0))

    def _read_heard(
        self, peer: Peer, link: LinkName, sighting: Sighting, packed: bytes, now: float
    ) -> tuple[bool, bool]:
        """Take what the peer says about us and about those whom anybody suspects. Returns whether it shows that its
        sender can hear: everybody answers a suspicion at once, so who says one and has heard nobody for 2.5 short
        intervals hears nobody. And whether it shows that the sender has heard *us* all along."""
        suspicions: dict[int, int] = {}
        youngest_ms = MAX_AGE_MS + 1
        heard_us = False
        for session, how in unpack_heard(packed):
            age_ms = how & MAX_AGE_MS
            if session == self.session:
                sighting.hears_us_at = max(sighting.hears_us_at, now - age_ms / 1000)
                heard_us = not how & RETURNED and age_ms / 1000 < self._roster.detection(sighting, now)
                if how & BY_GROUP:
                    sighting.hears_group_at = now
            elif self._roster.suspects and (suspect := self._roster.suspects.get(session)) is not None:
                theirs = suspect.sightings.get(link)
                if theirs is not None and theirs.suspicion is not None:
                    theirs.suspicion.told_at = max(theirs.suspicion.told_at, now - age_ms / 1000)
            if how < SUSPECTED:
                youngest_ms = min(youngest_ms, age_ms)
                continue
            answered = suspicions[session] = peer.suspicions.get(session, 0) + 1
            if answered <= 3:
                self._roster.speak_now = True
                if session == self.session:
                    self._roster.unicast[(link, sighting.contact)] = None
        peer.suspicions = suspicions
        if not suspicions:
            return youngest_ms <= MAX_AGE_MS, heard_us
        self._roster.alarm_until = max(self._roster.alarm_until, now + self._roster.settings.idle_interval_s)
        limit_ms = SUSPICION_INTERVALS * self._roster.settings.interval_s * self._roster.scale * 1000
        return youngest_ms <= limit_ms, heard_us

    def _take_life(
        self, peer: Peer, link: LinkName, sighting: Sighting, message: Heartbeat, now: float, *, heard_all_along: bool
    ) -> None:
        interval = self._interval(message)
        cut_off = bool(message.flags & CUT_OFF)
        if sighting.standing is Standing.ALIVE and not cut_off:
            sighting.detector.heard(interval, now)
        elif sighting.standing is Standing.ALIVE:
            sighting.detector.skip(interval, now)
        else:
            silence = now - sighting.life_at
            returned = sighting.life_at > NEVER and silence > self._roster.detection(sighting, now) and not cut_off
            if returned:
                sighting.returned_at = now
                if heard_all_along:
                    sighting.detector.false_alarm(now)
            sighting.detector.skip(interval, now)
            self._roster.forget_suspicion(peer, sighting)
            self._roster.speak_now = True  # it may not know yet that we hear
            if sighting.standing is Standing.DEAD:
                self._roster.mark_claims(peer, f"return of {peer.node}")
            if not peer.mirror.in_step and (returned or (sighting.standing is Standing.DEAD and not cut_off)):
                self._roster.links[link].doubted[peer.session] = now
            sighting.standing = Standing.ALIVE
            self._roster.changed = True
            self._roster.report("PeerAlive", node=peer.node, link=link)
        sighting.life_at = now
        self._roster.check_at = min(self._roster.check_at, now + sighting.detector.suspicion())
        for theirs in peer.sightings.values() if len(peer.sightings) > 1 else ():
            if interval < theirs.detector.interval:  # it speaks on all its links at once: expect it here as often
                theirs.life_at = max(theirs.life_at, now - interval)
                theirs.detector.skip(interval, now)
                self._roster.check_at = now

    def _note_behind(self, peer: Peer, now: float) -> None:
        if peer.mirror.in_step:
            peer.behind_since = None
            self._trust(peer)
        elif peer.behind_since is None:
            peer.behind_since = now

    def _trust(self, peer: Peer) -> None:
        """Its claims are known, or it has none any more."""
        for segment in self._roster.links.values():
            if segment.doubted.pop(peer.session, None) is not None:
                self._roster.changed = True

    # ------------------------------------------------------------------------------------------------ subnets

    def _note_networks(self, segment: Segment, sighting: Sighting, message: Heartbeat, now: float) -> None:
        """Remember what a peer says of the subnets here and elsewhere; most say the same each time."""
        if (sighting.prefixes, sighting.elsewhere) != (message.prefixes, message.elsewhere):
            sighting.prefixes, sighting.elsewhere = message.prefixes, message.elsewhere
            self._roster.networks_changed = True
        for table, prefixes in ((segment.networks, message.prefixes), (self._roster.elsewhere, message.elsewhere)):
            for prefix in prefixes:
                if now - table.get(prefix, NEVER) > NETWORKS_GAP_S:
                    self._note_network(table, prefix, now)

    def _remember_own_networks(self, now: float) -> None:
        """An address on a subnet of ours belongs there, also while we lack it; and one on nobody's subnet on those
        where speakers are."""
        for segment in self._roster.links.values():
            for prefix in segment.state.prefixes:
                self._note_network(self._roster.elsewhere, prefix, now)
                if segment.shared:
                    self._note_network(self._roster.shared, prefix, now)

    def _was_shared(self, state: LinkState, now: float) -> bool:
        """Whether speakers were heard on the subnet of a link that is new."""
        return not set(networks_of(state.prefixes)).isdisjoint(said_lately(self._roster.shared, now))

    @staticmethod
    def _note_network(table: OrderedDict[str, float], prefix: str, now: float) -> None:
        table[prefix] = now
        table.move_to_end(prefix)
        while len(table) > MAX_NETWORKS:
            table.popitem(last=False)

    # ------------------------------------------------------------------------------------------------ frames

    def refused(self, link: LinkName, to: AddressText, now: float) -> None:
        """The kernel at ``to`` says that no speaker listens there (ICMP port unreachable, RFC 792)."""
        for peer in list(self._roster.suspects.values()):
            sighting = peer.sightings.get(link)
            if sighting is not None and sighting.suspicion is not None and sighting.address == to:
                sighting.suspicion.refused_at = now
                self._roster.check_at = now

    def proved(self, link: LinkName, node: NodeName, now: float) -> None:
        """A suspect has answered a question of ours for its address, with a proof that only a speaker can make."""
        peer = self._roster.peers.get(node)
        sighting = peer.sightings.get(link) if peer is not None else None
        if sighting is not None and sighting.suspicion is not None:
            sighting.suspicion.served_at = now
            self._roster.check_at = now

    def frame(self, link: LinkName, sender: Mac, now: float) -> None:
        """Take a frame of any kind: unless a suspect's own, it proves that we can hear."""
        segment = self._roster.links.get(link)
        if segment is None:
            return
        node = self._by_mac.get(sender)
        peer = self._roster.peers.get(node) if node is not None else None
        sighting = peer.sightings.get(link) if peer is not None else None
        if sighting is None or sighting.standing is Standing.ALIVE:
            segment.frame_at = now
            segment.alone = False
            self._roster.check_at = now

    def arp(self, seen: ArpSeen, now: float) -> NodeName | None:
        """Take an ARP frame as a sign that its sender is there. Returns the peer whose MAC it carries."""
        segment = self._roster.links.get(seen.link)
        if segment is None:
            return None
        node = self.whose(seen.sender_mac)
        if node is not None:
            return node
        segment.alone = False
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
