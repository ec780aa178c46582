"""Two times that no clock shows: one after all others, one before; and waits that double."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.times import LONG_AGO, NEVER, doubled


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_time_is_later_than_never_or_earlier_than_long_ago(time: float) -> None:
    assert LONG_AGO < time < NEVER
    assert min(NEVER, time) == time == max(LONG_AGO, time)


@pytest.mark.parametrize(
    ("times", "waits"), [(0, 60.0), (1, 120.0), (5, 1920.0), (6, 3600.0), (1024, 3600.0), (10**6, 3600.0)]
)
def test_a_wait_doubles_up_to_the_longest_however_often(times: int, waits: float) -> None:
    """Addresses that go back once an hour have gone back a thousand times after some weeks."""
    assert doubled(60.0, times, 3600.0) == waits
