"""Writes: once per key, repeated after a failure, and news that does not pile up."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from cluster.api.errors import ApiError, Invalid, ServerError, Throttled, Unreachable
from speaker.api.backlog import MAX_NEWS, NEWS_ATTEMPTS, RETRY_LAST_S, Backlog, Task
from speaker.api.pace import BURST

BUSY = ServerError(503, "ServiceUnavailable", "later")
REFUSED = Invalid(422, "Invalid", "no")


def backlog() -> Backlog:
    return Backlog(random.Random(1), 0.0)


def put(waiting: Backlog, *keys: str, due: float = 0.0, news: bool = False, urgent: bool = True) -> None:
    for key in keys:
        waiting.put(key, nothing, due, news=news, urgent=urgent)


def take(waiting: Backlog, now: float) -> tuple[str, Task]:
    found = waiting.take(now)
    assert found is not None
    return found


def fail(waiting: Backlog, taken: tuple[str, Task], error: ApiError, now: float) -> None:
    waiting.failed(*taken, error, now, now)


def nothing() -> None:
    """A write that works."""


def test_what_waits_is_taken_in_order_of_time() -> None:
    waiting = backlog()
    for key, due in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
        put(waiting, key, due=due)
    assert waiting.take(0.5) is None
    taken = []
    while found := waiting.take(5.0):
        taken.append(found[0])
    assert taken == ["early", "middle", "late"]
    assert waiting.next_due(5.0) is None


def test_a_write_submitted_again_while_it_waits_is_done_once_and_at_the_earlier_time() -> None:
    waiting = backlog()
    put(waiting, "a", due=9.0)
    later = lambda: None  # noqa: E731  # another write than the first
    waiting.put("a", later, 1.0)
    assert waiting.next_due(0.0) == 1.0
    assert take(waiting, 1.0)[1].write is later
    assert waiting.take(99.0) is None


def test_a_state_is_retried_for_ever_with_growing_pauses() -> None:
    waiting, now = backlog(), 0.0
    put(waiting, "a")
    pauses = []
    for _ in range(30):
        fail(waiting, take(waiting, now), BUSY, now)
        due = waiting.next_due(now)
        assert due is not None
        pauses.append(due - now)
        now = due
    assert all(pause <= RETRY_LAST_S * 1.25 for pause in pauses)
    assert all(later > earlier for earlier, later in pairwise(pauses[:7]))
    assert pauses[-1] > RETRY_LAST_S / 2


def test_a_server_that_names_a_time_is_not_asked_before() -> None:
    waiting = backlog()
    put(waiting, "a")
    fail(waiting, take(waiting, 0.0), Throttled(429, "TooManyRequests", "slow down", 7.0), 0.0)
    assert waiting.next_due(0.0) == 7.0


@pytest.mark.parametrize("urgent", [False, True])
def test_while_the_api_is_away_the_whole_queue_waits(urgent: bool) -> None:
    waiting, now, asked = backlog(), 0.0, 0
    put(waiting, *(f"state/{i}" for i in range(10_000)), urgent=urgent)
    while now < 60.0:
        if found := waiting.take(now):
            asked += 1
            fail(waiting, found, Unreachable(0, "ConnectionRefused", "away"), now)
        now = waiting.next_due(now) or now
    assert asked < 20
    done = 0
    while found := waiting.take(now):
        waiting.worked(found[1], now, now)
        done += 1
    assert done > 9000


def test_a_state_that_is_refused_holds_up_no_other() -> None:
    waiting = backlog()
    put(waiting, "bad")
    put(waiting, "good", due=0.1)
    fail(waiting, take(waiting, 0.0), REFUSED, 0.0)
    assert waiting.next_due(0.0) == 0.1


def test_news_is_given_up_after_some_attempts() -> None:
    waiting, now = backlog(), 0.0
    put(waiting, "event", news=True)
    attempts = 0
    while found := waiting.take(now):
        attempts += 1
        fail(waiting, found, BUSY, now)
        now = waiting.next_due(now) or now
    assert attempts == NEWS_ATTEMPTS
    assert waiting.dropped == 1


def test_news_does_not_pile_up_and_states_and_warnings_still_find_room() -> None:
    waiting = backlog()
    put(waiting, *(f"event/{i}" for i in range(3 * MAX_NEWS)), news=True, urgent=False)
    put(waiting, "state", urgent=False)
    put(waiting, "warning", news=True)
    assert len(waiting) == MAX_NEWS + 2
    assert waiting.dropped == 2 * MAX_NEWS
    assert not waiting.put("one more", nothing, 0.0, news=True)


def test_what_was_submitted_anew_during_a_failing_write_is_not_written_twice() -> None:
    waiting = backlog()
    put(waiting, "a")
    taken = take(waiting, 0.0)
    put(waiting, "a", due=0.1)
    fail(waiting, taken, REFUSED, 0.0)
    assert len(waiting) == 1
    assert waiting.next_due(0.0) == 0.1


def test_news_that_was_withdrawn_is_not_told_and_leaves_room_for_other() -> None:
    waiting = backlog()
    put(waiting, *(f"event/{i}" for i in range(MAX_NEWS)), news=True, urgent=False)
    waiting.withdraw("event/0")
    waiting.withdraw("event/0")
    assert waiting.put("one more", nothing, 0.0, news=True)
    assert take(waiting, 0.0)[0] == "event/1"


def test_what_is_urgent_passes_ten_thousand_writes_that_wait() -> None:
    waiting = backlog()
    put(waiting, *(f"state/{i}" for i in range(10_000)), urgent=False)
    for _ in range(BURST):
        waiting.worked(take(waiting, 0.0)[1], 0.0, 0.01)
    waiting.pace.crowd(0.01)
    assert waiting.take(0.01) is None
    put(waiting, "warning", due=0.01, news=True)
    assert take(waiting, 0.01)[0] == "warning"
    assert waiting.next_due(0.01) == pytest.approx(1.0)


def test_the_age_of_what_waits_counts_from_when_it_was_due_through_all_failures() -> None:
    waiting = backlog()
    put(waiting, "early")
    put(waiting, "late", due=100.0)
    assert waiting.lag(50.0) == (1, 50.0)
    fail(waiting, take(waiting, 50.0), BUSY, 50.0)
    assert waiting.lag(60.0).oldest_s == 60.0
    waiting.withdraw("early")
    assert waiting.lag(60.0).oldest_s == 0.0
    assert waiting.lag(101.0).oldest_s == 1.0
