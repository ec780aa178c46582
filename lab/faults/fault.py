"""A fault: what it does to a lab, what undoes it, and what is promised of it.

A fault is one object, and ``table`` has them all. The figures (``bench.faults``), the tests
(``tests/lab/test_faults.py``) and the page of promises (``docs/faults.md``) are made from that list, so none of them
can have a fault that the others lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from lab.client import Lab


class Movement(StrEnum):
    """Whether another node answers for an address because of a fault, and goes on doing so."""

    STAYS = "stays"
    MOVES = "moves"
    EITHER = "either"
    """Nothing is promised."""


@dataclass(frozen=True)
class Promise:
    """What a client may count on. None: nothing is promised."""

    move: Movement
    silence_s: float | None = None
    """Longest time without an answer for an address, from the fault until it is over."""
    two_answer_s: float | None = None
    """Seconds in which two nodes answer for an address."""
    lost: int | None = None
    """Requests, each over a connection of its own, that are not answered within a second."""
    broken: int | None = None
    """Open connections."""


@dataclass(frozen=True)
class Scene:
    """Where a fault is caused."""

    lab: Lab
    holder: str
    """The node that answers for the addresses when it begins."""
    addresses: tuple[str, ...]

    @property
    def nodes(self) -> list[str]:
        return [host.name for host in self.lab.status().layout.nodes]

    @property
    def others(self) -> list[str]:
        """The nodes beside the holder."""
        return [name for name in self.nodes if name != self.holder]


Deed = Callable[[Scene], None]


def nothing(_: Scene) -> None:
    """For what passes by itself."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    name: str
    what: str
    """In words, for the page and the table."""
    cause: Deed
    promise: Promise
    mend: Deed = nothing
    """Afterwards the lab is as it was, as soon as all in it is ready. It is called as well where ``cause`` failed."""
    lasts_s: float = 0.0
    """So long it is left as it is, at least, before it is mended."""
