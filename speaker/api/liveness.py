"""The watcher of a speaker that knows of nodes' lives and announces nothing (``--liveness-only``).

It reads Nodes, the speakers' Leases and the heartbeat key, and writes its own Lease alone: where it has nothing to
announce it needs no Services, and no right to read them. It tells the announcer where the other speakers are: at their
Nodes' addresses, whatever links their Leases have (``directory``). It reports whether or not there is a NodeIPPool, for
which it was installed.

Its Lease lists no links, so no speaker that announces expects to hear it, or waits for it before it claims anything.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from cluster.api.client import LEASES, NAMESPACES, NODES, SECRETS, ApiClient
from cluster.api.listwatch import Change
from cluster.api.reflector import Reflector
from cluster.components import COMPONENT_LABEL
from cluster.listing import first_few
from cluster.objects import Node, NodeName
from speaker.api.authentication import Authentication
from speaker.api.directory import Directory
from speaker.api.inbox import Inbox
from speaker.api.listening import Listening
from speaker.api.loop import Loop
from speaker.api.metrics import SpeakerFigures
from speaker.api.node_look import NodeLook, NodeWatch
from speaker.api.own_lease import OwnLease
from speaker.api.own_report import OwnReport
from speaker.api.scribe import Scribe
from speaker.api.statistics import Statistics
from speaker.api.writer import Writer
from speaker.channel import Brisk, Stats, ToWatcher, Unheard, WatcherEnd
from speaker.keys import KEY_SECRET
from speaker.options import Options


class LivenessWatcher:
    """See the module's docstring. ``run`` returns when the announcer has gone, or after ``stop``."""

    def __init__(self, client: ApiClient, channel: WatcherEnd, options: Options) -> None:
        node, namespace = options.node, options.namespace
        self._client = client
        self._channel = channel
        self._node = node
        self._inbox = Inbox()
        self._loop = Loop(self._inbox, channel)
        self._authentication = Authentication(options.key, namespace)
        self._statistics = Statistics(_boottime())
        self._writer = Writer()
        self._publisher = Scribe(client, self._writer, node, namespace).publisher
        self._directory = Directory(node, by_nodes=True)
        self._lease = OwnLease()
        self._report = OwnReport(node, always=True)
        self._listening = Listening()
        self._node_watch = NodeWatch(lambda look: self._inbox.put(lambda: self._looked(look)))
        into = self._inbox.into
        self._nodes = Reflector(client, NODES, on_change=into(self._set_node))
        labels = f"{COMPONENT_LABEL}=speaker"
        self._leases = Reflector(client, LEASES, namespace=namespace, label_selector=labels, on_change=self._set_lease)
        self._sources: list[Reflector[Any]] = [self._nodes, self._leases]
        if not options.key:
            take = into(lambda _key, secret: self._authentication.set_secret(secret))
            fields = f"metadata.name={KEY_SECRET}"
            self._sources.append(Reflector(client, SECRETS, namespace=namespace, field_selector=fields, on_change=take))

    # -------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Watch and report until the announcer ends or ``stop`` is called."""
        self._writer.start()
        self._writer.submit("cluster identity", self._learn_cluster, urgent=True)
        for source in self._sources:
            source.start()
        self._channel.send(Brisk(True))
        threading.Thread(target=self._wake_when_listed, name="synced", daemon=True).start()
        try:
            self._loop.run(self._pass)
        finally:
            for source in self._sources:
                source.stop()
            self._node_watch.stop()
            self._writer.stop()
            self._channel.close()

    def stop(self) -> None:
        """End ``run``. From any thread."""
        self._loop.stop()

    def _wake_when_listed(self) -> None:
        for source in (self._nodes, self._leases):
            source.wait_synced()
            self._inbox.wake()

    def _pass(self) -> None:
        for message in self._loop.wait(*self._deadlines()):
            self._heard(message)
        listed = self._nodes.synced and self._leases.synced
        self._inbox.take_all()  # after looking at ``listed``: whatever it covers is in the inbox by then
        now = time.monotonic()
        if credentials := self._authentication.take():
            self._channel.send(credentials)
            self._lease.set_links((), now)  # others find it from now on
        if listed and self._loop.reads and (directory := self._directory.take(now)):
            self._channel.send(directory)
        if listed and self._report.take_wanted():
            self._node_watch.want(wanted=True)
        self._lease.set_report(self._report.text(now), now)
        if renewal := self._lease.take(now):
            self._publisher.renew(renewal)

    def _deadlines(self) -> tuple[float | None, ...]:
        return (
            self._directory.next_deadline() if self._loop.reads else None,
            self._lease.next_deadline(),
            self._report.next_deadline(),
        )

    # -------------------------------------------------------------------- what the API says

    def _set_node(self, key: str, node: Node | None) -> None:
        name = NodeName(key)
        self._directory.set_node(name, node)
        self._report.set_node(name, exists=node is not None)
        if name == self._node and node is not None:
            self._lease.set_node(node.metadata.uid, time.monotonic())
            self._listening.set_node(node)

    def _set_lease(self, change: Change[Any]) -> None:
        """On the reflector's thread."""
        self._inbox.put(lambda: self._directory.set_lease(change.old, change.new, time.monotonic()))
        lease = change.new
        if lease is not None and lease.spec.holder_identity == self._node:
            self._inbox.put(lambda: self._listening.remember(lease))

    def _learn_cluster(self) -> None:
        """On the writer's thread, which repeats it until it works."""
        uid = self._client.get(NAMESPACES, None, "kube-system").metadata.uid
        self._inbox.put(lambda: self._authentication.set_cluster(uid))

    def _looked(self, look: NodeLook) -> None:
        listening = self._listening.look(look.sockets, look.at, look.local_ports)
        self._report.set_own_node(listening, *look.proxy)

    # -------------------------------------------------------------------- what the announcer says

    def _heard(self, message: ToWatcher) -> None:
        self._statistics.heard(_boottime())
        match message:
            case Unheard(nodes):
                self._report.set_unheard(nodes, time.monotonic())
            case Stats():
                self._statistics.add(message)
            case _:  # it holds nothing, and decides nothing that people have to see
                pass

    # -------------------------------------------------------------------- what is shown; from the server's threads

    def healthy(self) -> str | None:
        """Whether the announcer's loop turns. Never a matter of the API server."""
        return self._statistics.stall(_boottime())

    def ready(self) -> str | None:
        """Whether this speaker can take part; if not, all that is missing."""
        missing = self._authentication.missing()
        if unsynced := [each.with_trouble for each in self._sources[:2] if not each.synced]:
            missing.append(f"not synced: {', '.join(unsynced)}")
        stats = self._statistics.latest
        if stats is None:
            missing.append("the announcer is not ready")
        else:
            missing += [f"no socket for heartbeats: {why}" for why in stats.refused.values()]
        return "; ".join(missing) or None

    def remarks(self) -> str | None:
        """What is wrong though this speaker can take part."""
        stats = self._statistics.latest
        blocked = [node for nodes in stats.blocked.values() for node in nodes] if stats is not None else []
        return f"not heard though their Leases are renewed: {first_few(blocked)}" if blocked else None

    def figures(self) -> SpeakerFigures:
        """For metrics."""
        return SpeakerFigures(
            node=self._node,
            stats=self._statistics.latest,
            loop_age_s=self._statistics.loop_age(_boottime()),
            updates=self._inbox.taken,
            config_loaded=True,  # it reads none, so none is missing
            update_errors=sum(each.callback_errors + each.counters.undecodable for each in self._sources),
            writes=self._writer.writes,
            write_errors=self._writer.errors,
            lag=self._writer.lag,
            watch_failures={each.resource.plural: each.counters.failures for each in self._sources},
        )


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
