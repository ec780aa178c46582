"""The controller's shell: observations in, changes out, and nothing decided here.

One thread decides: it drains a queue that the reflectors and the writers fill, and hands what comes out to a few
writing threads. Of one Service (or pool) at most one change is under way at a time, the core sees to that, so the
writers share one queue and a slow write holds up nobody else's. Of the decisions' Events a ``recorder`` takes care.

Of several replicas one decides (``leadership``). The others hold their copies of the API's objects and nothing else:
when one of them begins to lead, it lists everything anew, to see no less than its predecessor wrote, and hands the
copies to a new core. When it ceases to lead, the core is dropped, and with it all that it had decided and not written.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from prometheus_client import CollectorRegistry

from cluster.api.client import ApiClient
from cluster.api.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from cluster.api.reflector import Change as Seen
from cluster.api.reflector import Reflector
from cluster.api.server_version import VersionCheck
from cluster.objects import (
    ConfigurationState,
    IPAddressPool,
    L2Advertisement,
    Namespace,
    Node,
    Object,
    Service,
    ServiceCIDR,
)
from cluster.resources import (
    CONFIGURATION_STATES,
    IP_ADDRESS_POOLS,
    L2_ADVERTISEMENTS,
    NAMESPACES,
    NODES,
    SERVICE_CIDRS,
    SERVICES,
)
from controller.allocation.reserved import Reservations
from controller.changes import Change, Moment, Read, Tell, Write
from controller.daemon.beginning import find_leftovers, make_key
from controller.daemon.clearing import Clearing
from controller.daemon.elector import Elector, NotLeadingError, lease_name
from controller.daemon.metrics import ControllerCollector, PoolFigures, Snapshot
from controller.daemon.recorder import Recorder
from controller.daemon.webhook import LeftWebhook
from controller.orphans import Orphans
from controller.pools.elsewhere import Elsewhere
from controller.pools.reports import Reports
from controller.services.latency import FirstAddresses
from controller.services.reconcile import Reconciler

WRITERS = 8
"""Requests under way at a time. An API server answers a write in a few milliseconds, most of it waiting for etcd."""
BATCH = 1000
"""Observations that are judged together at most, so that a flood does not keep the first one waiting."""
AHEAD = 128
"""Requests decided ahead of the writers at most. What is decided later knows more, and takes no memory meanwhile."""
TURNS = 200
"""Services judged at a time at most, so that who comes meanwhile is seen, and served first. It takes some 50 ms."""
ENOUGH = 32
"""With more requests than these before them the writers are left to it. Observations judged together cost half."""
GATHER_S = 0.01
"""For which observations are left to gather then. A fast API server takes 32 writes in that time."""
HOPELESS_RETRY_S = 10.0
"""After an answer that only a person can change (403, 422)."""
IDLE_S = 1.0
"""The longest sleep of the deciding thread, so that its age tells whether it lives."""
STUCK_S = 30.0
"""The age of the deciding thread's last turn from which it counts as stuck."""
LAST_WRITES_S = 1.0
"""What a stop waits for writes under way. If one takes longer the Lease is not released, and the next leader waits."""
LAST_EVENTS_S = 0.5
"""And then for Events that are not recorded yet."""
RESTORE_POLL_S = 0.02
"""Between two looks whether a new leader's lists have come, at first. They may never: then it looks more seldom."""

