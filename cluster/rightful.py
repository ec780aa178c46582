"""Whose an address is that several Services show: one rule, for what is assigned and for what is announced.

Anybody who may write a status can put a neighbour's address into it, and two installations may give one address at the
same moment. So each Service's title to an address is graded, by its status and by its condition (``record``):

1. its status shows the address, and its condition says that it was given it;
2. its status shows it, it has no such condition, and it is a Service to which somebody else writes;
3. its condition says so, but somebody has put something else into the status;
4. its status shows it, and it has no condition that could say anything;
5. its status shows it, but its condition says that it has something else, or nothing.

The better grade goes first, and within a grade the older Service. In the first grade, those that are being deleted go
before the older ones, since they get nothing else. The first has the address. Each that follows has it
too if it may share it with all who have it (``sharing``), and is barred by one of them otherwise. The fifth grade is no
right: it is what a Service is left with while nobody has a better title.

A speaker goes by this always, so that it does not announce for a thief what the controller will take back from him. The
controller goes by it at its start; from then on it knows better.

Example: A, the older, and B both show 192.0.2.1, and B's condition says that it was given it. A's condition says
192.0.2.7. B has the address; A is barred by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from cluster.addresses import Address
from cluster.objects import Service
from cluster.sharing import Sharer, Sharers

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


W = TypeVar("W")


class Contender(NamedTuple, Generic[W]):
    """A Service that shows addresses or was given some."""

    who: W
    """Whatever stands for the Service."""
    age: Age
    sharer: Sharer
    shown: tuple[Address, ...]
    """By its status."""
    given: tuple[Address, ...] | None
    """By its condition; None: it has none."""
    elsewhere: bool = False
    """Whether somebody else writes its status."""
    leaving: bool = False
    """Whether it is being deleted."""
    on_nodes: Sharer | None = None
    """On which terms it shares addresses of nodes; None: on the same as others."""

    def sharer_of(self, address: Address, is_of_nodes: Callable[[Address], bool]) -> Sharer:
        return self.sharer if self.on_nodes is None or not is_of_nodes(address) else self.on_nodes


class Title(NamedTuple, Generic[W]):
    """What one Service has to say for itself about one address."""

    grade: Grade
    who: W
    address: Address
    barred_by: W | None
    """One that has the address and does not share it with this one; None: this one has it."""


def titles(
    contenders: Iterable[Contender[W]], is_of_nodes: Callable[[Address], bool] = lambda _: False
) -> list[Title[W]]:
    """All titles of all these Services, the best first."""
    graded = [
        (_grade(address, contender), contender, address)
        for contender in contenders
        for address in dict.fromkeys((*contender.shown, *(contender.given or ())))
    ]
    graded.sort(key=_precedence)
    having: defaultdict[Address, Sharers] = defaultdict(lambda: Sharers(()))
    whose: dict[str, W] = {}
    found = []
    for grade, contender, address in graded:
        others = having[address]
        sharer = contender.sharer_of(address, is_of_nodes)
        conflict = others.conflict(sharer)
        if conflict is None:
            others.put(sharer)
            whose[contender.sharer.service] = contender.who
        found.append(Title(grade, contender.who, address, None if conflict is None else whose[conflict.service]))
    return found


def _precedence(claim: tuple[Grade, Contender[W], Address]) -> tuple[Grade, bool, Age]:
    grade, contender, _ = claim
    return grade, grade is Grade.GIVEN_AND_SHOWN and not contender.leaving, contender.age


def _grade(address: Address, contender: Contender[W]) -> Grade:
    if contender.given is None:
        return Grade.SHOWN_ELSEWHERE if contender.elsewhere else Grade.SHOWN
    if address not in contender.given:
        return Grade.USURPED
    return Grade.GIVEN_AND_SHOWN if address in contender.shown else Grade.GIVEN
