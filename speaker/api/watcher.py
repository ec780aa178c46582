"""The API side of a speaker, a process of its own: what the API says goes to the announcer as a Plan, and what the
announcer holds goes to the API as status objects and Events.

The watcher is a shell around five decisions, each of which says when it wants to be asked again:

1. ``ConfigReader`` and ``Planner`` make a Plan of the objects that the API has.
2. ``PlanFeed`` says when the announcer is sent the Plan and its changes.
3. ``Telling`` says what people are told of what the announcer holds, and of what is wrong.
4. ``Publisher`` says what is to be written; the ``Scribe`` writes it, on a thread of its own (``writer``).
5. ``Directory`` says where other speakers are, and ``OwnLease`` when they are told where this one is.

Reflectors put changes into an inbox. In each pass the loop reads what the announcer has sent and what is in the inbox,
asks the decisions, sends, and sleeps until something comes in or the next of their deadlines. It never waits for the
API. When the announcer ends, so does the watcher.
"""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, ProcessCollector

from cluster.addresses import Family
from cluster.api.client import (
    NAMESPACES,
    SERVICE_L2_STATUSES,
    ApiClient,
    ClientConfigError,
    Forbidden,
    NotFound,
    connect,
)
from cluster.api.server_version import VersionCheck
from cluster.daemon.command_line import EXIT_USAGE, complain
from cluster.daemon.http_status import CannotListenError, StatusServer
from cluster.drain import drained_by
from cluster.nodes import is_ready
from cluster.objects import ConfigMap, ConfigurationState, Lease, Node, NodeName, Service
from speaker.api.authentication import Authentication
from speaker.api.configuration import ConfigReader
from speaker.api.directory import Directory
from speaker.api.exclusions import ExcludedByName
from speaker.api.feed import PlanFeed
from speaker.api.former import FormerRecords, holders_by_name
from speaker.api.inbox import Inbox
from speaker.api.listening import Listening
from speaker.api.liveness import LivenessWatcher
from speaker.api.loop import Loop
from speaker.api.metrics import SpeakerCollector, SpeakerFigures
from speaker.api.node_look import NodeLook, NodeWatch
from speaker.api.own_lease import OwnLease
from speaker.api.own_report import OwnReport
from speaker.api.planner import Planner
from speaker.api.records import speaker_of
from speaker.api.reporter import Reporter
from speaker.api.scribe import Scribe
from speaker.api.sources import Sources, Take
from speaker.api.statistics import Statistics
from speaker.api.telling import Telling
from speaker.api.writer import Writer
from speaker.channel import (
    Brisk,
    Claims,
    ClaimsChange,
    Stats,
    ToWatcher,
    Unheard,
    WatcherEnd,
    watcher_end,
)
from speaker.link import LinkName
from speaker.options import Options
from speaker.protocol.effects import AskRecord, Decision, FormerHolder, RecordAnswer


