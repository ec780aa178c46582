"""Whose an address is that several Services claim: one rule, for what is given out and for what is announced.

Anybody who may write a status can put a neighbour's address into it, and two installations may give one address at the
same moment. What each Service says of itself decides, by its status and by its condition (``record``), and then age:

1. its status shows the address, and its condition says that it was given it;
2. its status shows it, it has no such condition, and it is a Service to which somebody else writes;
3. its condition says so, but somebody has put something else into the status;
4. its status shows it, and it has no condition that could say anything;
5. its status shows it, but its condition says that it has something else, or nothing.

Whoever comes first has the address; who follows has it too if they may share it (``sharing``). The fifth has no right
to it: it is what a Service is left with while nobody else claims the address.

The controller goes by this where it knows no better, at its start; a speaker always, so that it does not announce for a
thief what the controller will take back from him.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from cluster.addresses import Address
from cluster.objects import Service

Age = tuple[str, str]
"""Orders Services from the oldest to the newest. Within one second the name decides, and not the uid: so two clusters
that are made from the same files give the same addresses. Text order is time order in RFC 3339 with Z."""


def age_of(service: Service) -> Age:
    return service.metadata.creation_timestamp or "", service.key


class Grade(IntEnum):
    """How good a claim is; see the module's docstring. Low before high."""

    GIVEN_AND_SHOWN = 1
    SHOWN_ELSEWHERE = 2
    GIVEN = 3
    SHOWN = 4
    USURPED = 5


C = TypeVar("C")


class Claimant(NamedTuple, Generic[C]):
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


class Claim(NamedTuple, Generic[C]):
    grade: Grade
    who: C
    address: Address


def in_order(claimants: Iterable[Claimant[C]]) -> list[Claim[C]]:
    """All that they claim, the best claim first."""
    claims = [
        (_grade(address, each), each.age, each.who, address)
        for each in claimants
        for address in dict.fromkeys((*each.shown, *(each.given or ())))
    ]
    claims.sort(key=lambda each: each[:2])
    return [Claim(grade, who, address) for grade, _, who, address in claims]


def _grade(address: Address, claimant: Claimant[C]) -> Grade:
    if claimant.given is None:
        return Grade.SHOWN_ELSEWHERE if claimant.elsewhere else Grade.SHOWN
    if address not in claimant.given:
        return Grade.USURPED
    return Grade.GIVEN_AND_SHOWN if address in claimant.shown else Grade.GIVEN
