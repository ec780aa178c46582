"""At whom a speaker knocks, and which refusals count."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName
from speaker.protocol.effects import Knock
from speaker.protocol.heartbeat import STANDS_IN
from speaker.protocol.knocking import GAP_S, LATE_S, LEAST_GAP_S, LOOK_S, Knocking
from speaker.protocol.peers import Peer
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ETH1, ME, B, C, Company, address_of, mac_of

ALIVE, SUSPECT, DEAD = Standing
LATE = 0.1 + LATE_S
"""When the first heartbeat of a peer is late."""


class Round:
    """This node is ``a``."""

    def __init__(self) -> None:
        self.company = Company()
        self.company.link(ETH0, "10.0.0.1/16")
        self.knocking = Knocking(self.company.roster)
        self.knocking.look(0.0)

    def holder(self, node: NodeName, address: str, standing: Standing = ALIVE) -> Peer:
        peer = self.company.peer(node, eth0=standing)
        peer.skills = STANDS_IN
        self.company.claims(peer, AddressText(address))
        return peer

    def knocked(self, now: float) -> list[Knock]:
        """At whom it knocks now."""
        self.company.effects.clear()
        self.knocking.review(now)
        return [effect for effect in self.company.effects if isinstance(effect, Knock)]


@pytest.fixture
def around() -> Round:
    return Round()


def test_the_next_by_name_is_knocked_at_when_its_heartbeat_is_late(around: Round) -> None:
    around.holder(C, "10.0.9.2")
    around.holder(B, "10.0.9.1")
    assert around.knocked(LATE - 0.01) == []
    assert around.knocking.next_deadline() == pytest.approx(LATE)
    assert around.knocked(LATE) == [Knock(ETH0, address_of(B), mac_of(B))]
    assert around.knocked(LATE + GAP_S - 0.01) == []
    assert len(around.knocked(LATE + GAP_S)) == 1


def test_while_heartbeats_are_punctual_nobody_knocks_and_nothing_wakes_the_loop(around: Round) -> None:
    peer = around.holder(B, "10.0.9.1")
    assert around.knocked(0.05) == []
    for number in range(1, 5):
        peer.sightings[ETH0].heard_at = at = 0.1 * number + 0.01
        around.knocking.heard()
        assert around.knocking.next_deadline() == pytest.approx(at + LATE)
        assert around.knocked(at) == []


def test_behind_the_last_the_first_is_next(around: Round) -> None:
    first = NodeName("A")
    assert first < ME
    around.holder(first, "10.0.9.1")
    assert [knock.to for knock in around.knocked(LATE)] == [address_of(first)]


@pytest.mark.parametrize("standing", [SUSPECT, DEAD])
def test_who_is_not_alive_is_no_next(around: Round, standing: Standing) -> None:
    around.holder(B, "10.0.9.1", standing)
    around.holder(C, "10.0.9.2")
    assert [knock.to for knock in around.knocked(LATE)] == [address_of(C)]


def test_who_holds_nothing_or_could_not_be_stood_in_for_is_left_alone_and_nothing_is_due(around: Round) -> None:
    around.holder(B, "10.0.9.1").mirror.claims.clear()
    assert around.knocked(LATE) == []
    assert around.knocking.next_deadline() > 1e6
    around.holder(B, "10.0.9.1").skills = 0
    around.knocking.look(1.0)
    assert around.knocked(1.0) == []


def test_many_changes_make_no_more_knocks(around: Round) -> None:
    around.holder(B, "10.0.9.1")
    around.knocked(LATE)
    around.knocking.look(LATE + 0.01)
    assert around.knocking.next_deadline() == pytest.approx(LATE + 0.01 + LOOK_S)
    assert around.knocked(LATE + 0.01 + LOOK_S) == []
    assert around.knocking.next_deadline() == pytest.approx(LATE + GAP_S)


def test_a_refusal_counts_once_for_each_knock(around: Round) -> None:
    peer = around.holder(B, "10.0.9.1")
    assert not around.knocking.refused(ETH0, address_of(B), 0.0), "nobody knocked"
    around.knocked(LATE)
    assert not around.knocking.refused(ETH1, address_of(B), 0.001)
    assert around.knocking.refused(ETH0, address_of(B), 0.001)
    assert peer.sightings[ETH0].refused_at == 0.001
    assert not around.knocking.refused(ETH0, address_of(B), 0.002)


def test_a_refusal_tells_nothing_of_the_next_session(around: Round) -> None:
    around.holder(B, "10.0.9.1")
    around.knocked(LATE)
    around.holder(B, "10.0.9.1").session = 4711
    assert not around.knocking.refused(ETH0, address_of(B), 0.001)


def test_who_was_heard_after_a_refusal_is_left_alone_for_long(around: Round) -> None:
    """Its host's firewall refuses what its speaker's frames pass by."""
    peer = around.holder(B, "10.0.9.1")
    peer.sightings[ETH0].misled_until = 600.0
    assert around.knocked(LATE) == []
    assert around.knocking.next_deadline() >= 600.0, "nothing wakes the loop meanwhile"
    assert len(around.knocked(600.0)) == 1


def test_whom_somebody_suspects_is_knocked_at_but_not_all_the_time(around: Round) -> None:
    around.holder(B, "10.0.9.1")
    suspect = around.holder(C, "10.0.9.2")

    def suspected(now: float, link: LinkName = ETH0) -> int:
        around.company.effects.clear()
        around.knocking.suspected({(link, suspect.session)}, now)
        return len(around.company.effects)

    assert suspected(1.0, ETH1) == 0
    assert suspected(1.0) == 1
    assert suspected(1.0 + LEAST_GAP_S / 2) == 0
    assert suspected(1.0 + LEAST_GAP_S) == 1
    assert around.knocking.refused(ETH0, address_of(C), 1.03)
