"""Silence + now -> suspicion, questions, death; and whether it may be us who are cut off.

**Suspicion** is silence of 2.5 announced intervals, or to ignore two questions about another suspect. It is said in
the next heartbeat, at once; the suspect is asked by unicast, and an address that it holds there is asked for by ARP
with a nonce; both again after 50 ms, and each 100 ms while it lasts, for another address while none is proved. Who
hears a suspicion says at once when it last heard the suspect.

**Proof of service.** Anybody can send ARP Replies in a dead node's name, and some switches and access points do so in
good faith. A Reply counts only if it carries what a member of the cluster makes of the nonce of one of our latest
questions (``Heartbeat``'s key). A suspect that goes on proving that it answers is alive, though its datagrams do not
arrive; that is reported, since something blocks the port.

**Death** needs all of: nobody who answers has heard the suspect for longer than D; the suspect has not proved that it
answers for its address; every peer has answered or ignored two questions; and a frame from a third party since the
suspicion, which proves that we can hear: any frame of anybody who is no suspect (``WatchFrames``). Where no third
party was heard in the last five minutes, be it a peer, the gateway or one of the last eight neighbours, carrier is the
proof, but not on a link that has just come up. A datagram refused by the suspect's kernel and one unanswered ARP
question are a death at once.

**Isolation** is a suspicion without that proof: then we may be the ones who are cut off, and claim nothing. When it
ends, silence counts from then: the first frame through a healed network may be the gateway's. When 3.5 s bring no
frame of anybody, the others may as well be gone together (a router that ran on the holder's machine, a neighbour that
went to sleep): the suspects are taken for dead. We are ``alone`` then, and what is claimed gives way to whoever is
back (``epochs``).

Liveness is per link. A link that is down, or on which we cannot send, declares nobody dead.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain, islice

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName
from speaker.protocol.effects import AskAddress, WatchFrames
from speaker.protocol.heartbeat import NONCE_OCTETS
from speaker.protocol.roster import Link, Peer, Roster, Sighting, Standing, Suspicion

SLOW_QUESTIONS_S = 3.0  # a suspicion older than this is asked about once a second
WAITING_S = 0.2  # between questions to third parties while fenced or isolated: everything waits for their answer
LONGEST_WAIT_S = 5.0  # between looks, whatever happens
LOOKED_AT = 1000  # claims of a suspect, to find one to ask for
NONCES = 4  # of the latest questions to a suspect: an answer to an older one is no news
BLOCKED_S = 1.0  # of a suspect that proves to be alive, until it is reported that its datagrams do not arrive
BLOCKED_AGAIN_S = 600.0


class Suspicions:
    """Judges the roster when its ``check_at`` has come."""

    def __init__(
        self, roster: Roster, rng: random.Random, belongs: Callable[[AddressText, LinkName, float], bool]
    ) -> None:
        self._roster = roster
        self._rng = rng
        self._belongs = belongs
        """Whether an address is to be answered for on a link now."""
        self._blocked: dict[tuple[LinkName, NodeName], float] = {}
        """When it was last reported that a peer's datagrams do not arrive."""

    def check(self, now: float) -> None:
        """Suspect the silent, ask about suspects, declare the dead."""
        if now < self._roster.check_at:
            return
        deadlines = [now + LONGEST_WAIT_S]
        for link, here in self._roster.links.items():
            if not self._roster.judges(link):
                self._watch(link, here, False)
                continue
            if now >= here.ask_next:
                self._ask_third_parties(link, here)
                waiting = here.fenced_since is not None or here.isolated
                here.ask_next = now + (WAITING_S if waiting else self._roster.settings.third_party_s / 5)
            deadlines.append(here.ask_next)
            isolated = False
            ignored = self._ignored_since(link, now)
            for peer, sighting in list(self._roster.on(link)):
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
                self._proof(link, peer, suspicion, now) is None for peer, suspicion in self._roster.suspects_on(link)
            )
            self._roster.changed = self._roster.changed or unproven != here.unproven
            here.unproven = unproven
            if isolated != here.isolated:
                here.isolated = isolated
                here.ask_next = now
                self._roster.changed = True
                if isolated:
                    here.isolated_at = now
                    self._roster.report("Isolated", link=link)
                elif not here.alone:
                    here.rejoined_at = now
                    self._roster.report("Rejoined", link=link)
            self._watch(link, here, unproven or here.came_up)
        self._roster.check_at = max(min(deadlines), now + 0.001)

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
        """Those who are no speakers: the gateway, and the last neighbours by unicast. Now and then, to know whether
        there are any; quickly, when their answer matters."""
        if here.state.gateway is not None:
            self._roster.emit(AskAddress(link, here.state.gateway))
        for mac, (address, _) in here.neighbours.items():
            self._roster.emit(AskAddress(link, address, mac))

    def _suspect(self, peer: Peer, link: LinkName, sighting: Sighting, now: float) -> None:
        sighting.standing = Standing.SUSPECTED
        sighting.suspicion = Suspicion(now, now)
        self._roster.suspects[peer.session] = peer
        self._roster.changed = True
        self._roster.report("PeerSuspected", node=peer.node, link=link, silent_ms=int((now - sighting.life_at) * 1000))

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
        self._roster.speak_now = True
        self._roster.unicast[(link, sighting.contact)] = None
        address = self._held_by(peer, suspicion, link, now)
        if address is not None:
            nonce = self._rng.getrandbits(8 * NONCE_OCTETS).to_bytes(NONCE_OCTETS)
            suspicion.nonces[nonce] = address
            while len(suspicion.nonces) > NONCES:
                del suspicion.nonces[next(iter(suspicion.nonces))]
            self._roster.emit(AskAddress(link, address, nonce=nonce))
            suspicion.asked_at = now
            suspicion.first_asked_at = min(suspicion.first_asked_at, now)
        others = [
            theirs for other, theirs in self._roster.on(link) if other is not peer and theirs.standing is Standing.ALIVE
        ]
        if any(theirs.heard_at > suspicion.since for theirs in others) or (others and suspicion.questions == 1):
            return  # they prove that we hear
        self._ask_third_parties(link, self._roster.links[link])

    def _held_by(self, peer: Peer, suspicion: Suspicion, link: LinkName, now: float) -> AddressText | None:
        """An address that the peer should answer for on the link: another one where the last was not proved, since it
        may have been released without our hearing of it."""
        claims = list(peer.mirror.claims)
        if suspicion.served_at < suspicion.asked_at:
            suspicion.place += 1
        first = suspicion.place % len(claims) if claims else 0
        in_order = islice(chain(claims[first:], claims[:first]), LOOKED_AT)
        return next((address for address in in_order if self._belongs(address, link, now)), None)

    def _judge(
        self, peer: Peer, link: LinkName, sighting: Sighting, suspicion: Suspicion, now: float
    ) -> tuple[float, bool]:
        """Declare the suspect dead if that is proved. Otherwise: when to look again, and whether what is missing is
        the proof that we can hear."""
        gap = self._roster.settings.question_gap_s
        self._tell_blocked(peer, link, sighting, suspicion, now)
        if suspicion.refused_at > sighting.life_at and suspicion.served_at < suspicion.since:
            unanswered_at = suspicion.first_asked_at + gap
            if now >= unanswered_at:
                self._bury(peer, link, sighting, "refused by its kernel", now)
                return now, False
            if unanswered_at < NEVER:
                return unanswered_at, False
        life_at = max(sighting.life_at, suspicion.told_at, suspicion.served_at)
        due = life_at + self._roster.detection(sighting, now)
        answered_by = suspicion.since + 2 * gap
        for other, theirs in self._roster.on(link):
            if other is not peer and theirs.standing is Standing.ALIVE and theirs.heard_at < suspicion.since:
                due = max(due, answered_by)
        due = max(due, suspicion.since + 2 * gap)  # the questions' time, also where D was over before the suspicion
        due = max(due, self._roster.links[link].rejoined_at + self._roster.detection(sighting, now))
        if now < due:
            return due, False
        here = self._roster.links[link]
        proof = self._proof(link, peer, suspicion, now)
        if proof is None:
            alone_at = max(due, suspicion.since) + self._roster.settings.alone_s
            if here.came_up or (now < alone_at and not here.alone):
                return min(suspicion.ask_next, alone_at), True
            here.alone = True
            proof = "nobody is heard"
        elif here.isolated:
            return now, False  # the others could not reach us either: their silence counts from now
        self._bury(peer, link, sighting, proof, now)
        return now, False

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
        self._roster.forget_suspicion(peer, sighting)
        sighting.standing = Standing.DEAD
        self._roster.changed = True
        self._roster.mark_claims(peer, f"death of {peer.node}")
        silent_ms = int((now - sighting.life_at) * 1000)
        self._roster.report("PeerDead", node=peer.node, link=link, proof=proof, silent_ms=silent_ms)
