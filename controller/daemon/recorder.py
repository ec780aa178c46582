"""Records Events, in a thread of its own, behind the writes that they tell of.

Events are news and not state: what they say stands in the Service's condition too, and stays. So an Event that cannot
be recorded is not tried again. When more than ``LIMIT`` wait, the latest are dropped. Both are logged.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster.api.client import ApiClient
from cluster.api.errors import ApiError
from cluster.objects import ObjectMeta
from cluster.resources import EVENTS, SERVICES, Resource
from controller.changes import EventNote, Moment, event_body

PATIENCE_S = 1.0
"""For which an Event waits in a flood of writes: addresses come before the news of them; but news comes, too."""
LIMIT = 20_000
"""Events waiting to be recorded at most."""
LOOK_S = 0.05
"""Between two looks whether the flood is over."""

logger = logging.getLogger("controller")


class Recorder:
    """See the module's docstring. ``start`` once, ``stop`` once. ``flood`` says whether writes are to be made that
    should come first."""

    def __init__(self, client: ApiClient, flood: Callable[[], bool]) -> None:
        self._client = client
        self._flood = flood
        self._waiting: queue.SimpleQueue[tuple[EventNote, ObjectMeta, Resource[Any]] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, limit_s: float) -> None:
        """End, once all that waits is recorded, or after ``limit_s`` seconds."""
        self._stopping.set()
        self._waiting.put(None)
        self._thread.join(limit_s)

    def note(self, notes: Sequence[EventNote], about: ObjectMeta, resource: Resource[Any] = SERVICES) -> None:
        """Have these recorded, about that object. From any thread; returns at once."""
        for note in notes:
            if self._waiting.qsize() < LIMIT:
                self._waiting.put((note, about, resource))
            else:
                logger.warning("Event dropped", extra={"object": about.key, "reason": note.reason})

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            note, about, resource = item
            self._let_writes_pass()
            name = f"{about.name}.{secrets.token_hex(8)}"
            body = event_body(note, about, name, Moment(time.monotonic(), time.time()), resource)
            try:
                self._client.create(EVENTS, about.namespace, body)
            except ApiError as error:
                logger.warning("Event not recorded", extra={"object": about.key, "error": str(error)})

    def _let_writes_pass(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while self._flood() and time.monotonic() < until and not self._stopping.is_set():
            self._stopping.wait(LOOK_S)
