"""The threads that write: each takes the next request, makes it, and tells what became of it.

Of one Service (or pool) at most one request is under way at a time, ``core`` sees to that. So the threads share one
queue, and a slow write keeps no other waiting. Every write passes the elector's gate: what was decided in a term that
is over is dropped, and nobody is told.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cluster.api.client import ApiClient
from cluster.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from cluster.resources import SERVICES
from controller.changes import Change, Deletion, Read, Write
from controller.core import ChangeOutcome
from controller.daemon.elector import Elector, NotLeadingError
from controller.daemon.recorder import Recorder

WRITERS = 8
"""Requests under way at a time. An API server answers a write in a few milliseconds, most of it waiting for etcd."""

logger = logging.getLogger("controller")


class Writers:
    """See the module's docstring. ``start`` once, ``stop`` once."""

    def __init__(
        self, client: ApiClient, elector: Elector, recorder: Recorder, tell: Callable[[ChangeOutcome], object]
    ) -> None:
        """``tell`` is called from the threads."""
        self.updates = 0
        """Writes of Services that the API took …"""
        self.update_errors = 0
        """… and that failed."""
        self._client = client
        self._elector = elector
        self._recorder = recorder
        self._tell = tell
        self._queue: queue.SimpleQueue[tuple[int, Change] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=f"write-{n}", daemon=True) for n in range(WRITERS)]

    def __len__(self) -> int:
        """How many requests none of the threads has begun."""
        return self._queue.qsize()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, term: int, change: Change) -> None:
        """Have it made, if the term in which it was decided lasts. Returns at once."""
        self._queue.put((term, change))

    def stop(self, limit_s: float) -> None:
        """Begin nothing more, and wait for what is under way, ``limit_s`` seconds at most."""
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        give_up = time.monotonic() + limit_s
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._stopping.is_set():
                return
            with suppress(NotLeadingError):  # what was decided goes with its term
                self._tell(self._carry_out(*item))

    def _carry_out(self, term: int, change: Change) -> ChangeOutcome:
        try:
            if isinstance(change, Read):
                return ChangeOutcome(term, change, self._look(change))
            try:
                with self._elector.writing(term) as limit_s:
                    view = self._make(change, limit_s)
            except (Conflict, AlreadyExists):
                return ChangeOutcome(term, change, self._look(change), made=False)
            except NotFound:
                if isinstance(change, Write) and change.create:
                    raise
                return ChangeOutcome(term, change, None)
        except ApiError as error:
            self.update_errors += change.resource is SERVICES
            logger.warning("write failed", extra={"object": change.key, "error": str(error)})
            return ChangeOutcome(term, change, failure=error)
        self.updates += change.resource is SERVICES
        logger.info(change.decision, extra={"kind": change.resource.kind, "object": change.key})
        if isinstance(change, Write) and change.about is not None:
            self._recorder.note(change.events, change.about)
        return ChangeOutcome(term, change, view)

    def _make(self, change: Write | Deletion, limit_s: float) -> Any:
        """The object as it is now; None: it is deleted, or will be once its finalizers are gone."""
        namespace, resource = change.namespace, change.resource
        if isinstance(change, Deletion):
            seen = change.resource_version
            self._client.delete(
                resource, namespace, change.name, uid=change.uid, resource_version=seen, limit_s=limit_s
            )
            return None
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
