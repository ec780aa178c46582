"""How much one pass of the deciding thread takes on, and what it waits for before: batching and backpressure.

The thread goes round: it gathers observations, decides, and hands what is to be written to the writers. Three things
are weighed. A lone change is answered at once. In a flood, observations that are judged together cost half of what
they cost one by one, and the API server is the slower part, so while the writers have enough before them the thread
lets observations gather and decides nothing. And little is decided ahead: what is decided later knows more.

1. ``gathering`` says how long the thread waits, and for what.
2. It takes up to ``BATCH`` observations.
3. ``room`` says how much may be decided then; None: nothing, in this pass.

Nothing spins: without anything to do a pass lasts ``IDLE_S``, unless a deadline comes earlier or something is observed.

Example: with 40 requests before the writers a pass gathers for 10 ms and decides nothing; with 32 it decides again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BATCH: Final = 1000
"""Observations that are taken together at most, so that a flood does not keep the first one waiting."""
AHEAD: Final = 128
"""Requests that one pass decides at most. They are in memory, and know nothing of what is observed later."""
JUDGED: Final = 200
"""Services that one pass judges at most; it takes some 50 ms. Who comes meanwhile is seen then, and served first."""
ENOUGH: Final = 32
"""With more requests than these before them the writers are left to it."""
GATHER_S: Final = 0.01
"""For which observations gather then. A fast API server takes 32 writes in that time."""
IDLE_S: Final = 1.0
"""A pass waits no longer, so that its age tells whether the thread lives."""
RESTORE_POLL_S: Final = 0.02
"""Between two looks whether a new leader's lists have come, at first …"""
RESTORE_POLL_SHARE: Final = 1 / 50
"""… and then this share of the time that it has waited: they may never come."""


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do when a pass begins. Times are monotonic seconds."""

    leading_since: float | None = None
    """When this process began to lead; None: it stands by."""
    restored: bool = False
    """Whether it knows what every Service has, and may decide."""
    before_writers: int = 0
    """Requests that no writer has begun."""
    backlog: int = 0
    """Services that are still to be judged."""
    deadline: float | None = None
    """When something is to be decided though nothing is observed; None: not before something is."""


@dataclass(frozen=True, slots=True)
class Gathering:
    """What the thread does before it decides. Seconds."""

    pause_s: float = 0.0
    """For which it lets observations gather."""
    wait_s: float = 0.0
    """For which it then waits for the first, at most; 0: it takes what is there."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much a pass may decide at most."""

    requests: int
    services: int


def gathering(load: Load, now: float) -> Gathering:
    """How to wait for observations."""
    if _writers_have_enough(load):
        return Gathering(pause_s=GATHER_S)
    if load.leading_since is None:
        return Gathering(wait_s=IDLE_S)
    if not load.restored:  # that a list has come wakes nobody
        waited = now - load.leading_since
        return Gathering(wait_s=min(IDLE_S, max(RESTORE_POLL_S, waited * RESTORE_POLL_SHARE)))
    if load.backlog:
        return Gathering()
    until = IDLE_S if load.deadline is None else load.deadline - now
    return Gathering(wait_s=min(IDLE_S, max(0.0, until)))


def room(load: Load) -> Room | None:
    """How much may be decided; None: nothing. What is left stays due."""
    if load.leading_since is None or not load.restored or _writers_have_enough(load):
        return None
    return Room(AHEAD, JUDGED)


def _writers_have_enough(load: Load) -> bool:
    """The end of this is observed, since every request is answered."""
    return load.before_writers > ENOUGH
