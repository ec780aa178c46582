"""In which order several processes begin the tests (``make test``).

What is begun at once is a unit: a group whose tests share a lab, or one test. A process takes the next unit when it has
done the one before. Labs and wires wait nearly all the time, and everything else computes. So the two kinds are mixed:
from the beginning to the end some processes wait and others use the processors. The largest groups come first, since
one that is begun last would keep everybody waiting for it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Listed(NamedTuple, Generic[T]):
    item: T
    unit: str
    waits: bool


def mixed(tests: Sequence[Listed[T]]) -> list[T]:
    """All of them in that order. The tests of a unit keep theirs, and are beside each other."""
    units: dict[str, list[Listed[T]]] = {}
    for test in tests:
        units.setdefault(test.unit, []).append(test)
    waiting = sorted((unit for unit in units.values() if unit[0].waits), key=len, reverse=True)
    computing = [unit for unit in units.values() if not unit[0].waits]
    return [test.item for unit in _spread(waiting, computing) for test in unit]


def _spread(waiting: Sequence[list[Listed[T]]], computing: Sequence[list[Listed[T]]]) -> Iterator[list[Listed[T]]]:
    """After each unit that waits, as many of those that compute as are its share."""
    of_all, passed, given = sum(map(len, waiting)), 0, 0
    for unit in waiting:
        yield unit
        passed += len(unit)
        due = len(computing) * passed // of_all
        yield from computing[given:due]
        given = due
    yield from computing[given:]
