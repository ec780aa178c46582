"""The API side of a speaker, a process of its own: what the API says goes to the announcer as a Plan, and what the
announcer holds goes to the API as status objects and Events.

Reflectors put changes into an inbox; one loop takes them out, lets the ``Planner`` decide, and sends the difference.
The first change after quiet goes out at once; further ones wait until ``SPACING_S`` has passed, so that a burst becomes
a few larger changes. Nothing goes out before every cache is synced: a Plan made of half of the Services would take
addresses away. From then on an API server that is away changes nothing: the last Plan stays.

Writes are done elsewhere (``publisher``, ``writer``); the loop never waits for the API. When the announcer ends, so
does the watcher.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector

from cluster.client import (
    ENDPOINT_SLICES,
    IP_ADDRESS_POOLS,
    L2_ADVERTISEMENTS,
    NAMESPACES,
    NODES,
    SECRETS,
    SERVICE_L2_STATUSES,
    SERVICES,
    ApiClient,
    ClientConfigError,
    connect,
)
from cluster.command_line import EXIT_USAGE, complain
from cluster.config import Config, Problem, load
from cluster.http_status import CannotListenError, StatusServer
from cluster.objects import SERVICE_NAME_LABEL, AddressText, Object, Secret
from cluster.reflector import Change, Reflector
from cluster.resources import Resource
from speaker.announcements import Announcements
from speaker.channel import (
    ChannelClosedError,
    Claims,
    ClaimsChange,
    Credentials,
    Holding,
    Notice,
    Stats,
    ToWatcher,
    WatcherEnd,
    watcher_end,
)
from speaker.interfaces import Stranded, StrandedServices, advertisements_without_interface
from speaker.keys import KEY_SECRET, BadKeyError, keys_of
from speaker.metrics import SpeakerCollector, View
from speaker.notices import NoticeGate, alert
from speaker.options import Options
from speaker.parts import change_in_parts, plan_in_parts
from speaker.plan import LinkName
from speaker.planner import Planner
from speaker.publisher import Publisher
from speaker.records import NODE_LABEL
from speaker.traffic import Traffic
from speaker.writer import Writer

SLICES_OF_SERVICES = f"{SERVICE_NAME_LABEL},!service.kubernetes.io/headless"
"""Slices that can be a load balancer's: headless Services, which no load balancer has, have many more endpoints."""

SPACING_S = 0.02  # between two changes of the Plan
LOOP_AGE_LIMIT_S = 5.0  # the announcer reports each second; five missed reports are no health
RECORDS_WAIT_S = 5.0  # for the status objects' cache, which only saves Events that are no news

logger = logging.getLogger(__name__)


