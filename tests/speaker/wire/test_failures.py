"""Which failures are said."""

from __future__ import annotations

from speaker.wire.failures import MAX_KINDS, SAY_AGAIN_S, Failures


def test_first_failure_is_said_at_once_and_then_one_a_minute_with_how_many_there_were() -> None:
    failures = Failures()
    said = [(n, count) for n in range(1201) if (count := failures.note("eth0", n / 10))]
    assert said == [(0, 1), (600, 600), (1200, 600)]


def test_each_kind_is_said() -> None:
    failures = Failures()
    for kind in [("eth0", 105), ("eth1", 105), ("eth0", 90)]:
        assert failures.note(kind, 1.0) == 1
        assert failures.note(kind, 2.0) == 0


def test_kinds_are_bounded_and_the_one_longest_unsaid_is_forgotten() -> None:
    failures = Failures()
    for kind in range(MAX_KINDS + 1):
        assert failures.note(kind, 0.0) == 1
    assert failures.note(MAX_KINDS, 1.0) == 0
    assert failures.note(0, 1.0) == 1
    assert failures.note(MAX_KINDS, SAY_AGAIN_S) == 2
