"""Whose claims count on although they are not heard, who should stand in for them, and when that ends."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import pytest
from msgspec.structs import replace

from cluster.addresses import Family
from cluster.objects import AddressText, NodeName
from speaker.protocol.absences import KNOWN_S, MAX_ABSENCES, NOBODY_S, TURN_S
from speaker.protocol.effects import AskAddress
from speaker.protocol.fencing import FenceEvent
from speaker.protocol.peers import Peer
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ETH1, ME, VIP, VIP6, B, C, address_of, mac_of
from tests.speaker.protocol.restarts import Restarts, stood_in

D = NodeName("d")
NONE: frozenset[Family] = frozenset()


def by_hash(node: NodeName, *others: NodeName) -> list[NodeName]:
    """As the protocol's page has it: by the BLAKE2b-64 of both names."""
    return sorted(others, key=lambda other: blake2b(f"{node} {other}".encode(), digest_size=8).digest())


def test_all_have_the_same_order_of_those_that_could_stand_in() -> None:
    orders = []
    for me in (ME, C, D):
        restarts = Restarts()
        restarts.roster.node = me
        for other in {ME, B, C, D} - {me}:
            restarts.speaker(other)
        orders.append(restarts.absences.order(B, ETH0, NONE, 0.0))
    assert orders == [by_hash(B, ME, C, D)] * 3


def unable(peer: Peer) -> None:
    peer.sightings[ETH0].able_since = None


def suspected(peer: Peer) -> None:
    peer.sightings[ETH0].standing = Standing.SUSPECTED


def restarting(peer: Peer) -> None:
    peer.restarting = True


def unskilled(peer: Peer) -> None:
    peer.skills = 0


@pytest.mark.parametrize("state", [unable, suspected, restarting, unskilled])
def test_who_cannot_stand_in_is_not_in_the_order(state: Callable[[Peer], None]) -> None:
    restarts = Restarts()
    state(restarts.speaker(C))
    assert restarts.absences.order(B, ETH0, NONE, 0.0) == [ME]


@pytest.mark.parametrize(
    ("claimed", "could"),
    [((), {ME, C, D}), ((VIP,), {ME, C}), ((VIP6,), {D}), ((VIP, VIP6), set())],
)
def test_who_speaks_too_few_families_is_not_in_the_order(
    claimed: tuple[AddressText, ...], could: set[NodeName]
) -> None:
    """This node and ``c`` speak IPv4 alone, ``d`` IPv6 alone, and who is absent both."""
    restarts = Restarts()
    for node, families in ((C, {Family.IPV4}), (D, {Family.IPV6})):
        restarts.speaker(node).sightings[ETH0].families = frozenset(families)
    absent = restarts.speaker(B, *claimed)
    absent.sightings[ETH0].families = frozenset(Family)
    assert set(restarts.absences.order_of(absent, ETH0, 0.0)) == could
    restarts.hold(absent, VIP6)
    absent.sightings[ETH0].families = frozenset({Family.IPV4})
    assert NodeName("a") in restarts.absences.order_of(absent, ETH0, 0.0), "what it does not speak itself is not needed"


def test_on_a_link_on_which_nobody_could_stand_in_the_session_is_dead_from_the_beginning() -> None:
    restarts = Restarts()
    restarts.company.link(ETH1, "10.1.0.97/16")
    absent = restarts.speaker(B, VIP)
    absent.sightings[ETH1] = restarts.company.peer(D, eth1=Standing.ALIVE).sightings[ETH1]
    del restarts.roster.peers[D]
    absent.sightings[ETH1].families = frozenset(Family)
    restarts.hold(absent, VIP6)
    assert restarts.absences.may_begin(absent, 1.0)
    news = restarts.absences.begin(absent, "refused by its kernel", 1.0)
    assert restarts.counts(B)
    assert restarts.roster.claim_of(B, VIP, ETH1) is None, "this node speaks IPv4 alone"
    assert set(news.claims) == {VIP, VIP6}


def test_while_its_claims_are_not_known_one_has_to_speak_all_that_the_absent_session_does() -> None:
    restarts = Restarts()
    absent = restarts.speaker(B, VIP)
    absent.sightings[ETH0].families = frozenset(Family)
    restarts.mirrors.note(absent, absent.mirror.version + 1, 0, 0.0)
    assert restarts.absences.order_of(absent, ETH0, 0.0) == []


@pytest.mark.parametrize(("heard_at", "absent"), [(1.5, True), (2.5, False)])
def test_one_that_was_not_heard_since_this_node_was_away_is_absent_if_another_says_so(
    heard_at: float, absent: bool
) -> None:
    restarts = Restarts()
    peer, by = restarts.speaker(B, VIP), restarts.speaker(C)
    restarts.link.fencing.change(FenceEvent.STALL, 2.0)
    peer.sightings[ETH0].heard_at = heard_at
    restarts.says_to_stand_in(by, peer, now=2.6)
    assert restarts.is_absent(B) == absent


def test_the_claims_of_an_absent_session_count_for_half_a_second_without_a_stand_in() -> None:
    restarts = Restarts()
    restarts.absences.begin(restarts.speaker(B, VIP), "restarts", 1.0, ended=True)
    restarts.absences.review(1.0)
    restarts.absences.review(1.0 + NOBODY_S - 0.01)
    assert restarts.is_absent(B)
    assert restarts.counts(B)
    restarts.absences.review(1.0 + NOBODY_S)
    assert not restarts.is_absent(B)
    assert not restarts.counts(B)
    assert restarts.company.decisions() == ["PeerAway", "PeerDead"]