class Watcher:
    """See the module's docstring. ``run`` returns when the announcer has gone, or after ``stop``."""

    def __init__(self, client: ApiClient, channel: WatcherEnd, options: Options) -> None:
        self._client = client
        self._channel = channel
        self._options = options
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False

        self._planner = Planner(options.node, lb_class=options.lb_class, ignore_exclude=options.ignore_exclude)
        self._config: Config | None = None
        self._config_touched = False
        self._problems: tuple[Problem, ...] = ()
        self._cluster: str | None = None
        self._keys: tuple[bytes, ...] = (options.key,) if options.key else ()
        self._key_trouble = "does not exist"
        self._credentials: Credentials | None = None
        self._synced_at: float | None = None
        self._next_plan_at = 0.0

        self._announcements = Announcements(self._planner)
        self._claims: dict[AddressText, Holding] = {}
        self._unpublished: set[AddressText] = set()
        """Addresses of which ``announcements`` has to hear."""
        self._traffic = Traffic()
        self._publishing = False
        self._writer = Writer()
        self._publisher = Publisher(client, self._writer, options.node, options.namespace)
        self._gate = NoticeGate()
        self._stranded = StrandedServices(self._planner, options.node)
        self._stranded_gate = NoticeGate()
        self._links: frozenset[LinkName] | None = None
        self._links_changed = False
        self._without_interface: tuple[str, ...] | None = None
        self._stats: Stats | None = None
        self._heard_at = _boottime()
        self._updates = 0

        self._make_reflectors()

    def _make_reflectors(self) -> None:
        planner, own = self._planner, self._options.namespace
        self._services = self._reflect(SERVICES, planner.set_service, field_selector="spec.type=LoadBalancer")
        self._slices = self._reflect(ENDPOINT_SLICES, planner.set_slice, label_selector=SLICES_OF_SERVICES)
        self._nodes = self._reflect(NODES, planner.set_node)
        self._pools = self._reflect(IP_ADDRESS_POOLS, self._touch_config, namespace=own)
        self._advertisements = self._reflect(L2_ADVERTISEMENTS, self._touch_config, namespace=own)
        self._for_plan: list[Reflector[Any]] = [
            self._services,
            self._slices,
            self._nodes,
            self._pools,
            self._advertisements,
        ]
        label = f"{NODE_LABEL}={self._options.node}"
        self._records = Reflector(
            self._client, SERVICE_L2_STATUSES, namespace=own, label_selector=label, on_change=self._record_changed
        )
        self._reflectors: list[Reflector[Any]] = [*self._for_plan, self._records]
        if not self._keys:
            field = f"metadata.name={KEY_SECRET}"
            self._reflectors.append(self._reflect(SECRETS, self._set_secret, namespace=own, field_selector=field))

    def _reflect(
        self,
        resource: Resource[Any],
        set_object: Callable[[str, Any], None],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Reflector[Any]:
        """A reflector whose changes reach ``set_object`` (key, object or None) in the loop's thread."""

        def on_change(change: Change[Object]) -> None:
            self._soon(lambda: set_object(change.key, change.new))

        return Reflector(
            self._client,
            resource,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            on_change=on_change,
        )

    def _record_changed(self, change: Change[Any]) -> None:
        self._soon(lambda: self._publisher.recorded(change))

    def _soon(self, call: Callable[[], None]) -> None:
        """Have the loop make a call. From any thread."""
        self._inbox.put(call)
        os.eventfd_write(self._wake, 1)

    # -------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Watch, plan and publish until the announcer ends or ``stop`` is called."""
        self._writer.start()
        self._writer.submit("cluster identity", self._learn_cluster)
        for reflector in self._reflectors:
            reflector.start()
        threading.Thread(target=self._wake_when_synced, name="synced", daemon=True).start()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake, selectors.EVENT_READ)
                selector.register(self._channel, selectors.EVENT_READ)
                while not self._stopping:
                    self._turn(selector)
        except ChannelClosedError as error:
            logger.info("announcer has gone", extra={"error": str(error)})
        finally:
            for reflector in self._reflectors:
                reflector.stop()
            self._writer.stop()
            self._channel.close()

    def stop(self) -> None:
        """End ``run``. From any thread."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def _turn(self, selector: selectors.BaseSelector) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._channel.waiting else 0)
        selector.modify(self._channel, wanted)
        ready = {key.fileobj: events for key, events in selector.select(self._timeout(time.monotonic()))}
        events = ready.get(self._channel, 0)
        if events & selectors.EVENT_WRITE:
            self._channel.flush()
        if events & selectors.EVENT_READ:
            for message in self._channel.receive():
                self._heard(message)
        if self._wake in ready:
            os.eventfd_read(self._wake)
        synced = self._synced_at is not None or all(each.synced for each in self._for_plan)
        recorded = self._records.synced
        self._take_inbox()  # after looking at ``synced``: whatever it covers is in the inbox by then
        now = time.monotonic()
        self._send_credentials()
        if synced:
            self._advance(now, recorded=recorded)

    def _timeout(self, now: float) -> float | None:
        if self._synced_at is None:
            return None
        if self._planner.pending or self._config_touched:
            return None if self._channel.waiting else max(0.0, self._next_plan_at - now)
        if not self._publishing:
            return max(0.0, self._synced_at + RECORDS_WAIT_S - now)
        return None

    def _take_inbox(self) -> None:
        while True:
            try:
                call = self._inbox.get_nowait()
            except queue.Empty:
                return
            self._updates += 1
            call()

    def _advance(self, now: float, *, recorded: bool) -> None:
        """Send what has changed, when it is due. ``recorded``: which status objects name this node is known by now."""
        if self._synced_at is None:
            self._load_config()
            self._planner.take_change()
            plan = self._planner.plan()
            for part in plan_in_parts(plan):
                self._channel.send(part)
            self._synced_at, self._next_plan_at = now, now + SPACING_S
            logger.info("first plan", extra={"revision": plan.revision, "bundles": len(plan.bundles)})
            gc.collect()
            gc.freeze()  # the caches live long: looking through them again and again would only cost
        elif (
            (self._planner.pending or self._config_touched) and now >= self._next_plan_at and not self._channel.waiting
        ):
            self._load_config()
            change = self._planner.take_change()
            if change:
                for change_part in change_in_parts(change):
                    self._channel.send(change_part)
                self._next_plan_at = now + SPACING_S
                counts = {"changed": len(change.changed), "removed": len(change.removed)}
                logger.info("plan", extra={"revision": change.revision, **counts})
            if self._publishing:
                self._publisher.tell(self._announcements.plan_changed(), self._planner.service)
                self._tell_interfaces(self._stranded.plan_changed(), now)
        if not self._publishing and (recorded or now >= self._synced_at + RECORDS_WAIT_S):
            self._publishing = True
            self._publish_claims()
        if self._publishing and self._links_changed and self._links is not None:
            self._links_changed = False
            self._tell_interfaces(self._stranded.set_links(self._links), now)

    def _load_config(self) -> None:
        if self._config is not None and not self._config_touched:
            return
        self._config_touched = False
        loaded = load(self._pools.items().values(), self._advertisements.items().values(), self._config)
        first = self._config is None
        self._config = loaded.config
        self._planner.set_config(loaded.config)
        if first or loaded.problems != self._problems:
            self._problems = loaded.problems
            self._publisher.configuration(loaded.problems)
            for problem in loaded.problems:
                logger.warning("configuration problem", extra={"problem": problem.text})

    # -------------------------------------------------------------------- what comes in

    def _touch_config(self, _key: str, _object: Object | None) -> None:
        self._config_touched = True

    def _set_secret(self, _key: str, secret: Secret | None) -> None:
        if secret is None:
            return  # the keys that we have go on working among those that have them
        try:
            self._keys = keys_of(secret)
        except BadKeyError as error:
            self._key_trouble = str(error)
            logger.error("heartbeat key", extra={"secret": KEY_SECRET, "problem": str(error)})

    def _learn_cluster(self) -> None:
        """On the writer's thread, which repeats it until it works."""
        uid = self._client.get(NAMESPACES, None, "kube-system").metadata.uid
        self._soon(lambda: setattr(self, "_cluster", uid))

    def _send_credentials(self) -> None:
        if self._cluster is None or not self._keys:
            return
        credentials = Credentials(self._cluster, self._keys)
        if credentials != self._credentials:
            self._credentials = credentials
            self._channel.send(credentials)
            logger.info("credentials", extra={"cluster": self._cluster, "keys": len(self._keys)})

    def _heard(self, message: ToWatcher) -> None:
        self._heard_at = _boottime()
        match message:
            case Claims(_, held):
                self._take_claims({**dict.fromkeys(self._claims), **held})
            case ClaimsChange(_, held):
                self._take_claims(held)
            case Stats():
                self._stats = message
                self._traffic.add(message)
                if message.links is not None and (links := frozenset(message.links)) != self._links:
                    self._links, self._links_changed = links, True
            case Notice():
                self._tell_notice(message)

    def _take_claims(self, changes: Mapping[AddressText, Holding | None]) -> None:
        for address, holding in changes.items():
            if holding is None:
                self._claims.pop(address, None)
                self._traffic.forget(address)
            else:
                self._claims[address] = holding
        self._unpublished.update(changes)
        self._publish_claims()

    def _publish_claims(self) -> None:
        if self._publishing and self._unpublished:
            changes = {address: self._claims.get(address) for address in self._unpublished}
            self._unpublished.clear()
            self._publisher.tell(self._announcements.change_claims(changes), self._planner.service)

    def _tell_interfaces(self, stranded: list[Stranded], now: float) -> None:
        """Which advertisements name interfaces that this node lacks, and which Services became stranded by that."""
        own = self._nodes.items().get(self._options.node)
        if self._links is not None and own is not None and self._config is not None:
            without = advertisements_without_interface(self._config, own.metadata.labels, self._links)
            if without != self._without_interface:
                self._without_interface = without
                self._publisher.interfaces(without)
        for each in stranded:
            service = self._planner.service(each.service)
            if service and self._stranded_gate.admits((each.service,), now):
                message = each.message(self._options.node)
                self._publisher.tell_event(service, "Warning", "announceFailed", message)

    def _tell_notice(self, notice: Notice) -> None:
        told = alert(notice, self._options.node)
        if told is None:
            return
        mac = str(notice.fields["mac"])
        if not self._gate.admits((told.reason, told.address, mac), time.monotonic()):
            return
        for key in self._planner.holders(told.address):
            service = self._planner.service(key)
            if service and self._planner.bundle_of(key):
                self._publisher.tell_event(service, "Warning", told.reason, told.message)

    def _wake_when_synced(self) -> None:
        for reflector in [*self._for_plan, self._records]:
            reflector.wait_synced()
            os.eventfd_write(self._wake, 1)

    # -------------------------------------------------------------------- what is shown; from the server's threads

    def healthy(self) -> str | None:
        """Whether the announcer's loop turns. Never a matter of the API server."""
        age = self._loop_age()
        if age > LOOP_AGE_LIMIT_S:
            return f"the announcer's last loop was {age:.1f} s ago"
        return None

    def ready(self) -> str | None:
        """Whether this speaker can take part; if not, all that is missing."""
        missing = [f"no heartbeat key: Secret {self._options.namespace}/{KEY_SECRET} {self._key_trouble}"]
        if self._keys:
            missing.clear()
        if self._cluster is None:
            missing.append("the cluster's identity is not known")
        if unsynced := [each.with_trouble for each in self._for_plan if not each.synced]:
            missing.append(f"not synced: {', '.join(unsynced)}")
        if self._stats is None or not self._stats.ready:
            missing.append("the announcer is not ready")
        return "; ".join(missing) or None

    def _loop_age(self) -> float:
        """Seconds since the announcer's last loop; before its first report, since we began."""
        stats = self._stats
        return max(0.0, _boottime() - (stats.loop_at if stats else self._heard_at))

    def view(self) -> View:
        """For metrics."""
        return View(
            node=self._options.node,
            stats=self._stats,
            traffic=self._traffic.totals(),
            announced=tuple(dict(self._announcements.held).values()),
            loop_age_s=self._loop_age(),
            plan_revision=self._planner.revision,
            bundles=self._planner.bundles,
            updates=self._updates,
            update_errors=sum(each.callback_errors + each.counters.undecodable for each in self._reflectors),
            config_loaded=self._config is not None,
            config_stale=bool(self._problems),
            writes=self._writer.writes,
            write_errors=self._writer.errors,
            writes_waiting=self._writer.waiting,
            watch_failures={each.resource.plural: each.counters.failures for each in self._reflectors},
        )


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main(sock: socket.socket, options: Options, begun: Callable[[], object]) -> int:
    """The watcher process: everything until the announcer ends. Returns the exit code.

    ``begun`` is called once it is clear that the arguments can be worked with; where they cannot, one line says why.
    """
    try:
        client = connect(options.kubeconfig, user_agent="berthlb-speaker")
    except ClientConfigError as error:
        complain("speaker", str(error))
        return EXIT_USAGE
    watcher = Watcher(client, watcher_end(sock), options)
    registry = CollectorRegistry()
    registry.register(SpeakerCollector(watcher.view))
    ProcessCollector(registry=registry)
    try:
        server = StatusServer(options.listen, registry, watcher.healthy, watcher.ready)
    except CannotListenError as error:
        complain("speaker", str(error))
        return EXIT_USAGE
    begun()
    server.start()
    watcher.run()
    return 0
