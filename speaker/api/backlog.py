"""Which write to the API is made next, and when it is made again.

``Backlog`` keeps what is to be written. A write has a key; one that is put again while it waits is made once, as the
later one. ``take`` gives what is to be written now:

1. What is urgent (a Warning, the state of the configuration) comes first, at its time.
2. All the rest can become thousands of writes at a time, and comes as the ``Pace`` allows, the longest waiting first.
3. A write that failed waits again, for a time that grows and is jittered: for ever, as a state must be right in the
   end, or ``NEWS_ATTEMPTS`` times, as an Event is news.
4. While the API cannot be reached, or says that it is busy, everything waits: ten thousand states must not ask ten
   thousand times whether it is back.

News that waits is bounded by ``MAX_NEWS``; states are bounded by what exists. Times are monotonic seconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cluster.api.errors import ApiError, ServerError, Throttled, Unreachable
from cluster.times import LONG_AGO, doubled
from speaker.api.pace import Pace

RETRY_FIRST_S = 0.2
RETRY_LAST_S = 30.0
NEWS_ATTEMPTS = 6  # about 6 s of trying; later the news is old
MAX_NEWS = 1000  # waiting Events: more would be read by nobody, and the last would come a minute late


class Lag(NamedTuple):
    """Writes that wait, beyond the delay that they were given."""

    writes: int = 0
    oldest_s: float = 0.0
    """Age of the one that waits longest."""


@dataclass(slots=True)
class Task:
    """A write that is to be made."""

    write: Callable[[], object]
    due: float
    since: float
    """When it was first due."""
    news: bool
    urgent: bool
    attempts: int = 0


class Backlog:
    """What is to be written, and when. Time in monotonic seconds."""

    def __init__(self, rng: random.Random, now: float) -> None:
        self.pace = Pace(now)
        self.dropped = 0
        """News not taken, because too much waited, or given up, because the API refused it to the last."""
        self._rng = rng
        self._tasks: dict[str, Task] = {}
        self._urgent: list[tuple[float, str]] = []
        self._spread: list[tuple[float, str]] = []
        self._news = {True: 0, False: 0}
        """How much of it waits, that is urgent or not."""
        self._troubles = 0  # failures in a row that say something about the API, not about what was written
        self._paused_until = LONG_AGO

    def __len__(self) -> int:
        return len(self._tasks)

    def put(
        self, key: str, write: Callable[[], object], due: float, *, news: bool = False, urgent: bool = False
    ) -> bool:
        """Have a write made at ``due`` or later. False: it is news, and there is too much of it already."""
        waiting = self._tasks.get(key)
        if waiting is None:
            if news and self._news[urgent] >= MAX_NEWS:
                self.dropped += 1
                return False
            waiting = Task(write, due, due, news, urgent)
            self._add(key, waiting)
            return True
        waiting.write = write
        if due < waiting.due:
            waiting.due, waiting.since = due, min(due, waiting.since)
            heapq.heappush(self._order_of(waiting), (due, key))
        return True

    def withdraw(self, key: str) -> None:
        """Make the write no more, if it still waits."""
        if (task := self._tasks.pop(key, None)) is not None:
            self._news[task.urgent] -= task.news

    def next_due(self, now: float) -> float | None:
        """When there is something to do; None: nothing waits."""
        urgent, spread = self._first_due(self._urgent), self._first_due(self._spread)
        if spread is not None:
            spread = max(spread, self.pace.next_at(spread, now))
        moments = [each for each in (urgent, spread) if each is not None]
        return max(min(moments), self._paused_until) if moments else None

    def take(self, now: float) -> tuple[str, Task] | None:
        """What is to be written now, urgent things first and then what has been due longest; it waits no more."""
        if now < self._paused_until:
            return None
        due, order = self._first_due(self._urgent), self._urgent
        if due is None or due > now:
            due, order = self._first_due(self._spread), self._spread
            if due is None or max(due, self.pace.next_at(due, now)) > now:
                return None
        _, key = heapq.heappop(order)
        task = self._tasks.pop(key)
        self._news[task.urgent] -= task.news
        return key, task

    def worked(self, task: Task, began: float, ended: float) -> None:
        """A task that was taken is done."""
        self._troubles = 0
        if not task.urgent:
            self.pace.wrote(began, ended)

    def failed(self, key: str, task: Task, error: ApiError, began: float, ended: float) -> None:
        """A task that was taken did not work: it waits again, unless it was submitted anew or is old news."""
        if not task.urgent:
            self.pace.wrote(began, ended)
        if isinstance(error, Unreachable | ServerError | Throttled):
            self._troubles += 1
            self._paused_until = ended + self._pause(self._troubles, error)
        task.attempts += 1
        if key in self._tasks:
            return
        if task.news and task.attempts >= NEWS_ATTEMPTS:
            self.dropped += 1
            return
        task.due = ended + self._pause(task.attempts, error)
        self._add(key, task)

    def lag(self, now: float) -> Lag:
        """What waits although its time has come."""
        ages = [now - task.since for task in self._tasks.values() if task.since <= now]
        return Lag(len(ages), max(ages, default=0.0))

    def _add(self, key: str, task: Task) -> None:
        self._tasks[key] = task
        self._news[task.urgent] += task.news
        heapq.heappush(self._order_of(task), (task.due, key))

    def _order_of(self, task: Task) -> list[tuple[float, str]]:
        return self._urgent if task.urgent else self._spread

    def _first_due(self, order: list[tuple[float, str]]) -> float | None:
        while order:
            due, key = order[0]
            task = self._tasks.get(key)
            if task is not None and task.due == due and self._order_of(task) is order:
                return due
            heapq.heappop(order)  # done or withdrawn meanwhile, or moved
        return None

    def _pause(self, failures: int, error: ApiError) -> float:
        """Seconds to wait after so many failures in a row."""
        growing = doubled(RETRY_FIRST_S, failures - 1, RETRY_LAST_S)
        return max(growing * self._rng.uniform(0.75, 1.25), error.retry_after or 0.0)
