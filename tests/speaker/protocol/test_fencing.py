"""A link's fence: every change in every state, and for how long it stands."""

from __future__ import annotations

import itertools

import pytest

from speaker.protocol import fencing
from speaker.protocol.fencing import DOUBT_S, TRANSITIONS, Fence, FenceEvent, FenceOutcome, Fencing
from tests.speaker.protocol.tables import table_of

INTERVAL_S, FLOOR_S, SILENCE_S = 0.1, 0.35, 40.0
OPEN, QUIET, STALLED, NEW = Fence


def test_the_table_says_what_the_docstring_says() -> None:
    said = {
        (before.value, change.value): (
            after.value,
            frozenset() if outcome is FenceOutcome.NOTHING else frozenset({outcome.value}),
        )
        for (before, change), (after, outcome) in TRANSITIONS.items()
    }
    assert said == table_of(fencing)
    assert set(TRANSITIONS) == set(itertools.product(Fence, FenceEvent))


@pytest.mark.parametrize(("before", "change"), TRANSITIONS)
def test_answers_are_suspended_and_resumed_exactly_when_it_is_said(before: Fence, change: FenceEvent) -> None:
    fence = Fencing(before, since=1.0)
    suspended = fence.suspended
    outcome = fence.change(change, 9.0)
    if outcome is FenceOutcome.SUSPENDS:
        assert fence.suspended
        assert fence.since == 9.0  # the wait begins anew
    elif outcome is FenceOutcome.RESUMES:
        assert (suspended, fence.suspended) == (True, False)
    elif change is not FenceEvent.DOWN:  # a link that is down answers nothing anyway
        assert fence.suspended is suspended


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ((FenceEvent.UP, FenceEvent.STALL), NEW),  # 40 s from the stall: a switch may still block the port
        ((FenceEvent.UP, FenceEvent.UNHEARD, FenceEvent.STALL), STALLED),
        ((FenceEvent.UP, FenceEvent.UNHEARD, FenceEvent.HEARD), OPEN),
        ((FenceEvent.STALL, FenceEvent.UNHEARD), QUIET),
        ((FenceEvent.STALL, FenceEvent.UNHEARD, FenceEvent.DOWN, FenceEvent.UP, FenceEvent.HEARD), OPEN),
        ((FenceEvent.STALL, FenceEvent.DOWN, FenceEvent.UP), NEW),
    ],
)
def test_a_link_goes_from_state_to_state(changes: tuple[FenceEvent, ...], state: Fence) -> None:
    fence = Fencing()
    for at, change in enumerate(changes):
        fence.change(change, float(at))
    assert fence.state is state


@pytest.mark.parametrize(
    ("state", "after_s", "may_be_heard", "unheard"),
    [
        (OPEN, 100.0, False, True),
        (QUIET, 0.0, True, False),
        (STALLED, 0.05, False, False),
        (STALLED, INTERVAL_S, True, False),
        (STALLED, FLOOR_S, True, True),
        (NEW, 0.05, False, False),
        (NEW, INTERVAL_S, True, False),
        (NEW, FLOOR_S, True, False),
        (NEW, SILENCE_S, True, True),
    ],
)
def test_somebody_must_be_heard_after_an_interval_and_nobody_is_waited_for_longer_than_that(
    state: Fence, after_s: float, may_be_heard: bool, unheard: bool
) -> None:
    fence = Fencing(state, since=0.0)
    assert fence.may_be_heard(INTERVAL_S, after_s) is may_be_heard
    assert fence.is_unheard(FLOOR_S, SILENCE_S, after_s) is unheard


def test_a_doubt_suspends_answers_until_the_claims_are_known() -> None:
    fence = Fencing()
    fence.doubt(7, 0.0)
    fence.doubt(8, 0.0)
    answering = [fence.answering]
    for session in (7, 8):
        assert fence.trust(session)
        answering.append(fence.answering)
    assert answering == [False, False, True]
    assert not fence.trust(8)


def test_a_doubt_lasts_a_second_at_most() -> None:
    fence = Fencing()
    fence.doubt(7, 0.0)
    assert fence.end_waits(DOUBT_S - 0.01) == (False, False)
    assert not fence.answering
    assert fence.end_waits(DOUBT_S) == (True, False)
    assert fence.answering


def test_listening_ends_once() -> None:
    fence = Fencing(listening_until=1.3)
    assert [fence.end_waits(at) for at in (1.2, 1.3, 1.4)] == [(False, False), (False, True), (False, False)]


@pytest.mark.parametrize("state", Fence)
def test_a_link_that_waits_for_something_is_looked_at_and_no_other_is(state: Fence) -> None:
    fence = Fencing(state, since=1.0)
    assert fence.waits is (state is not OPEN)
    due = fence.next_deadline(INTERVAL_S, looked_at=1.0)
    assert due == (1.0 + INTERVAL_S if fence.suspended else float("inf"))
    assert fence.next_deadline(INTERVAL_S, looked_at=due) == float("inf")  # a deadline is never in the past
