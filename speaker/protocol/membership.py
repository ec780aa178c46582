"""Takes datagrams, and keeps in the roster who is there and what each peer says of itself.

For each datagram that was authenticated:

1. ``identity`` says whose it is. A datagram that does not count is dropped with a reason.
2. A heartbeat gives a sign of life on the link on which it came (``standing``). The exception is a peer that hears
   nobody while this node hears others: it cannot be asked for anything, so its heartbeats do not count.
3. What the heartbeat says of its sender, of whom it hears and of its claims goes into the tables.
4. A message with claims goes to ``mirrors``.

**Return.** A peer that was silent for longer than D and is back may have claimed what this node holds. Until its claims
are known, nothing is answered on the link, for a second at most (``fencing``). D is doubled for such a peer only where
it heard this node all the while: if neither heard the other, the network was cut, and the silence was what it seemed.

**Several links.** A peer lives on each link by itself, and its claims are taken from any. It speaks on all its links at
once: one that speaks often on one link is expected to speak as often on all. Where a peer has two interfaces on one
segment, the first one counts as long as it speaks.

**Lost links.** A peer that loses one of its links says so on the others. It is dead at once on this node's link to that
segment, unless it has another interface there. What it said before the loss and comes later is no life. Not promised:
that a second loss within half a second is believed; then the silence tells.

**Restarts.** What a heartbeat says of who stands in for whom goes to ``absences``. What a stand-in says on behalf of a
session counts as long as it stands in for it.
"""

from __future__ import annotations

from cluster.addresses import Family, family_of
from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO
from speaker.link import LinkName, Mac
from speaker.protocol.absences import Absences
from speaker.protocol.datagram import Drop, Envelope, HeartbeatError, Unknown
from speaker.protocol.detector import SUSPICION_INTERVALS, Detector
from speaker.protocol.heartbeat import (
    BY_GROUP,
    MAX_AGE_MS,
    RETURNED,
    SUSPECTED,
    Flag,
    Heartbeat,
    Offer,
    OnBehalf,
    all_hows,
    how_heard,
    unpack_address,
    unpack_families,
    unpack_heard,
)
from speaker.protocol.identity import Identity
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import News, ask_of
from speaker.protocol.peers import NO_MAC, Peer, Sighting, claims_of
from speaker.protocol.roster import Roster
from speaker.protocol.sessions import Sessions
from speaker.protocol.standing import Sign, Standing
from speaker.protocol.subnets import Subnets

REST_S = 0.5
"""Between changes of a peer's families or interface on a link, or losses of it: all of its claims are judged anew."""
MISLED_S = 600.0
"""For which no refusal is believed at once of a peer that was heard after one."""
ABLE, STARTING, LEAVING = int(Flag.ABLE), int(Flag.STARTING), int(Flag.LEAVING)
ANSWER, CUT_OFF, YIELDS, RESTARTING = int(Flag.ANSWER), int(Flag.CUT_OFF), int(Flag.YIELDS), int(Flag.RESTARTING)


