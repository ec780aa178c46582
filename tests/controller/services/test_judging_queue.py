"""Whose turn it is."""

from __future__ import annotations

from cluster.objects import PoolName
from controller.services.judging_queue import Turns


def turns(*served: str) -> Turns:
    """Services "1" to "9", the lower the older; there are no others."""
    return Turns(lambda key: (key in served, ("2026-01-01T00:00:00Z", key)) if key in "123456789" else None)


def test_the_oldest_comes_first_and_each_once() -> None:
    some = turns()
    some.give("3", "1", "3")
    some.give("2", "1")
    assert [some.next(), some.next(), some.next(), some.next()] == [("1", True), ("2", True), ("3", True), None]


def test_who_waits_has_a_turn_in_between_and_is_not_due() -> None:
    some = turns()
    some.give("1", "3")
    some.offer({PoolName("a")}, ["2", "3"])
    assert some.freed == {"a"}
    assert [some.next(), some.next(), some.next()] == [("1", True), ("2", False), ("3", True)]
    assert some.freed == {"a"}, "it is not over"
    assert some.next() is None
    assert some.freed == set()


def test_who_comes_late_and_is_older_is_next() -> None:
    some = turns()
    some.give("4", "5")
    assert some.next() == ("4", True)
    some.give("2")
    assert len(some) == 2
    assert [some.next(), some.next()] == [("2", True), ("5", True)]
    assert len(some) == 0


def test_who_has_no_address_comes_before_those_who_have() -> None:
    some = turns("1", "2")
    some.give("1", "2", "4")
    assert some.next() == ("4", True)
    assert some.next() == ("1", True)
    some.give("3")
    assert [some.next(), some.next(), some.next()] == [("3", True), ("2", True), None]


def test_who_is_gone_has_no_turn() -> None:
    some = turns()
    some.give("gone")
    assert some.next() is None