def test_they_count_for_as_long_as_somebody_says_to_stand_in() -> None:
    restarts = Restarts()
    other, peer = restarts.speaker(C), restarts.speaker(B, VIP)
    restarts.absences.begin(peer, "restarts", 1.0, ended=True)
    restarts.says_to_stand_in(other, peer, now=1.1)
    restarts.absences.review(50.0)
    assert restarts.counts(B)
    restarts.says_to_stand_in(other, now=50.1)
    assert not restarts.counts(B)
    assert not restarts.is_absent(B)


def test_a_stand_in_that_dies_leaves_them_to_the_next_one() -> None:
    restarts = Restarts()
    other, peer = restarts.speaker(C), restarts.speaker(B, VIP)
    restarts.absences.begin(peer, "restarts", 1.0, ended=True)
    restarts.says_to_stand_in(other, peer, now=1.1)
    restarts.dies(other)
    restarts.absences.review(2.0)
    restarts.absences.review(2.0 + NOBODY_S - 0.01)
    assert restarts.counts(B)
    restarts.absences.review(2.0 + NOBODY_S)
    assert not restarts.counts(B)


def test_they_count_for_a_second_more_until_the_new_sessions_claims_are_known() -> None:
    restarts = Restarts()
    other, former = restarts.speaker(C), restarts.speaker(B, VIP)
    restarts.absences.begin(former, "restarts", 1.0, ended=True)
    restarts.says_to_stand_in(other, former, now=1.1)
    present = restarts.speaker(B, session=1000)
    present.behind_since = 2.0
    restarts.says_to_stand_in(other, now=2.0)
    restarts.absences.review(2.0 + KNOWN_S - 0.01)
    assert restarts.counts(B)
    restarts.absences.review(2.0 + KNOWN_S)
    assert not restarts.counts(B)
    assert restarts.company.decisions()[-1] == "PeerBack"


def test_this_nodes_turn_to_stand_in_comes_by_its_place_once_the_kernel_has_answered() -> None:
    restarts = Restarts()
    peer = restarts.speaker(B, VIP)
    for other in (C, D):
        restarts.speaker(other)
    turn = 1.0 + by_hash(B, ME, C, D).index(ME) * TURN_S
    restarts.absences.begin(peer, "refused by its kernel", 1.0)
    restarts.absences.review(1.0)
    asked = [effect for effect in restarts.company.effects if isinstance(effect, AskAddress)]
    assert (asked[0].target, asked[0].mac) == (address_of(B), mac_of(B))
    assert restarts.absences.mine(turn) == []
    peer.sightings[ETH0].kernel_at = 1.0
    assert restarts.absences.mine(turn - 0.01) == []
    assert restarts.absences.mine(turn) == [(peer, ETH0)]


def test_who_is_heard_is_not_absent_whoever_says_so() -> None:
    restarts = Restarts()
    other, peer = restarts.speaker(C), restarts.speaker(B, VIP)
    restarts.says_to_stand_in(other, peer, now=1.0)
    assert not restarts.is_absent(B)


def test_who_was_taken_for_dead_is_absent_once_somebody_stands_in() -> None:
    restarts = Restarts()
    other, peer = restarts.speaker(C), restarts.speaker(B, VIP)
    restarts.dies(peer)
    assert not restarts.counts(B)
    news = restarts.says_to_stand_in(other, peer, now=1.0)
    assert restarts.is_absent(B)
    assert restarts.counts(B)
    assert VIP in news.claims, "who has taken it meanwhile finds out"


def test_a_member_makes_no_more_sessions_absent_than_there_may_be() -> None:
    restarts = Restarts()
    other = restarts.speaker(C)
    for number in range(2 * MAX_ABSENCES):
        said = replace(stood_in(B, 100 + number, 1, 0), node=f"n{number}")
        restarts.absences.heard(ETH0, other.session, [said], 1.0)
    assert sum(restarts.is_absent(NodeName(f"n{number}")) for number in range(2 * MAX_ABSENCES)) <= MAX_ABSENCES


def test_whoever_ends_before_all_its_claims_are_known_is_absent_too() -> None:
    """Three copies of a claim may be lost, and who is not heard cannot ask for it."""
    restarts = Restarts()
    restarts.speaker(C)
    peer = restarts.speaker(B)
    assert not restarts.absences.may_begin(peer, 1.0), "it has none"
    restarts.mirrors.note(peer, version=1, digest=5, now=1.0)
    assert restarts.absences.may_begin(peer, 1.0)


def test_a_session_that_was_taken_for_over_counts_where_another_speaker_stands_in_for_it() -> None:
    restarts = Restarts()
    other, peer = restarts.speaker(C), restarts.speaker(B, VIP)
    restarts.absences.begin(peer, "restarts", 1.0, ended=True)
    restarts.absences.review(1.0)
    restarts.absences.review(1.0 + NOBODY_S)
    assert not restarts.is_absent(B), "nobody was heard to stand in"
    restarts.says_to_stand_in(other, peer, now=2.0)
    assert restarts.is_absent(B)
