"""Claims where not everybody can be heard: when the record is asked for, and what follows from its answer."""

from __future__ import annotations

import pytest

from cluster.objects import NodeName
from speaker.link import LinkName
from speaker.plan import Bundle, BundleId
from speaker.protocol.arbitration import (
    AGAIN_S,
    ANSWER_S,
    BUSY_S,
    CONFIRM_S,
    MAX_OPEN,
    WON_S,
    Arbitration,
    Held,
    Verdict,
)
from speaker.protocol.effects import AskRecord, RecordAnswer
from tests.speaker.protocol.company import ETH0, ETH1, ME, VIP, B, C, Company

HERE = frozenset({ETH0})


def bundle(id_: str = "web") -> Bundle:
    return Bundle(BundleId(id_), (VIP,), (f"default/{id_}",), ())


class Asking:
    """A node with two links, on one of which ``b`` is blocked."""

    def __init__(self) -> None:
        self.company = Company()
        for name, prefix in ((ETH0, "10.0.0.97/24"), (ETH1, "10.1.0.97/24")):
            self.company.link(name, prefix)
        self.company.roster.links[ETH0].blocked = frozenset({B})
        self.arbitration = Arbitration(self.company.roster)

    def due(self, now: float, id_: str = "web", links: frozenset[LinkName] = HERE) -> float:
        return self.arbitration.due(bundle(id_), links, 6, now)

    def answer(self, now: float, epoch: int, holder: NodeName = B, id_: str = "web") -> Verdict:
        return self.arbitration.answered(RecordAnswer(BundleId(id_), epoch, holder), now)

    def review(self, now: float) -> list[BundleId]:
        return list(self.arbitration.review(lambda id_: Held(bundle(id_), HERE, 6), now))

    @property
    def asked(self) -> list[AskRecord]:
        return [effect for effect in self.company.effects if isinstance(effect, AskRecord)]


def test_where_everybody_is_heard_nothing_is_asked() -> None:
    asking = Asking()
    assert asking.due(1.0, links=frozenset({ETH1})) == 1.0
    asking.company.roster.links[ETH0].blocked = frozenset()
    assert asking.due(1.0) == 1.0
    assert asking.asked == []


def test_a_claim_waits_for_the_record_and_is_asked_for_once() -> None:
    asking = Asking()
    assert asking.due(1.0) == 1.0 + ANSWER_S
    assert asking.due(2.0) == 1.0 + ANSWER_S
    assert asking.asked == [AskRecord(BundleId("web"), ("default/web",), 6, (B,))]
    assert asking.answer(2.1, 6) is Verdict.NOTHING
    assert asking.due(2.2) == 2.2, "won"
    assert asking.due(2.1 + WON_S) > 2.1 + WON_S, "no more"


def test_an_answer_that_comes_too_late_or_unasked_counts_for_nothing() -> None:
    asking = Asking()
    asking.answer(0.5, 6)
    assert asking.due(1.0) > 1.0
    asking.answer(1.0 + ANSWER_S, 6)
    assert asking.due(1.1 + ANSWER_S) > 1.1 + ANSWER_S
    assert len(asking.asked) == 2


def test_a_record_of_another_is_asked_for_again_after_a_while_or_when_that_one_is_blocked_no_more() -> None:
    asking = Asking()
    asking.due(1.0)
    asking.answer(1.1, 0)
    assert asking.due(1.2) == 1.1 + AGAIN_S
    assert len(asking.asked) == 1
    assert asking.due(1.1 + AGAIN_S) == 1.1 + AGAIN_S + ANSWER_S
    asking.answer(11.2, 0)
    asking.company.roster.links[ETH0].blocked = frozenset({C})
    assert asking.due(11.3) == 11.3 + ANSWER_S
    assert asking.asked[-1].blocked == (C,)


def test_so_many_questions_are_open_at_once_and_no_more() -> None:
    asking = Asking()
    for i in range(MAX_OPEN):
        assert asking.due(1.0, f"b{i}") == 1.0 + ANSWER_S
    assert asking.due(1.0, "another") == 1.0 + BUSY_S
    asking.answer(1.1, 6, id_="b0")
    assert asking.due(1.2, "another") == 1.2 + ANSWER_S
    assert asking.due(1.0 + ANSWER_S, "late") == 1.0 + 2 * ANSWER_S, "those without an answer are given up"


@pytest.mark.parametrize(
    ("keep", "epoch", "verdict"),
    [(True, 6, Verdict.NOTHING), (True, 0, Verdict.RELEASE), (False, 6, Verdict.REPEAT), (False, 0, Verdict.RELEASE)],
)
def test_what_is_held_is_confirmed_or_released(keep: bool, epoch: int, verdict: Verdict) -> None:
    asking = Asking()
    asking.arbitration.confirm(BundleId("web"), 1.0, keep=keep)
    assert asking.arbitration.next_deadline() == 1.0
    assert asking.review(1.0) == []
    assert asking.asked == [AskRecord(BundleId("web"), ("default/web",), 6, (B,))]
    assert asking.answer(1.1, epoch, B if epoch == 0 else ME) is verdict
    assert asking.review(1.2) == []
    assert asking.arbitration.next_deadline() == float("inf")


def test_without_an_answer_what_is_held_is_kept_and_asked_about_or_released_where_it_may_be_another_s() -> None:
    asking = Asking()
    asking.arbitration.confirm(BundleId("web"), 1.0, keep=True)
    for now in (1.0, 1.0 + ANSWER_S, 1.0 + 2 * ANSWER_S):
        assert asking.review(now) == []
        assert asking.arbitration.next_deadline() == now + ANSWER_S
    assert len(asking.asked) == 3
    asking.arbitration.confirm(BundleId("web"), 20.0, keep=False)
    assert asking.review(20.0) == []
    assert asking.arbitration.next_deadline() == 20.0 + CONFIRM_S
    assert asking.review(20.0 + CONFIRM_S) == ["web"]
    assert asking.arbitration.next_deadline() == float("inf")


def test_nothing_is_released_where_everybody_is_heard_again() -> None:
    asking = Asking()
    asking.arbitration.confirm(BundleId("web"), 1.0, keep=False)
    asking.review(1.0)
    asking.company.roster.links[ETH0].blocked = frozenset()
    assert asking.review(1.0 + CONFIRM_S) == []


def test_frames_of_another_make_no_question_for_what_was_just_won() -> None:
    asking = Asking()
    asking.due(1.0)
    asking.answer(1.1, 6)
    asking.arbitration.confirm(BundleId("web"), 1.2, keep=False)
    assert asking.arbitration.next_deadline() == float("inf")
