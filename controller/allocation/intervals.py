"""Sets of integers as intervals: what a pool still has to give, at the cost of its gaps and not of its addresses.

Sorted integers are kept in blocks of bounded size. To find, add or remove one takes two binary searches and one short
list move: a few microseconds with a million of them. How many integers an interval spans costs neither time nor
memory: an interval weighs two machine words, as long as its numbers fit into them.

Example: of the 2^64 places of an IPv6 /64 with the first and the third taken, the set has two intervals, (1, 1) and
(3, 2^64 - 1).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, MutableSequence

_BLOCK = 1000
"""Members per block; a block is split at twice this. Near the square root of a million, where the move inside a block
and the move in the list of blocks cost about the same."""
_WORD = 2**64


def _block(members: Iterable[int], top: int) -> MutableSequence[int]:
    return array("Q", members) if top < _WORD else list(members)


class SortedIntegers:
    """Distinct integers in order, from 0 to ``top``."""

    __slots__ = ("_blocks", "_firsts", "_top")

    def __init__(self, top: int) -> None:
        self._top = top
        self._blocks: list[MutableSequence[int]] = []
        self._firsts = _block((), top)

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def __iter__(self) -> Iterator[int]:
        for block in self._blocks:
            yield from block

    def least(self) -> int | None:
        return self._firsts[0] if self._firsts else None

    def add(self, value: int) -> None:
        """``value`` must not be a member yet."""
        if not self._blocks:
            self._blocks.append(_block((value,), self._top))
            self._firsts.append(value)
            return
        at = max(bisect_right(self._firsts, value) - 1, 0)
        block = self._blocks[at]
        insort(block, value)
        self._firsts[at] = block[0]
        if len(block) > 2 * _BLOCK:
            self._blocks.insert(at + 1, block[_BLOCK:])
            self._firsts.insert(at + 1, block[_BLOCK])
            del block[_BLOCK:]

    def remove(self, value: int) -> None:
        """``value`` must be a member."""
        at = bisect_right(self._firsts, value) - 1
        block = self._blocks[at]
        del block[bisect_left(block, value)]
        if block:
            self._firsts[at] = block[0]
        else:
            del self._blocks[at], self._firsts[at]


class IntervalSet:
    """A mutable set of integers from 0 to ``top``. ``count`` is how many it has."""

    __slots__ = ("_ends", "_firsts", "_starts", "_top", "count")

    def __init__(self, top: int) -> None:
        self._top = top
        self._firsts = _block((), top)
        """The first start of each block."""
        self._starts: list[MutableSequence[int]] = []
        self._ends: list[MutableSequence[int]] = []
        """Beside each start the end of its interval."""
        self.count = 0

    def __contains__(self, value: int) -> bool:
        at, position = self._find(value)
        return at >= 0 and value <= self._ends[at][position]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The intervals in order, as (first, last)."""
        for starts, ends in zip(self._starts, self._ends, strict=True):
            yield from zip(starts, ends, strict=True)

    def least(self) -> int | None:
        return self._firsts[0] if self._firsts else None

    def add(self, first: int, last: int) -> None:
        """Add an interval of which nothing is in the set yet; raises ``ValueError`` otherwise."""
        at, position = self._find(first)
        joins_left = False
        if at >= 0:
            end = self._ends[at][position]
            if end >= first:
                raise ValueError(f"{first} is in the set already")
            joins_left = end == first - 1
        next_at, next_position = at, position + 1
        if at < 0 or next_position == len(self._starts[at]):
            next_at, next_position = at + 1, 0
        joins_right = False
        if next_at < len(self._starts):
            start = self._starts[next_at][next_position]
            if start <= last:
                raise ValueError(f"{start} is in the set already")
            joins_right = start == last + 1
        self.count += last - first + 1
        if joins_left and joins_right:
            self._ends[at][position] = self._ends[next_at][next_position]
            self._delete(next_at, next_position)
        elif joins_left:
            self._ends[at][position] = last
        elif joins_right:
            self._move_start(next_at, next_position, first)
        else:
            self._insert(max(at, 0), position + 1, first, last)

    def remove(self, value: int) -> None:
        """Take one integer out; raises ``KeyError`` where it is not in the set."""
        at, position = self._find(value)
        if at < 0 or self._ends[at][position] < value:
            raise KeyError(value)
        start, end = self._starts[at][position], self._ends[at][position]
        if start == end:
            self._delete(at, position)
        elif start == value:
            self._move_start(at, position, value + 1)
        else:
            self._ends[at][position] = value - 1
            if end > value:
                self._insert(at, position + 1, value + 1, end)
        self.count -= 1

    def _find(self, value: int) -> tuple[int, int]:
        """Block and position of the last interval that starts at or before ``value``; (-1, -1): there is none."""
        at = bisect_right(self._firsts, value) - 1
        return (at, bisect_right(self._starts[at], value) - 1) if at >= 0 else (-1, -1)

    def _move_start(self, at: int, position: int, start: int) -> None:
        self._starts[at][position] = start
        if position == 0:
            self._firsts[at] = start

    def _insert(self, at: int, position: int, start: int, end: int) -> None:
        if not self._firsts:
            self._firsts.append(start)
            self._starts.append(_block((start,), self._top))
            self._ends.append(_block((end,), self._top))
            return
        starts, ends = self._starts[at], self._ends[at]
        starts.insert(position, start)
        ends.insert(position, end)
        self._firsts[at] = starts[0]
        if len(starts) > 2 * _BLOCK:
            self._firsts.insert(at + 1, starts[_BLOCK])
            self._starts.insert(at + 1, starts[_BLOCK:])
            self._ends.insert(at + 1, ends[_BLOCK:])
            del starts[_BLOCK:], ends[_BLOCK:]

    def _delete(self, at: int, position: int) -> None:
        starts, ends = self._starts[at], self._ends[at]
        del starts[position], ends[position]
        if starts:
            self._firsts[at] = starts[0]
        else:
            del self._firsts[at], self._starts[at], self._ends[at]
