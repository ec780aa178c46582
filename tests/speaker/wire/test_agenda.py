"""When the announcer's loop is due, and what it owes first."""

from __future__ import annotations

from cluster.times import LONG_AGO
from speaker.wire.agenda import FAREWELL_S, HOUSEKEEPING_S, JUDGING_LATE_S, LOOK_AGAIN_S, Agenda
from speaker.wire.gratuitous import SLACK_S

LATE_S = 0.175
NOW = 100.0


def resting(now: float = NOW) -> Agenda:
    """An agenda whose house is kept, and with nothing to do before the next time."""
    made = Agenda(LATE_S, now)
    assert made.take_housekeeping(now)
    made.set_rest([None], now)
    return made


def test_loop_begins_at_once_and_is_awake_for_the_earliest_of_all() -> None:
    assert Agenda(LATE_S, NOW).deadline() == NOW
    made = resting()
    assert made.deadline() == NOW + HOUSEKEEPING_S
    made.set_rest([NOW + 0.5, None, NOW + 0.7], NOW)
    assert made.deadline() == NOW + 0.5
    made.set_protocol(NOW + 0.1, NOW)
    assert made.deadline() == NOW + 0.1
    made.set_protocol(None, NOW)
    assert made.deadline() == NOW + 0.5


def test_what_is_to_be_done_at_once_is_owed_since_it_was_said_and_is_no_lateness_for_ever() -> None:
    """A speaker that took up again what its node held ended: its loop was late by infinity."""
    made = resting()
    made.set_protocol(NOW + 0.1, NOW)
    made.set_protocol(LONG_AGO, NOW)
    assert made.deadline() == NOW
    made.set_protocol(LONG_AGO, NOW + 0.06)
    assert made.may_judge(unread=True, now=NOW + 0.06), "a flood does not hold it off for ever"
    made.judged()
    made.set_protocol(LONG_AGO, NOW + 0.3)
    assert made.lateness(NOW + 0.3) == 0.0, "each piece is on time"


def test_what_had_to_wait_for_something_else_is_owed_since_it_was_said() -> None:
    """Turns that came while thousands of bundles were followed: the loop was there all the while."""
    made = resting()
    made.set_protocol(LONG_AGO, NOW)
    made.judged()
    made.set_protocol(NOW - 2.0, NOW + 0.1)
    assert made.lateness(NOW + 0.1) == 0.0
    assert made.lateness(NOW + 1.1) == 1.0


def test_pass_that_begins_within_the_limit_is_on_time_and_a_later_one_is_told_by_how_much() -> None:
    made = resting()
    made.set_protocol(NOW, NOW)
    assert made.lateness(NOW + LATE_S - 0.01) == 0.0
    assert made.lateness(NOW + 3.0) == 3.0
    made.set_protocol(None, NOW)
    assert made.lateness(NOW + 0.5) == 0.0, "woken by a socket before anything was due"


def test_protocol_judges_nobody_before_what_has_arrived_is_read() -> None:
    made = resting()
    made.set_protocol(NOW, NOW)
    assert not made.protocol_is_due(NOW - 0.01)
    assert made.protocol_is_due(NOW)
    assert not made.must_read_first(NOW, False, NOW + LOOK_AGAIN_S / 2)
    assert made.must_read_first(NOW, False, NOW + 2 * LOOK_AGAIN_S)
    assert made.must_read_first(NOW, True, NOW)
    assert made.may_judge(False, NOW)
    assert not made.may_judge(True, NOW)
    assert made.may_judge(True, NOW + JUDGING_LATE_S), "a flood holds it off for no longer"


def test_rest_is_done_a_little_early_by_a_loop_that_is_awake_anyway() -> None:
    made = resting()
    made.set_rest([NOW + 0.5], NOW)
    assert not made.rest_is_due(NOW + 0.5 - 2 * SLACK_S)
    assert made.rest_is_due(NOW + 0.5 - SLACK_S)


def test_rest_that_was_brought_forward_is_done_in_the_same_pass_and_makes_no_pass_late() -> None:
    made = resting()
    made.rest_now()
    assert made.rest_is_due(NOW)
    made.set_rest([], NOW)
    assert made.lateness(NOW + 0.01) == 0.0


def test_rest_that_had_to_wait_for_something_else_is_owed_since_it_was_looked_at() -> None:
    """News that waited for another watcher: the holder of all addresses fenced itself when it had started one."""
    made = resting()
    made.set_rest([NOW - 0.5], NOW)
    assert made.rest_is_due(NOW)
    assert made.lateness(NOW + 0.01) == 0.0
    assert made.lateness(NOW + 1.0) == 1.0


def test_house_is_kept_once_a_second() -> None:
    made = resting()
    assert not made.take_housekeeping(NOW + HOUSEKEEPING_S / 2)
    assert made.take_housekeeping(NOW + HOUSEKEEPING_S)
    made.set_rest([], NOW)
    assert made.deadline() == NOW + 2 * HOUSEKEEPING_S


def test_end_comes_when_all_is_released_or_the_time_is_up() -> None:
    made = resting()
    assert not made.is_over(True, NOW), "nobody asked for it"
    assert made.end_soon(NOW)
    assert not made.end_soon(NOW + 0.1), "asked again is no news, and gives no more time"
    made.set_rest([], NOW)
    assert made.deadline() == NOW + HOUSEKEEPING_S
    assert not made.is_over(False, NOW + 0.1)
    assert made.is_over(True, NOW + 0.1)
    assert not made.is_over(False, NOW + FAREWELL_S - 0.1)
    assert made.is_over(False, NOW + FAREWELL_S)
