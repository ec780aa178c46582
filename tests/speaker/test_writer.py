"""Writes: once per key, repeated after a failure, and news that does not pile up."""

from __future__ import annotations

import random
import threading
from itertools import pairwise

from cluster.errors import Invalid, ServerError, Throttled, Unreachable
from speaker.writer import MAX_NEWS, NEWS_ATTEMPTS, RETRY_LAST_S, Backlog, Writer
from tests.waiting import wait_until

BUSY = ServerError(503, "ServiceUnavailable", "later")
REFUSED = Invalid(422, "Invalid", "no")


def backlog() -> Backlog:
    return Backlog(random.Random(1))


def nothing() -> None:
    """A write that works."""


def test_what_waits_is_taken_in_order_of_time() -> None:
    waiting = backlog()
    for key, due in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
        waiting.put(key, nothing, due)
    assert waiting.take(0.5) is None
    taken = []
    while found := waiting.take(5.0):
        taken.append(found[0])
    assert taken == ["early", "middle", "late"]
    assert waiting.next_due() is None


def test_a_write_submitted_again_while_it_waits_is_done_once_and_at_the_earlier_time() -> None:
    waiting = backlog()
    waiting.put("a", nothing, 9.0)
    later = lambda: None  # noqa: E731  # another write than the first
    waiting.put("a", later, 1.0)
    assert waiting.next_due() == 1.0
    found = waiting.take(1.0)
    assert found is not None
    assert found[1].write is later
    assert waiting.take(99.0) is None


def test_a_state_is_retried_for_ever_with_growing_pauses() -> None:
    waiting, now = backlog(), 0.0
    waiting.put("a", nothing, now)
    pauses = []
    for _ in range(30):
        found = waiting.take(now)
        assert found is not None
        waiting.failed(*found, BUSY, now)
        due = waiting.next_due()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert all(pause <= RETRY_LAST_S * 1.25 for pause in pauses)
    assert all(later > earlier for earlier, later in pairwise(pauses[:7]))
    assert pauses[-1] > RETRY_LAST_S / 2


def test_a_server_that_names_a_time_is_not_asked_before() -> None:
    waiting = backlog()
    waiting.put("a", nothing, 0.0)
    found = waiting.take(0.0)
    assert found is not None
    waiting.failed(*found, Throttled(429, "TooManyRequests", "slow down", 7.0), 0.0)
    assert waiting.next_due() == 7.0


def test_while_the_api_is_away_the_whole_queue_waits() -> None:
    waiting, now, asked = backlog(), 0.0, 0
    for i in range(10_000):
        waiting.put(f"state/{i}", nothing, 0.0)
    while now < 60.0:
        if found := waiting.take(now):
            asked += 1
            waiting.failed(*found, Unreachable(0, "ConnectionRefused", "away"), now)
        now = waiting.next_due() or now
    assert asked < 20
    found = waiting.take(now)
    assert found is not None
    waiting.worked()
    done = 1
    while waiting.take(now):
        done += 1
    assert done > 9000


def test_a_state_that_is_refused_holds_up_no_other() -> None:
    waiting = backlog()
    waiting.put("bad", nothing, 0.0)
    waiting.put("good", nothing, 0.1)
    found = waiting.take(0.0)
    assert found is not None
    waiting.failed(*found, REFUSED, 0.0)
    assert waiting.next_due() == 0.1


def test_news_is_given_up_after_some_attempts() -> None:
    waiting, now = backlog(), 0.0
    waiting.put("event", nothing, now, news=True)
    attempts = 0
    while found := waiting.take(now):
        attempts += 1
        waiting.failed(*found, BUSY, now)
        now = waiting.next_due() or now
    assert attempts == NEWS_ATTEMPTS
    assert waiting.dropped == 1


def test_news_does_not_pile_up_and_states_still_find_room() -> None:
    waiting = backlog()
    for i in range(3 * MAX_NEWS):
        waiting.put(f"event/{i}", nothing, 0.0, news=True)
    waiting.put("state", nothing, 0.0)
    assert len(waiting) == MAX_NEWS + 1
    assert waiting.dropped == 2 * MAX_NEWS


def test_what_was_submitted_anew_during_a_failing_write_is_not_written_twice() -> None:
    waiting = backlog()
    waiting.put("a", nothing, 0.0)
    found = waiting.take(0.0)
    assert found is not None
    waiting.put("a", nothing, 0.1)
    waiting.failed(*found, REFUSED, 0.0)
    assert len(waiting) == 1
    assert waiting.next_due() == 0.1


def test_the_thread_repeats_what_failed_and_survives_a_defect() -> None:
    writer = Writer()
    done = threading.Event()
    answers = iter([BUSY, KeyError("a defect")])

    def write() -> None:
        if (error := next(answers, None)) is not None:
            raise error
        done.set()

    writer.start()
    try:
        writer.submit("a", write)
        wait_until(lambda: writer.errors == 2)
        writer.submit("a", write)
        assert done.wait(5)
        wait_until(lambda: writer.writes == 1 and writer.waiting == 0)
    finally:
        writer.stop()
