"""What a holder says when it hands bundles over, and when it gives a successor up: without a wire, in made-up time."""

from __future__ import annotations

import random

import pytest

from cluster.objects import AddressText
from speaker.plan import Bundle, BundleId
from speaker.protocol.effects import AskAddress, Decision, NeighbourSeen
from speaker.protocol.handing import ANSWER_S, ASK_S, MAX_ON_OFFER, OFFER_S, SAY_GAP_S, UNANSWERED, HandOvers
from speaker.protocol.heartbeat import MAX_OFFERED, pack_address
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, VIP, B, C, Company, mac_of


class Holder:
    """This node hands over to ``b``, which is heard on one link."""

    def __init__(self) -> None:
        self.company = Company()
        self.company.link(ETH0, "10.0.0.97/16")
        for node in (B, C):
            self.company.peer(node, eth0=Standing.ALIVE)
        self.made = HandOvers(self.company.roster, random.Random(1))

    def begin(self, number: int, *addresses: AddressText) -> BundleId:
        bundle = Bundle(BundleId(f"b{number:05}"), addresses, (f"default/{number}",), ())
        self.made.begin(bundle, addresses, B, "drained")
        return bundle.id

    def said(self, now: float) -> list[AddressText]:
        """The addresses of the offers that are said now."""
        self.made.review(now)
        offers = self.made.take_offers()
        assert {offer.to for offer in offers} <= {self.company.roster.peers[B].session}
        assert all(len(offer.addresses) <= MAX_OFFERED for offer in offers)
        known = {pack_address(each): each for each in (VIP, *MANY)}
        return [known[packed] for offer in offers for packed in offer.addresses]

    def questions(self) -> list[AskAddress]:
        return [effect for effect in self.company.effects if isinstance(effect, AskAddress)]

    def decisions(self) -> list[str]:
        return [effect.reason for effect in self.company.effects if isinstance(effect, Decision)]


MANY = [AddressText(f"10.0.{20 + number // 250}.{number % 250 + 1}") for number in range(1200)]


@pytest.fixture
def holder() -> Holder:
    return Holder()


def test_what_is_offered_or_waits_for_that_is_under_way_until_it_is_taken_or_was_offered_in_vain(
    holder: Holder,
) -> None:
    one, others = holder.begin(1, *MANY[:400]), holder.begin(2, *MANY[400:600])
    holder.said(0.0)
    assert holder.made.under_way() == {B: 600}
    holder.made.end(one)
    assert holder.made.under_way() == {B: 200}
    holder.said(0.1)
    assert holder.made.review(0.1 + OFFER_S) == [(others, B)]
    assert not holder.made.under_way()


def test_an_offer_is_said_three_times_and_then_was_in_vain(holder: Holder) -> None:
    id_ = holder.begin(1, VIP)
    said = {at: holder.said(at) for at in (0.0, SAY_GAP_S / 2, SAY_GAP_S, 2 * SAY_GAP_S)}
    assert [at for at, addresses in said.items() if addresses == [VIP]] == [0.0, SAY_GAP_S, 2 * SAY_GAP_S]
    assert id_ in holder.made
    assert holder.made.review(OFFER_S) == [(id_, B)]
    assert id_ not in holder.made
    assert holder.decisions() == ["Offered", "NotTaken"]


def test_what_was_taken_is_not_said_any_more(holder: Holder) -> None:
    id_ = holder.begin(1, VIP)
    assert holder.said(0.0) == [VIP]
    holder.made.end(id_)
    assert holder.said(SAY_GAP_S) == []
    assert holder.made.review(OFFER_S) == []
    assert holder.made.next_deadline == float("inf")


def test_no_more_than_so_many_addresses_are_on_offer_and_the_rest_follow(holder: Holder) -> None:
    ids = [holder.begin(number, address) for number, address in enumerate(MANY)]
    first = holder.said(0.0)
    assert first == MANY[:MAX_ON_OFFER]
    for id_ in ids[:200]:
        holder.made.end(id_)
    assert holder.made.next_deadline <= 0.01, "the others do not wait"
    assert holder.said(0.01) == MANY[MAX_ON_OFFER : MAX_ON_OFFER + 200]


def test_a_bundle_of_more_addresses_than_that_is_offered_alone(holder: Holder) -> None:
    holder.begin(1, VIP)
    holder.begin(2, *MANY)
    assert holder.said(0.0) == [VIP]
    holder.made.end(BundleId("b00001"))
    assert holder.said(0.01) == MANY


@pytest.mark.parametrize(
    ("sender", "node", "proves", "taken"),
    [(VIP, B, True, True), (VIP, B, False, False), (VIP, C, True, False), (MANY[0], B, True, False)],
    ids=["a proof", "a frame without", "of another node", "of another address"],
)
def test_who_was_named_in_vain_is_asked_and_believed_by_its_proof(
    holder: Holder, sender: AddressText, node: str, proves: bool, taken: bool
) -> None:
    id_ = holder.begin(1, VIP)
    holder.said(0.0)
    holder.made.review(OFFER_S)
    holder.made.review(ASK_S - 0.01)
    assert holder.questions() == [], "its claim may still come"
    holder.made.review(ASK_S)
    (question,) = holder.questions()
    assert (question.target, question.mac, len(question.nonce)) == (VIP, mac_of(B), 8)
    seen = NeighbourSeen(ETH0, sender, mac_of(B), VIP, is_reply=True, proof=b"p" * 12)
    found = holder.made.note_answer(
        id_, seen, B if node == B else C, lambda nonce: proves and nonce == question.nonce, ASK_S
    )
    assert (found, holder.made.is_away(id_)) == (taken, taken)
    for number in range(1, UNANSWERED + 2):
        assert holder.made.is_away(id_) is taken
        assert holder.made.ask_again(ASK_S + number * ANSWER_S) is (taken and number > UNANSWERED)
        holder.made.review(ASK_S + number * ANSWER_S)
    assert holder.made.next_deadline == float("inf"), "and then it is forgotten"


@pytest.mark.parametrize("heard_at", [0.1, OFFER_S + 0.1], ids=["in time", "late"])
def test_who_is_heard_to_claim_a_part_is_not_asked_whether_it_has_taken_the_whole(
    holder: Holder, heard_at: float
) -> None:
    """It may not speak the family of the rest. What this node still has was released, since it answers."""
    id_ = holder.begin(1, VIP, MANY[0])
    holder.said(0.0)
    for now in (0.1, OFFER_S, OFFER_S + 0.1, ASK_S, ASK_S + ANSWER_S):
        if now == heard_at:
            holder.made.heard(id_)
        holder.made.review(now)
    assert holder.questions() == []