class Watcher:
    """See the module's docstring. ``run`` returns when the announcer has gone, or after ``stop``."""

    def __init__(self, client: ApiClient, channel: WatcherEnd, options: Options) -> None:
        node, namespace = options.node, options.namespace
        self._client = client
        self._channel = channel
        self._options = options
        self._inbox = Inbox()
        self._loop = Loop(self._inbox, channel)

        self._authentication = Authentication(options.key, namespace)
        self._excluded = ExcludedByName()
        self._configuration = ConfigReader()
        self._planner = Planner(
            node,
            lb_class=options.lb_class,
            ignore_exclude=options.ignore_exclude,
            drain_cordoned=options.drain_cordoned,
            failback=options.failback,
        )
        self._feed = PlanFeed(self._planner, self._configuration)
        self._former = FormerRecords()
        self._current_at: float | None = None
        """When all that the Plan is made of was last followed."""

        self._statistics = Statistics(_boottime())
        self._writer = Writer()
        self._publisher = Scribe(client, self._writer, node, namespace, self._answer_record).publisher
        self._reporter = Reporter(self._publisher, self._planner, node, namespace, _all_interfaces)
        self._telling = Telling(self._planner, self._publisher, self._reporter, node)
        self._directory = Directory(node)
        self._lease = OwnLease()
        self._report = OwnReport(node)
        self._listening = Listening()
        self._node_watch = NodeWatch(lambda look: self._inbox.put(lambda: self._looked(look)))

        self._sources = self._follow()
        self._version_check = VersionCheck(
            client, lambda too_old: self._inbox.put(lambda: self._reporter.troubles.set_server(too_old))
        )

    def _follow(self) -> Sources:
        into = self._inbox.into
        take: dict[str, Take] = {
            "services": into(self._set_service),
            "endpointslices": into(self._planner.set_slice),
            "nodes": into(self._set_node),
            "ipaddresspools": into(self._configuration.set_pool),
            "l2advertisements": into(self._configuration.set_advertisement),
            "secrets": into(lambda _key, secret: self._authentication.set_secret(secret)),
            "configmaps": into(self._set_config_map),
            "configurationstates": into(self._set_state),
            "leases": lambda change: self._inbox.put(lambda: self._set_lease(change.old, change.new)),
            "nodeippools": into(lambda key, pool: self._report.set_pool(key, exists=pool is not None)),
            "servicel2statuses": lambda change: self._inbox.put(lambda: self._publisher.recorded(change)),
        }
        return Sources(self._client, self._options, take)

    # -------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Watch, plan and publish until the announcer ends or ``stop`` is called."""
        self._writer.start()
        self._writer.submit("cluster identity", self._learn_cluster, urgent=True)
        self._writer.submit("former holders", self._read_records, urgent=True)
        self._sources.start()
        self._version_check.start()
        threading.Thread(target=self._sources.wait_synced, args=(self._inbox.wake,), name="synced", daemon=True).start()
        try:
            self._loop.run(self._pass)
        finally:
            self._sources.stop()
            self._version_check.stop()
            self._node_watch.stop()
            self._writer.stop()
            self._channel.close()

    def stop(self) -> None:
        """End ``run``. From any thread."""
        self._loop.stop()

    def _rest(self) -> None:
        until = self._feed.rest_until(reads=self._loop.reads)
        if until is not None:
            time.sleep(max(0.0, until - time.monotonic()))

    def _pass(self) -> None:
        self._rest()
        for message in self._loop.wait(*self._deadlines()):
            self._heard(message)
        synced, recorded, listed = self._sources.synced, self._sources.recorded, self._sources.listed
        exclusion_known, pools_known = self._sources.exclusion_known, self._sources.node_pools_known
        self._inbox.take_all()  # after looking at ``synced``: whatever it covers is in the inbox by then
        now = time.monotonic()
        if synced and self._sources.current:
            self._current_at = now
        if credentials := self._authentication.take():
            self._channel.send(credentials)
        if excluded := self._excluded.take(now, known=exclusion_known):
            self._channel.send(excluded)
        if listed and self._loop.reads and (directory := self._directory.take(now)):
            self._channel.send(directory)
        self._send_plan(now, synced=synced and not self._former.awaited(now, synced=synced))
        if pools_known:
            self._report.pools_known()
        if listed and (brisk := self._report.take_wanted()) is not None:
            self._channel.send(Brisk(brisk))
            self._node_watch.want(wanted=brisk)
        self._lease.set_report(self._report.text(now), now)
        if self._configuration.config is not None:
            self._reporter.set_problems((*self._configuration.problems, *self._excluded.problems))
        if renewal := self._lease.take(now):
            self._publisher.renew(renewal)
        self._telling.advance(self._configuration.config, now, recorded=recorded)

    def _deadlines(self) -> tuple[float | None, ...]:
        return (
            self._feed.next_deadline(reads=self._loop.reads),
            None if self._feed.begun else self._former.next_deadline(),
            self._telling.next_deadline(),
            self._excluded.next_deadline(),
            self._directory.next_deadline() if self._loop.reads else None,
            self._lease.next_deadline(),
            self._report.next_deadline(),
        )

    def _send_plan(self, now: float, *, synced: bool) -> None:
        begun = self._feed.begun
        parts = self._feed.take(now, synced=synced, reads=self._loop.reads)
        if self._feed.begun:
            for former in self._former.take(self._planner):
                self._channel.send(former)
        if parts is None:
            return
        for part in parts:
            self._channel.send(part)
        self._telling.plan_sent(now)
        if not begun:
            self._reporter.troubles.all_nodes_known()
            gc.collect()
            gc.freeze()  # the caches live long: looking through them again and again would only cost

    # -------------------------------------------------------------------- what the API says

    def _set_service(self, key: str, service: Service | None) -> None:
        known = self._planner.service(key) is not None
        self._planner.set_service(key, service)
        if service is not None and not known and service.spec.load_balancer_class == self._options.lb_class:
            self._writer.crowd()  # it waits for an address, or has just got its first

    def _set_node(self, key: str, node: Node | None) -> None:
        self._planner.set_node(key, node)
        self._directory.set_node(NodeName(key), node)
        self._report.set_node(NodeName(key), exists=node is not None)
        self._reporter.troubles.set_node(
            NodeName(key), exists=node is not None, ready=node is not None and is_ready(node)
        )
        if key == self._options.node and node is not None:
            self._publisher.set_own_node(node.metadata.uid)
            self._lease.set_node(node.metadata.uid, time.monotonic())
            self._listening.set_node(node)
            self._telling.set_labels(node.metadata.labels)
            drain = drained_by(node, cordon=self._options.drain_cordoned)
            self._reporter.set_drain(drain)
            self._telling.set_drain(drain, time.monotonic())

    def _set_lease(self, before: Lease | None, lease: Lease | None) -> None:
        self._directory.set_lease(before, lease, time.monotonic())
        if lease is not None and lease.spec.holder_identity == self._options.node:
            self._listening.remember(lease)

    def _set_config_map(self, _: str, config_map: ConfigMap | None) -> None:
        self._excluded.set_config_map(config_map, time.monotonic())

    def _set_state(self, key: str, state: ConfigurationState | None) -> None:
        if (node := speaker_of(key)) is not None:
            self._reporter.troubles.set_speaker(node, exists=state is not None)
            self._directory.set_speaker(node, exists=state is not None)

    def _learn_cluster(self) -> None:
        """On the writer's thread, which repeats it until it works."""
        uid = self._client.get(NAMESPACES, None, "kube-system").metadata.uid
        self._inbox.put(lambda: self._authentication.set_cluster(uid))

    def _read_records(self) -> None:
        """On the writer's thread, which repeats it until it works. Where there are none, nobody held anything."""
        read: dict[str, FormerHolder] = {}
        with suppress(NotFound, Forbidden):
            for page in self._client.list_pages(SERVICE_L2_STATUSES, self._options.namespace):
                read.update(holders_by_name(page.items))
        self._inbox.put(lambda: self._former.tell(read))

    def _learn_of_namespace(self) -> None:
        """On the writer's thread. A speaker that is not allowed to look does not know."""
        exists = True
        try:
            self._client.get(NAMESPACES, None, self._options.namespace)
        except NotFound:
            exists = False
        except Forbidden:
            return
        self._inbox.put(lambda: self._reporter.troubles.set_namespace(exists=exists))

    def _looked(self, look: NodeLook) -> None:
        listening = self._listening.look(look.sockets, look.at, look.local_ports)
        self._report.set_own_node(listening, *look.proxy)

    # -------------------------------------------------------------------- what the announcer says

    def _heard(self, message: ToWatcher) -> None:
        self._statistics.heard(_boottime())
        now = time.monotonic()
        match message:
            case Claims() | ClaimsChange():
                for address, holding in self._telling.take_claims(message).items():
                    if holding is None:
                        self._statistics.forget(address)
            case Unheard(nodes):
                self._report.set_unheard(nodes, now)
            case Stats():
                self._statistics.add(message)
                if message.ready:
                    self._telling.announcer_ready()
                if message.links is not None:
                    spoken = {name: frozenset(message.families.get(name, Family)) for name in message.links}
                    self._telling.set_links(spoken, now)
                    self._listening.set_links(message.own)
                    if not self._authentication.missing():
                        self._lease.set_links(message.own, now)
                if self._reporter.looks_for_namespace(self._configuration.config, now):
                    self._writer.submit("namespace", self._learn_of_namespace, urgent=True)
                self._reporter.take_statistics(message, now)
            case AskRecord():
                services = (self._planner.service(key) for key in message.services)
                service = next((each.key for each in services if each and each.metadata.uid == message.bundle), None)
                if service is not None:
                    self._publisher.win(message, service, now)
            case Decision():
                self._reporter.tell(message, now)

    def _answer_record(self, answer: RecordAnswer) -> None:
        """On the writer's thread."""
        self._inbox.put(lambda: self._channel.send(answer))

    # -------------------------------------------------------------------- what is shown; from the server's threads

    def healthy(self) -> str | None:
        """Whether the announcer's loop turns. Never a matter of the API server."""
        return self._statistics.stall(_boottime())

    def ready(self) -> str | None:
        """Whether this speaker can take part; if not, all that is missing."""
        missing = [trouble.text for trouble in self._reporter.present if trouble.serious]
        missing += self._authentication.missing()
        if unsynced := self._sources.missing():
            missing.append(f"not synced: {', '.join(unsynced)}")
        stats = self._statistics.latest
        if stats is None or not stats.ready:
            missing.append("the announcer is not ready")
        return "; ".join(missing) or None

    def remarks(self) -> str | None:
        """What is wrong though this speaker can take part."""
        return "; ".join(trouble.text for trouble in self._reporter.present if not trouble.serious) or None

    def figures(self) -> SpeakerFigures:
        """For metrics."""
        return SpeakerFigures(
            node=self._options.node,
            stats=self._statistics.latest,
            traffic=self._statistics.totals(),
            claims=len(self._telling.announcements.claimed()),
            announced=tuple(self._telling.announcements.answered()),
            loop_age_s=self._statistics.loop_age(_boottime()),
            plan_revision=self._planner.revision,
            bundles=self._planner.bundles,
            plan_age_s=None if self._current_at is None else max(0.0, time.monotonic() - self._current_at),
            updates=self._inbox.taken,
            update_errors=self._sources.errors(),
            config_loaded=self._configuration.config is not None,
            config_stale=bool(self._reporter.problems),
            writes=self._writer.writes,
            write_errors=self._writer.errors,
            lag=self._writer.lag,
            watch_failures=self._sources.failures(),
            troubles=tuple(sorted({trouble.reason for trouble in self._reporter.present})),
        )


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _all_interfaces() -> frozenset[LinkName]:
    return frozenset(LinkName(name) for _, name in socket.if_nameindex())


def main(sock: socket.socket, options: Options, begun: Callable[[], object]) -> int:
    """The watcher process: everything until the announcer ends. Returns the exit code.

    ``begun`` is called once it is clear that the arguments can be worked with; where they cannot, one line says why.
    """
    try:
        client = connect(options.kubeconfig, user_agent="berthlb-speaker")
    except ClientConfigError as error:
        complain("speaker", str(error))
        return EXIT_USAGE
    watcher = (LivenessWatcher if options.liveness_only else Watcher)(client, watcher_end(sock), options)
    registry = CollectorRegistry()
    registry.register(SpeakerCollector(watcher.figures))
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
