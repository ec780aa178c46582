"""A controller that decides everything and writes nothing (``--observe``): the shell of ``observation``.

1. It reads what a controller reads.
2. It looks at all of it again when something has changed. A look costs what a controller's start costs; so there is a
   pause between two, ``REST`` times as long as the look took.
3. It takes no Lease. It keeps no controller from anything, and several observers do no harm.

Nothing can be written from here: the client refuses to send anything but a question (``connect``), and this module has
no code that would ask it to.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from prometheus_client import CollectorRegistry

from cluster.api.client import ApiClient
from cluster.api.reflector import Change, Reflector
from cluster.daemon.observing import DifferencesCollector, tell
from cluster.differences import Differences
from cluster.resources import (
    IP_ADDRESS_POOLS,
    L2_ADVERTISEMENTS,
    NAMESPACES,
    NODE_IP_POOLS,
    NODES,
    SERVICE_CIDRS,
    SERVICES,
)
from controller.changes import Moment
from controller.daemon.metrics import ControllerCollector
from controller.daemon.node_copies import NodeCopies, NodeNews
from controller.figures import Snapshot
from controller.observation import KINDS, observe

PAUSE_S = 2.0
"""Between two looks, at least."""
REST = 50
"""And for so many times as long as a look took, so that all looks cost two percent of a core at most."""
PATIENCE_S = 5.0
"""For which a difference must last: the other controller answers a new Service in less."""
IDLE_S = 1.0
STUCK_S = 60.0
"""The age of the thread's latest pass from which it counts as stuck. A look at 10,000 Services takes some seconds."""

logger = logging.getLogger("controller")


class ControllerObserver:
    """See the module's docstring. ``run`` blocks until ``stop`` is called, from another thread."""

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        load_balancer_class: str | None,
        registry: CollectorRegistry,
        *,
        remember_releases: int,
    ) -> None:
        self._namespace = namespace
        self._class = load_balancer_class
        self._remember_releases = remember_releases
        self._changed = threading.Event()
        self._changed.set()
        self._stopping = threading.Event()
        self._last_pass = time.monotonic()
        self._looked = False
        self._next_look = 0.0
        self._differences = Differences(KINDS, PATIENCE_S)
        self._snapshot = Snapshot()

        def changed(_: Change[Any] | NodeNews) -> None:
            self._changed.set()

        self._node_pools = Reflector(client, NODE_IP_POOLS, namespace=namespace, optional=True, on_change=changed)
        self._node_copies = NodeCopies(client, namespace, changed)
        self._reflectors: Final[tuple[Reflector[Any], ...]] = (
            Reflector(client, SERVICES, field_selector="spec.type=LoadBalancer", on_change=changed),
            Reflector(client, IP_ADDRESS_POOLS, namespace=namespace, on_change=changed),
            self._node_pools,
            Reflector(client, L2_ADVERTISEMENTS, namespace=namespace, optional=True, on_change=changed),
            Reflector(client, NAMESPACES, on_change=changed),
            Reflector(client, NODES, on_change=changed),
            Reflector(client, SERVICE_CIDRS, optional=True, on_change=changed),
        )
        registry.register(ControllerCollector(lambda: self._snapshot))
        registry.register(DifferencesCollector(self._differences.counts))

    # -------------------------------------------------------------------- for the probes

    def trouble(self) -> str | None:
        """Why it should be restarted; None: it lives."""
        age = time.monotonic() - self._last_pass
        return f"the observing thread has not moved for {age:.0f} s" if age > STUCK_S else None

    def not_ready(self) -> str | None:
        """What is missing at present; None: everything was looked at, and changes are noticed."""
        if unlisted := [each.with_trouble for each in self._reflectors if not each.synced]:
            return f"waiting for the first list of {', '.join(unlisted)}"
        if deaf := [each.with_trouble for each in self._reflectors if each.trouble]:
            return f"no news of {', '.join(deaf)}"
        return None if self._looked else "looking for the first time"

    # -------------------------------------------------------------------- the thread

    def run(self) -> None:
        for reflector in self._reflectors:
            reflector.start()
        logger.info("observing", extra={"writes": "nothing"})
        while not self._stopping.is_set():
            self._last_pass = time.monotonic()
            self._node_copies.follow(wanted=bool(self._node_pools.items()))
            if all(each.synced for each in self._reflectors) and self._last_pass >= self._next_look:
                if self._changed.is_set():
                    self._changed.clear()  # before looking: what comes meanwhile is another reason
                    self._look()
                tell(self._differences.take_news(time.monotonic()))
            self._stopping.wait(self._pause(time.monotonic()))

    def stop(self) -> None:
        """End ``run`` soon."""
        self._stopping.set()

    def close(self) -> None:
        """End the reflectors' threads too, where the process goes on."""
        for reflector in self._reflectors:
            reflector.stop()
        self._node_copies.follow(wanted=False)

    def _pause(self, now: float) -> float:
        return IDLE_S if self._looked else min(IDLE_S, max(0.05, self._next_look - now))

    def _look(self) -> None:
        began, clock = time.monotonic(), time.thread_time()
        nodes_read = self._node_copies.read
        seen = chain.from_iterable(list(each.items().values()) for each in self._reflectors)
        everything = chain(seen, self._node_copies.everything())
        moment = Moment(began, time.time())
        observation = observe(
            everything, self._namespace, self._class, self._remember_releases, moment, nodes_read=nodes_read
        )
        self._differences.set_all(observation.differences, time.monotonic())
        self._snapshot = replace(observation.figures, config_loaded=True, refusals={})  # nobody is refused
        if not self._looked:
            logger.info("looked", extra={"services": self._snapshot.services})
        self._looked = True
        self._next_look = time.monotonic() + max(PAUSE_S, REST * (time.thread_time() - clock))
