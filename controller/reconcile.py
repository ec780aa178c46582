"""The controller's core: what is observed goes in, what is to be written comes out, and when.

It keeps every Service, the configuration and the ledger in agreement. It does no I/O, and time is an argument. What
each Service holds and is leaving is kept in ``holdings``, what it should have is judged in ``judgement``, whose turn it
is in ``turns``. ``settle`` decides, after a batch of observations and as far as there is room for requests:

- Nothing is decided before ``start``. Then what every Service's status shows is adopted, before anything new is given
  out: Service status is the database.
- From then on the ledger knows better than a status that somebody emptied or falsified. Only a Service that has no
  address is believed the one that it comes to show: a leader of before may have written it late.
- Of one Service at most one request is under way; what is seen meanwhile is judged when its answer has come.
- Whoever waits is tried again, the oldest first, when the configuration changes, when an address became free or is
  shared on other terms, and never otherwise. Whoever would rather have both families and has one waits too.

A Service that leaves the watched selection may have changed its type: it is read before it is believed gone, and one
that exists loses its address in the API first and in the ledger afterwards.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cluster.addresses import Family, RangeMap
from cluster.config import Config
from cluster.objects import Condition, RecentRelease, Service, ServiceOwners, is_older
from cluster.resources import SERVICE_OWNERS, SERVICES
from controller import events
from controller.allocator import Reason, Refusal
from controller.changes import (
    ADDRESS_ASSIGNED,
    COMPONENT,
    Change,
    EventNote,
    Moment,
    Read,
    Tell,
    Write,
    find_condition,
    service_patch,
    shortened,
)
from controller.contest import Contest, Statement, last_other_writer, statement
from controller.holdings import Age, Holding, Holdings
from controller.judgement import Verdict, condition, judge
from controller.ledger import Ledger
from controller.releases import Releases
from controller.request import (
    ALLOCATED_FROM_POOL,
    ALLOW_SHARED_IP,
    PREFIX,
    addresses_in_status,
    annotation,
    is_ours,
    read_request,
)
from controller.reserved import Reserved
from controller.retry import CONFLICTS_AT_ONCE, retry_delay
from controller.turns import Turns


@dataclass(slots=True)
class _Tracked(Holding):
    """A Service with what it holds, and what is going on about it."""

    refusal: Refusal | None = None
    stated: Statement | None = None
    """What the Service said when we last knew it to be as we wrote it."""
    contest: Contest | None = None
    deprecated: frozenset[str] = frozenset()
    """The annotations that it was told are deprecated."""
    doubtful: bool = False
    """It left the watched selection and has not been read since."""
    in_flight: bool = False
    attempts: int = 0
    retry_at: float | None = None

    @property
    def uid(self) -> str:
        return self.view.metadata.uid


@dataclass(frozen=True, slots=True)
class Figures:
    """For the metrics."""

    services: int = 0
    waiting: Mapping[Reason, int] = field(default_factory=dict)
    """Services without an address, or without the one that they ask for, by reason."""


class Reconciler:
    """See the module's docstring. One thread only."""

    def __init__(self, load_balancer_class: str | None, rng: random.Random, remember_releases: int = 0) -> None:
        self.ledger = Ledger()
        self.releases = Releases(self.ledger, remember_releases)
        self.started = False
        self.refusals: Counter[Reason] = Counter()
        """Refusals reported so far."""
        self._class = load_balancer_class
        self._rng = rng
        self._holdings = Holdings(self.ledger, self.releases, load_balancer_class)
        self._config = Config()
        self._reserved: RangeMap[Reserved] = RangeMap()
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._tracked: dict[str, _Tracked] = {}
        self._waiting: set[str] = set()
        self._retrying: set[str] = set()
        self._contested: set[str] = set()
        self._thwarted: set[str] = set()
        """Services that we do not write to and that show what somebody else holds."""
        self._turns = Turns(self._age_of)
        self._changes: list[Change | Tell] = []

    # -------------------------------------------------------------------- what is observed

    def set_config(self, config: Config) -> None:
        """The configuration in force. If it differs, every Service is judged anew."""
        if config == self._config:
            return
        self._config = config
        self.ledger.set_pools(config.pools)
        self.releases.regroup(config.pool_of)
        self._turns.give(*self._tracked)

    def set_reserved(self, reserved: RangeMap[Reserved]) -> None:
        """The addresses that the cluster uses itself. Where pools contain other ones now, every Service is judged anew;
        whoever waits always is, as the reason may be another one."""
        if reserved is self._reserved:
            return
        self._reserved = reserved
        affected = self.ledger.set_pools(self._config.pools, reserved)
        self._turns.give(*(self._tracked if affected else self._waiting))

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace's labels; None: it is gone."""
        before = self._namespaces.get(name)
        if labels is None:
            self._namespaces.pop(name, None)
        elif labels != before:
            self._namespaces[name] = labels
            if any(pool.allocation and pool.allocation.namespace_selectors for pool in self._config.pools.values()):
                self._turns.give(*(key for key, each in self._tracked.items() if each.view.metadata.namespace == name))

    def observe(self, view: Service) -> None:
        """A Service as the API shows it."""
        tracked = self._tracked.get(view.key)
        version = view.metadata.resource_version
        if tracked is not None and tracked.uid != view.metadata.uid:
            if is_older(version, tracked.view.metadata.resource_version):
                return
            self._forget(tracked)
            tracked = None
        if tracked is None:
            if view.spec.type != "LoadBalancer" and not bears_our_mark(view):
                return
            tracked = self._tracked[view.key] = _Tracked(view)
            if self.started:
                self._adopt(tracked)
        elif tracked.view.metadata.resource_version == version:
            tracked.view = view  # the copy that is held anyway, instead of the one that a write was answered with
            if not tracked.doubtful:
                return  # it is judged already, or will be when the answer under way has come
        elif not is_older(version, tracked.view.metadata.resource_version):
            tracked.retry_at = None  # another object, another try
            self._retrying.discard(view.key)
            tracked.view = view
            idle = not (tracked.assigned or tracked.retiring or tracked.in_flight)
            if self.started and idle and view.status.load_balancer.ingress and is_ours(view, self._class):
                self._adopt(tracked)
        self._turns.give(view.key)

    def vanished(self, view: Service) -> None:
        """A Service left the watched selection, as ``view``."""
        tracked = self._tracked.get(view.key)
        if tracked is None or tracked.uid != view.metadata.uid:
            return
        tracked.doubtful = True
        self._turns.give(view.key)

    def _adopt(self, tracked: _Tracked) -> None:
        """Believe what the Service shows; who has to give way is due."""
        self._turns.give(*(loser.view.key for loser in self._holdings.adopt(tracked, self._tracked)))
        if find_condition(tracked.view.status.conditions, ADDRESS_ASSIGNED) is not None:
            tracked.deprecated = events.deprecated_annotations(tracked.view)  # told then

    def _forget(self, tracked: _Tracked) -> None:
        self._holdings.release(tracked)
        key = tracked.view.key
        del self._tracked[key]
        self._waiting.discard(key)
        self._retrying.discard(key)
        self._contested.discard(key)
        self._thwarted.discard(key)

    # -------------------------------------------------------------------- what became of the changes

    def answered(self, change: Change, view: Service | ServiceOwners | None) -> None:
        """The change was made: the object as it is now, or None where it is gone."""
        tracked = self._tracked.get(change.key)
        if (
            tracked is not None
            and isinstance(change, Write)
            and isinstance(view, Service)
            and tracked.uid == change.uid
        ):
            tracked.stated = statement(view)
            if tracked.contest is not None:
                tracked.contest.told = True
        self._learn(change, view)

    def _learn(self, change: Change, view: Service | ServiceOwners | None) -> None:
        tracked = self._tracked.get(change.key)
        if tracked is not None and tracked.uid == change.uid:
            tracked.in_flight = False
            tracked.attempts = 0
            if view is None:
                self._forget(tracked)
            elif isinstance(view, ServiceOwners):
                self._turns.give(change.key)
                if tracked.contest is not None:
                    tracked.contest.asked = True
                    tracked.contest.rival = last_other_writer(view.metadata.managed_fields, COMPONENT)
            elif isinstance(change, Read):
                tracked.doubtful = False
        if isinstance(view, Service):
            self.observe(view)
            self._turns.give(change.key)

    def superseded(self, change: Change, view: Service | None, now: Moment) -> None:
        """Somebody else wrote first; ``view`` is what the object has become. Judged anew at once, but whoever is always
        faster is not chased without a pause."""
        tracked = self._tracked.get(change.key)
        attempts = tracked.attempts if tracked is not None else 0
        self._learn(change, view)
        if tracked is not None and view is not None and tracked.uid == view.metadata.uid:
            tracked.attempts = attempts + 1
            if tracked.attempts > CONFLICTS_AT_ONCE:
                self._retry_later(tracked, 0.0, now)

    def failed(self, change: Change, retry_after: float, now: Moment) -> None:
        """The change could not be made; it is judged anew after a while, at the earliest in ``retry_after`` seconds."""
        tracked = self._tracked.get(change.key)
        if tracked is None or tracked.uid != change.uid:
            return
        tracked.in_flight = False
        tracked.attempts += 1
        tracked.stated = None  # it may have been made all the same
        self._retry_later(tracked, retry_after, now)

    def _retry_later(self, tracked: _Tracked, retry_after: float, now: Moment) -> None:
        tracked.retry_at = now.monotonic + retry_delay(tracked.attempts, retry_after, self._rng)
        self._retrying.add(tracked.view.key)

    def next_deadline(self) -> float | None:
        """When ``settle`` wants to be called next, in monotonic seconds, though nothing was observed."""
        return min((at for each in self._later() if (at := self._wakes_at(each)) is not None), default=None)

    def _later(self) -> list[_Tracked]:
        return [self._tracked[key] for key in self._retrying | self._contested]

    @staticmethod
    def _wakes_at(tracked: _Tracked) -> float | None:
        """When it is to be judged though nothing was observed; None: at once."""
        return tracked.retry_at or (tracked.contest.until if tracked.contest is not None else None)

    # -------------------------------------------------------------------- deciding

    def start(self, recorded: Iterable[RecentRelease] = ()) -> None:
        """Everything has been observed once: restore what Services already have; from now on, decide. ``recorded`` is
        what the pools' status remembers."""
        self.started = True
        self.releases.restore(recorded, self._config.pool_of)
        in_order = sorted(self._tracked.values(), key=lambda each: (not is_ours(each.view, self._class), each.age))
        for tracked in in_order:
            self._adopt(tracked)
        self._turns.give(*self._tracked)

    def settle(self, now: Moment, room: int = sys.maxsize) -> list[Change | Tell]:
        """Decide whatever is due, until ``room`` requests have come of it; the rest stays due. Returns the changes to
        carry out, in order."""
        if self.started:
            for tracked in self._later():
                if (self._wakes_at(tracked) or 0.0) <= now.monotonic:
                    self._retrying.discard(tracked.view.key)
                    self._contested.discard(tracked.view.key)
                    tracked.retry_at = None
                    self._turns.give(tracked.view.key)
            self._decide_all(now, room)
        self.releases.stamp(now)
        changes, self._changes = self._changes, []
        return changes

    def _decide_all(self, now: Moment, room: int) -> None:
        """Everybody whose turn it is, while there is room."""
        while room > 0:
            if freed := self._holdings.take_freed():
                for key in self._thwarted.copy():  # before anybody is given what they show
                    self._decide(self._tracked[key], now)
                self._turns.offer(freed & self._config.pools.keys(), self._waiting)
            if (turn := self._turns.next()) is None:
                return
            key, due = turn
            tracked = self._tracked.get(key)
            if tracked is not None and (due or self._may_profit(tracked)):
                was_in_flight = tracked.in_flight
                self._decide(tracked, now)
                room -= tracked.in_flight and not was_in_flight

    def _age_of(self, key: str) -> Age | None:
        tracked = self._tracked.get(key)
        return None if tracked is None else tracked.age

    @property
    def backlog(self) -> int:
        """How many still have a turn. From any thread."""
        return len(self._turns)

    def figures(self) -> Figures:
        waiting = Counter(
            refusal.reason
            for key in self._waiting | self._contested
            if (refusal := self._tracked[key].refusal) is not None
        )
        return Figures(len(self._tracked), dict(waiting))

    def _may_profit(self, waiting: _Tracked) -> bool:
        """Whether one of the pools still has something for it."""
        if annotation(waiting.view, ALLOW_SHARED_IP):
            return True
        return any(self.ledger.counts(pool, family)[1] for pool in self._turns.freed for family in Family)

    def _decide(self, tracked: _Tracked, now: Moment) -> None:
        view = tracked.view
        if tracked.in_flight or tracked.retry_at is not None:
            return
        self._thwarted.discard(view.key)
        if tracked.doubtful:
            tracked.in_flight = True
            self._changes.append(Read(SERVICES, view.metadata.namespace, view.metadata.name, tracked.uid))
        elif is_ours(view, self._class):
            if view.metadata.deletion_timestamp is None:
                self._decide_ours(tracked, now)
            else:
                self._occupy(tracked)  # it keeps what it shows until its finalizers are gone, and gets nothing more
        elif view.spec.type != "LoadBalancer":
            self._decide_leftover(tracked, now)
        else:
            self._occupy(tracked)

    def _decide_ours(self, tracked: _Tracked, now: Moment) -> None:
        view = tracked.view
        self._notice_others(tracked, now)
        verdict = self._judge(tracked)
        tracked.refusal = verdict.refusal
        if verdict.refusal is None and verdict.lacking is None:
            self._waiting.discard(view.key)
        else:
            self._waiting.add(view.key)
        tracked.cleared = verdict.cleared or tracked.cleared
        self._holdings.assign(tracked, verdict.addresses)
        self._warn_of_deprecated(tracked)
        if tracked.contest is not None and tracked.contest.holds(view, now.monotonic):
            self._stand_back(tracked, tracked.contest, now)
            return
        self._contested.discard(view.key)
        shown = condition(verdict)
        texts = [address.text for address in verdict.addresses]
        patch = service_patch(view, texts, verdict.pool, shown, now)
        if patch is None:
            self._holdings.settled(tracked)
            return
        body, subresource = patch
        notes = events.of_verdict(view, verdict, tracked.cleared)
        if (
            any(note.reason in {"AllocationFailed", "LoadBalancerFailed"} for note in notes)
            and verdict.refusal is not None
        ):
            self.refusals[verdict.refusal.reason] += 1
        self._send(tracked, body, subresource, shown.message, notes)

    def _judge(self, tracked: _Tracked) -> Verdict:
        view = tracked.view
        reading = read_request(view, self._namespaces.get(view.metadata.namespace, {}))
        if former := self.releases.former(view.key):
            reading = replace(reading, request=replace(reading.request, former=former))
        recorded = annotation(view, ALLOCATED_FROM_POOL)
        shown = addresses_in_status(view)
        if tracked.retiring and set(shown) <= {*tracked.assigned, *tracked.retiring}:
            # A move that nobody has seen yet: if its reason is gone, so is the move.
            still = judge(self._config, self.ledger, reading, shown, recorded)
            if still.refusal is None and still.addresses == shown:
                return still
        return judge(self._config, self.ledger, reading, tracked.assigned, recorded)

    def _warn_of_deprecated(self, tracked: _Tracked) -> None:
        present = events.deprecated_annotations(tracked.view)
        if fresh := present - tracked.deprecated:
            self._changes.append(Tell(events.of_deprecated(fresh), tracked.view.metadata))
        tracked.deprecated = present

    def _notice_others(self, tracked: _Tracked, now: Moment) -> None:
        """Whether the Service still says what we wrote."""
        said = statement(tracked.view)
        if tracked.stated is None:
            tracked.contest = tracked.contest or Contest.remembered(tracked.view, now.monotonic)
        elif said != tracked.stated:
            tracked.contest = tracked.contest or Contest()
            tracked.contest.rewritten(tracked.view, now.monotonic)
        tracked.stated = said

    def _stand_back(self, tracked: _Tracked, contest: Contest, now: Moment) -> None:
        """Somebody else keeps writing: find out who, say so once, and leave it at that."""
        view = tracked.view
        self._contested.add(view.key)
        self._holdings.give_back_unseen(tracked)
        if not contest.asked:
            tracked.in_flight = True
            self._changes.append(Read(SERVICE_OWNERS, view.metadata.namespace, view.metadata.name, tracked.uid))
            return
        refusal = tracked.refusal = contest.refusal([address.text for address in tracked.assigned])
        if contest.told:
            return
        shown = Condition(ADDRESS_ASSIGNED, "False", refusal.reason.value, shortened(refusal.message))
        present = [each.ip for each in view.status.load_balancer.ingress]
        patch = service_patch(view, present, view.metadata.annotations.get(PREFIX + ALLOCATED_FROM_POOL), shown, now)
        if patch is not None:
            self.refusals[refusal.reason] += 1
            note = EventNote("Warning", refusal.reason.value, shortened(refusal.message))
            self._send(tracked, *patch, refusal.message, (note,))

    def _decide_leftover(self, tracked: _Tracked, now: Moment) -> None:
        """No LoadBalancer any more: take back what we gave and wrote."""
        view = tracked.view
        self._not_ours(tracked)
        self._holdings.assign(tracked, ())
        patch = service_patch(view, (), None, None, now) if bears_our_mark(view) or tracked.retiring else None
        if patch is None:
            self._forget(tracked)
            return
        body, subresource = patch
        self._send(tracked, body, subresource, f"released: the Service's type is {view.spec.type}", ())

    def _occupy(self, tracked: _Tracked) -> None:
        """A Service that we do not write to, of another class for instance: what it shows is not given to another."""
        self._not_ours(tracked)
        if not self._holdings.occupy(tracked):
            self._thwarted.add(tracked.view.key)

    def _not_ours(self, tracked: _Tracked) -> None:
        self._waiting.discard(tracked.view.key)
        self._contested.discard(tracked.view.key)
        tracked.contest, tracked.stated, tracked.refusal = None, None, None

    def _send(
        self,
        tracked: _Tracked,
        body: dict[str, object],
        subresource: str | None,
        decision: str,
        events: tuple[EventNote, ...],
    ) -> None:
        tracked.in_flight = True
        meta = tracked.view.metadata
        self._changes.append(
            Write(
                SERVICES,
                meta.namespace,
                meta.name,
                body,
                decision,
                uid=meta.uid,
                subresource=subresource,
                events=events,
                about=tracked.view.metadata,
            )
        )


def bears_our_mark(view: Service) -> bool:
    """Whether we (or MetalLB before us) gave it an address or a verdict."""
    return bool(annotation(view, ALLOCATED_FROM_POOL)) or (
        find_condition(view.status.conditions, ADDRESS_ASSIGNED) is not None
    )
