"""The controller as a process: one thread decides, others copy the API's objects, write, and record Events.

The deciding thread goes round, a pass at a time:

1. It gathers what the reflectors observed and what became of its requests, as ``passes`` says.
2. It hands that to ``core``, and takes from it what is to be done.
3. It hands that to the ``writers``, the ``recorder`` and the ``clearing``, and waits for none of them.

Of several replicas one decides (``elector``). The others keep their copies of the API's objects and nothing else. One
that begins to lead lists everything anew, to see no less than its predecessor wrote, and hands the copies to the core.
When it ceases to lead, all that was decided and not written is dropped.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from cluster.api.client import ApiClient
from cluster.api.listwatch import Change as Seen
from cluster.api.server_version import VersionCheck
from controller.changes import Moment
from controller.core import ChangeOutcome, Core
from controller.daemon.beginning import find_leftovers, make_key
from controller.daemon.clearing import Clearing
from controller.daemon.copies import Copies
from controller.daemon.elector import Elector, lease_name
from controller.daemon.metrics import ControllerCollector
from controller.daemon.node_copies import NodeCopies, NodeNews
from controller.daemon.recorder import Recorder
from controller.daemon.webhook import LeftWebhook
from controller.daemon.writers import WRITERS, Writers
from controller.figures import Snapshot
from controller.passes import BATCH, IDLE_S, Load, gathering, room

STUCK_S = 30.0
"""The age of the latest pass from which the deciding thread counts as stuck."""
LAST_WRITES_S = 1.0
"""What a stop waits for writes under way. If one takes longer the Lease is not released, and the next leader waits."""
LAST_EVENTS_S = 0.5
"""And then for Events that are not recorded yet."""

Message = Seen[Any] | NodeNews | ChangeOutcome | None
"""None: something else is to be looked at."""

logger = logging.getLogger("controller")


def moment() -> Moment:
    return Moment(time.monotonic(), time.time())


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
        self._client = client
        self._namespace = namespace
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._core = Core(namespace, load_balancer_class, remember_releases, random.Random())
        self._term: int | None = None
        """The term that the core decides in; None: it stands by."""
        self._term_began = 0.0
        self._awaited: tuple[int, ...] | None = None
        """Which refresh of the copies a new leader waits for; None: not asked for yet."""
        self._last_pass = time.monotonic()
        self._snapshot = Snapshot()
        self._snapshot_at = 0.0
        self._old_server = ""
        """Why the API server is too old."""

        lease = lease_name(load_balancer_class)
        self._elector = Elector(client, namespace, lease, name, lease_s=lease_s, on_change=self._wake)
        self._recorder = Recorder(client, flood=lambda: self._core.backlog > 0 or len(self._writers) > WRITERS)
        self._writers = Writers(client, self._elector, self._recorder, self._inbox.put)
        self._clearing = Clearing(client, namespace, leading=self._leads)
        self._webhook = LeftWebhook(client, namespace, leading=self._leads, changed=self._wake)
        self._version_check = VersionCheck(client, self._take_version)
        self._copies = Copies(client, namespace, self._inbox.put)
        self._node_copies = NodeCopies(client, namespace, self._inbox.put)
        registry.register(ControllerCollector(self._figures))

    # -------------------------------------------------------------------- for the probes

    def trouble(self) -> str | None:
        """Why the daemon should be restarted; None: it lives."""
        age = time.monotonic() - self._last_pass
        return f"the deciding thread has not moved for {age:.0f} s" if age > STUCK_S else None

    def not_ready(self) -> str | None:
        """What is missing at present; None: as leader every Service's address has been restored and new ones are given
        out, as standby everything is there to begin with that at once."""
        missing = [self._old_server] if self._old_server else []
        if self._copies.namespace_missing:
            missing.append(f'there is no namespace "{self._namespace}" (--namespace)')
        elif self._term is None and self._elector.trouble:
            missing.append(f"the Lease {self._elector.lease} cannot be had: {self._elector.trouble}")
        missing += self._copies.missing()
        if not missing and self._term is not None and not self._core.restored:
            missing.append("restoring addresses")
        return "; ".join(missing) or None

    # -------------------------------------------------------------------- beginning and end

    def run(self) -> None:
        self._writers.start()
        self._recorder.start()
        self._clearing.start()
        self._webhook.start()
        self._elector.attempt()  # first the Lease, then the lists: who gets it need not list twice
        self._follow_leadership()
        self._copies.start()
        self._elector.start()
        self._version_check.start()
        while not self._stopping.is_set():
            self._pass()
        self._elector.close()
        self._clearing.stop()
        self._webhook.stop()
        self._writers.stop(LAST_WRITES_S)
        self._elector.stop()
        self._recorder.stop(LAST_EVENTS_S)

    def stop(self) -> None:
        """End ``run`` soon. Safe in a signal handler."""
        self._stopping.set()
        self._wake()

    def close(self) -> None:
        """End the reflectors' threads too, where the process goes on."""
        self._version_check.stop()
        self._copies.stop()
        self._node_copies.follow(wanted=False)
        self._elector.end_watch()

    # -------------------------------------------------------------------- the deciding thread

    def _pass(self) -> None:
        received = self._gather()
        self._follow_leadership()
        for message in received:
            self._take(message)
        self._last_pass = time.monotonic()
        if self._awaited is not None and not self._core.restored:
            self._restore(self._awaited)
        self._core.set_obstacle(self._webhook.problem)
        self._decide()
        self._follow_nodes()
        self._measure()

    def _load(self) -> Load:
        return Load(
            leading_since=None if self._term is None else self._term_began,
            restored=self._core.restored,
            before_writers=len(self._writers),
            backlog=self._core.backlog,
            deadline=self._core.next_deadline(),
        )

    def _gather(self) -> list[Message]:
        how = gathering(self._load(), time.monotonic())
        if how.pause_s:
            self._stopping.wait(how.pause_s)
        received: list[Message] = []
        try:
            received.append(self._inbox.get(timeout=how.wait_s) if how.wait_s else self._inbox.get_nowait())
            while len(received) < BATCH:
                received.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return received

    def _take(self, message: Message) -> None:
        match message:
            case Seen():
                self._core.take(message, moment())
            case NodeNews() if message.turn == self._node_copies.turn:
                self._take_node_news(message)
            case ChangeOutcome() if message.term == self._term:
                self._core.take_outcome(message, moment())

    def _take_node_news(self, news: NodeNews) -> None:
        if news.seen is not None:
            self._core.take(news.seen, moment())
        else:
            self._core.nodes_read(moment())

    def _follow_nodes(self) -> None:
        """Read what only node-IP mode needs, while this process leads and there is a pool for it."""
        wanted = self._term is not None and self._core.wants_nodes
        if self._node_copies.follow(wanted=wanted) and not wanted:
            self._core.forget_nodes()

    def _decide(self) -> None:
        load, now = self._load(), moment()
        space = room(load)
        orders = self._core.decide(space, now, states_served=self._copies.states_served)
        for problem in orders.problems:
            logger.warning("not in force", extra={"problem": problem.text})
        for each in orders.astray:
            said = {"kind": each.resource.kind, "object": each.about.key}
            logger.warning("in a namespace that is not read", extra=said)
        for tell in (*orders.astray, *orders.tells):
            self._recorder.note(tell.events, tell.about, tell.resource)
        if self._term is None or space is None:
            return
        for change in orders.changes:
            self._writers.submit(self._term, change)
        if self._core.orphans_due(now.monotonic):
            self._clearing.submit(*self._core.clear(self._copies.services(), now.monotonic))

    # -------------------------------------------------------------------- leading

    def _leads(self) -> bool:
        return self._elector.term is not None

    def _wake(self) -> None:
        self._inbox.put(None)

    def _follow_leadership(self) -> None:
        """With a term everything that was decided in it ends."""
        term = self._elector.term
        if term != self._term:
            self._term, self._awaited, self._term_began = term, None, time.monotonic()
            self._core.begin_term()
        if term is not None and self._awaited is None and self._elector.quiet:
            self._awaited = self._copies.refresh()

    def _restore(self, awaited: tuple[int, ...]) -> None:
        """Begin to decide, once everything has been read that was written before this term."""
        if not self._copies.refreshed(awaited):
            return
        while not self._inbox.empty():  # what it tells is in the copies, or older
            self._inbox.get_nowait()
        self._core.restore(self._copies.everything(), moment())
        logger.info("restored", extra={"services": self._core.figures().services})
        make_key(self._client, self._namespace, self._stopping)
        find_leftovers(self._client, lambda view: self._inbox.put(Seen("added", None, view)), self._stopping)
        self._webhook.look()

    def _take_version(self, too_old: str) -> None:
        self._old_server = too_old
        if too_old:
            logger.warning("the API server is too old", extra={"advice": too_old})
        else:
            logger.info("the API server is new enough by now")

    # -------------------------------------------------------------------- what is measured

    def _measure(self) -> None:
        now = time.monotonic()
        if now - self._snapshot_at < IDLE_S / 2:
            return
        self._snapshot_at = now
        figures = self._core.figures()
        self._snapshot = replace(
            figures,
            config_loaded=self._copies.synced,
            services=figures.services if self._core.restored else len(self._copies.services()),
        )

    def _figures(self) -> Snapshot:
        return replace(
            self._snapshot,
            updates=self._writers.updates,
            update_errors=self._writers.update_errors,
            queue_length=self._inbox.qsize() + self._core.backlog + len(self._writers),
            leader=self._leads(),
            lease_transitions=self._elector.transitions,
        )
