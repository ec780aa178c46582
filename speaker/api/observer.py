"""A speaker that observes (``--observe``): it reads the API, decides what would be announced, and stays silent.

Reflectors put changes into an inbox. One loop takes them out, has the ``Planner`` decide, and compares (``comparison``)
the Services that the change touched.

There is one process, and no announcer: hence no socket on any interface, nothing that could make a frame, and nothing
that writes. This module imports nothing that sends, and a contract of the import linter keeps it so. The client refuses
every request that would change something (``connect``).

Pools and advertisements that were deleted stay in force for a moment, as they do for a speaker that announces.
"""

from __future__ import annotations

import logging
import select
import threading
import time

from prometheus_client import CollectorRegistry, ProcessCollector

from cluster.api.client import ApiClient, ClientConfigError, connect
from cluster.daemon.build import this_build
from cluster.daemon.command_line import EXIT_USAGE, complain
from cluster.daemon.ending import when_told_to_end
from cluster.daemon.http_status import CannotListenError, StatusServer
from cluster.daemon.observing import DifferencesCollector, tell
from cluster.differences import Differences
from cluster.objects import ServiceL2Status
from speaker.api.comparison import KINDS, Comparison
from speaker.api.configuration import ConfigReader
from speaker.api.inbox import Inbox
from speaker.api.planner import Planner
from speaker.api.sources import Sources, Take
from speaker.options import Options

PATIENCE_S = 15.0
"""For which a difference must last. Announcers notice a dead node within seconds, and tell the API of it later."""
IDLE_S = 1.0
"""The longest sleep of the loop, so that its age tells whether it lives."""
STUCK_S = 30.0

logger = logging.getLogger("speaker")


class SilentSpeaker:
    """See the module's docstring. ``run`` blocks until ``stop`` is called, from another thread."""

    def __init__(self, client: ApiClient, options: Options, registry: CollectorRegistry) -> None:
        self._inbox = Inbox()
        self._stopping = threading.Event()
        self._planner = Planner(
            options.node,
            lb_class=options.lb_class,
            ignore_exclude=options.ignore_exclude,
            drain_cordoned=options.drain_cordoned,
            failback=options.failback,
        )
        self._comparison = Comparison(self._planner, options.node)
        self._differences = Differences(KINDS, PATIENCE_S)
        self._configuration = ConfigReader()
        self._looked = False
        self._last_turn = time.monotonic()
        self._touched: set[str] = set()

        into = self._inbox.into
        take: dict[str, Take] = {
            "services": into(self._planner.set_service),
            "endpointslices": into(self._planner.set_slice),
            "nodes": into(self._planner.set_node),
            "ipaddresspools": into(self._configuration.set_pool),
            "l2advertisements": into(self._configuration.set_advertisement),
            "servicel2statuses": into(self._set_record),
        }
        self._sources = Sources(client, options, take)
        registry.register(DifferencesCollector(self._differences.counts))

    # -------------------------------------------------------------------- for the probes

    def trouble(self) -> str | None:
        """Why it should be restarted; None: it lives."""
        age = time.monotonic() - self._last_turn
        return f"the loop has not turned for {age:.0f} s" if age > STUCK_S else None

    def not_ready(self) -> str | None:
        """What is missing at present; None: everything was compared, and changes are noticed."""
        missing = self._sources.missing()
        if missing or not self._sources.recorded:
            return f"not synced: {', '.join(missing) or 'servicel2statuses'}"
        return None if self._looked else "comparing for the first time"

    def remarks(self) -> str | None:
        """What is wrong with the configuration."""
        return "; ".join(problem.text for problem in self._configuration.problems) or None

    # -------------------------------------------------------------------- the loop

    def run(self) -> None:
        self._sources.start()
        logger.info("observing", extra={"sends": "nothing"})
        while not self._stopping.is_set():
            synced = self._sources.synced and self._sources.recorded
            self._take_inbox()  # after looking at ``synced``: whatever it covers is in the inbox by then
            self._last_turn = time.monotonic()
            if synced:
                self._compare(self._last_turn)
        self._sources.stop()

    def stop(self) -> None:
        """End ``run`` soon."""
        self._stopping.set()
        self._inbox.wake()

    def _take_inbox(self) -> None:
        if select.select([self._inbox], [], [], IDLE_S)[0]:
            self._inbox.awake()
            self._inbox.take_all()

    def _compare(self, now: float) -> None:
        self._planner.set_config(self._configuration.read(now))
        if self._planner.pending:
            self._planner.take_change()
            self._touched.update(self._planner.reconsidered)
        touched, self._touched = self._touched, set()
        for service in touched:
            self._differences.set(service, self._comparison.compare(service), now)
        tell(self._differences.take_news(now))
        if not self._looked:
            self._looked = True
            logger.info("compared", extra={"bundles": self._planner.bundles})

    # -------------------------------------------------------------------- what the API says

    def _set_record(self, key: str, record: ServiceL2Status | None) -> None:
        self._touched.update(self._comparison.set_record(key, record))


def main(options: Options) -> int:
    """The whole process, until SIGTERM or SIGINT. Returns the exit code."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    try:
        client = connect(options.kubeconfig, user_agent="berthlb-speaker", read_only=True)
        observer = SilentSpeaker(client, options, registry)
        server = StatusServer(options.listen, registry, observer.trouble, observer.not_ready, observer.remarks)
    except (ClientConfigError, CannotListenError) as error:
        complain("speaker", str(error))
        return EXIT_USAGE
    logger.info("starting", extra=this_build()._asdict())
    when_told_to_end(observer.stop)
    server.start()
    observer.run()
    logger.info("stopped")
    return 0
