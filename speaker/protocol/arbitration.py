"""Claims on a link on which not everybody can be heard: the record in the API decides.

A link is *degraded* while somebody should be heard there by its Lease, and is not (``expected``): something blocks its
datagrams. What it holds is not known, so a claim may not be made as on other links:

1. Before a bundle is claimed on a degraded link, this node has its watcher *win the record*: write this node into the
   bundle's status object where that names nobody, this node, or one that is not blocked. It is one write, which fails
   where anybody was faster. A record that names one of the blocked is not taken.
2. A record that was won is good for a claim within two seconds. One that a blocked node has is asked for again after
   ten seconds, or as soon as that node is blocked no more: it is heard, or its Lease is stale.
3. Without an answer nothing is claimed.

**What is held is confirmed** by the same question: when a link becomes degraded, when this node answers again on such a
link after it was away, and when a frame of another speaker claims the address. If the record names one of the blocked,
the bundle is released. Without an answer it is kept in the first case, and asked about again. In the others it is
released after three seconds, since somebody may have won the record meanwhile.

**Bounds:** 64 questions are open at a time.

Not promised: that an address moves while the API server cannot be reached. It stays with who held it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from cluster.objects import NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName
from speaker.plan import Bundle, BundleId
from speaker.protocol.effects import AskRecord, RecordAnswer
from speaker.protocol.roster import Roster

MAX_OPEN = 64
ANSWER_S = 5.0  # for the watcher's answer; then the question is given up
CONFIRM_S = 3.0  # for the answer about what is held, where it may be another's by now
WON_S = 2.0  # for which a record that was won is good for a claim
AGAIN_S = 10.0  # until a record that a blocked node has is asked for again
BUSY_S = 0.5  # until there may be room for another question


class Held(NamedTuple):
    """A bundle of which this node holds something."""

    bundle: Bundle
    links: frozenset[LinkName]
    epoch: int


class Verdict(enum.Enum):
    """What follows from an answer for a bundle that this node holds."""

    NOTHING = enum.auto()
    RELEASE = enum.auto()
    """Another node has it by the record."""
    REPEAT = enum.auto()
    """It is this node's, and somebody may have been told otherwise: its gratuitous frames are repeated."""


class Arbitration:
    """Sans-IO; emits ``AskRecord``."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._open: dict[BundleId, float] = {}
        """Questions, and until when an answer is awaited."""
        self._won: dict[BundleId, float] = {}
        """Records that were won, and until when each is good."""
        self._lost: dict[BundleId, tuple[NodeName, float]] = {}
        """Records that another node has, and when to ask again."""
        self._held: dict[BundleId, float] = {}
        """Bundles to be confirmed, and when each is released without an answer."""
        self._look_at = NEVER

    def blocked(self, links: Iterable[LinkName]) -> frozenset[NodeName]:
        """Who may hold something on these links without being heard."""
        known = self._roster.links
        return frozenset(node for link in links if link in known for node in known[link].blocked)

    def forget(self, id_: BundleId) -> None:
        """The bundle is gone."""
        for table in (self._open, self._won, self._lost, self._held):
            table.pop(id_, None)

    # ------------------------------------------------------------------------------------------------ to claim

    def due(self, bundle: Bundle, links: frozenset[LinkName], epoch: int, now: float) -> float:
        """When the bundle may be claimed on these links, or when to ask this again; the record is asked for where that
        is needed. ``epoch`` is what the claim would have."""
        blocked = self.blocked(links)
        if not blocked or now < self._won.get(bundle.id, LONG_AGO):
            return now
        holder, again_at = self._lost.get(bundle.id, (None, LONG_AGO))
        if holder in blocked and now < again_at:
            return again_at
        return self._ask(bundle, blocked, epoch, now)

    def _ask(self, bundle: Bundle, blocked: frozenset[NodeName], epoch: int, now: float) -> float:
        """Until when an answer is awaited, or when there may be room for the question."""
        until = self._open.get(bundle.id, LONG_AGO)
        if now < until:
            return until
        if len(self._open) >= MAX_OPEN:
            self._open = {id_: at for id_, at in self._open.items() if now < at}
            if len(self._open) >= MAX_OPEN:
                return now + BUSY_S
        self._open[bundle.id] = now + ANSWER_S
        self._roster.emit(AskRecord(bundle.id, bundle.services, epoch, tuple(sorted(blocked))))
        return now + ANSWER_S

    def answered(self, answer: RecordAnswer, now: float) -> Verdict:
        """The watcher has written a record, or found whose it is."""
        id_ = answer.bundle
        if now >= self._open.pop(id_, LONG_AGO):
            return Verdict.NOTHING
        until = self._held.pop(id_, None)
        self._look_at = now if self._held else NEVER
        if answer.epoch:
            self._won[id_] = now + WON_S
            self._lost.pop(id_, None)
            return Verdict.NOTHING if until in {None, NEVER} else Verdict.REPEAT
        self._won.pop(id_, None)
        self._lost[id_] = answer.holder, now + AGAIN_S
        return Verdict.NOTHING if until is None else Verdict.RELEASE

    # ------------------------------------------------------------------------------------------------ what is held

    def confirm(self, id_: BundleId, now: float, *, keep: bool) -> None:
        """Ask whose a bundle is that this node holds; ``keep`` it without an answer."""
        if not keep and now < self._won.get(id_, LONG_AGO):
            return  # it was just found to be ours
        until = NEVER if keep else now + CONFIRM_S
        self._held[id_] = min(self._held.get(id_, NEVER), until)
        self._look_at = now

    def next_deadline(self) -> float:
        return self._look_at

    def review(self, held: Callable[[BundleId], Held | None], now: float) -> Iterator[BundleId]:
        """Ask about what is to be confirmed. Yields what is to be released, since nobody answered."""
        self._look_at = NEVER
        for id_, until in list(self._held.items()):
            found = held(id_)
            blocked = self.blocked(found.links) if found is not None else None
            if found is None or not blocked:
                del self._held[id_]
            elif now >= until:
                del self._held[id_]
                yield id_
            else:
                self._look_at = min(self._look_at, until, self._ask(found.bundle, blocked, found.epoch, now))
