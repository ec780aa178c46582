"""The API side of a speaker, a process of its own: what the API says goes to the announcer as a Plan, and what the
announcer holds goes to the API as status objects and Events.

Reflectors put changes into an inbox; one loop takes them out, lets the ``Planner`` decide, and sends the difference.
Some changes after quiet go out at once; of many more, one goes out each ``SPACING_S``, and the loop rests meanwhile, so
that a burst becomes a few larger changes. Nothing goes out before every cache is synced: a Plan made of half of the
Services would take addresses away. From then on an API server that is away changes nothing: the last Plan stays.

The loop sleeps until something comes in or the next of its deadlines (``_plan_at``, ``_departed_at``, ``_publish_at``).
Each of them says by itself when it is over: whoever acts on one asks it, and nothing else, whether it has come.

Writes are done elsewhere (``publisher``, ``writer``); the loop never waits for the API. What keeps the speaker from
doing its part is looked at with each report of the announcer, once a second. When the announcer ends, so does the
watcher.
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

from cluster.api.client import NAMESPACES, ApiClient, ClientConfigError, Forbidden, NotFound, connect
from cluster.api.reflector import Change
from cluster.api.server_version import VersionCheck
from cluster.config import Config, load
from cluster.daemon.command_line import EXIT_USAGE, complain
from cluster.daemon.http_status import CannotListenError, StatusServer
from cluster.objects import AddressText, ConfigurationState, Node, NodeName, Secret, Service
from speaker.api.announcements import Announcements
from speaker.api.departed import Departed
from speaker.api.metrics import SpeakerCollector, View
from speaker.api.planner import Planner
from speaker.api.publisher import Publisher
from speaker.api.ranking import is_ready
from speaker.api.records import speaker_of
from speaker.api.reporter import Reporter
from speaker.api.sources import Sources, Take
from speaker.api.stranded import StrandedServices
from speaker.api.traffic import Traffic
from speaker.api.writer import Writer
from speaker.channel import (
    ChannelClosedError,
    Claims,
    ClaimsChange,
    Credentials,
    Holding,
    Stats,
    ToWatcher,
    WatcherEnd,
    watcher_end,
)
from speaker.keys import KEY_SECRET, BadKeyError, keys_of
from speaker.link import LinkName
from speaker.options import Options
from speaker.parts import change_in_parts, plan_in_parts
from speaker.protocol.effects import Decision

SPACING_S = 0.05  # between two changes of the Plan, where there are many
AT_ONCE = 4  # changes that go out without waiting; one more after each such time
LOOP_AGE_LIMIT_S = 5.0  # the announcer reports each second; five missed reports are no health
RECORDS_WAIT_S = 5.0  # for the status objects' cache, which only saves Events that are no news
NAMESPACE_LOOK_S = 30.0  # between looks whether there is a namespace of ours, while nothing is found in it

logger = logging.getLogger(__name__)


class Watcher:
    """See the module's docstring. ``run`` returns when the announcer has gone, or after ``stop``."""

    def __init__(self, client: ApiClient, channel: WatcherEnd, options: Options) -> None:
        self._client = client
        self._channel = channel
        self._options = options
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._updates = 0

        self._cluster: str | None = None
        self._keys: tuple[bytes, ...] = (options.key,) if options.key else ()
        self._key_trouble = "does not exist"
        self._credentials: Credentials | None = None

        self._planner = Planner(options.node, lb_class=options.lb_class, ignore_exclude=options.ignore_exclude)
        self._config: Config | None = None
        self._config_touched = False
        self._departed = Departed()
        self._namespace_look_at = 0.0
        self._synced_at: float | None = None
        self._plans_at_once = 0.0
        """When as many changes of the Plan may go out at once as ever."""

        self._stats: Stats | None = None
        self._heard_at = _boottime()
        self._claims: dict[AddressText, Holding | None] = {}
        """What of the announcer's claims has not been published yet."""
        self._traffic = Traffic()
        self._links: frozenset[LinkName] | None = None
        self._own_labels: dict[str, str] | None = None
        self._links_changed = False
        self._interfaces_touched = False
        """What advertisements demand of this node's interfaces may have changed, or what these are."""

        self._writer = Writer()
        self._publisher = Publisher(client, self._writer, options.node, options.namespace)
        self._publishing = False
        self._announcements = Announcements(self._planner)
        self._stranded = StrandedServices(self._planner, options.node)
        self._reporter = Reporter(self._publisher, self._planner, options.node, options.namespace)
        self._sources = self._follow()
        self._version_check = VersionCheck(
            client, lambda too_old: self._soon(lambda: self._reporter.troubles.set_server(too_old))
        )

    def _follow(self) -> Sources:
        def into(set_object: Callable[[str, Any], object]) -> Take:
            """Have the loop call ``set_object`` (key, object or None) for each change."""
            return lambda change: self._soon(lambda: set_object(change.key, change.new))

        take = {
            "services": into(self._set_service),
            "endpointslices": into(self._planner.set_slice),
            "nodes": into(self._set_node),
            "ipaddresspools": self._configured,
            "l2advertisements": self._configured,
            "secrets": into(self._set_secret),
            "configurationstates": into(self._set_state),
            "servicel2statuses": lambda change: self._soon(lambda: self._publisher.recorded(change)),
        }
        return Sources(self._client, self._options, take)

    def _soon(self, call: Callable[[], object]) -> None:
        """Have the loop make a call. From any thread."""
        self._inbox.put(call)
        os.eventfd_write(self._wake, 1)

    # -------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Watch, plan and publish until the announcer ends or ``stop`` is called."""
        self._writer.start()
        self._writer.submit("cluster identity", self._learn_cluster, urgent=True)
        self._sources.start()
        self._version_check.start()
        threading.Thread(
            target=self._sources.wait_synced,
            args=(lambda: os.eventfd_write(self._wake, 1),),
            name="synced",
            daemon=True,
        ).start()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake, selectors.EVENT_READ)
                selector.register(self._channel, selectors.EVENT_READ)
                while not self._stopping:
                    self._rest()
                    self._turn(selector)
        except ChannelClosedError as error:
            logger.info("announcer has gone", extra={"error": str(error)})
        finally:
            self._sources.stop()
            self._version_check.stop()
            self._writer.stop()
            self._channel.close()

    def stop(self) -> None:
        """End ``run``. From any thread."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def _rest(self) -> None:
        """While no change of the Plan may go out, what comes in can gather."""
        if self._synced_at is not None and not self._channel.waiting:
            time.sleep(max(0.0, self._next_plan_at - time.monotonic()))

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
        synced = self._synced_at is not None or self._sources.synced
        recorded = self._sources.recorded
        self._take_inbox()  # after looking at ``synced``: whatever it covers is in the inbox by then
        now = time.monotonic()
        if (over_at := self._departed_at()) is not None and now >= over_at:
            self._config_touched = True
        self._send_credentials()
        if synced:
            self._advance(now, recorded=recorded)

    def _timeout(self, now: float) -> float | None:
        moments = [at for at in (self._plan_at(), self._publish_at(), self._departed_at()) if at is not None]
        return max(0.0, min(moments) - now) if moments else None

    def _plan_at(self) -> float | None:
        """When the next change of the Plan may be sent; None: nothing has changed, or the channel is full."""
        changed = self._planner.pending or self._config_touched
        return self._next_plan_at if changed and self._synced_at is not None and not self._channel.waiting else None

    @property
    def _next_plan_at(self) -> float:
        """The earliest time for a change of the Plan."""
        return self._plans_at_once - (AT_ONCE - 1) * SPACING_S

    def _departed_at(self) -> float | None:
        """When the configuration is another one without news of it; None: it is to be read anew anyway, or does not
        change by itself."""
        return None if self._config_touched else self._departed.next_deadline()

    def _publish_at(self) -> float | None:
        """When publishing begins, whether or not it is known by then what is on record; None: it has, or no Plan is
        known."""
        return None if self._publishing or self._synced_at is None else self._synced_at + RECORDS_WAIT_S

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
            self._send_first_plan(now)
        elif (plan_at := self._plan_at()) is not None and now >= plan_at:
            self._send_change(now)
        if (publish_at := self._publish_at()) is not None and (recorded or now >= publish_at):
            self._publishing = True
            self._publish_claims()
        if self._publishing and self._links_changed and self._links is not None:
            self._links_changed = False
            self._publisher.tell(self._announcements.set_links(self._links))
            self._reporter.tell_stranded(self._stranded.set_links(self._links), now)
        if self._interfaces_touched and self._links is not None and self._own_labels is not None and self._config:
            self._interfaces_touched = False
            self._reporter.set_interfaces(self._config, self._own_labels, self._links)

    def _send_first_plan(self, now: float) -> None:
        self._load_config(now)
        self._reporter.troubles.all_nodes_known()
        self._planner.take_change()
        plan = self._planner.plan()
        for part in plan_in_parts(plan):
            self._channel.send(part)
        self._synced_at = now
        logger.info("first plan", extra={"revision": plan.revision, "bundles": len(plan.bundles)})
        gc.collect()
        gc.freeze()  # the caches live long: looking through them again and again would only cost

    def _send_change(self, now: float) -> None:
        self._load_config(now)
        change = self._planner.take_change()
        if change:
            for part in change_in_parts(change):
                self._channel.send(part)
            self._plans_at_once = max(self._plans_at_once, now) + SPACING_S
            counts = {"changed": len(change.changed), "removed": len(change.removed)}
            logger.info("plan", extra={"revision": change.revision, **counts})
        if self._publishing:
            self._publisher.tell(self._announcements.plan_changed())
            self._reporter.tell_stranded(self._stranded.plan_changed(), now)

    def _load_config(self, now: float) -> None:
        if self._config is not None and not self._config_touched:
            return
        self._config_touched = False
        self._interfaces_touched = True
        loaded = load(self._sources.pools(), self._sources.advertisements(), self._config)
        self._config = self._departed.kept(self._config or Config(), loaded.config, now)
        self._planner.set_config(self._config)
        self._reporter.set_problems(loaded.problems)

    # -------------------------------------------------------------------- what the API says

    def _configured(self, change: Change[Any]) -> None:
        """A pool or an advertisement is another one. Most changes are of what the controller writes into its status."""
        old, new = change.old, change.new
        if old is None or new is None or (old.spec, old.metadata.labels) != (new.spec, new.metadata.labels):
            self._soon(lambda: setattr(self, "_config_touched", True))

    def _set_service(self, key: str, service: Service | None) -> None:
        known = self._planner.service(key) is not None
        self._planner.set_service(key, service)
        if service is not None and not known and service.spec.load_balancer_class == self._options.lb_class:
            self._writer.crowd()  # it waits for an address, or has just got its first

    def _set_node(self, key: str, node: Node | None) -> None:
        self._planner.set_node(key, node)
        self._reporter.troubles.set_node(
            NodeName(key), exists=node is not None, ready=node is not None and is_ready(node)
        )
        if key == self._options.node and node is not None:
            self._publisher.set_own_node(node.metadata.uid)
            if node.metadata.labels != self._own_labels:
                self._own_labels = node.metadata.labels
                self._interfaces_touched = True

    def _set_state(self, key: str, state: ConfigurationState | None) -> None:
        if (node := speaker_of(key)) is not None:
            self._reporter.troubles.set_speaker(node, exists=state is not None)

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

    def _look_for_namespace(self, now: float) -> None:
        """Where neither pools nor advertisements are found, perhaps there is no namespace to find them in."""
        if self._config is not None and (self._config.pools or self._config.advertisements):
            self._reporter.troubles.set_namespace(exists=True)
        elif now >= self._namespace_look_at:
            self._namespace_look_at = now + NAMESPACE_LOOK_S
            self._writer.submit("namespace", self._learn_of_namespace, urgent=True)

    def _learn_of_namespace(self) -> None:
        """On the writer's thread. Who is not allowed to look does not know."""
        exists = True
        try:
            self._client.get(NAMESPACES, None, self._options.namespace)
        except NotFound:
            exists = False
        except Forbidden:
            return
        self._soon(lambda: self._reporter.troubles.set_namespace(exists=exists))

    # -------------------------------------------------------------------- what the announcer says

    def _heard(self, message: ToWatcher) -> None:
        self._heard_at = _boottime()
        match message:
            case Claims(_, held):
                self._take_claims({**dict.fromkeys(self._announcements.claimed()), **held})
            case ClaimsChange(_, held):
                self._take_claims(held)
            case Stats():
                self._take_stats(message, time.monotonic())
            case Decision():
                self._reporter.tell(message, time.monotonic())

    def _take_claims(self, changes: Mapping[AddressText, Holding | None]) -> None:
        for address, holding in changes.items():
            if holding is None:
                self._traffic.forget(address)
        self._claims.update(changes)
        self._publish_claims()

    def _publish_claims(self) -> None:
        if self._publishing and self._claims:
            changes, self._claims = self._claims, {}
            self._publisher.tell(self._announcements.change_claims(changes))

    def _take_stats(self, stats: Stats, now: float) -> None:
        self._stats = stats
        self._traffic.add(stats)
        if stats.links is not None and (links := frozenset(stats.links)) != self._links:
            self._links, self._links_changed, self._interfaces_touched = links, True, True
            self._reporter.troubles.set_links(links, now)
        self._reporter.troubles.set_refused(stats.refused)
        self._reporter.troubles.set_reasons(stats.unusable)
        self._look_for_namespace(now)
        self._reporter.troubles.set_hearing(now, hears=any(peer.alive for peer in stats.peers))
        self._reporter.judge(now)

    # -------------------------------------------------------------------- what is shown; from the server's threads

    def healthy(self) -> str | None:
        """Whether the announcer's loop turns. Never a matter of the API server."""
        age = self._loop_age()
        if age > LOOP_AGE_LIMIT_S:
            return f"the announcer's last loop was {age:.1f} s ago"
        return None

    def ready(self) -> str | None:
        """Whether this speaker can take part; if not, all that is missing."""
        missing = [trouble.text for trouble in self._reporter.present if trouble.serious]
        if not self._keys:
            missing.append(f"no heartbeat key: Secret {self._options.namespace}/{KEY_SECRET} {self._key_trouble}")
        if self._cluster is None:
            missing.append("the cluster's identity is not known")
        if unsynced := self._sources.missing():
            missing.append(f"not synced: {', '.join(unsynced)}")
        if self._stats is None or not self._stats.ready:
            missing.append("the announcer is not ready")
        return "; ".join(missing) or None

    def remarks(self) -> str | None:
        """What is wrong though this speaker can take part."""
        return "; ".join(trouble.text for trouble in self._reporter.present if not trouble.serious) or None

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
            announced=tuple(self._announcements.answered()),
            loop_age_s=self._loop_age(),
            plan_revision=self._planner.revision,
            bundles=self._planner.bundles,
            updates=self._updates,
            update_errors=self._sources.errors(),
            config_loaded=self._config is not None,
            config_stale=bool(self._reporter.problems),
            writes=self._writer.writes,
            write_errors=self._writer.errors,
            lag=self._writer.lag,
            watch_failures=self._sources.failures(),
            troubles=tuple(sorted({trouble.reason for trouble in self._reporter.present})),
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
        server = StatusServer(options.listen, registry, watcher.healthy, watcher.ready, watcher.remarks)
    except CannotListenError as error:
        complain("speaker", str(error))
        return EXIT_USAGE
    begun()
    server.start()
    watcher.run()
    return 0
