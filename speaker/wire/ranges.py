"""Sets of numbers as sorted ranges that do not touch, kept while numbers come and go.

Adding, removing and looking up cost a binary search, and a move within a list: some microseconds with 10,000 ranges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple


class NumberRange(NamedTuple):
    """Numbers from ``first`` to ``last``, both included."""

    first: int
    last: int


class Ranges:
    """A set of numbers. Iterating gives its ranges in order."""

    def __init__(self, ranges: Iterable[NumberRange] = ()) -> None:
        """``ranges`` are in order and do not touch."""
        ordered = tuple(ranges)
        self._firsts = [each.first for each in ordered]
        self._lasts = [each.last for each in ordered]

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[NumberRange]:
        return map(NumberRange, self._firsts, self._lasts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number)
        return at > 0 and self._lasts[at - 1] >= number

    def add(self, number: int) -> None:
        firsts, lasts = self._firsts, self._lasts
        at = bisect_right(firsts, number)
        if at and lasts[at - 1] >= number:
            return
        continues = at > 0 and lasts[at - 1] == number - 1
        leads_on = at < len(firsts) and firsts[at] == number + 1
        if continues and leads_on:
            del firsts[at]
            del lasts[at - 1]
        elif continues:
            lasts[at - 1] = number
        elif leads_on:
            firsts[at] = number
        else:
            firsts.insert(at, number)
            lasts.insert(at, number)

    def remove(self, number: int) -> None:
        """Take a number out; one that is not there is ignored."""
        firsts, lasts = self._firsts, self._lasts
        at = bisect_right(firsts, number) - 1
        if at < 0 or lasts[at] < number:
            return
        begins, ends = firsts[at] == number, lasts[at] == number
        if begins and ends:
            del firsts[at]
            del lasts[at]
        elif begins:
            firsts[at] = number + 1
        elif ends:
            lasts[at] = number - 1
        else:
            firsts.insert(at + 1, number + 1)
            lasts.insert(at, number - 1)


def ranges_of(numbers: Iterable[int]) -> list[NumberRange]:
    """Sorted ranges that contain exactly these numbers."""
    ranges: list[NumberRange] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1].last + 1:
            ranges[-1] = NumberRange(ranges[-1].first, number)
        else:
            ranges.append(NumberRange(number, number))
    return ranges


def coarser(ranges: Sequence[NumberRange], count: int) -> list[NumberRange]:
    """At most ``count`` ranges that contain all of these: the smallest gaps are closed."""
    if len(ranges) <= count:
        return list(ranges)
    gaps = sorted(range(1, len(ranges)), key=lambda i: ranges[i].first - ranges[i - 1].last, reverse=True)
    starts = [0, *sorted(gaps[: count - 1]), len(ranges)]
    return [NumberRange(ranges[a].first, ranges[b - 1].last) for a, b in pairwise(starts)]
