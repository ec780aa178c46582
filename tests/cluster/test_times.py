"""Two times that no clock shows: one after all others, one before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.times import LONG_AGO, NEVER


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_time_is_later_than_never_or_earlier_than_long_ago(time: float) -> None:
    assert LONG_AGO < time < NEVER
    assert min(NEVER, time) == time == max(LONG_AGO, time)
