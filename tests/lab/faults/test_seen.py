"""What a client saw of a fault, and which promises that breaks."""

from __future__ import annotations

import pytest

from lab.faults.fault import Movement, Promise
from lab.faults.seen import Episode, Seen, broken_promises, judge
from lab.measuring.figures import HttpRequest, NeighbourAnswer

HOLDER, OTHER, STRANGER = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:99"
V4, V6 = "172.18.255.200", "fd00:b1b::255:200"
EPISODE = Episode(began=10.0, over=12.0, held_before=HOLDER, held_after=HOLDER, nodes={HOLDER, OTHER})


def answers(mac: str, *times: float) -> list[NeighbourAnswer]:
    return [NeighbourAnswer(at=at, address=address, mac=mac) for at in times for address in (V4, V6)]


def test_each_protocol_has_its_silence_until_all_was_well_again() -> None:
    asked = [*answers(HOLDER, 9.9, 10.5, 11.0), NeighbourAnswer(at=11.5, address=V4, mac=HOLDER)]
    seen = judge(
        EPISODE, asked, [HttpRequest(start=10.2, end=11.2, ok=False), HttpRequest(start=11.3, end=11.4, ok=True)]
    )
    assert seen.silence_s == pytest.approx({"ARP": 0.5, "NS": 1.0})
    assert (seen.lost, seen.requests, seen.moved, seen.returned) == (1, 2, False, True)


def test_an_address_that_nobody_answers_for_any_more_is_silent_for_all_that_time() -> None:
    assert judge(EPISODE, answers(HOLDER, 9.9), []).silence_s == {"ARP": 2.0, "NS": 2.0}


def test_only_another_node_moves_an_address() -> None:
    assert not judge(EPISODE, answers(STRANGER, 10.5), []).moved
    assert judge(EPISODE, answers(OTHER, 10.5), []).moved


SEEN = Seen(
    {"ARP": 0.4, "NS": 0.7},
    0.0,
    requests=400,
    lost=1,
    broken=2,
    two_answer_s=0.1,
    moved=True,
    returned=False,
    lasted_s=5,
)


@pytest.mark.parametrize(
    ("promise", "broken"),
    [
        (Promise(Movement.EITHER), []),
        (Promise(Movement.MOVES, silence_s=0.7, two_answer_s=0.1, lost=1, broken=2), []),
        (Promise(Movement.STAYS), ["the address moved"]),
        (Promise(Movement.MOVES, silence_s=0.65), ["NS unanswered: 0.7 instead of 0.65"]),
        (Promise(Movement.EITHER, two_answer_s=0.0), ["two answer: 0.1 instead of 0"]),
        (Promise(Movement.EITHER, lost=0, broken=0), ["lost: 1 instead of 0", "broken: 2 instead of 0"]),
    ],
)
def test_each_promise_is_held_against_what_was_seen(promise: Promise, broken: list[str]) -> None:
    assert broken_promises(promise, SEEN) == broken
