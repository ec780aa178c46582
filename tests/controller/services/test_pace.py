"""How often one Service is written, and when it is woken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.services.alarms import Alarms
from controller.services.pace import ADDRESSES, WORDS, Rate

RATES = st.sampled_from([ADDRESSES, WORDS, Rate(1, 5.0)])


@given(RATES, st.lists(st.floats(0.0, 100.0), max_size=200))
def test_in_any_span_of_time_no_more_is_written_than_the_allowance(rate: Rate, pauses: list[float]) -> None:
    now, whole_at = 1000.0, 0.0
    written = []
    for pause in pauses:
        now += pause
        if now >= rate.opens(whole_at):
            whole_at = rate.spent(whole_at, now)
            written.append(now)
    for index, began in enumerate(written):
        for later, ended in enumerate(written[index:], start=1):
            assert later <= rate.at_once + (ended - began) / rate.every_s + 1e-6


@pytest.mark.parametrize("rate", [ADDRESSES, WORDS])
def test_the_first_ones_wait_for_nothing_and_the_next_one_for_its_turn(rate: Rate) -> None:
    whole_at = 0.0
    for _ in range(rate.at_once):
        assert rate.opens(whole_at) <= 1000.0
        whole_at = rate.spent(whole_at, 1000.0)
    assert rate.opens(whole_at) == pytest.approx(1000.0 + rate.every_s)


KEYS = st.sampled_from("abc")
STEPS = st.one_of(
    st.tuples(st.just("set"), KEYS, st.none() | st.floats(0.0, 100.0)),
    st.tuples(st.just("due"), st.just(""), st.floats(0.0, 100.0)),
)


@given(st.lists(STEPS, max_size=60))
def test_each_is_woken_once_at_the_latest_moment_that_was_set(steps: list[tuple[str, str, float | None]]) -> None:
    alarms, expected = Alarms(), dict[str, float]()
    for what, key, at in steps:
        if what == "due":
            assert at is not None
            woken = {each for each, when in expected.items() if when <= at}
            assert sorted(alarms.due(at)) == sorted(woken)
            for each in woken:
                del expected[each]
        elif at is None:
            alarms.set(key, at)
            expected.pop(key, None)
        else:
            alarms.set(key, at)
            expected[key] = at
        assert alarms.next() == min(expected.values(), default=None)


def test_what_is_set_again_and_again_takes_no_more_memory() -> None:
    alarms = Alarms()
    for number in range(10_000):
        alarms.set("a", float(number))
    assert len(alarms._heap) <= 20
