"""The shell of ``backlog``: the thread that writes to the API, one write after the other.

Nobody who decides waits for the API: ``submit`` returns at once, and the thread makes the write when the backlog gives
it. What a write raises is logged once, twice, four times and so on: what fails for ever is said, and fills no log.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from cluster.api.errors import ApiError
from speaker.api.backlog import Backlog, Lag, Task

logger = logging.getLogger(__name__)


class Writer:
    """The thread. ``start`` once, ``stop`` once."""

    def __init__(self) -> None:
        self._backlog = Backlog(random.Random(), time.monotonic())
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.writes = 0
        self.errors = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Write nothing more. A request under way ends by itself."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def submit(
        self,
        key: str,
        write: Callable[[], object],
        *,
        delay: float = 0.0,
        news: bool = False,
        urgent: bool = False,
    ) -> bool:
        """Have ``write`` called on the writer's thread, after ``delay`` seconds at the earliest. Returns at once.
        False: it is news, and there is too much of it already."""
        with self._changed:
            taken = self._backlog.put(key, write, time.monotonic() + delay, news=news, urgent=urgent)
            self._changed.notify()
        return taken

    def withdraw(self, key: str) -> None:
        """As ``Backlog.withdraw``. What is being written is."""
        with self._changed:
            self._backlog.withdraw(key)

    def crowd(self) -> None:
        """Others need the API server more just now; see ``Pace.crowd``."""
        with self._changed:
            self._backlog.pace.crowd(time.monotonic())

    @property
    def lag(self) -> Lag:
        with self._changed:
            return self._backlog.lag(time.monotonic())

    def _run(self) -> None:
        while taken := self._next():
            key, task = taken
            began = time.monotonic()
            try:
                task.write()
            except ApiError as error:
                self.errors += 1
                attempts = task.attempts + 1
                if attempts.bit_count() == 1:  # once, twice, four times …
                    logger.warning("write failed", extra={"write": key, "error": str(error), "attempts": attempts})
                with self._changed:
                    self._backlog.failed(key, task, error, began, time.monotonic())
            except Exception:  # a defect in one write must not end the others
                self.errors += 1
                logger.exception("write failed", extra={"write": key})
            else:
                self.writes += 1
                with self._changed:
                    self._backlog.worked(task, began, time.monotonic())

    def _next(self) -> tuple[str, Task] | None:
        """Wait for the next task that is to be done; None when stopped."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                if taken := self._backlog.take(now):
                    return taken
                due = self._backlog.next_due(now)
                self._changed.wait(None if due is None else max(0.0, due - now))
            return None
