"""Deletes the ServiceL2Status objects that belong to nobody: the shell of ``orphans``, in a thread of its own.

Nothing waits for it. An object that was changed since it was looked at is left alone; a speaker may have taken it over.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from cluster.api.client import ApiClient
from cluster.api.errors import ApiError, Conflict, NotFound
from cluster.l2status import NODE_LABEL
from cluster.resources import SERVICE_L2_STATUSES
from controller.orphans import Census, Clear, Sweep, Task
from controller.retry import retry_delay

ATTEMPTS = 6
"""After so many failures in a row a task is given up: at the next term everything is looked at anew."""

logger = logging.getLogger("controller")


PAUSE_S = 0.2
"""Seconds between two tasks: nobody waits for what is cleared, and others want the API server."""


class Clearing:
    """``start`` once. ``leading`` says whether it is still for this process to clear anything."""

    def __init__(self, client: ApiClient, namespace: str, leading: Callable[[], bool]) -> None:
        self._client = client
        self._namespace = namespace
        self._leading = leading
        self._rng = random.Random()
        self._tasks: queue.SimpleQueue[tuple[Task, Census]] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="clearing", daemon=True).start()

    def stop(self) -> None:
        """Do nothing more. Does not wait."""
        self._stopping.set()

    def submit(self, tasks: Sequence[Task], census: Census) -> None:
        """Have these done. From any thread; returns at once."""
        for task in tasks:
            self._tasks.put((task, census))

    def _run(self) -> None:
        while True:
            task, census = self._tasks.get()
            for attempt in range(1, ATTEMPTS + 1):
                if self._stopping.is_set() or not self._leading():
                    break
                try:
                    self._do(task, census)
                except NotFound:  # a server that does not have this kind
                    break
                except ApiError as error:
                    logger.warning("orphans not cleared", extra={"task": str(task), "error": str(error)})
                    self._stopping.wait(retry_delay(attempt, error.retry_after or 0.0, self._rng))
                else:
                    break
            self._stopping.wait(PAUSE_S)

    def _do(self, task: Task, census: Census) -> None:
        if isinstance(task, Clear):
            self._client.delete(SERVICE_L2_STATUSES, self._namespace, task.name)
            self._say(task.name)
        else:
            self._sweep(task, census)

    def _sweep(self, sweep: Sweep, census: Census) -> None:
        selector = f"{NODE_LABEL}={sweep.node}" if sweep.node is not None else None
        for page in self._client.list_pages(SERVICE_L2_STATUSES, self._namespace, label_selector=selector):
            for status in page.items:
                if self._stopping.is_set() or not self._leading():
                    return
                if census.belongs_to_nobody(status):
                    meta = status.metadata
                    with suppress(NotFound, Conflict):
                        self._client.delete(
                            SERVICE_L2_STATUSES,
                            self._namespace,
                            meta.name,
                            uid=meta.uid,
                            resource_version=meta.resource_version,
                        )
                        self._say(meta.name)

    def _say(self, name: str) -> None:
        logger.info("cleared: it belongs to nobody", extra={"kind": "ServiceL2Status", "object": name})
