"""What a speaker claims again of what its node's former session claimed, and when it has."""

from __future__ import annotations

from cluster.objects import AddressText
from cluster.times import NEVER
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol.peers import Peer
from speaker.protocol.resuming import AT_ONCE, Resuming
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ME, B, C
from tests.speaker.protocol.restarts import Restarts, stood_in


def address(number: int) -> AddressText:
    return AddressText(f"10.0.{number // 250}.{number % 250 + 1}")


class Resumed(Restarts):
    """``c`` stands in for this node's former session, whose claims are known. The Plan has some addresses."""

    def __init__(self, held: int, planned: int) -> None:
        super().__init__()
        self.stand_in = self.speaker(C)
        bundles = tuple(
            Bundle(BundleId(f"b{number:05}"), (address(number),), (f"default/b{number}",), (Candidate(ME, 0, 0),))
            for number in range(planned)
        )
        self.ownership.set_plan(Plan(1, ME, bundles), 0.0)
        while self.ownership.next_deadline() <= 0.0:
            self.ownership.handle_timer(0.0)
        self.former: Peer = self.own_former_session(self.stand_in, [address(number) for number in range(held)])
        self.resuming = Resuming(self.roster, self.ownership)


def test_what_was_held_is_claimed_at_the_same_epochs_in_pieces() -> None:
    count = 2 * AT_ONCE + 1
    resumed = Resumed(count, count)
    now = 1.0
    for pieces in (1, 2):
        assert not resumed.resuming.review(now)
        assert len(resumed.log.claims) == pieces * AT_ONCE
        assert resumed.resuming.restarting, "its stand-in is still to answer for the rest"
        assert now < resumed.resuming.next_deadline() < now + 0.05, "others have their turn"
        now = resumed.resuming.next_deadline()
    assert resumed.resuming.review(now)
    assert {claim.epoch for claim in resumed.log.claims.values()} == {6}
    assert len(resumed.log.claims) == count
    assert not resumed.resuming.restarting
    assert resumed.resuming.next_deadline() == NEVER


def test_what_the_plan_has_no_more_is_not_claimed() -> None:
    resumed = Resumed(3, 2)
    assert resumed.resuming.review(1.0)
    assert set(resumed.log.claims) == {address(0), address(1)}


def test_what_another_node_has_claimed_higher_stays_with_it() -> None:
    resumed = Resumed(2, 2)
    resumed.speaker(B, address(0))
    resumed.hold(resumed.roster.peers[B], address(1), epoch=8)
    assert resumed.resuming.review(1.0)
    assert set(resumed.log.claims) == {address(0)}


def test_what_another_node_has_taken_where_the_former_session_counts_no_more_stays_with_it() -> None:
    """Whoever took it had nothing to prove that it hears, and claimed below (``owners``)."""
    resumed = Resumed(2, 2)
    resumed.hold(resumed.speaker(B), address(1), epoch=5)
    resumed.former.sightings[ETH0].standing = Standing.DEAD
    assert resumed.resuming.review(1.0)
    assert set(resumed.log.claims) == {address(0)}


def test_nothing_is_claimed_before_this_speaker_is_able() -> None:
    resumed = Resumed(1, 1)
    resumed.roster.able = False
    assert resumed.resuming.restarting
    assert resumed.resuming.next_deadline() == NEVER
    assert not resumed.resuming.review(1.0)
    assert not resumed.log.claims


def test_nothing_is_claimed_before_the_former_claims_are_known() -> None:
    resumed = Resumed(1, 1)
    resumed.absences.heard(ETH0, resumed.stand_in.session, [stood_in(ME, 7, 2, 0)], 1.0)
    assert resumed.resuming.next_deadline() == NEVER
    assert not resumed.resuming.review(1.0)
    assert not resumed.log.claims


def test_without_a_former_session_nothing_is_to_be_done() -> None:
    restarts = Restarts()
    resuming = Resuming(restarts.roster, restarts.ownership)
    assert not resuming.restarting
    assert resuming.next_deadline() == NEVER
    assert not resuming.review(1.0)