logger = logging.getLogger("controller")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a change: ``made`` or somebody was faster, with the object; or a failure."""

    term: int
    change: Change
    view: Any = None
    made: bool = True
    failure: ApiError | None = None


class Daemon:
    """See the module's docstring. ``run`` blocks until ``stop`` is called, from a signal handler or another thread."""

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        load_balancer_class: str | None,
        registry: CollectorRegistry,
        *,
        name: str,
        lease_s: int,
        remember_releases: int,
    ) -> None:
        """``name`` is what the Lease calls this process, with something random behind it."""
        rng = random.Random()
        self._client = client
        self._namespace = namespace
        self._class = load_balancer_class
        self._rng = rng
        self._term: int | None = None
        """The term that ``_core`` is for; None: it is for none, and knows nothing."""
        self._term_began = 0.0
        self._awaited: tuple[int, ...] | None = None
        """Which refresh of each reflector a new leader waits for; None: not asked for yet."""
        self._remember_releases = remember_releases
        self._core = self._new_core()
        self._reports = Reports(namespace, rng)
        self._reservations = Reservations()
        self._first_addresses = FirstAddresses(load_balancer_class)
        self._inbox: queue.SimpleQueue[Seen[Any] | _Outcome | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[int, Change] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._last_turn = time.monotonic()
        self._orphans = Orphans(0.0)
        self._elsewhere = Elsewhere(namespace)
        self._clearing = Clearing(client, namespace, leading=lambda: self._elector.term is not None)
        self._webhook = LeftWebhook(
            client,
            namespace,
            leading=lambda: self._elector.term is not None,
            changed=lambda: self._inbox.put(None),
        )
        self._recorder = Recorder(client, flood=lambda: self._core.backlog > 0 or self._outbox.qsize() > WRITERS)
        self._updates = 0
        self._update_errors = 0
        self._snapshot = Snapshot()
        self._snapshot_at = 0.0
        self._namespaces = Reflector(client, NAMESPACES, on_change=self._inbox.put)
        self._states = Reflector(
            client, CONFIGURATION_STATES, namespace=namespace, optional=True, on_change=self._inbox.put
        )
        self._services = Reflector(client, SERVICES, field_selector="spec.type=LoadBalancer", on_change=self._inbox.put)
        self._reflectors: Final[tuple[Reflector[Any], ...]] = (
            self._services,
            Reflector(client, IP_ADDRESS_POOLS, namespace=namespace, on_change=self._inbox.put),
            Reflector(client, L2_ADVERTISEMENTS, namespace=namespace, optional=True, on_change=self._inbox.put),
            self._namespaces,
            Reflector(client, NODES, on_change=self._inbox.put),
            self._states,
            Reflector(client, SERVICE_CIDRS, optional=True, on_change=self._inbox.put),
        )
        self._reflectors_of_all: Final[tuple[Reflector[Any], ...]] = (
            Reflector(client, IP_ADDRESS_POOLS, optional=True, on_change=self._note_elsewhere),
            Reflector(client, L2_ADVERTISEMENTS, optional=True, on_change=self._note_elsewhere),
        )
        """For what is only said: nothing waits for these, and what they may not read is not missed."""
        lease, wake = lease_name(load_balancer_class), lambda: self._inbox.put(None)
        self._elector = Elector(client, namespace, lease, name, lease_s=lease_s, on_change=wake)
        self._old_server = ""
        """Why the API server is too old."""
        self._version_check = VersionCheck(client, self._take_version)
        registry.register(ControllerCollector(self._figures))

    # -------------------------------------------------------------------- for the probes

    def trouble(self) -> str | None:
        """Why the daemon should be restarted; None: it lives."""
        age = time.monotonic() - self._last_turn
        return f"the deciding thread has not moved for {age:.0f} s" if age > STUCK_S else None

    def not_ready(self) -> str | None:
        """What is missing at present; None: as leader every Service's address has been restored and new ones are given
        out, as standby everything is there to begin with that at once."""
        missing = [self._old_server] if self._old_server else []
        if self._namespaces.synced and self._namespace not in self._namespaces.items():
            missing.append(f'there is no namespace "{self._namespace}" (--namespace)')
        elif self._term is None and self._elector.trouble:
            missing.append(f"the Lease {self._elector.lease} cannot be had: {self._elector.trouble}")
        if unlisted := [each.with_trouble for each in self._reflectors if not each.synced]:
            missing.append(f"waiting for the first list of {', '.join(unlisted)}")
        if deaf := [each.with_trouble for each in self._reflectors if each.synced and each.trouble]:
            missing.append(f"no news of {', '.join(deaf)}")
        if not missing and self._term is not None and not self._core.started:
            missing.append("restoring addresses")
        return "; ".join(missing) or None

    def _take_version(self, too_old: str) -> None:
        self._old_server = too_old
        if too_old:
            logger.warning("the API server is too old", extra={"advice": too_old})
        else:
            logger.info("the API server is new enough by now")

    # -------------------------------------------------------------------- the deciding thread

    def run(self) -> None:
        writers = [threading.Thread(target=self._write_on, name=f"write-{n}", daemon=True) for n in range(WRITERS)]
        for thread in writers:
            thread.start()
        self._recorder.start()
        self._clearing.start()
        self._webhook.start()
        self._elector.attempt()  # first the Lease, then the lists: who gets it need not list twice
        self._follow_leadership()
        for reflector in (*self._reflectors, *self._reflectors_of_all):
            reflector.start()
        self._elector.start()
        self._version_check.start()
        while not self._stopping.is_set():
            self._turn()
        self._elector.close()
        self._clearing.stop()
        self._webhook.stop()
        for _ in writers:
            self._outbox.put(None)
        give_up = time.monotonic() + LAST_WRITES_S
        for thread in writers:
            thread.join(max(0.0, give_up - time.monotonic()))
        self._elector.stop()
        self._recorder.stop(LAST_EVENTS_S)

    def stop(self) -> None:
        """End ``run`` soon. Safe in a signal handler."""
        self._stopping.set()
        self._inbox.put(None)

    def close(self) -> None:
        """End the reflectors' threads too, where the process goes on."""
        self._version_check.stop()
        for reflector in (*self._reflectors, *self._reflectors_of_all):
            reflector.stop()
        self._elector.end_watch()

    def _turn(self) -> None:
        received = self._received()
        self._follow_leadership()
        for message in received:
            self._take(message)
        self._last_turn = time.monotonic()
        if self._term is not None and not self._core.started:
            self._restore()
        now = Moment(time.monotonic(), time.time())
        astray = self._elsewhere.settle(now.monotonic) if self._core.started else []
        self._reports.set_elsewhere(self._elsewhere.pools)
        self._reports.set_obstacle(self._webhook.problem)
        if self._reports.reload():
            self._core.set_config(self._reports.config)
        self._core.set_reserved(self._reservations.ranges)
        for problem in self._reports.take_new_problems():
            logger.warning("not in force", extra={"problem": problem.text})
        for each in astray:
            logger.warning(
                "in a namespace that is not read", extra={"kind": each.resource.kind, "object": each.about.key}
            )
            self._tell(each)
        self._reports.states_served = not self._states.unserved
        if self._term is not None and self._core.started and not self._busy:
            decided = self._core.settle(now, AHEAD, TURNS)
            for change in (*decided, *self._reports.settle(self._core.ledger, self._core.releases, now)):
                if isinstance(change, Tell):
                    self._tell(change)
                else:
                    self._outbox.put((self._term, change))
            self._clear_orphans(now)
        self._measure(now)

    def _tell(self, change: Tell) -> None:
        self._recorder.note(change.events, change.about, change.resource)

    def _clear_orphans(self, now: Moment) -> None:
        due = self._orphans.next_deadline()
        if due is not None and due <= now.monotonic:
            services = self._services.items()
            tasks = self._orphans.due(services, now.monotonic)
            self._clearing.submit(tasks, self._orphans.census(services, now.monotonic))

    @property
    def _busy(self) -> bool:
        """Whether the writers have enough to do. What becomes of that is observed, and ends it."""
        return self._outbox.qsize() > ENOUGH

    def _follow_leadership(self) -> None:
        """With a term everything that was decided in it ends."""
        term = self._elector.term
        if term != self._term:
            self._term, self._awaited, self._term_began = term, None, time.monotonic()
            self._core = self._new_core()
            self._first_addresses.begin_anew()
        if term is not None and self._awaited is None and self._elector.quiet:
            self._awaited = tuple(reflector.refresh() for reflector in self._reflectors)

    def _new_core(self) -> Reconciler:
        return Reconciler(self._class, self._rng, self._remember_releases)

    def _restore(self) -> None:
        """Begin to decide, once everything has been read that was written before this term."""
        if self._awaited is None or any(
            reflector.refreshed < asked for reflector, asked in zip(self._reflectors, self._awaited, strict=True)
        ):
            return
        while not self._inbox.empty():  # what it tells is in the copies, or older
            self._inbox.get_nowait()
        self._reports = Reports(self._namespace, self._rng, self._reports.config)
        self._reservations = Reservations()
        self._elsewhere = Elsewhere(self._namespace)
        now = Moment(time.monotonic(), time.time())
        self._orphans = Orphans(now.monotonic)
        for reflector in self._reflectors:
            for view in reflector.items().values():
                seen: Seen[Any] = Seen("added", None, view)
                self._see(seen, now)
                self._time(seen, now)
        for reflector in self._reflectors_of_all:
            for view in reflector.items().values():
                self._note_elsewhere(Seen("added", None, view))
        self._reports.reload()
        self._core.set_config(self._reports.config)
        self._core.set_reserved(self._reservations.ranges)
        self._core.start(self._reports.recorded_releases())
        logger.info("restored", extra={"services": self._core.figures().services})
        make_key(self._client, self._namespace, self._stopping)
        find_leftovers(self._client, lambda view: self._inbox.put(Seen("added", None, view)), self._stopping)
        self._webhook.look()

    def _note_elsewhere(self, seen: Seen[Any]) -> None:
        """Pools and advertisements in all namespaces: those of ours come by another way. From any thread."""
        view = seen.new or seen.old
        if view is not None and view.metadata.namespace != self._namespace:
            self._inbox.put(seen)

    def _received(self) -> list[Seen[Any] | _Outcome | None]:
        wait = IDLE_S
        if self._busy:
            self._stopping.wait(GATHER_S)
            wait = 0.0
        elif self._core.started and self._core.backlog:
            wait = 0.0
        elif self._core.started:
            cores = (self._core, self._reports, self._orphans, self._elsewhere)
            deadlines = [at for each in cores if (at := each.next_deadline()) is not None]
            wait = min([wait, *(max(0.0, at - time.monotonic()) for at in deadlines)])
        elif self._term is not None:
            waited = time.monotonic() - self._term_began  # ``refreshed`` is a state and wakes nobody
            wait = min(IDLE_S, max(RESTORE_POLL_S, waited / 50))
        received: list[Seen[Any] | _Outcome | None] = []
        try:
            received.append(self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait())
            while len(received) < BATCH:
                received.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return received

    def _take(self, message: Seen[Any] | _Outcome | None) -> None:
        now = Moment(time.monotonic(), time.time())
        match message:
            case Seen(_, old, new) if not self._core.started and isinstance(new or old, Service | Namespace):
                pass  # the copies have it
            case Seen():
                self._see(message, now)
                self._time(message, now)
            case _Outcome(term) if term != self._term:
                pass
            case _Outcome(_, change, failure=ApiError() as failure):
                hopeless = HOPELESS_RETRY_S if isinstance(failure, Invalid | Forbidden) else 0.0
                retry_after = max(failure.retry_after or 0.0, hopeless)
                target = self._core if change.resource.kind == SERVICES.kind else self._reports
                target.failed(change, retry_after, now)
            case _Outcome(_, change, view, made):
                if isinstance(view, Service):
                    self._first_addresses.changed(view, now)
                target = self._core if change.resource.kind == SERVICES.kind else self._reports
                if made:
                    target.answered(change, view)
                else:
                    target.superseded(change, view, now)

    def _see(self, seen: Seen[Any], now: Moment) -> None:
        view: Object | None = seen.new or seen.old
        gone = seen.new is None or seen.kind == "deleted"
        match view:
            case Service():
                self._core.vanished(view) if gone else self._core.observe(view)
                self._orphans.service_changed(seen.old, None if gone else view, now.monotonic)
            case IPAddressPool() | L2Advertisement() if view.metadata.namespace != self._namespace:
                self._elsewhere.vanished(view) if gone else self._elsewhere.observe(view, now.monotonic)
            case IPAddressPool() | L2Advertisement():
                self._reports.vanished(view) if gone else self._reports.observe(view)
            case Node():
                self._reservations.set_node(view.metadata.name, None if gone else view)
                self._orphans.set_node(view.metadata.name, None if gone else view, now.monotonic)
                self._reports.set_node(view.metadata.name, None if gone else view.metadata.labels)
            case ConfigurationState():
                self._reports.set_speaker_state(view, gone=gone)
            case ServiceCIDR():
                self._reservations.set_service_cidr(view.metadata.name, None if gone else view)
            case Namespace():
                self._core.set_namespace(view.metadata.name, None if gone else view.metadata.labels)

    def _time(self, seen: Seen[Any], now: Moment) -> None:
        """How long Services wait."""
        if seen.kind == "deleted":
            if isinstance(seen.old, Service):
                self._first_addresses.vanished(seen.old)
        elif isinstance(seen.new, Service):
            if seen.kind == "added":
                self._first_addresses.appeared(seen.new, now)
            self._first_addresses.changed(seen.new, now)

    def _measure(self, now: Moment) -> None:
        if now.monotonic - self._snapshot_at < IDLE_S / 2:
            return
        self._snapshot_at = now.monotonic
        figures = self._core.figures()
        pools = self._reports.config.pools if self._core.started else ()
        self._snapshot = Snapshot(
            pools={name: PoolFigures.of(self._core.ledger, name) for name in pools},
            config_loaded=all(reflector.synced for reflector in self._reflectors),
            config_stale=bool(self._reports.problems),
            services=figures.services if self._core.started else len(self._services.items()),
            waiting={reason.value: count for reason, count in figures.waiting.items()},
            refusals={reason.value: count for reason, count in self._core.refusals.items()},
            since_seen=self._first_addresses.since_seen.distribution(),
            since_creation=self._first_addresses.since_creation.distribution(),
        )

    def _figures(self) -> Snapshot:
        waiting = self._inbox.qsize() + self._core.backlog + self._outbox.qsize()
        return replace(
            self._snapshot,
            updates=self._updates,
            update_errors=self._update_errors,
            queue_length=waiting,
            leader=self._elector.term is not None,
            lease_transitions=self._elector.transitions,
        )

    # -------------------------------------------------------------------- the writing threads

    def _write_on(self) -> None:
        while (item := self._outbox.get()) is not None:
            if self._stopping.is_set():
                return
            with suppress(NotLeadingError):  # what was decided goes with its term
                self._inbox.put(self._carry_out(*item))

    def _carry_out(self, term: int, change: Change) -> _Outcome:
        try:
            if isinstance(change, Read):
                return _Outcome(term, change, self._look(change))
            try:
                with self._elector.writing(term) as limit_s:
                    view = self._make(change, limit_s)
            except (Conflict, AlreadyExists):
                return _Outcome(term, change, self._look(change), made=False)
            except NotFound:
                if change.create:
                    raise
                return _Outcome(term, change, None)
        except ApiError as error:
            self._update_errors += change.resource is SERVICES
            logger.warning("write failed", extra={"object": change.key, "error": str(error)})
            return _Outcome(term, change, failure=error)
        self._updates += change.resource is SERVICES
        logger.info(change.decision, extra={"kind": change.resource.kind, "object": change.key})
        if change.about is not None:
            self._recorder.note(change.events, change.about)
        return _Outcome(term, change, view)

    def _make(self, change: Write, limit_s: float) -> Any:
        namespace, resource = change.namespace, change.resource
        if change.create:
            return self._client.create(resource, namespace, change.body, limit_s=limit_s)
        return self._client.patch(
            resource, namespace, change.name, change.body, subresource=change.subresource, limit_s=limit_s
        )

    def _look(self, change: Change) -> Any:
        try:
            return self._client.get(change.resource, change.namespace, change.name)
        except NotFound:
            return None
