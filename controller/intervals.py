"""Sets of integers as intervals: what a pool still has to give, at the cost of its gaps and not of its addresses.

The starts of the intervals are kept in order, in blocks of bounded size, so that finding, adding and removing are two
binary searches and one short list move: a few microseconds with a million intervals. How many integers an interval
spans does not matter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

_BLOCK = 1000
"""Starts per block; a block is split at twice this. Near the square root of a million, where the move inside a block
and the move in the list of blocks cost about the same."""


class _Sorted:
    """Distinct integers in order, in blocks."""

    __slots__ = ("_blocks", "_firsts")

    def __init__(self) -> None:
        self._blocks: list[list[int]] = []
        self._firsts: list[int] = []

    def __iter__(self) -> Iterator[int]:
        for block in self._blocks:
            yield from block

    def least(self) -> int | None:
        return self._firsts[0] if self._firsts else None

    def at_most(self, value: int) -> int | None:
        """The greatest member that is not above ``value``."""
        index = bisect_right(self._firsts, value) - 1
        if index < 0:
            return None
        block = self._blocks[index]
        return block[bisect_right(block, value) - 1]

    def at_least(self, value: int) -> int | None:
        """The least member that is not below ``value``."""
        index = bisect_right(self._firsts, value) - 1
        if index < 0:
            return self.least()
        block = self._blocks[index]
        position = bisect_left(block, value)
        if position < len(block):
            return block[position]
        return self._firsts[index + 1] if index + 1 < len(self._firsts) else None

    def insert(self, value: int) -> None:
        if not self._blocks:
            self._blocks.append([value])
            self._firsts.append(value)
            return
        index = max(bisect_right(self._firsts, value) - 1, 0)
        block = self._blocks[index]
        insort(block, value)
        self._firsts[index] = block[0]
        if len(block) > 2 * _BLOCK:
            self._blocks.insert(index + 1, block[_BLOCK:])
            self._firsts.insert(index + 1, block[_BLOCK])
            del block[_BLOCK:]

    def remove(self, value: int) -> None:
        index = bisect_right(self._firsts, value) - 1
        block = self._blocks[index]
        del block[bisect_left(block, value)]
        if block:
            self._firsts[index] = block[0]
        else:
            del self._blocks[index]
            del self._firsts[index]


class IntervalSet:
    """A mutable set of integers. ``count`` is how many it has."""

    __slots__ = ("_ends", "_starts", "count")

    def __init__(self) -> None:
        self._starts = _Sorted()
        self._ends: dict[int, int] = {}
        self.count = 0

    def __contains__(self, value: int) -> bool:
        start = self._starts.at_most(value)
        return start is not None and value <= self._ends[start]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The intervals in order, as (first, last)."""
        for start in self._starts:
            yield start, self._ends[start]

    def least(self) -> int | None:
        return self._starts.least()

    def add(self, first: int, last: int) -> None:
        """Add an interval of which nothing is in the set yet; raises ``ValueError`` otherwise."""
        left = self._starts.at_most(first)
        if left is not None and self._ends[left] >= first:
            raise ValueError(f"{first} is in the set already")
        right = self._starts.at_least(first)
        if right is not None and right <= last:
            raise ValueError(f"{right} is in the set already")
        self.count += last - first + 1
        if right == last + 1:
            self._starts.remove(right)
            last = self._ends.pop(right)
        if left is not None and self._ends[left] == first - 1:
            self._ends[left] = last
        else:
            self._starts.insert(first)
            self._ends[first] = last

    def remove(self, value: int) -> None:
        """Take one integer out; raises ``KeyError`` where it is not in the set."""
        start = self._starts.at_most(value)
        if start is None or self._ends[start] < value:
            raise KeyError(value)
        end = self._ends[start]
        if start == value:
            self._starts.remove(start)
            del self._ends[start]
        else:
            self._ends[start] = value - 1
        if end > value:
            self._starts.insert(value + 1)
            self._ends[value + 1] = end
        self.count -= 1
