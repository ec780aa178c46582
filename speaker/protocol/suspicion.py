"""Finds out who is dead from who is silent, and whether it is this node that is cut off.

**Suspicion.** A peer is suspected when it was silent for 2.5 of the intervals that it announced, ignored two questions
about another suspect, or its kernel refused a knock (``knocking``). Then:

1. The next heartbeat says so, at once. Each speaker that hears it says at once when it last heard the suspect.
2. The suspect is asked by a unicast datagram, in each family in which it was heard, and by a question with a nonce for
   an address that it holds.
3. Both are asked again after 50 ms, and each 100 ms while the suspicion lasts; for some other addresses while none is
   proved, since it may have released the first ones without our hearing of it.

**Proof of service.** Anybody can send ARP replies in a dead node's name, and some switches and access points do so in
good faith. A reply counts only if it carries what a member of the cluster makes of the nonce of one of our latest
questions. A suspect that goes on proving that it answers is alive though its datagrams do not arrive. That is reported
(``DatagramsBlocked``), since something blocks the port.

**Death** needs all of this:

- Nobody who answers has heard the suspect for longer than D.
- The suspect has not proved for longer than D that it answers for its address.
- Every peer has answered or ignored two questions.
- A frame of a third party has come since the suspicion, which proves that this node can hear: a frame of any kind, of
  anybody but a suspect. Where no peer, gateway or neighbour was heard in the last five minutes, carrier is the proof,
  but not on a link that has just come up.

One thing shortens it: a datagram that the suspect's kernel refuses and one such question that stays unanswered for 25
ms show that the process has ended. If the kernel answers for its own address, and another speaker can stand in, the
session is absent from then on (``absences``). Otherwise it is dead.

**Isolation** is a suspicion without the last proof. This node may be the one that is cut off, and claims nothing. When
the isolation ends, silence counts from then, since the first frame through a healed network may be the gateway's. After
3.5 s without a frame of anybody the suspects are taken for dead: the router may have run on the holder's machine, and
the neighbour may be asleep. This node is ``alone`` then, and what it claims gives way to the others (``owners``).

Liveness is per link. A link that is down, or on which this node cannot send, declares nobody dead.

Not promised: that a speaker which stands still for longer than D is not taken for dead.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain, islice

from cluster.addresses import family_of
from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName, Mac
from speaker.protocol.absences import Absences, ask_kernel
from speaker.protocol.datagram import NONCE_OCTETS
from speaker.protocol.effects import AskAddress, WatchFrames
from speaker.protocol.news import NO_NEWS, News
from speaker.protocol.peers import Link, Peer, Sighting, Suspicion
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Sign, Standing

REFUSED_S = 0.025  # for who refuses datagrams to answer for its address, if it lives all the same
KERNEL_S = 0.15  # for a kernel that refuses datagrams to answer for its own address, too: one question may be lost
SLOW_QUESTIONS_S = 3.0  # a suspicion older than this is asked about once a second
WAITING_S = 0.2  # between questions to third parties while fenced or isolated: everything waits for their answer
LONGEST_WAIT_S = 5.0  # between looks, whatever happens
REST_S = 0.001  # between looks
REST_OF_EACH_S = 0.00002  # the same, for each peer that is looked at
LOOKED_AT = 300  # claims of a suspect, to find some to ask for
ASKED_FOR = 3  # claims, in one question, of a suspect that has proved none of the last
NONCES = 4 * ASKED_FOR  # of the latest questions to a suspect: an answer to an older one is no news
BLOCKED_S = 1.0  # of a suspect that proves to be alive, until it is reported that its datagrams do not arrive
BLOCKED_AGAIN_S = 600.0


class Suspicions:
    """Judges the roster when somebody was silent for long enough, or something was found out about a suspect."""

    def __init__(
        self,
        roster: Roster,
        rng: random.Random,
        serves: Callable[[AddressText, LinkName, Peer, float, bool], bool],
        absences: Absences,
    ) -> None:
        self._roster = roster
        self._absences = absences
        self._rng = rng
        self._serves = serves
        """Whether a peer that claims an address is to answer for it on a link now; or would, if it has not heard that
        the address is another one's (True)."""
        self._look_at = NEVER
        self._news = News()
        """What the present call found out."""
        self._blocked: dict[tuple[LinkName, NodeName], float] = {}
        """When it was last reported that a peer's datagrams do not arrive."""

    def look(self, at: float) -> None:
        """Judge at this time at the latest."""
        self._look_at = min(self._look_at, at)

    def next_deadline(self) -> float:
        return self._look_at

    def check(self, now: float) -> News:
        """Suspect the silent, ask about suspects, declare the dead, if it is time to."""
        if now < self._look_at:
            return NO_NEWS
        news = self._news = News()
        deadlines = [now + LONGEST_WAIT_S]
        for name, link in self._roster.links.items():
            judges = self._roster.judges(name)
            if judges:
                deadlines.append(self._check_link(name, link, now))
            self._watch(name, link, judges and (link.unproven or link.came_up))
        self._look_at = max(min(deadlines), now + max(REST_S, REST_OF_EACH_S * len(self._roster.peers)))
        news.look_at = NEVER  # all is judged
        return news

    def _check_link(self, name: LinkName, link: Link, now: float) -> float:
        """Returns when to look there next."""
        if now >= link.ask_next:
            self._ask_third_parties(name, link)
            waiting = link.fencing.suspended or link.isolated
            link.ask_next = now + (WAITING_S if waiting else self._roster.settings.third_party_s / 5)
        look_at, isolated = link.ask_next, False
        ignored = self._ignored_since(name, now)
        for peer, sighting in list(self._roster.on(name)):
            at, lonely = self._check_peer(peer, name, sighting, ignored, now)
            look_at, isolated = min(look_at, at), isolated or lonely
        suspects = self._roster.suspects_on(name)
        unproven = any(self._proof(name, peer, suspicion, now) is None for peer, suspicion in suspects)
        self._news.changed |= unproven != link.unproven or isolated != link.isolated
        link.unproven = unproven
        if isolated != link.isolated:
            self._note_isolation(name, link, isolated, now)
        return look_at

    def _check_peer(
        self, peer: Peer, link: LinkName, sighting: Sighting, ignored: float, now: float
    ) -> tuple[float, bool]:
        """Returns when to look at the peer next, and whether the proof is missing that we can hear."""
        if sighting.standing is Standing.ALIVE:
            silent = now - sighting.life_at >= sighting.detector.suspicion()
            refused = sighting.refused_at > sighting.life_at and now >= sighting.misled_until
            if not silent and not refused and sighting.heard_at >= ignored:
                return sighting.life_at + sighting.detector.suspicion(), False
            self._news.add(self._roster.change_standing(peer, link, Sign.SILENCE, "", now))
            silent_ms = int((now - sighting.life_at) * 1000)
            self._roster.report("PeerSuspected", node=peer.node, link=link, silent_ms=silent_ms)
        suspicion = sighting.suspicion
        if suspicion is None:
            return NEVER, False
        self._pursue(peer, link, sighting, suspicion, now)
        at, lonely = self._judge(peer, link, sighting, suspicion, now)
        return min(at, suspicion.ask_next), lonely

    def _note_isolation(self, name: LinkName, link: Link, isolated: bool, now: float) -> None:
        link.isolated = isolated
        link.ask_next = now
        if isolated:
            link.isolated_at = now
            self._roster.report("Isolated", link=name)
        elif not link.alone:
            link.rejoined_at = now
            self._roster.report("Rejoined", link=name)

    def _watch(self, link: LinkName, here: Link, wanted: bool) -> None:
        if wanted != here.watched:
            here.watched = wanted
            self._roster.emit(WatchFrames(link, wanted))

    def _ignored_since(self, link: LinkName, now: float) -> float:
        """Who was not heard since then has ignored two questions about somebody, and becomes a suspect too."""
        patience = 2 * self._roster.settings.question_gap_s
        asked = [s.since for _, s in self._roster.suspects_on(link) if now - s.since >= patience]
        return max(asked, default=LONG_AGO)

    def _ask_third_parties(self, link: LinkName, here: Link) -> None:
        """Those who are no speakers: the gateways, and the last neighbours by unicast, in the families that the link
        speaks. Now and then, to know whether there are any; quickly, when their answer matters."""
        third_parties: list[tuple[AddressText, Mac | None]] = [(gateway, None) for gateway in here.state.gateways]
        third_parties += [(address, mac) for mac, (address, _) in here.neighbours.items()]
        for address, mac in third_parties:
            if family_of(address) in here.state.families:
                self._roster.emit(AskAddress(link, address, mac))

    def _pursue(self, peer: Peer, link: LinkName, sighting: Sighting, suspicion: Suspicion, now: float) -> None:
        """Ask everybody who may know, when it is time to."""
        if now < suspicion.ask_next:
            return
        suspicion.questions += 1
        if suspicion.questions == 1:
            gap = self._roster.settings.question_gap_s
        elif now - max(suspicion.since, suspicion.served_at) < SLOW_QUESTIONS_S:
            gap = self._roster.settings.interval_s
        else:
            gap = self._roster.settings.idle_interval_s
        suspicion.ask_next = now + gap
        self._news.speak = True
        self._news.write_to(link, peer.node, sighting.contacts)
        asked_for = self._held_by(peer, suspicion, link, now)
        for address in asked_for or self._held_by(peer, suspicion, link, now, outranked=True):
            nonce = self._rng.getrandbits(8 * NONCE_OCTETS).to_bytes(NONCE_OCTETS)
            suspicion.nonces[nonce] = address
            self._roster.emit(AskAddress(link, address, nonce=nonce))
        while len(suspicion.nonces) > NONCES:
            del suspicion.nonces[next(iter(suspicion.nonces))]
        if asked_for:
            suspicion.asked_at = now
            suspicion.first_asked_at = min(suspicion.first_asked_at, now)
            ask_kernel(self._roster, sighting, link)
        others = [
            theirs for other, theirs in self._roster.on(link) if other is not peer and theirs.standing is Standing.ALIVE
        ]
        if any(theirs.heard_at > suspicion.since for theirs in others) or (others and suspicion.questions == 1):
            return  # they prove that we hear
        self._ask_third_parties(link, self._roster.links[link])

    def _held_by(
        self, peer: Peer, suspicion: Suspicion, link: LinkName, now: float, *, outranked: bool = False
    ) -> list[AddressText]:
        """Addresses for which the peer should answer on the link: the one that was just proved, or else some that were
        not asked for lately. ``outranked``: for which it may do so, since it has not heard whose they are."""
        served = suspicion.served if suspicion.served_at >= suspicion.asked_at else None
        if served is not None and self._serves(served, link, peer, now, outranked):
            return [served]
        claims = list(peer.mirror.claims)
        first = suspicion.place % len(claims) if claims else 0
        in_order = enumerate(islice(chain(claims[first:], claims[:first]), LOOKED_AT), first + 1)
        there = ((place, each) for place, each in in_order if self._serves(each, link, peer, now, outranked))
        found = list(islice(there, 1 if suspicion.questions == 1 else ASKED_FOR))
        if found:
            suspicion.place = found[-1][0]
        return [address for _, address in found]

    def _judge(
        self, peer: Peer, link: LinkName, sighting: Sighting, suspicion: Suspicion, now: float
    ) -> tuple[float, bool]:
        """Declare the suspect dead if that is proved. Otherwise: when to look again, and whether what is missing is
        the proof that we can hear."""
        self._tell_blocked(peer, link, sighting, suspicion, now)
        if sighting.refused_at > sighting.life_at and suspicion.served_at < suspicion.since:
            unanswered_at = suspicion.first_asked_at + REFUSED_S
            if now >= unanswered_at:
                may_begin = self._absences.may_begin(peer, now)
                kernel_by = unanswered_at + KERNEL_S
                if may_begin and sighting.kernel_at < suspicion.since and now < kernel_by:
                    return min(now + REFUSED_S, kernel_by), False
                if may_begin and sighting.kernel_at >= suspicion.since:
                    self._news.add(self._absences.begin(peer, "refused by its kernel", now))
                else:
                    self._bury(peer, link, sighting, "refused by its kernel", now)
                return now, False
            if unanswered_at < NEVER:
                return unanswered_at, False
        due = self._due(link, sighting, suspicion, now)
        if now < due:
            return due, False
        here = self._roster.links[link]
        proof = self._proof(link, peer, suspicion, now)
        if proof is None:
            alone_at = max(due, suspicion.since) + self._roster.settings.alone_s
            if not here.is_alone(alone_at, now):
                return min(suspicion.ask_next, alone_at), True
            proof = "nobody is heard"
        elif here.isolated:
            return now, False  # the others could not reach us either: their silence counts from now
        self._bury(peer, link, sighting, proof, now)
        return now, False

    def _due(self, link: LinkName, sighting: Sighting, suspicion: Suspicion, now: float) -> float:
        """From when on the suspect may be declared dead, as far as is known now: D after its last sign of life, after
        the questions' time, and D after an isolation of ours."""
        detection = self._roster.detection(sighting, now)
        life_at = max(sighting.life_at, suspicion.told_at, suspicion.served_at)
        answered_by = suspicion.since + 2 * self._roster.settings.question_gap_s
        return max(life_at + detection, answered_by, self._roster.links[link].rejoined_at + detection)

    def _tell_blocked(self, peer: Peer, link: LinkName, sighting: Sighting, suspicion: Suspicion, now: float) -> None:
        if suspicion.served_at < suspicion.since + BLOCKED_S:
            return
        if now - self._blocked.get((link, peer.node), LONG_AGO) < BLOCKED_AGAIN_S:
            return
        self._blocked = {key: at for key, at in self._blocked.items() if now - at < BLOCKED_AGAIN_S}
        self._blocked[(link, peer.node)] = now
        self._roster.report("DatagramsBlocked", node=peer.node, link=link, address=sighting.address)

    def _proof(self, link: LinkName, suspect: Peer, suspicion: Suspicion, now: float) -> str | None:
        """What shows that we can hear, although we do not hear the suspect."""
        here = self._roster.links[link]
        since = max(suspicion.since, suspicion.told_at, suspicion.served_at)
        recently = now - self._roster.settings.third_party_s
        known = False
        for other, theirs in self._roster.on(link):
            if other is not suspect and theirs.standing is not Standing.DEAD:
                if theirs.heard_at > since:
                    return f"peer {other.node}"
                known = True
        if here.frame_at > since:
            return "a frame"
        for name, at in [("gateway", here.gateway_at)] + [
            (f"neighbour {address}", at) for address, at in here.neighbours.values()
        ]:
            if at > since:
                return name
            known = known or at > recently
        return None if known or here.came_up else "carrier"

    def _bury(self, peer: Peer, link: LinkName, sighting: Sighting, proof: str, now: float) -> None:
        self._news.add(self._roster.change_standing(peer, link, Sign.PROOF, f"death of {peer.node}", now))
        silent_ms = int((now - sighting.life_at) * 1000)
        self._roster.report("PeerDead", node=peer.node, link=link, proof=proof, silent_ms=silent_ms)
