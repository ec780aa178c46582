"""Writes to the API, one after the other, on a thread of their own: nobody who decides ever waits for the API.

A write has a key; one that is submitted again while it waits is done once, as the later one. A write that fails is
repeated with growing, jittered pauses, for ever (a state that must be right in the end) or a few times (an Event, which
is news). The queue of the latter is bounded. While the API cannot be reached, or says that it is busy, the whole queue
pauses: ten thousand states must not ask ten thousand times whether it is back.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.errors import ApiError, ServerError, Throttled, Unreachable

RETRY_FIRST_S = 0.2
RETRY_LAST_S = 30.0
NEWS_ATTEMPTS = 6  # about 6 s of trying; later the news is old
MAX_NEWS = 10_000  # waiting Events; each costs about half a kilobyte

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Task:
    write: Callable[[], object]
    due: float
    news: bool
    attempts: int = 0


class Backlog:
    """What is to be written, and when. Time in monotonic seconds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._tasks: dict[str, _Task] = {}
        self._order: list[tuple[float, str]] = []
        self._news = 0
        self._troubles = 0  # failures in a row that say something about the API, not about what was written
        self._paused_until = float("-inf")
        self.dropped = 0
        """News given up, because too much waited or the API refused it to the last."""

    def __len__(self) -> int:
        return len(self._tasks)

    def put(self, key: str, write: Callable[[], object], due: float, *, news: bool = False) -> None:
        waiting = self._tasks.get(key)
        if waiting:
            waiting.write = write
            waiting.due = min(waiting.due, due)
        else:
            if news and self._news >= MAX_NEWS:
                self.dropped += 1
                return
            self._news += news
            waiting = self._tasks[key] = _Task(write, due, news)
        heapq.heappush(self._order, (waiting.due, key))

    def next_due(self) -> float | None:
        """When there is something to do; None: nothing waits."""
        while self._order:
            due, key = self._order[0]
            task = self._tasks.get(key)
            if task is not None and task.due == due:
                return max(due, self._paused_until)
            heapq.heappop(self._order)  # done meanwhile, or moved
        return None

    def take(self, now: float) -> tuple[str, _Task] | None:
        """The task that has been due longest; it is not waiting any more."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, key = heapq.heappop(self._order)
        task = self._tasks.pop(key)
        self._news -= task.news
        return key, task

    def worked(self) -> None:
        """A task that was taken is done."""
        self._troubles = 0

    def failed(self, key: str, task: _Task, error: ApiError, now: float) -> None:
        """A task that was taken did not work: it waits again, unless it was submitted anew or is old news."""
        if isinstance(error, Unreachable | ServerError | Throttled):
            self._troubles += 1
            self._paused_until = now + self._pause(self._troubles, error)
        task.attempts += 1
        if key in self._tasks:
            return
        if task.news and task.attempts >= NEWS_ATTEMPTS:
            self.dropped += 1
            return
        task.due = now + self._pause(task.attempts, error)
        self._tasks[key] = task
        self._news += task.news
        heapq.heappush(self._order, (task.due, key))

    def _pause(self, failures: int, error: ApiError) -> float:
        """Seconds to wait after so many failures in a row."""
        growing = min(RETRY_LAST_S, RETRY_FIRST_S * 2.0 ** min(failures - 1, 16))
        return max(growing * self._rng.uniform(0.75, 1.25), error.retry_after or 0.0)


class Writer:
    """The thread. ``start`` once, ``stop`` once."""

    def __init__(self) -> None:
        self._backlog = Backlog(random.Random())
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

    def submit(self, key: str, write: Callable[[], object], *, delay: float = 0.0, news: bool = False) -> None:
        """Have ``write`` called on the writer's thread, after ``delay`` seconds. Returns at once."""
        with self._changed:
            self._backlog.put(key, write, time.monotonic() + delay, news=news)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        return len(self._backlog)

    @property
    def dropped(self) -> int:
        return self._backlog.dropped

    def _run(self) -> None:
        while taken := self._next():
            key, task = taken
            try:
                task.write()
            except ApiError as error:
                self.errors += 1
                logger.warning("write failed", extra={"write": key, "error": str(error), "attempts": task.attempts + 1})
                with self._changed:
                    self._backlog.failed(key, task, error, time.monotonic())
            except Exception:  # a defect in one write must not end the others
                self.errors += 1
                logger.exception("write failed", extra={"write": key})
            else:
                self.writes += 1
                with self._changed:
                    self._backlog.worked()

    def _next(self) -> tuple[str, _Task] | None:
        """Wait for the next task that is due; None when stopped."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                if taken := self._backlog.take(now):
                    return taken
                due = self._backlog.next_due()
                self._changed.wait(None if due is None else max(0.0, due - now))
            return None
