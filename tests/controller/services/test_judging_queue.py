"""Which Service is judged next."""

from __future__ import annotations

from cluster.objects import PoolName
from controller.services.judging_queue import JudgingQueue


def queue(*served: str) -> JudgingQueue:
    """Services "1" to "9", the lower the older; there are no others."""
    return JudgingQueue(lambda key: (key in served, ("2026-01-01T00:00:00Z", key)) if key in "123456789" else None)


def test_the_oldest_comes_first_and_each_once() -> None:
    some = queue()
    some.add("3", "1", "3")
    some.add("2", "1")
    assert [some.pop(), some.pop(), some.pop(), some.pop()] == [("1", True), ("2", True), ("3", True), None]


def test_who_waits_comes_in_between_and_is_not_due() -> None:
    some = queue()
    some.add("1", "3")
    some.offer({PoolName("a")}, ["2", "3"])
    assert some.freed == {"a"}
    assert [some.pop(), some.pop(), some.pop()] == [("1", True), ("2", False), ("3", True)]
    assert some.freed == {"a"}, "it is not over"
    assert some.pop() is None
    assert some.freed == set()


def test_who_comes_late_and_is_older_is_next() -> None:
    some = queue()
    some.add("4", "5")
    assert some.pop() == ("4", True)
    some.add("2")
    assert len(some) == 2
    assert [some.pop(), some.pop()] == [("2", True), ("5", True)]
    assert len(some) == 0


def test_who_has_no_address_comes_before_those_who_have() -> None:
    some = queue("1", "2")
    some.add("1", "2", "4")
    assert some.pop() == ("4", True)
    assert some.pop() == ("1", True)
    some.add("3")
    assert [some.pop(), some.pop(), some.pop()] == [("3", True), ("2", True), None]


def test_who_is_gone_is_passed_over() -> None:
    some = queue()
    some.add("gone")
    assert some.pop() is None
