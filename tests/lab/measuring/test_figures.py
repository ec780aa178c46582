"""The figures of a failover, computed from what clients saw."""

from __future__ import annotations

import pytest

from lab.measuring.figures import (
    HttpRequest,
    LateQuestion,
    NeighbourAnswer,
    answered_by_two,
    longest_silence,
    outage,
    two_answer,
)

OLD, NEW = "02:00:00:00:00:01", "02:00:00:00:00:02"
ADDRESS, SECOND = "172.18.255.200", "fd00:b1b::255:200"


def answer(at: float, mac: str, address: str = ADDRESS) -> NeighbourAnswer:
    return NeighbourAnswer(at=at, address=address, mac=mac)


def test_time_to_answer_again_counts_from_the_fault_to_another_mac() -> None:
    seen = [answer(9.99, OLD), answer(10.41, NEW), answer(10.42, NEW)]
    result = outage(seen, [], fault_at=10.0)
    assert result.answers_again_s == pytest.approx(0.41)
    assert result.answered_by == NEW
    assert result.silence_s == pytest.approx(0.41)


def test_nobody_answering_is_no_figure_instead_of_a_wrong_one() -> None:
    result = outage([answer(9.99, OLD)], [], fault_at=10.0)
    assert result.answers_again_s is None
    assert result.silence_s is None


def test_every_request_succeeds_again_after_the_last_lost_one() -> None:
    requests = [
        HttpRequest(start=9.9, end=9.91, ok=True),
        HttpRequest(start=10.1, end=11.1, ok=False, error="timeout"),
        HttpRequest(start=10.5, end=10.51, ok=True),
        HttpRequest(start=12.0, end=13.0, ok=False, error="timeout"),
        HttpRequest(start=12.02, end=12.03, ok=True),
    ]
    result = outage([], requests, fault_at=10.0)
    assert (result.requests, result.lost) == (4, 2)
    assert result.succeeds_again_s == pytest.approx(2.02)


def test_requests_still_failing_at_the_end_are_not_called_recovered() -> None:
    requests = [HttpRequest(start=10.1, end=11.1, ok=False), HttpRequest(start=10.9, end=11.9, ok=False)]
    assert outage([], requests, fault_at=10.0).succeeds_again_s == pytest.approx(1.9)


def test_silence_is_the_longest_gap_wherever_it_lies() -> None:
    seen = [answer(t, OLD) for t in (1.0, 1.1, 1.6, 1.7)]
    assert longest_silence(seen, since=1.0, until=1.8) == pytest.approx(0.5)


def test_what_the_client_was_late_by_is_no_silence() -> None:
    seen = [answer(t, OLD) for t in (1.0, 1.1, 1.6, 1.7)]
    late = [LateQuestion(asked=0.9, late=0.5), LateQuestion(asked=1.5, late=0.3), LateQuestion(asked=1.75, late=0.1)]
    assert longest_silence(seen, since=1.0, until=1.8, unasked=late) == pytest.approx(0.2)


def test_answers_of_two_macs_close_together_are_counted() -> None:
    seen = [answer(1.0, OLD), answer(1.001, NEW), answer(1.01, NEW), answer(1.011, OLD), answer(5.0, NEW)]
    assert answered_by_two(seen, window=0.05) == 2


def test_of_two_addresses_the_later_one_counts() -> None:
    before = [answer(9.98, OLD), answer(9.99, OLD, SECOND)]
    first, second = answer(10.2, NEW), answer(10.5, NEW, SECOND)
    result = outage([*before, first, second], [], fault_at=10.0)
    assert result.answers_again_s == pytest.approx(0.5)
    assert result.silence_s == pytest.approx(0.5)
    half = outage([*before, first, answer(10.5, OLD, SECOND)], [], fault_at=10.0)
    assert half.answers_again_s is None, "the second one has not moved"


def test_a_change_of_the_mac_is_no_time_in_which_two_answer() -> None:
    assert two_answer([answer(1.0, OLD), answer(1.01, NEW), answer(1.02, NEW)], window=0.05) == 0
    assert two_answer([answer(1.0, OLD), answer(1.01, NEW), answer(1.5, NEW), answer(1.51, OLD)], window=0.05) == 0


def test_two_answer_from_the_first_answer_of_the_second_to_the_last_of_the_first() -> None:
    over = [answer(1.0, OLD), answer(1.01, NEW), answer(1.011, OLD), answer(1.02, NEW), answer(1.03, NEW)]
    assert two_answer(over, window=0.05) == pytest.approx(0.01)
    once = [answer(1.0, OLD), answer(1.01, NEW), answer(1.012, OLD), answer(1.02, OLD)]
    assert two_answer(once, window=0.05) == pytest.approx(0.002)
    apart = [answer(1.0, OLD), answer(1.001, NEW, SECOND), answer(1.01, OLD), answer(1.011, NEW, SECOND)]
    assert two_answer(apart, window=0.05) == 0, "each address has one"


def test_two_that_answer_for_a_while_are_counted_for_that_while() -> None:
    both = [answer(1 + tick / 100 + late, mac) for tick in range(100) for mac, late in ((OLD, 0.0), (NEW, 0.001))]
    assert two_answer(both, window=0.05) == pytest.approx(0.99, abs=0.02)


def test_connections_that_stay_open_break_and_are_no_lost_requests() -> None:
    requests = [
        HttpRequest(start=9.8, end=9.9, ok=False, error="before the fault", connection=1),
        HttpRequest(start=9.9, end=10.5, ok=False, error="reset", connection=1),
        HttpRequest(start=10.1, end=10.2, ok=True, connection=2),
        HttpRequest(start=10.2, end=10.3, ok=True),
    ]
    found = outage([], requests, fault_at=10.0)
    assert (found.requests, found.lost, found.broken) == (1, 0, 1)
