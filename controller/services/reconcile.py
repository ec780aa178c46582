"""The controller's decisions about Services: what is observed goes in, what is to be written comes out, and when.

The reconciler keeps every Service, the configuration and the ledger in agreement. It does no I/O, and time is an
argument. What each Service has is kept in ``assignments``, what it should have is judged in ``judgement``, which one is
judged next is in ``judging_queue``, and what may be asked about it now in ``api_requests``.

1. Nothing is decided before ``start``. Then all that Services have is restored, before anything new is given out:
   Service status is the database.
2. From then on the ledger knows better than a status that somebody emptied or falsified. Only a Service that has no
   address is believed the one that it comes to show, where no other has it and it could ask for it: a leader of before
   may have written it late.
3. Of one Service at most one request is under way. What is seen meanwhile is judged when its answer has come.
4. Each change is judged once. An answer, or the watch, that tells of just what was written is no reason to judge again.
5. A Service that waits is judged again when the configuration changes, and when an address became free or is shared on
   other terms; the oldest first. So is one that would rather have both families and has one.
6. A Service that leaves the watched selection may have changed its type. It is read before it is believed gone. One
   that exists loses its address in the API first, and in the ledger afterwards.

``decide`` decides after a batch of observations, and as far as there is room for requests.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cluster.addresses import Address, Family, RangeMap
from cluster.annotations import ALLOCATED_FROM_POOL, ALLOW_SHARED_IP, PREFIX, annotation
from cluster.config import Config
from cluster.objects import Condition, PoolName, RecentRelease, Service, ServiceOwners, find_condition, is_older
from cluster.record import ADDRESS_ASSIGNED, recorded
from cluster.resources import SERVICE_OWNERS, SERVICES
from controller.allocation.allocator import Reason, Refusal
from controller.allocation.departed import DepartedPools
from controller.allocation.ledger import Ledger
from controller.allocation.releases import Releases
from controller.allocation.reserved import Reserved
from controller.changes import COMPONENT, Change, EventNote, Moment, Patch, Read, Tell, Write, service_patch, shortened
from controller.services import events, vocabulary
from controller.services.api_requests import ApiRequests
from controller.services.assignments import Assignments
from controller.services.contest import Contest, Shown, last_other_writer, shown
from controller.services.judgement import Judgement, condition, judge, may_be_believed
from controller.services.judging_queue import JudgingQueue, Rank
from controller.services.reading import addresses_in_status, is_ours, read_request
from controller.services.reminders import Reminders
from controller.services.tracked import Decided, Tracked


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
        self._requests = ApiRequests(rng)
        self._reminders = Reminders(rng)
        self._assignments = Assignments(self.ledger, self.releases, load_balancer_class)
        self._config = Config()
        self._departed = DepartedPools()
        self._reserved: RangeMap[Reserved] = RangeMap()
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._tracked: dict[str, Tracked] = {}
        self._waiting: set[str] = set()
        self._contested: set[str] = set()
        self._queue = JudgingQueue(self._rank_of)

    # -------------------------------------------------------------------- what is observed

    def set_config(self, config: Config) -> None:
        """The configuration in force. If it differs, every Service is judged anew; if only in what it says to people,
        those that wait."""
        before = replace(self._config, departed=frozenset())
        if config == before:
            return
        if config == replace(before, elsewhere=config.elsewhere, obstacle=config.obstacle):
            self._config = replace(config, departed=self._departed.names)
            self._queue.add(*self._waiting)
            return
        if self.started:
            self._departed.configured(self._config, config)
        self._config = config
        self.ledger.set_pools(config.pools)
        self._mind_departed()

    def _mind_departed(self) -> None:
        """Other pools are there, or may come back, than a moment ago."""
        self._config = replace(self._config, departed=self._departed.names)
        self.releases.regroup(self._config.pool_of, self._config.departed)
        self._queue.add(*self._tracked)

    def set_reserved(self, reserved: RangeMap[Reserved]) -> None:
        """The addresses that the cluster uses itself. Where pools contain other ones now, every Service is judged anew;
        whoever waits always is, as the reason may be another one."""
        if reserved is self._reserved:
            return
        self._reserved = reserved
        affected = self.ledger.set_pools(self._config.pools, reserved)
        self._queue.add(*(self._tracked if affected else self._waiting))

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace's labels; None: it is gone."""
        before = self._namespaces.get(name)
        if labels is None:
            self._namespaces.pop(name, None)
        elif labels != before:
            self._namespaces[name] = labels
            if any(pool.allocation and pool.allocation.namespace_selectors for pool in self._config.pools.values()):
                self._queue.add(*(key for key, each in self._tracked.items() if each.view.metadata.namespace == name))

    def observe(self, view: Service) -> None:
        """A Service as the API shows it."""
        tracked = self._take_note(view)
        if tracked is not None and not tracked.in_flight:  # else it is judged when the answer has come
            self._queue.add(view.key)

    def _take_note(self, view: Service) -> Tracked | None:
        """The Service, if this is news of it."""
        tracked = self._tracked.get(view.key)
        version = view.metadata.resource_version
        if tracked is not None and tracked.uid != view.metadata.uid:
            if is_older(version, tracked.view.metadata.resource_version):
                return None
            self._forget(tracked)
            tracked = None
        if tracked is None:
            if view.spec.type != "LoadBalancer" and not bears_our_mark(view):
                return None
            tracked = self._tracked[view.key] = Tracked(view)
            if find_condition(view.status.conditions, ADDRESS_ASSIGNED) is not None:
                tracked.told = vocabulary.worth_telling(view)  # it was told then
        elif tracked.view.metadata.resource_version == version:
            tracked.view = view  # the copy that is kept anyway, instead of the one that a write was answered with
            if not tracked.doubtful:
                return None  # it is judged already, or will be when the answer under way has come
        elif not is_older(version, tracked.view.metadata.resource_version):
            tracked.retry_at = None  # another object, another try
            if (
                is_ours(tracked.view, self._class)
                and view.spec.type == "LoadBalancer"
                and not is_ours(view, self._class)
            ):
                self._assignments.vacate(
                    tracked
                )  # it has been something else in between, or it could not change its class
            tracked.view = view
        if self.started:
            self._enter(tracked)
        return tracked

    def vanished(self, view: Service) -> None:
        """A Service left the watched selection, as ``view``."""
        tracked = self._tracked.get(view.key)
        if tracked is None or tracked.uid != view.metadata.uid:
            return
        tracked.doubtful = True
        self._queue.add(view.key)

    def _enter(self, tracked: Tracked) -> None:
        """Take note of what the Service shows, before anybody else is given it; who has to give way to it is due."""
        if is_ours(tracked.view, self._class):
            self._assignments.note_strays(tracked, self._tracked)
        elif tracked.view.spec.type == "LoadBalancer":
            yielding = self._assignments.occupy(tracked, self._tracked)
            self._queue.add(*(each.view.key for each in yielding))
        self._queue.add(*self._assignments.take_disputed())

    def _forget(self, tracked: Tracked) -> None:
        self._assignments.release(tracked)
        key = tracked.view.key
        del self._tracked[key]
        self._requests.wake(tracked, None)
        self._reminders.forget(key)
        self._waiting.discard(key)
        self._contested.discard(key)

    # -------------------------------------------------------------------- what became of the changes

    def answered(self, change: Change, view: Service | ServiceOwners | None) -> None:
        """The change was made: the object as it is now, or None where it is gone."""
        tracked = self._tracked.get(change.key)
        if (
            tracked is not None
            and isinstance(change, Write)
            and isinstance(view, Service)
            and tracked.uid == change.uid == view.metadata.uid
        ):
            self._made(tracked, view)
        else:
            self._learn(change, view)

    def _made(self, tracked: Tracked, view: Service) -> None:
        """A write was made. What has become of the Service is judged, unless it is just what was written."""
        tracked.stated = shown(view)
        if tracked.contest is not None:
            tracked.contest.told = True
        decided, overtaken = tracked.decided, tracked.overtaken
        self._requests.answered(tracked)
        self._take_note(view)
        if overtaken or decided is None or not decided.is_what(tracked.view):
            self._queue.add(view.key)
        else:
            self._confirm(tracked)

    def _confirm(self, tracked: Tracked) -> None:
        """Give back what the Service has left, if the API shows it with what it is assigned."""
        if shown(tracked.view) == texts(tracked.assigned):
            self._assignments.confirm(tracked)

    def _learn(self, change: Change, view: Service | ServiceOwners | None) -> None:
        tracked = self._tracked.get(change.key)
        if tracked is not None and tracked.uid == change.uid:
            self._requests.answered(tracked)
            if view is None:
                self._forget(tracked)
            elif isinstance(view, ServiceOwners):
                self._queue.add(change.key)
                if tracked.contest is not None:
                    tracked.contest.asked = True
                    tracked.contest.rival = last_other_writer(view.metadata.managed_fields, COMPONENT)
            elif isinstance(change, Read):
                tracked.doubtful = False
        if isinstance(view, Service):
            self._take_note(view)
            self._queue.add(change.key)

    def superseded(self, change: Change, view: Service | None, now: Moment) -> None:
        """Somebody else wrote first; ``view`` is what the object has become. Judged anew at once, but whoever is always
        faster is not chased without a pause."""
        tracked = self._tracked.get(change.key)
        attempts = tracked.attempts if tracked is not None else 0
        self._learn(change, view)
        if tracked is not None and view is not None and tracked.uid == view.metadata.uid:
            self._requests.superseded(tracked, attempts, now)

    def failed(self, change: Change, retry_after: float, now: Moment) -> None:
        """The change could not be made; it is judged anew after a while, at the earliest in ``retry_after`` seconds."""
        tracked = self._tracked.get(change.key)
        if tracked is None or tracked.uid != change.uid:
            return
        tracked.stated = None  # it may have been made all the same
        self._requests.failed(tracked, retry_after, now)

    def next_deadline(self) -> float | None:
        """When ``decide`` wants to be called next, in monotonic seconds, though nothing was observed. Reminders are in
        no hurry, and come with whichever call is next."""
        deadlines = (self._requests.next_deadline(), self._departed.next_deadline())
        return min((at for at in deadlines if at is not None), default=None)

    # -------------------------------------------------------------------- deciding

    def start(self, recorded: Iterable[RecentRelease] = ()) -> None:
        """Everything has been observed once: restore what Services already have; from now on, decide. ``recorded`` is
        what the pools' status remembers."""
        self.started = True
        self.releases.restore(recorded, self._config.pool_of)
        for tracked in self._tracked.values():
            self._departed.named(PoolName(annotation(tracked.view, ALLOCATED_FROM_POOL)), self._config)
        self._assignments.restore(self._tracked)
        self._mind_departed()

    def decide(self, now: Moment, requests: int = sys.maxsize, services: int = sys.maxsize) -> list[Change | Tell]:
        """Decide what is due, until ``requests`` have come of it or so many ``services`` were looked at; the rest stays
        due. Returns what is to be carried out, in order."""
        if self.started:
            if self._departed.expire(now.monotonic):
                self._mind_departed()
            for key in self._requests.take_due(now):
                self._requests.due(self._tracked[key], now)
                self._queue.add(key)
            for key in self._reminders.due(now.monotonic):
                self._tracked[key].remind = True
                self._queue.add(key)
            self._decide_all(now, requests, services)
        self.releases.stamp(now)
        return self._requests.take()

    def _decide_all(self, now: Moment, requests: int, services: int) -> None:
        while requests > 0 and services > 0:
            services -= 1
            for reclaimer in self._assignments.take_reclaimers():
                self._enter(self._tracked[reclaimer])
            if freed := self._assignments.take_freed():
                self._queue.offer(freed & self._config.pools.keys(), self._waiting)
            if (first := self._queue.pop()) is None:
                return
            key, due = first
            tracked = self._tracked.get(key)
            if tracked is not None and (due or self._may_profit(tracked)):
                was_in_flight = tracked.in_flight
                self._decide(tracked, now)
                requests -= tracked.in_flight and not was_in_flight

    def _rank_of(self, key: str) -> Rank | None:
        tracked = self._tracked.get(key)
        return None if tracked is None else (bool(tracked.assigned), tracked.age)

    @property
    def backlog(self) -> int:
        """How many still have a turn. From any thread."""
        return len(self._queue)

    def figures(self) -> Figures:
        waiting = Counter(
            refusal.reason
            for key in self._waiting | self._contested
            if (refusal := self._tracked[key].refusal) is not None
        )
        return Figures(len(self._tracked), dict(waiting))

    def _may_profit(self, waiting: Tracked) -> bool:
        """Whether one of the pools still has something for it."""
        if annotation(waiting.view, ALLOW_SHARED_IP):
            return True
        return any(self.ledger.counts(pool, family)[1] for pool in self._queue.freed for family in Family)

    def _decide(self, tracked: Tracked, now: Moment) -> None:
        view = tracked.view
        if not self._requests.may_ask(tracked):
            tracked.overtaken = tracked.in_flight
            return
        self._requests.wake(tracked, None)
        if tracked.doubtful:
            self._requests.read(tracked, SERVICES)
        elif not is_ours(view, self._class):
            self._not_ours(tracked)
            if view.spec.type != "LoadBalancer":
                self._decide_leftover(tracked, now)
        elif view.metadata.deletion_timestamp is None:
            self._decide_ours(tracked, now)
        else:
            self._decide_leaving(tracked, now)

    def _decide_ours(self, tracked: Tracked, now: Moment) -> None:
        view = tracked.view
        self._notice_others(tracked, now)
        judgement = self._with_remarks(self._judge(tracked), view)
        tracked.refusal = judgement.refusal
        if judgement.refusal is None and judgement.lacking is None:
            self._waiting.discard(view.key)
        else:
            self._waiting.add(view.key)
        tracked.cleared = judgement.cleared or tracked.cleared
        self._assignments.assign(tracked, judgement.addresses)
        self._tell_of_annotations(tracked)
        if self._stands_back(tracked, now):
            self._explain(tracked, events.of_contest(tracked.refusal), (), now)
            return
        said = condition(judgement)
        decided = Decided(view, texts(tracked.assigned), judgement.pool, said, now)
        patch = decided.patch(view)
        notes = events.of_judgement(view, judgement, tracked.cleared) if patch is not None else ()
        refused = {"AllocationFailed", "LoadBalancerFailed"} & {note.reason for note in notes}
        written = self._write(tracked, patch, said.message, notes, now)
        tracked.decided = decided if written else None
        if written and refused and judgement.refusal is not None:
            self.refusals[judgement.refusal.reason] += 1
        self._explain(tracked, events.of_refusal(view, judgement), notes if written else (), now)

    def _explain(self, tracked: Tracked, why: tuple[EventNote, ...], told: tuple[EventNote, ...], now: Moment) -> None:
        """See to it that an Event says why a Service waits. ``told``: those that are recorded now anyway."""
        if tracked.remind and why and not set(why) & set(told):
            self._requests.tell(tracked, why)
            told = why
        tracked.remind = False
        if why:
            self._reminders.waits(tracked.view.key, now.monotonic, told=bool(set(why) & set(told)))
        else:
            self._reminders.forget(tracked.view.key)

    def _decide_leaving(self, tracked: Tracked, now: Moment) -> None:
        """It is being deleted: it keeps what it has been given until its finalizers are gone, and gets nothing more,
        not even what was decided and is not written yet. What it has been given its condition tells; without one its
        status does, as far as that can be true; and what it was seen to have, where somebody has emptied both."""
        view = tracked.view
        self._waiting.discard(view.key)
        self._reminders.forget(view.key)
        self._notice_others(tracked, now)
        had = (*tracked.assigned, *tracked.retiring) or tracked.strays
        given = recorded(view)
        if given is None:
            shown = addresses_in_status(view)
            given = shown if shown and set(shown) <= set(had) else tracked.confirmed
        self._assignments.assign(tracked, tuple(each for each in given if each in had))
        if not self._stands_back(tracked, now):
            said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
            patch = service_patch(view, texts(tracked.assigned), pool_named(view), said, now)
            self._write(tracked, patch, "put right: the Service is being deleted", (), now)

    def _judge(self, tracked: Tracked) -> Judgement:
        view = tracked.view
        reading = read_request(view, self._namespaces.get(view.metadata.namespace, {}))
        if former := self.releases.former(view.key):
            reading = replace(reading, request=replace(reading.request, former=former))
        pool = annotation(view, ALLOCATED_FROM_POOL)
        on_display = addresses_in_status(view)
        if tracked.retiring and set(on_display) <= {*tracked.assigned, *tracked.retiring}:
            # A move that nobody has seen yet: if its reason is gone, so is the move.
            still = judge(self._config, self.ledger, reading, on_display, pool)
            if still.refusal is None and still.addresses == on_display:
                return still
        present = tracked.assigned
        if not present and on_display and may_be_believed(self._config, self.ledger, reading, on_display):
            present = on_display
        return judge(self._config, self.ledger, reading, present, pool)

    def _with_remarks(self, judgement: Judgement, view: Service) -> Judgement:
        if unread := vocabulary.remark(view):
            judgement = replace(judgement, unread=unread)
        for address in judgement.addresses:
            if judgement.remark is None and (key := self._assignments.shown_by(address)) is not None:
                served = self._tracked[key].view.spec.load_balancer_class
                who = f'{key}, of the class "{served}",' if served else f"{key}, which has no class,"
                judgement = replace(judgement, remark=Refusal(Reason.ADDRESS_IN_USE, f"{who} shows {address.text} too"))
        return judgement

    def _tell_of_annotations(self, tracked: Tracked) -> None:
        if notes := vocabulary.news(tracked.view, tracked.told):
            self._requests.tell(tracked, notes)
            tracked.told |= vocabulary.worth_telling(tracked.view)

    def _notice_others(self, tracked: Tracked, now: Moment) -> None:
        """Whether the Service still shows what we wrote."""
        present = shown(tracked.view)
        if tracked.stated is None:
            tracked.contest = tracked.contest or Contest.remembered(tracked.view, now.monotonic)
        elif present != tracked.stated:
            tracked.contest = tracked.contest or Contest()
            tracked.contest.rewritten(tracked.view, now.monotonic)
        tracked.stated = present

    def _stands_back(self, tracked: Tracked, now: Moment) -> bool:
        """Whether somebody else keeps writing the status. Then find out who, say so once, and leave it at that; except
        that what it usurps is taken out of it each time."""
        view, contest = tracked.view, tracked.contest
        usurps = self._assignments.note_strays(tracked, self._tracked)
        if contest is None or not contest.holds(view, now.monotonic):
            self._contested.discard(view.key)
            return False
        self._contested.add(view.key)
        self._requests.wake(tracked, contest.next_try(view))
        self._assignments.give_back_unseen(tracked)
        present, own = shown(view), texts(tracked.assigned)
        displayed = own if usurps else present
        status = "True" if displayed and displayed == own else "False"
        said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
        if said is not None and (said.reason, said.status) == (Reason.CONTESTED.value, status):
            tracked.refusal = Refusal(Reason.CONTESTED, said.message)
            self._write(tracked, service_patch(view, displayed, pool_named(view), said, now), said.message, (), now)
            return True
        if not contest.asked and not (usurps and tracked.attempts):
            self._requests.read(tracked, SERVICE_OWNERS)
            return True
        refusal = tracked.refusal = contest.refusal(tracked.assigned, written=status == "True")
        notes = () if contest.told else events.of_contest(refusal)
        say = Condition(ADDRESS_ASSIGNED, status, refusal.reason.value, shortened(refusal.message))
        patch = service_patch(view, displayed, pool_named(view), say, now)
        if self._write(tracked, patch, refusal.message, notes, now) and notes:
            self.refusals[refusal.reason] += 1
        return True

    def _decide_leftover(self, tracked: Tracked, now: Moment) -> None:
        """No LoadBalancer any more: take back what we gave and wrote."""
        view = tracked.view
        self._assignments.assign(tracked, ())
        patch = service_patch(view, (), None, None, now) if bears_our_mark(view) or tracked.retiring else None
        if patch is None:
            self._forget(tracked)
        else:
            self._requests.write(tracked, patch, f"released: the Service's type is {view.spec.type}", (), now)

    def _not_ours(self, tracked: Tracked) -> None:
        self._reminders.forget(tracked.view.key)
        self._waiting.discard(tracked.view.key)
        self._contested.discard(tracked.view.key)
        tracked.contest, tracked.stated, tracked.refusal = None, None, None

    def _write(
        self, tracked: Tracked, patch: Patch | None, decision: str, notes: tuple[EventNote, ...], now: Moment
    ) -> bool:
        """Whether a write is made of it now; None: the Service says already what it should."""
        self._confirm(tracked)
        return patch is not None and self._requests.write(tracked, patch, decision, notes, now)


def texts(addresses: Iterable[Address]) -> Shown:
    """As a status shows them."""
    return tuple(address.text for address in addresses)


def pool_named(view: Service) -> str | None:
    """The pool that our annotation names now."""
    return view.metadata.annotations.get(PREFIX + ALLOCATED_FROM_POOL)


def bears_our_mark(view: Service) -> bool:
    """Whether we (or MetalLB before us) gave it an address or a judgement."""
    return bool(annotation(view, ALLOCATED_FROM_POOL)) or (
        find_condition(view.status.conditions, ADDRESS_ASSIGNED) is not None
    )
