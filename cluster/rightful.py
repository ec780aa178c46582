"""Whose an address is that several Services have: one rule, for what is assigned and for what is announced.

Anybody who may write a status can put a neighbour's address into it, and two installations may give one address at the
same moment. What each Service says of itself decides, by its status and by its condition (``record``), and then age:

1. its status shows the address, and its condition says that it was given it;
2. its status shows it, it has no such condition, and it is a Service to which somebody else writes;
3. its condition says so, but somebody has put something else into the status;
4. its status shows it, and it has no condition that could say anything;
5. its status shows it, but its condition says that it has something else, or nothing.

The first has the address. One that follows has it too if it may share it with all before it (``sharing``). The fifth
has no title to it: it is what a Service is left with while nobody else has the address.

The controller goes by this where it knows no better, at its start (``in_order``; its ledger then sees to the sharing).
A speaker always does (``rightful``), so that it does not announce for a thief what the controller will take back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from cluster.addresses import Address
from cluster.objects import Service
from cluster.sharing import Holder

Age = tuple[str, str]
"""Orders Services from the oldest to the newest. Within one second the name decides, and not the uid: so two clusters
that are made from the same files give the same addresses. Text order is time order in RFC 3339 with Z."""


def age_of(service: Service) -> Age:
    return service.metadata.creation_timestamp or "", service.key


class Grade(IntEnum):
    """How good a title is; see the module's docstring. Low before high."""

    GIVEN_AND_SHOWN = 1
    SHOWN_ELSEWHERE = 2
    GIVEN = 3
    SHOWN = 4
    USURPED = 5


C = TypeVar("C")


class Contender(NamedTuple, Generic[C]):
    """A Service that shows addresses or was given some."""

    who: C
    """Whatever stands for the Service."""
    age: Age
    shown: tuple[Address, ...]
    """By its status."""
    given: tuple[Address, ...] | None
    """By its condition; None: it has none."""
    elsewhere: bool = False
    """Whether somebody else writes its status."""


class Title(NamedTuple, Generic[C]):
    """What a Service has to say for itself about one address."""

    grade: Grade
    who: C
    address: Address


def in_order(contenders: Iterable[Contender[C]]) -> list[Title[C]]:
    """The titles to all addresses that they show or were given, the best first."""
    titles = [
        (_grade(address, each), each.age, each.who, address)
        for each in contenders
        for address in dict.fromkeys((*each.shown, *(each.given or ())))
    ]
    titles.sort(key=lambda each: each[:2])
    return [Title(grade, who, address) for grade, _, who, address in titles]


def rightful(contenders: Iterable[Contender[C]], holder_of: Callable[[C], Holder]) -> dict[str, set[Address]]:
    """The addresses that each may have, by Service (``namespace/name``)."""
    holders: dict[Address, list[Holder]] = {}
    theirs: dict[str, set[Address]] = {}
    for _, who, address in in_order(contenders):
        holder = holder_of(who)
        before = holders.setdefault(address, [])
        if all(holder.why_not_with(other) is None for other in before):
            before.append(holder)
            theirs.setdefault(holder.service, set()).add(address)
    return theirs


def _grade(address: Address, contender: Contender[C]) -> Grade:
    if contender.given is None:
        return Grade.SHOWN_ELSEWHERE if contender.elsewhere else Grade.SHOWN
    if address not in contender.given:
        return Grade.USURPED
    return Grade.GIVEN_AND_SHOWN if address in contender.shown else Grade.GIVEN
