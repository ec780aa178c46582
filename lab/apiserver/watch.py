"""One watch: the events that wait for its client, and the task that writes them.

Every watcher has its own bounded queue of lines that are encoded once for all. A client that reads more slowly than
things change, until its queue is full, loses its watch and has to list again: it costs a bounded amount of memory, and
never delays anybody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import web

from lab.apiserver.selection import Selection
from lab.apiserver.store import Event

BOOKMARK_EVERY_S = 60.0  # the real watch cache's frequency
BOOKMARK_BEFORE_END_S = 2.0  # and its head start before the watch's timeout


class Watcher:
    def __init__(self, selection: Selection, limit: int, lag: Callable[[], float]) -> None:
        self._selection = selection
        self._limit = limit
        self._lag = lag
        self._queue: deque[tuple[float, bytes]] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    def offer(self, event: Event) -> None:
        """Take note of a change, without waiting. A full queue ends the watch."""
        line = event.line(self._selection)
        if line is None or self._closed:
            return
        if len(self._queue) >= self._limit:
            self.close()
            return
        self._queue.append((asyncio.get_running_loop().time(), line))
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def poke(self) -> None:
        """The lag may have changed: look again what is due."""
        self._wake.set()

    async def write(self, response: web.StreamResponse, deadline: float, bookmark: Callable[[], bytes] | None) -> None:
        """Write what comes until the deadline (of the loop's clock), with a bookmark now and then."""
        loop = asyncio.get_running_loop()
        next_bookmark = self._bookmark_time(loop.time(), deadline)
        while not self._closed and (now := loop.time()) < deadline:
            self._wake.clear()
            due_before, lines = now - self._lag(), list[bytes]()
            while self._queue and self._queue[0][0] <= due_before:
                lines.append(self._queue.popleft()[1])
            if bookmark is not None and now >= next_bookmark:
                if not self._queue:  # a bookmark must not overtake an event
                    lines.append(bookmark())
                next_bookmark = self._bookmark_time(now, deadline)
            if lines:
                await response.write(b"".join(lines))
                continue
            wait_until = min(deadline, next_bookmark)
            if self._queue:
                wait_until = min(wait_until, self._queue[0][0] + self._lag())
            try:
                async with asyncio.timeout_at(wait_until):
                    await self._wake.wait()
            except TimeoutError:
                pass  # something is due

    @staticmethod
    def _bookmark_time(now: float, deadline: float) -> float:
        regular, last = now + BOOKMARK_EVERY_S, deadline - BOOKMARK_BEFORE_END_S
        return last if now < last < regular else regular
