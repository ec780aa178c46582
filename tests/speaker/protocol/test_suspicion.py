"""From silence to death: what has to be found out, and what each thing that is found out changes.

One peer was heard at 0 for the last time. It says ten heartbeats a second: it is a suspect after 0.25 s; D is 0.35 s.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.absences import Absences
from speaker.protocol.effects import AskAddress
from speaker.protocol.fencing import Fence
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import News
from speaker.protocol.peers import Peer, Suspicion
from speaker.protocol.sessions import Sessions
from speaker.protocol.standing import Standing
from speaker.protocol.suspicion import Suspicions
from tests.speaker.protocol.company import (
    ETH0,
    ETH1,
    GATEWAY,
    STRANGER_MAC,
    VIP,
    B,
    C,
    Company,
    address_of,
    link_local_of,
    mac_of,
)

ALIVE, SUSPECT, DEAD = Standing
SUSPECTED_AT = 0.26
D_S = 0.35


class Silence:
    """``b`` holds the address and is silent; ``c``, if there, was heard all along."""

    def __init__(self, *, third: bool = True) -> None:
        self.company = Company()
        self.link = self.company.link(ETH0, "10.0.0.1/16", gateway=GATEWAY)
        self.peer = self.company.peer(B, eth0=ALIVE)
        self.sighting = self.peer.sightings[ETH0]
        self.company.claims(self.peer)
        self.news = News()
        self.third = self.company.peer(C, eth0=ALIVE).sightings[ETH0] if third else None
        roster = self.company.roster
        absences = Absences(1, roster, Sessions(roster), Mirrors(roster))
        self.suspicions = Suspicions(roster, random.Random(1), self._serves, absences)
        self.outranked: set[AddressText] = set()

    def _serves(self, address: AddressText, _link: LinkName, _peer: Peer, _now: float, outranked: bool) -> bool:
        return outranked or address not in self.outranked

    def check(self, now: float) -> Standing:
        if self.third is not None:
            self.third.heard_at = self.third.life_at = now
        self.suspicions.look(now)
        self.news = self.suspicions.check(now)
        return self.sighting.standing

    @property
    def suspicion(self) -> Suspicion:
        assert self.sighting.suspicion is not None
        return self.sighting.suspicion

    def run(self, until: float, *, begin: float = SUSPECTED_AT) -> float | None:
        """Check each 10 ms; when the peer was declared dead."""
        now = begin
        while now < until:
            if self.check(now) is DEAD:
                return now
            now += 0.01
        return None


@pytest.mark.parametrize(("now", "standing"), [(0.24, ALIVE), (SUSPECTED_AT, SUSPECT), (0.34, SUSPECT)])
def test_silence_makes_a_suspect(now: float, standing: Standing) -> None:
    assert Silence().check(now) is standing


def test_a_suspicion_is_said_at_once_and_the_suspect_is_asked_twice_in_a_moment() -> None:
    silence = Silence()
    silence.check(SUSPECTED_AT)
    by_each_family = tuple((address, mac_of(B)) for address in (address_of(B), link_local_of(B)))
    assert (silence.news.speak, silence.news.unicast) == (True, {(ETH0, B): by_each_family})
    silence.check(SUSPECTED_AT + 0.04)
    asked = [effect for effect in silence.company.effects if isinstance(effect, AskAddress) and effect.target == VIP]
    assert len(asked) == 1
    silence.check(SUSPECTED_AT + 0.05)
    asked = [effect for effect in silence.company.effects if isinstance(effect, AskAddress) and effect.target == VIP]
    assert len({each.nonce for each in asked}) == 2


def test_a_suspect_is_asked_for_what_it_has_proved_or_else_for_some_others_each_time() -> None:
    silence = Silence()
    held = [AddressText(f"10.0.9.{number}") for number in range(1, 6)]
    for address in held:
        silence.company.claims(silence.peer, address)

    def asked(now: float) -> list[AddressText]:
        silence.company.effects.clear()
        silence.check(now)
        return [effect.target for effect in silence.company.effects if isinstance(effect, AskAddress) and effect.nonce]

    assert asked(SUSPECTED_AT) == held[:1]
    assert asked(SUSPECTED_AT + 0.05) == held[1:4]
    silence.suspicion.served, silence.suspicion.served_at = held[2], SUSPECTED_AT + 0.06
    assert asked(SUSPECTED_AT + 0.15) == held[2:3]
    assert asked(SUSPECTED_AT + 0.25) == [held[4], *held[:2]], "it may have released the one since"


def test_a_suspect_is_asked_for_what_another_node_has_claimed_higher_where_it_has_nothing_else() -> None:
    """It may not have heard of that, and then it answers."""
    silence = Silence()
    kept = AddressText("10.0.9.1")
    silence.company.claims(silence.peer, kept)
    silence.outranked = {VIP}
    silence.check(SUSPECTED_AT)
    silence.check(SUSPECTED_AT + 0.05)
    nonces = [each for each in silence.company.effects if isinstance(each, AskAddress) and each.nonce]
    assert {each.target for each in nonces} == {kept}
    silence.outranked = {VIP, kept}
    silence.company.effects.clear()
    silence.check(SUSPECTED_AT + 0.15)
    nonces = [each for each in silence.company.effects if isinstance(each, AskAddress) and each.nonce]
    assert {each.target for each in nonces} == {VIP, kept}


def test_a_suspect_is_dead_after_d_and_its_claims_are_weighed() -> None:
    silence = Silence()
    died_at = silence.run(1.0)
    assert died_at is not None
    assert D_S <= died_at < D_S + 0.03
    assert silence.company.decisions() == ["PeerSuspected", "PeerDead"]
    assert silence.news.claims == {VIP: "death of b"}


Found = Callable[[Silence], None]
HELD_OFF: dict[str, Found] = {
    "a peer has heard it": lambda silence: setattr(silence.suspicion, "told_at", 0.3),
    "it has proved that it answers for its address": lambda silence: setattr(silence.suspicion, "served_at", 0.3),
    "we were isolated until now": lambda silence: setattr(silence.link, "rejoined_at", 0.3),
    "our own loop is late": lambda silence: setattr(silence.company.roster, "own_lateness", 0.3),
}


@pytest.mark.parametrize("found", HELD_OFF)
def test_what_was_found_out_holds_a_death_off_by_as_much(found: str) -> None:
    silence = Silence()
    silence.check(SUSPECTED_AT)
    HELD_OFF[found](silence)
    died_at = silence.run(2.0)
    assert died_at is not None
    assert 0.3 + D_S <= died_at < 0.3 + D_S + 0.03


@pytest.mark.parametrize(
    ("served", "asked", "dead_after"),
    [(False, True, 0.03), (True, True, None), (False, False, None)],
)
def test_a_refusal_is_a_death_once_one_question_was_not_answered(
    served: bool, asked: bool, dead_after: float | None
) -> None:
    silence = Silence()
    if not asked:
        silence.peer.mirror.claims.clear()  # it holds nothing that could be asked for
    silence.check(SUSPECTED_AT)
    silence.sighting.refused_at = SUSPECTED_AT
    if served:
        silence.suspicion.served_at = SUSPECTED_AT
    assert silence.run(D_S - 0.02) == (pytest.approx(SUSPECTED_AT + dead_after) if dead_after else None)


def test_a_refused_knock_makes_a_suspect_of_who_was_heard_just_now() -> None:
    silence = Silence()
    silence.sighting.refused_at = 0.03
    assert silence.check(0.03) is SUSPECT
    assert silence.run(D_S, begin=0.04) == pytest.approx(0.06)


@pytest.mark.parametrize("since", ["it was heard", "it was heard after one before"])
def test_a_refusal_makes_no_suspect_of_who_lives(since: str) -> None:
    silence = Silence()
    silence.sighting.refused_at = 0.03
    if since == "it was heard":
        silence.sighting.life_at = 0.04
    else:
        silence.sighting.misled_until = 600.0
    assert silence.check(0.05) is ALIVE


PROOFS: dict[str, tuple[Found, bool]] = {
    "a frame": (lambda silence: setattr(silence.link, "frame_at", 0.3), True),
    "the gateway": (lambda silence: setattr(silence.link, "gateway_at", 0.3), True),
    "a neighbour": (
        lambda silence: silence.link.neighbours.update({STRANGER_MAC: (AddressText("10.0.0.7"), 0.3)}),
        True,
    ),
    "nobody was ever there: carrier": (lambda _: None, True),
    "the gateway was there before": (lambda silence: setattr(silence.link, "gateway_at", 0.1), False),
    "the link has come up": (lambda silence: setattr(silence.link.fencing, "state", Fence.NEW), False),
}


@pytest.mark.parametrize("proof", PROOFS)
def test_without_a_proof_that_we_hear_the_silence_is_our_own_isolation(proof: str) -> None:
    silence = Silence(third=False)
    silence.check(SUSPECTED_AT)
    find, proves = PROOFS[proof]
    find(silence)
    died_at = silence.run(2.0)
    assert (died_at is not None) is proves
    assert silence.link.isolated is not proves
    assert ("Isolated" in silence.company.decisions()) is not proves


def test_who_hears_nobody_for_long_takes_the_others_for_dead_and_knows_that_it_is_alone() -> None:
    silence = Silence(third=False)
    silence.link.gateway_at = 0.1
    died_at = silence.run(6.0)
    assert died_at is not None
    assert died_at == pytest.approx(D_S + 3.5, abs=0.15)
    assert silence.link.alone


@pytest.mark.parametrize(("up", "mute"), [(False, False), (True, True)])
def test_nobody_is_suspected_on_a_link_that_says_nothing(up: bool, mute: bool) -> None:
    silence = Silence()
    link = silence.company.link(ETH0, up=up)
    link.mute = mute
    assert silence.check(10.0) is ALIVE


def test_a_death_on_one_link_is_none_on_another() -> None:
    silence = Silence()
    silence.company.link(ETH1)
    silence.company.peer(B, eth0=SUSPECT, eth1=ALIVE)
    peer = silence.company.roster.peers[B]
    silence.sighting, silence.peer = peer.sightings[ETH0], peer
    peer.sightings[ETH1].life_at = peer.sightings[ETH1].heard_at = 0.9
    assert silence.run(0.9) is not None
    assert peer.sightings[ETH1].standing is ALIVE


@pytest.mark.parametrize("family", Family)
def test_third_parties_are_asked_in_the_families_that_the_link_speaks(family: Family) -> None:
    gateways = GATEWAY, AddressText("fe80::fe")
    neighbours = address_of(C), AddressText("2001:db8::c")
    silence = Silence(third=False)
    v4, state = family is Family.IPV4, silence.link.state
    prefixes, link_local = (state.prefixes, None) if v4 else ((), link_local_of(C))
    silence.link.state = replace(state, prefixes=prefixes, link_local=link_local, gateways=gateways)
    for number, neighbour in enumerate(neighbours):
        silence.link.neighbours[Mac(bytes((2, 0, 0, 0, 9, number)))] = neighbour, 0.0
    silence.check(SUSPECTED_AT)
    asked = {effect.target for effect in silence.company.effects if isinstance(effect, AskAddress)}
    of_the_suspect = {VIP, address_of(B), link_local_of(B)}
    assert asked - of_the_suspect == {gateways[not v4], neighbours[not v4]}
