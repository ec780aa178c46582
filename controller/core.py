"""All that one controller decides: observations and answers in, orders out. No I/O, and time is an argument.

Several parts decide, each about its own: ``nodeip``, ``services``, ``companions``, ``pools``, ``orphans``. This one
knows which of them an observation or an answer is for, and in which order they go: first the configuration in force,
then what pools of nodes give, then the Services, then their companions, then what is written about pools, since that
counts what Services were given.

A standby keeps what pools, nodes and the like it is told of, and nothing about Services. When it begins to lead,
``begin_term`` and then ``restore`` make everything anew from the copies of the API's objects.

Not promised: that an order is carried out. Its answer, or its failure, comes back by ``take_outcome``; an order whose
term is over is dropped, with all that was decided in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.addresses import Address
from cluster.api.errors import ApiError, Forbidden, Invalid
from cluster.api.listwatch import Change as Seen
from cluster.config import Problem
from cluster.node_pools import NodeIPPool
from cluster.objects import (
    ConfigMap,
    ConfigurationState,
    IPAddressPool,
    L2Advertisement,
    Lease,
    Namespace,
    Node,
    NodeName,
    Object,
    Service,
    ServiceCIDR,
)
from cluster.pods import HostPod
from cluster.resources import COMPANIONS, SERVICES
from cluster.sharing import read_node_sharer
from cluster.slices import EndpointSlice
from controller.allocation.reserved import Reservations
from controller.changes import Change, Moment, Tell
from controller.companions import Companions, is_companion
from controller.figures import PoolFigures, Snapshot
from controller.nodeip.cluster import NodePools
from controller.nodeip.proxies import configured_mode
from controller.orphans import Census, Orphans, Task
from controller.passes import Room
from controller.pools.elsewhere import Elsewhere
from controller.pools.reports import Reports
from controller.services.latency import FirstAddresses
from controller.services.reading import is_ours
from controller.services.reconcile import Reconciler

HOPELESS_RETRY_S = 10.0
"""After an answer that only a person can change (403, 422)."""


@dataclass(frozen=True, slots=True)
class ChangeOutcome:
    """What became of a change: ``made``, or somebody was faster, and the object as it is now; or a failure."""

    term: int
    change: Change
    view: Any = None
    """None: there is no such object any more."""
    made: bool = True
    failure: ApiError | None = None


@dataclass(frozen=True, slots=True)
class PassResult:
    """What came of one pass, each in order."""

    changes: list[Change] = field(default_factory=list)
    tells: list[Tell] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    """What is newly not in force."""
    astray: list[Tell] = field(default_factory=list)
    """What is newly in a namespace that is not read; these are to be told, too."""


class Core:
    """See the module's docstring. One thread only, but for ``backlog``."""

    def __init__(
        self, namespace: str, load_balancer_class: str | None, remember_releases: int, rng: random.Random
    ) -> None:
        self._namespace = namespace
        self._class = load_balancer_class
        self._remember_releases = remember_releases
        self._rng = rng
        self._services = self._new_services()
        self._reports = Reports(namespace, rng)
        self._reservations = Reservations()
        self._node_pools = NodePools()
        self._elsewhere = Elsewhere(namespace)
        self._orphans = Orphans(0.0)
        self._companions = Companions(load_balancer_class, rng)
        self._first_addresses = FirstAddresses(load_balancer_class)

    def _new_services(self) -> Reconciler:
        return Reconciler(self._class, self._rng, self._remember_releases)

    # -------------------------------------------------------------------- terms

    @property
    def restored(self) -> bool:
        """Whether it knows what every Service has. It decides nothing before."""
        return self._services.started

    def begin_term(self) -> None:
        """Drop all that was decided so far."""
        self._services = self._new_services()
        self._first_addresses.begin_anew()

    def restore(self, everything: Iterable[Object], now: Moment) -> None:
        """From now on, decide. ``everything``: all objects that a controller reads, read since the term began."""
        self._reports = Reports(self._namespace, self._rng, self._reports.in_force.config)
        self._reservations = Reservations()
        self._node_pools = NodePools()
        self._elsewhere = Elsewhere(self._namespace)
        self._orphans = Orphans(now.monotonic)
        self._companions = Companions(self._class, self._rng)
        for view in everything:
            self._note(view, None, view, now)
        self._reports.reload()
        self._services.set_config(self._reports.in_force.config)
        self._services.set_reserved(self._reservations.ranges)
        self._judge_nodes(now)
        self._services.start(self._reports.recorded_releases())

    # -------------------------------------------------------------------- observations and answers

    def take(self, seen: Seen[Any], now: Moment) -> None:
        """An object came, changed, went, or left what is watched."""
        view: Object | None = seen.new or seen.old
        if view is None or (not self.restored and isinstance(view, Service | Namespace)):
            return  # ``restore`` is told of these
        self._note(view, seen.old, seen.new, now, first=seen.kind == "added")

    def _note(self, view: Object, old: Any, new: Any, now: Moment, *, first: bool = True) -> None:
        """``view``: the object as it is, or was. ``new`` None: it is not there any more."""
        name, gone = view.metadata.name, new is None
        match view:
            case Service() if is_companion(view):
                self._companions.vanished(view) if gone else self._companions.observe(view)
            case Service():
                self._services.vanished(view) if gone else self._services.observe(view)
                self._companions.vanished(view) if gone else self._companions.observe(view)
                self._node_pools.set_service(view.key, view if not gone and is_ours(view, self._class) else None)
                self._orphans.service_changed(old, new, now.monotonic)
                self._time(view, now, gone=gone, first=first)
            case IPAddressPool() | NodeIPPool() | L2Advertisement() if view.metadata.namespace != self._namespace:
                self._elsewhere.vanished(view) if gone else self._elsewhere.observe(view, now.monotonic)
            case IPAddressPool() | NodeIPPool() | L2Advertisement():
                self._reports.vanished(view) if gone else self._reports.observe(view)
            case Node():
                self._reservations.set_node(name, new)
                self._node_pools.set_node(NodeName(name), new, now)
                self._orphans.set_node(name, new, now.monotonic)
                self._services.set_node(name, new)
                self._reports.findings.set_node(name, None if gone else view.metadata.labels)
            case ConfigurationState():
                self._reports.findings.set_speaker_state(view, gone=gone)
                self._services.set_speaker_state(view, gone=gone)
            case ServiceCIDR():
                self._reservations.set_service_cidr(name, new)
                self._node_pools.set_service_cidr(name, new)
            case HostPod():
                self._node_pools.set_pod(view.key, new, now)
            case EndpointSlice():
                self._node_pools.set_slice(view.key, new)
            case Lease():
                self._node_pools.set_lease(old, new, now)
            case ConfigMap():
                self._node_pools.set_configured_mode("" if gone else configured_mode(view.data), now)
            case Namespace():
                self._services.set_namespace(name, None if gone else view.metadata.labels)

    def _time(self, view: Service, now: Moment, *, gone: bool, first: bool) -> None:
        """How long Services wait."""
        if gone:
            self._first_addresses.vanished(view)
            return
        if first:
            self._first_addresses.appeared(view, now)
        self._first_addresses.changed(view, now)

    @property
    def wants_nodes(self) -> bool:
        """Whether Pods, EndpointSlices, Leases and kube-proxy's ConfigMap are to be told of."""
        return self.restored and self._reports.has_node_pools

    def nodes_read(self, now: Moment) -> None:
        """All of these that there are have been told."""
        self._node_pools.everything_read(now)

    def forget_nodes(self) -> None:
        """They are not told any more."""
        self._node_pools.forget()

    def take_outcome(self, outcome: ChangeOutcome, now: Moment) -> None:
        """What became of a change that was decided in this term."""
        change, view, failure = outcome.change, outcome.view, outcome.failure
        part = self._part_of(change)
        if failure is not None:
            hopeless = HOPELESS_RETRY_S if isinstance(failure, Invalid | Forbidden) else 0.0
            if hopeless and part is self._companions:
                self._companions.refused(change, str(failure))
            part.failed(change, max(failure.retry_after or 0.0, hopeless), now)
            return
        if isinstance(view, Service) and part is self._services:
            self._first_addresses.changed(view, now)
            self._companions.observe(view)
        if outcome.made:
            part.answered(change, view)
        else:
            part.superseded(change, view, now)

    def _part_of(self, change: Change) -> Reconciler | Companions | Reports:
        if change.resource is COMPANIONS:
            return self._companions
        return self._services if change.resource.kind == SERVICES.kind else self._reports

    def set_obstacle(self, problem: Problem | None) -> None:
        """What keeps pools from being applied; None: nothing."""
        self._reports.in_force.set_obstacle(problem)

    # -------------------------------------------------------------------- deciding

    @property
    def backlog(self) -> int:
        """How many Services are still to be judged. From any thread."""
        return self._services.backlog

    def next_deadline(self) -> float | None:
        """When ``decide`` wants to be called next though nothing was observed, in monotonic seconds."""
        parts = (self._services, self._companions, self._reports, self._orphans, self._elsewhere, self._node_pools)
        return min((at for each in parts if (at := each.next_deadline()) is not None), default=None)

    def decide(self, room: Room | None, now: Moment, *, states_served: bool) -> PassResult:
        """What is to be done, as far as there is ``room``; the rest stays due. ``states_served``: whether the API has
        the kind ConfigurationState."""
        astray = self._elsewhere.take_due(now.monotonic) if self.restored else []
        self._reports.in_force.set_elsewhere(self._elsewhere.pools)
        if self._reports.reload():
            self._services.set_config(self._reports.in_force.config)
        self._services.set_reserved(self._reservations.ranges)
        self._judge_nodes(now)
        orders = PassResult(problems=self._reports.in_force.take_new_problems(), astray=astray)
        if room is None:
            return orders
        for each in self._services.decide(now, room.requests, room.services):
            if isinstance(each, Tell):
                orders.tells.append(each)
            else:
                orders.changes.append(each)
        self._keep_companions(orders, room, now)
        self._reports.states_served = states_served
        ledger, releases = self._services.ledger, self._services.releases
        orders.changes.extend(self._reports.decide(ledger, releases, self._node_pools, now))
        return orders

    def _keep_companions(self, orders: PassResult, room: Room, now: Moment) -> None:
        """What is to be done about companions, where there is room beside the ``orders``."""
        ledger = self._services.ledger

        def holder(address: Address, service: Service) -> str | None:
            rival = ledger.conflict(address, read_node_sharer(service))
            return rival.service if rival is not None else None

        config, nodes = self._reports.in_force.config, self._node_pools.view
        left = Room(max(0, room.requests - len(orders.changes)), room.services)
        for each in self._companions.decide(config, nodes, now, left, holder=holder, ahead=self._services.ahead):
            if isinstance(each, Tell):
                orders.tells.append(each)
            else:
                orders.changes.append(each)
        for key, condition in self._companions.take_troubles().items():
            self._services.set_not_delivered(key, condition)

    def _judge_nodes(self, now: Moment) -> None:
        """What pools of nodes give now, and whom that concerns."""
        nodes = self._node_pools
        nodes.set_pools(self._reports.in_force.config.node_pools)
        nodes.handle_timer(now)
        view, pools, services = nodes.view, nodes.take_affected(), nodes.take_affected_services()
        self._services.set_node_view(view, pools, services)
        self._companions.nodes_changed(pools & view.joining.keys(), services if view.joining else ())

    def orphans_due(self, now: float) -> bool:
        """Whether ``clear`` has anything to do."""
        due = self._orphans.next_deadline()
        return due is not None and due <= now

    def clear(self, services: Mapping[str, Service], now: float) -> tuple[list[Task], Census]:
        """Which status objects are to be looked at, and the census that says which of them belong to nobody.
        ``services``: all, by key."""
        return self._orphans.due(services, now), self._orphans.census(services, now)

    # -------------------------------------------------------------------- what is measured

    def figures(self) -> Snapshot:
        """What the parts know. The caller adds what only the process knows."""
        counts = self._services.figures()
        return Snapshot(
            pools={
                name: PoolFigures.of(self._services.ledger, name)
                for name in (self._reports.in_force.config.pools if self.restored else ())
            },
            node_pools={
                name: figures
                for name in self._reports.in_force.config.node_pools
                if (figures := self._node_pools.figures(name)) is not None
            },
            config_stale=bool(self._reports.in_force.problems),
            services=counts.services,
            waiting={reason.value: count for reason, count in counts.waiting.items()},
            refusals={reason.value: count for reason, count in counts.refusals.items()},
            since_seen=self._first_addresses.since_seen.distribution(),
            since_creation=self._first_addresses.since_creation.distribution(),
        )