class Membership:
    """Sans-IO: fills the roster with what datagrams say."""

    def __init__(
        self, identity: Identity, roster: Roster, *, sessions: Sessions, mirrors: Mirrors, absences: Absences
    ) -> None:
        self._identity = identity
        self._sessions = sessions
        self._mirrors = mirrors
        self._absences = absences
        self._subnets = Subnets(roster)
        self._roster = roster
        self._news = News()
        """What the present datagram tells."""

    def receive(self, link: LinkName, source: AddressText, envelope: Envelope, now: float, *, by_group: bool) -> News:
        """Take an authenticated datagram."""
        news = self._news = News()
        try:
            self._take(link, source, envelope, now, by_group=by_group)
        except HeartbeatError as error:
            news.dropped = error
        return news

    def _take(self, link: LinkName, source: AddressText, envelope: Envelope, now: float, *, by_group: bool) -> None:
        """Raises ``HeartbeatError`` for a datagram that does not count."""
        session, message = envelope.session, envelope.message
        if session == self._identity.session:
            self._news.networks = isinstance(message, Heartbeat) and self._note_own(link, message, now)
            raise HeartbeatError(Drop.OWN)
        if self._sessions.is_retired(session, envelope.sequence):
            raise HeartbeatError(Drop.REPLAYED)
        peer = self._sessions.peer(session)
        if isinstance(message, Heartbeat):
            if peer is None:
                peer, introduced = self._identity.introduce(link, source, envelope, message, now)
                self._news.add(introduced)
                if peer is None:
                    self._note_asked(message)
                    if not by_group:  # nor may what we say to the group reach it
                        self._news.write_to(link, NodeName(message.node), ((source, Mac(message.mac)),))
                    return
            elif message.node != peer.node:
                raise HeartbeatError(Drop.NONSENSE, "a session has one node")
            elif not self._fresh(peer, link, envelope.sequence, now):
                return
            self._hear(peer, link, source, message, now, by_group=by_group)
            if message.lost:
                self._note_lost(peer, link, message, envelope.sequence, now)
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
        if isinstance(message, Offer):
            if message.to == self._identity.session:
                self._news.offered.update((unpack_address(address), peer.node) for address in message.addresses)
            return
        if isinstance(message, OnBehalf):
            absent = self._absences.spoken_for(message.session, session)
            if absent is not None:
                self._news.add(self._mirrors.take(absent, message.said, now))
            return
        self._news.add(self._mirrors.take(peer, message, now))

    def _note_own(self, link: LinkName, message: Heartbeat, now: float) -> bool:
        """A heartbeat of ours came back. On another link than it went out on: both are one segment. Returns whether
        that is new. Which link it was, the heartbeat says; its source may not, since interfaces with one MAC (VLANs on
        one card) have one link-local address."""
        sent_on = LinkName(message.link)
        if sent_on == link or sent_on not in self._roster.links:
            return False
        new = False
        for one, other in ((sent_on, link), (link, sent_on)):
            new = new or other not in self._roster.links[one].also
            self._roster.links[one].also[other] = now
        return new

    def _fresh(self, peer: Peer, link: LinkName, sequence: int, now: float) -> bool:
        """False for a heartbeat that a newer one overtook on this link: it has nothing to say any more. What was said
        on another link at the same time has no part in this. A heartbeat that two of our links on one segment hear
        counts on both."""
        sighting = peer.sightings.get(link)
        newest = sighting.newest if sighting is not None else -1
        if not peer.window.accept(sequence):
            twice = sequence > newest and bool(self._subnets.same_segment(link, now))
            if not twice:
                raise HeartbeatError(Drop.REPLAYED)
        if sighting is None:
            return True
        fresh = sequence > newest
        sighting.newest = max(sighting.newest, sequence)
        return fresh

    def _hear(
        self,
        peer: Peer,
        link: LinkName,
        source: AddressText,
        message: Heartbeat,
        now: float,
        *,
        by_group: bool,
    ) -> None:
        sighting, first = self._sight(peer, link, source, message, now)
        sighting.heard_at = now
        if by_group:
            sighting.by_group_at = now
        self._note_link(link, sighting, message if first else None, now)
        hears, heard_all_along = self._read_heard(peer, link, sighting, message.heard, now)
        if message.flags & LEAVING:
            self._leave(peer, link, message, now)
            return
        if message.flags & ANSWER or (sighting.standing is Standing.DEAD and not hears):
            self._news.speak = True
            self._news.write_to(link, peer.node, sighting.contacts)  # what we say to the group may not reach it
        self._news.changed |= self._mirrors.note(peer, message.version, message.digest, now)
        peer.skills = message.skills
        said = bool(message.flags & RESTARTING), message.stand_in
        self._news.changed |= said != (peer.restarting, peer.stand_in)
        peer.restarting, peer.stand_in = said
        if hears or not any(
            other is not peer and theirs.standing is Standing.ALIVE for other, theirs in self._roster.on(link)
        ):
            self._take_life(peer, link, sighting, message, now, heard_all_along=heard_all_along)
        able = bool(message.flags & ABLE) and not peer.ignored
        if first and able != (sighting.able_since is not None):
            sighting.able_since = now if able else None
            self._news.changed = True
        if first:
            self._note_families(peer, sighting, unpack_families(message.families), now)
            self._news.add(self._absences.heard(link, peer.session, message.stood_in, now))
        sighting.starting, sighting.yields = bool(message.flags & STARTING), bool(message.flags & YIELDS)
        self._note_asked(message)

    def _leave(self, peer: Peer, link: LinkName, message: Heartbeat, now: float) -> None:
        """It ends: having released everything, or with another speaker that stands in for it."""
        peer.stand_in = message.stand_in
        if message.stand_in and self._absences.may_begin(peer, now):
            self._news.add(self._absences.begin(peer, "restarts", now, ended=True))
            return
        self._news.add(self._identity.remove(peer, now))
        self._roster.report("PeerDead", node=peer.node, link=link, proof="left")

    def _sight(
        self, peer: Peer, link: LinkName, source: AddressText, message: Heartbeat, now: float
    ) -> tuple[Sighting, bool]:
        """The peer on the link, and whether the heartbeat is of the interface by which it is there."""
        sighting = peer.sightings.get(link)
        if sighting is None:
            interval = self._interval(message)
            sighting = Sighting(source, Mac(message.mac), Detector(interval, now), now, LinkName(message.link))
            peer.sightings[link] = sighting
        silent = now - sighting.link_at >= sighting.detector.suspicion() and now >= sighting.renamed_at + REST_S
        first = sighting.link == message.link or silent
        if first:
            sighting.link_at = now
            self._news.changed |= self._note_interface(peer, sighting, source, message)
        elif sighting.other_mac != message.mac:
            self._roster.by_mac.pop(sighting.other_mac, None)
            sighting.other_mac = Mac(message.mac)
            self._roster.by_mac[sighting.other_mac] = peer.node
        return sighting, first

    def _note_link(self, link: LinkName, sighting: Sighting, message: Heartbeat | None, now: float) -> None:
        """A speaker was heard on the link; its ``message``, if that says what subnets there are."""
        here = self._roster.links[link]
        here.alone = False
        if not here.shared:
            here.shared = self._news.networks = True
        if here.unproven:
            self._news.look_at = now
        if message is not None:
            nearer, moved = self._subnets.note(here, sighting, message, now)
            self._news.changed |= nearer
            self._news.networks |= moved

    def _note_families(self, peer: Peer, sighting: Sighting, families: frozenset[Family], now: float) -> None:
        """Which families the peer speaks on the link: its claims on addresses of the others do not count there. All of
        them are judged anew when that changes, so it is believed once in a moment; the peer says it again."""
        changed = sighting.families ^ families
        if not changed or now < sighting.families_at + REST_S:
            return
        sighting.families, sighting.families_at = families, now
        self._news.changed = True
        claims = claims_of(peer, f"change of families of {peer.node}")
        self._news.claims.update((address, why) for address, why in claims.items() if family_of(address) in changed)

    def _note_lost(self, peer: Peer, link: LinkName, message: Heartbeat, sequence: int, now: float) -> None:
        """What the peer says on one link of others that it has lost, if it says nothing newer by one of those."""
        for name, theirs in peer.sightings.items():
            gone = theirs.link in message.lost and theirs.other_mac == NO_MAC and theirs.newest < sequence
            if name == link or not gone or theirs.standing is Standing.DEAD or now < theirs.lost_at + REST_S:
                continue
            theirs.lost_at, theirs.newest = now, sequence
            silent_ms = int((now - theirs.life_at) * 1000)
            self._news.add(self._roster.change_standing(peer, name, Sign.LOSS, f"death of {peer.node}", now))
            self._roster.report("PeerDead", node=peer.node, link=name, proof="lost its link", silent_ms=silent_ms)

    def _note_asked(self, message: Heartbeat) -> None:
        """The versions that the sender has, of claims of which it lacks later ones: ours, and others'. They are said to
        anybody who has heard us: also to a machine that is no peer yet, since another one has had its name."""
        own = self._identity.session
        self._news.asked.update((version, None) for session, version in message.asks if session == own)
        ask_of(self._news.asked_of, (ask for ask in message.asks if ask[0] != own))

    def _note_interface(self, peer: Peer, sighting: Sighting, source: AddressText, message: Heartbeat) -> bool:
        """The interface by which the peer is on this link. Another one of its on the same segment counts only when
        this one has been silent for as long as makes a suspect: else the two would alternate. Returns whether it is
        called otherwise than before."""
        if sighting.mac != message.mac:
            self._roster.by_mac.pop(sighting.mac, None)
        sighting.note_place(source, Mac(message.mac))
        self._roster.by_mac[sighting.mac] = peer.node
        renamed = sighting.link != message.link
        sighting.link = LinkName(message.link)
        if renamed:
            sighting.renamed_at = sighting.link_at
            named = (address for address, claim in peer.mirror.claims.items() if claim.links)
            self._news.claims.update(dict.fromkeys(named, f"change of interfaces of {peer.node}"))
        return renamed

    def _interval(self, message: Heartbeat) -> float:
        """Seconds until the peer's next heartbeat as it says, but no longer than anybody's may be."""
        return min(message.due_ms / 1000, self._roster.longest_interval_s)

    def _read_heard(
        self, peer: Peer, link: LinkName, sighting: Sighting, packed: bytes, now: float
    ) -> tuple[bool, bool]:
        """Take what the peer says about us and about those whom anybody suspects. Returns whether it shows that its
        sender can hear: everybody answers a suspicion at once, so who says one and has heard nobody for 2.5 short
        intervals hears nobody. And whether it shows that the sender has heard *us* all along."""
        ours = how_heard(packed, self._identity.session)
        heard_us = False
        if ours is not None:
            age_s = (ours & MAX_AGE_MS) / 1000
            sighting.hears_us_at = max(sighting.hears_us_at, now - age_s)
            heard_us = not ours & RETURNED and age_s < self._roster.detection(sighting, now)
            if ours & BY_GROUP:
                sighting.hears_group_at = now
        hows = all_hows(packed)
        if not self._roster.suspects and not peer.suspicions and max(hows, default=0) < SUSPECTED:
            return bool(hows), heard_us  # nobody suspects anybody, as is usual
        suspicions: dict[int, int] = {}
        youngest_ms = MAX_AGE_MS + 1
        for session, how in unpack_heard(packed):
            age_ms = how & MAX_AGE_MS
            suspect = self._roster.suspects.get(session)
            if suspect is not None and age_ms < MAX_AGE_MS:  # a greater age is not told
                theirs = suspect.sightings.get(link)
                if theirs is not None and theirs.suspicion is not None:
                    theirs.suspicion.told_at = max(theirs.suspicion.told_at, now - age_ms / 1000)
            if how < SUSPECTED:
                youngest_ms = min(youngest_ms, age_ms)
                continue
            if suspect is None:
                self._news.suspected.add((link, session))
            answered = suspicions[session] = peer.suspicions.get(session, 0) + 1
            if answered <= 3:
                self._news.speak = True
                if session == self._identity.session:
                    self._news.write_to(link, peer.node, sighting.contacts)
        peer.suspicions = suspicions
        if not suspicions:
            return youngest_ms <= MAX_AGE_MS, heard_us
        self._news.alarm_until = now + self._roster.settings.idle_interval_s
        limit_ms = SUSPICION_INTERVALS * self._roster.settings.interval_s * self._roster.scale * 1000
        return youngest_ms <= limit_ms, heard_us

    def _take_life(
        self,
        peer: Peer,
        link: LinkName,
        sighting: Sighting,
        message: Heartbeat,
        now: float,
        *,
        heard_all_along: bool,
    ) -> None:
        interval = self._interval(message)
        cut_off = bool(message.flags & CUT_OFF)
        if sighting.standing is not Standing.ALIVE:
            self._revive(peer, link, sighting, now, cut_off=cut_off, heard_all_along=heard_all_along)
            sighting.detector.skip(interval, now)
        elif cut_off:
            sighting.detector.skip(interval, now)
        else:
            sighting.detector.heard(interval, now)
        sighting.life_at = now
        self._news.look_at = min(self._news.look_at, now + sighting.detector.suspicion())
        for theirs in peer.sightings.values() if len(peer.sightings) > 1 else ():
            if interval < theirs.detector.interval:  # it speaks on all its links at once: expect it here as often
                theirs.life_at = max(theirs.life_at, now - interval)
                theirs.detector.skip(interval, now)
                self._news.look_at = min(self._news.look_at, now)

    def _revive(
        self,
        peer: Peer,
        link: LinkName,
        sighting: Sighting,
        now: float,
        *,
        cut_off: bool,
        heard_all_along: bool,
    ) -> None:
        """A sign of life of a peer that was suspected or dead on the link."""
        silence, was_dead = now - sighting.life_at, sighting.standing is Standing.DEAD
        returned = sighting.life_at > LONG_AGO and silence > self._roster.detection(sighting, now) and not cut_off
        if sighting.refused_at > sighting.life_at:
            sighting.misled_until = now + MISLED_S
        if returned:
            sighting.returned_at = now
            if heard_all_along:
                sighting.detector.false_alarm(now)
        if not peer.mirror.in_step and (returned or (was_dead and not cut_off)):
            self._roster.links[link].fencing.doubt(peer.session, now)
        self._news.add(self._roster.change_standing(peer, link, Sign.LIFE, f"return of {peer.node}", now))
        self._news.speak = True  # it may not know yet that we hear
        self._roster.report("PeerAlive", node=peer.node, link=link)
