"""The controller's decisions about Services: what is observed goes in, what is to be written comes out, and when.

The reconciler keeps every Service, the configuration and the ledger in agreement. It does no I/O, and time is an
argument. What each Service has is kept in ``assignments``, which one is judged next in ``judging_queue``, what may be
asked about it now in ``api_requests``; what is decided about it is in ``decisions``.

1. Nothing is decided before ``start``. Then all that Services have is restored, before anything new is given out:
   Service status is the database.
2. From then on the ledger knows better than a status that somebody emptied or falsified. Only a Service that has no
   address is believed the one that it comes to show, where no other has it and it could ask for it: a leader of before
   may have written it late.
3. Of one Service at most one request is under way. What is seen meanwhile is judged when its answer has come.
4. Each change is judged once. An answer, or the watch, that tells of just what was written is no reason to judge again.
5. A Service that waits is judged again when the configuration changes, and when an address became free or is shared on
   other terms; the oldest first. So is one that would rather have both families and has one.
6. When nodes change, the Services are judged that have or wait for something of the NodeIPPools affected, and nobody
   else. When a port comes free on a node, those are judged that lacked it there.
7. A Service that leaves the watched selection may have changed its type. It is read before it is believed gone. One
   that exists loses its address in the API first, and in the ledger afterwards.

``decide`` decides after a batch of observations, and as far as there is room for requests.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cluster.addresses import Address, Family, RangeMap
from cluster.annotations import ALLOCATED_FROM_POOL, ALLOW_SHARED_IP, annotation
from cluster.config import Config
from cluster.objects import (
    Condition,
    ConfigurationState,
    Node,
    PoolName,
    RecentRelease,
    Service,
    ServiceOwners,
    find_condition,
    is_older,
)
from cluster.record import ADDRESS_ASSIGNED
from controller.allocation.departed import DepartedPools
from controller.allocation.ledger import Ledger
from controller.allocation.node_addresses import AddressesOfNodes
from controller.allocation.node_allocation import NodeSupply
from controller.allocation.outcomes import Reason
from controller.allocation.releases import Releases
from controller.allocation.reserved import Reserved
from controller.changes import COMPONENT, NOT_DELIVERED, Change, Moment, Read, Tell, Write
from controller.nodeip.view import NodeView
from controller.services import vocabulary
from controller.services.api_requests import ApiRequests
from controller.services.assignments import Assignments
from controller.services.contest import last_other_writer
from controller.services.decisions import ServiceDecisions
from controller.services.judging_queue import JudgingQueue, Rank
from controller.services.reading import bears_our_mark, is_ours
from controller.services.reminders import Reminders
from controller.services.tracked import Tracked


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """What the metrics say of Services."""

    services: int = 0
    waiting: Mapping[Reason, int] = field(default_factory=dict)
    """Services without an address, or without the one that they ask for, by reason."""
    refusals: Mapping[Reason, int] = field(default_factory=dict)
    """Refusals reported so far."""


class Reconciler:
    """See the module's docstring. One thread only."""

    def __init__(self, load_balancer_class: str | None, rng: random.Random, remember_releases: int = 0) -> None:
        self.ledger = Ledger()
        self.releases = Releases(self.ledger, remember_releases)
        self.started = False
        self._class = load_balancer_class
        self._requests = ApiRequests(rng)
        self._reminders = Reminders(rng)
        self._assignments = Assignments(self.ledger, self.releases, load_balancer_class)
        self._departed = DepartedPools()
        self._reserved: RangeMap[Reserved] = RangeMap()
        self._tracked: dict[str, Tracked] = {}
        self._decisions = ServiceDecisions(
            load_balancer_class,
            self._tracked,
            ledger=self.ledger,
            releases=self.releases,
            assignments=self._assignments,
            requests=self._requests,
            reminders=self._reminders,
        )
        self._queue = JudgingQueue(self._rank_of)
        self._view = NodeView()
        self._of_nodes = self.ledger.node_addresses = AddressesOfNodes()

    # -------------------------------------------------------------------- what is observed

    def set_config(self, config: Config) -> None:
        """Use this configuration from now on. If it differs, every Service is judged anew; if it differs only in what
        it says to people, those that wait."""
        before = replace(self._decisions.config, departed=frozenset())
        if config == before:
            return
        if config == replace(before, elsewhere=config.elsewhere, obstacle=config.obstacle):
            self._decisions.config = replace(config, departed=self._departed.names)
            self._queue.add(*self._decisions.waiting)
            return
        if self.started:
            self._departed.configured(self._decisions.config, config)
        self._decisions.config = config
        self.ledger.set_pools(config.pools)
        self._mind_departed()

    def _know_pools(self) -> None:
        """Pools contain other addresses than they did, or other ones may come back."""
        self.ledger.departed = self._departed.ranges
        self._know_nodes()

    def _know_nodes(self) -> None:
        """What nodes give is other than it was, or what pools keep from it."""
        self._decisions.nodes = NodeSupply(self._view, self.ledger.is_in_pool)
        self._decisions.joined = NodeSupply(self._view.joined, self.ledger.is_in_pool)

    def _share_anew(self, affected: Collection[str]) -> None:
        """Of these Services some may share what they have on other terms now."""
        changed = self._assignments.reenter(self._tracked, affected)
        for key in sorted(changed, key=lambda each: self._tracked[each].age):
            self._enter(self._tracked[key])
        self._queue.add(*changed)

    def set_node_view(
        self, view: NodeView, affected_pools: Collection[PoolName], affected_services: Collection[str]
    ) -> None:
        """What is known of the nodes. ``affected_pools``: the NodeIPPools that give something else now, to whomever;
        ``affected_services``: the Services with other nodes that have a ready endpoint. Of both, those Services are
        judged that have or wait for something of a NodeIPPool."""
        if view is not self._view:
            self._view = view
            self._know_nodes()
        concerned = self._decisions.concerned.of(affected_pools)
        if affected_services:
            concerned |= self._decisions.concerned.of(self._decisions.config.node_pools) & set(affected_services)
        self._queue.add(*concerned)

    def _mind_departed(self) -> None:
        """Other pools are there now, or may come back, than before."""
        self._decisions.config = replace(self._decisions.config, departed=self._departed.names)
        self._know_pools()
        self._share_anew(self._tracked)
        self.releases.regroup(self._decisions.config.pool_of, self._decisions.config.departed)
        self._queue.add(*self._tracked)

    def set_reserved(self, reserved: RangeMap[Reserved]) -> None:
        """The addresses that the cluster uses itself. If pools contain other ones of them now, every Service is judged
        anew. Those that wait are in any case, since the reason may be another one."""
        if reserved is self._reserved:
            return
        self._reserved = reserved
        affected = self.ledger.set_pools(self._decisions.config.pools, reserved)
        self._queue.add(*(self._tracked if affected else self._decisions.waiting))

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace's labels; None: it is gone."""
        before = self._decisions.namespaces.get(name)
        if labels is None:
            self._decisions.namespaces.pop(name, None)
        elif labels != before:
            self._decisions.namespaces[name] = labels
            config = self._decisions.config
            allocations = [each.allocation for each in config.pools.values()]
            allocations += [each.allocation for each in config.node_pools.values()]
            if any(each is not None and each.namespace_selectors for each in allocations):
                self._queue.add(*(key for key, each in self._tracked.items() if each.view.metadata.namespace == name))

    def set_speaker_state(self, view: ConfigurationState, *, gone: bool = False) -> None:
        """What a speaker says of others who have addresses of Services."""
        self._conflicts_changed(self._decisions.conflicts.set_speaker_state(view, gone=gone))

    def set_node(self, name: str, node: Node | None) -> None:
        """A node; None: it is gone."""
        self._conflicts_changed(self._decisions.conflicts.set_node(name, node))
        come = self._of_nodes.set_node(name, node)
        self._share_anew({sharer.service for address in come for sharer in self.ledger.having(address)})

    def set_not_delivered(self, key: str, condition: Condition | None) -> None:
        """What a Service is to say of its companion."""
        tracked = self._tracked.get(key)
        if tracked is not None and tracked.not_delivered != condition:
            tracked.not_delivered = condition
            tracked.overtaken = tracked.in_flight
            self._queue.add(key)

    def _conflicts_changed(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            self._queue.add(*(sharer.service for sharer in self.ledger.having(address)))

    def observe(self, view: Service) -> None:
        """A Service as the API shows it."""
        tracked = self._take_note(view)
        if tracked is not None and not tracked.in_flight:  # else it is judged when the answer has come
            self._queue.add(view.key)

    def _take_note(self, view: Service) -> Tracked | None:
        """Note a Service as the API shows it. Returns it if it is to be judged, None if this is no news of it."""
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
            tracked.not_delivered = find_condition(
                view.status.conditions, NOT_DELIVERED
            )  # until something else is known
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
        """Note what the Service shows, before another one is given it. Services that give way to it are due."""
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
        self._decisions.forget(key)

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
        tracked.stated = self._decisions.as_stated(tracked, view)
        if tracked.contest is not None:
            tracked.contest.told = True
        decided, overtaken = tracked.decided, tracked.overtaken
        self._requests.answered(tracked)
        self._take_note(view)
        if overtaken or decided is None or not decided.is_what(tracked.view):
            self._queue.add(view.key)
        else:
            self._decisions.confirm(tracked)

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
        """Somebody else wrote first; ``view`` is what the object has become. It is judged anew at once, and after
        conflicts in a row with a pause."""
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
        self.releases.restore(recorded, self._decisions.config.pool_of)
        for tracked in self._tracked.values():
            self._departed.named(PoolName(annotation(tracked.view, ALLOCATED_FROM_POOL)), self._decisions.config)
        self._know_pools()
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
            self._queue.add(*self._assignments.take_disputed())
            for address, by in self._assignments.take_freed_on_nodes():
                self._queue.add(*(self._decisions.denied.of((address,)) - {by}))
            if freed := self._assignments.take_freed():
                self._queue.offer(freed & self._decisions.config.pools.keys(), self._decisions.waiting)
            if (first := self._queue.pop()) is None:
                return
            key, due = first
            tracked = self._tracked.get(key)
            if tracked is not None and (due or self._may_profit(tracked)):
                was_in_flight = tracked.in_flight
                if not self._decisions.decide(tracked, now):
                    self._forget(tracked)
                requests -= tracked.in_flight and not was_in_flight

    def _rank_of(self, key: str) -> Rank | None:
        tracked = self._tracked.get(key)
        if tracked is None:
            return None
        # On a node that comes back the older Service has its ports first, as it had when the node went.
        waits = not tracked.assigned and (tracked.refusal is None or tracked.refusal.reason is not Reason.PORT_IN_USE)
        return (not waits, tracked.age)

    def ahead(self, service: Service) -> set[Address]:
        """The addresses that its status shows next, as far as that can be told (``ServiceDecisions.ahead``)."""
        tracked = self._tracked.get(service.key)
        return set() if tracked is None else self._decisions.ahead(tracked)

    @property
    def backlog(self) -> int:
        """How many are still to be judged. From any thread."""
        return len(self._queue)

    def figures(self) -> ServiceFigures:
        waiting = Counter(
            refusal.reason
            for key in self._decisions.waiting | self._decisions.contested
            if (refusal := self._tracked[key].refusal) is not None
        )
        return ServiceFigures(len(self._tracked), dict(waiting), dict(self._decisions.refusals))

    def _may_profit(self, waiting: Tracked) -> bool:
        """Whether one of the pools still has something for it."""
        if annotation(waiting.view, ALLOW_SHARED_IP):
            return True
        return any(self.ledger.counts(pool, family)[1] for pool in self._queue.freed for family in Family)
