"""Sorted ranges that are kept while numbers come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speaker.wire.ranges import NumberRange, Ranges, coarser, ranges_of

numbers = st.integers(0, 40)


@given(st.sets(numbers), st.lists(st.tuples(st.booleans(), numbers)))
def test_ranges_contain_what_was_added_and_not_removed(first: set[int], steps: list[tuple[bool, int]]) -> None:
    expected, made = set(first), Ranges(ranges_of(first))
    for adds, number in steps:
        if adds:
            expected.add(number)
            made.add(number)
        else:
            expected.discard(number)
            made.remove(number)
        assert list(made) == ranges_of(expected)
    assert [number in made for number in range(-1, 42)] == [number in expected for number in range(-1, 42)]


@given(st.sets(numbers, min_size=1), st.integers(1, 5))
def test_coarser_ranges_are_few_and_contain_the_finer(some: set[int], count: int) -> None:
    made = coarser(ranges_of(some), count)
    assert len(made) <= count
    assert all(any(first <= number <= last for first, last in made) for number in some)


def test_smallest_gaps_are_closed_first() -> None:
    assert coarser(ranges_of([5, 3, 4, 9, 20]), 2) == [NumberRange(3, 9), NumberRange(20, 20)]
    assert coarser(ranges_of([1, 9]), 2) == [NumberRange(1, 1), NumberRange(9, 9)]
