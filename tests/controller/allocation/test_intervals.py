"""The set of intervals against a plain set of integers, in a small universe."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.allocation import intervals
from controller.allocation.intervals import IntervalSet

SPANS = st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 8)), max_size=60)


@given(SPANS, st.sampled_from([1, 2, 1000]), st.sampled_from([100, 2**64 - 1, 2**96]))
def test_it_has_what_a_plain_set_has(steps: list[tuple[bool, int, int]], block: int, top: int) -> None:
    small, whole = IntervalSet(top), set[int]()
    before, intervals._BLOCK = intervals._BLOCK, block  # small blocks, so that they are split and emptied
    try:
        for adding, first, extent in steps:
            span = set(range(first, first + extent + 1))
            if adding and not span & whole:
                small.add(first, first + extent)
                whole |= span
            elif adding:
                with pytest.raises(ValueError, match="already"):
                    small.add(first, first + extent)
            elif first in whole:
                small.remove(first)
                whole.remove(first)
            else:
                with pytest.raises(KeyError):
                    small.remove(first)
            assert small.count == len(whole)
            assert small.least() == min(whole, default=None)
        assert {value for low, high in small for value in range(low, high + 1)} == whole
        assert [value for value in range(80) if value in small] == sorted(whole)
        spans = list(small)
        assert all(one[1] + 1 < other[0] for one, other in pairwise(spans)), "they do not touch"
    finally:
        intervals._BLOCK = before


def test_a_hundred_thousand_gaps_change_nothing() -> None:
    held = IntervalSet(2**64 - 1)
    held.add(0, 2**64 - 1)
    for value in range(0, 200_000, 2):
        held.remove(value)
    assert held.least() == 1
    assert held.count == 2**64 - 100_000
    for value in range(0, 200_000, 2):
        held.add(value, value)
    assert list(held) == [(0, 2**64 - 1)]
