"""One watch: the events that wait for its client, and the writing of them.

Every watch has a bounded queue of lines that are encoded once for all watches. A client that reads more slowly than
things change loses its connection when its queue is full, and has to list again. It costs a bounded amount of memory,
and never delays another client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from lab.apiserver.selection import Selection
from lab.apiserver.store import WatchEvent

BOOKMARK_EVERY_S = 60.0  # the real watch cache's frequency
BOOKMARK_BEFORE_END_S = 2.0  # and its head start before the watch's timeout


class ServedWatch:
    def __init__(self, selection: Selection, limit: int, lag_s: Callable[[], float], cut: Callable[[], None]) -> None:
        """``lag_s`` says by how much events must come late, as of now; ``cut`` breaks the connection at once."""
        self._selection = selection
        self._limit = limit
        self._lag_s = lag_s
        self._cut = cut
        self._queue: deque[tuple[float, bytes]] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    def offer(self, event: WatchEvent) -> None:
        """Take note of a change, without waiting. A full queue ends the watch."""
        line = event.line(self._selection)
        if line is None or self._closed:
            return
        if len(self._queue) >= self._limit:
            self.close()
            self._cut()
            return
        self._queue.append((asyncio.get_running_loop().time(), line))
        self._wake.set()

    def close(self) -> None:
        """End the watch in good order, what still waits unsent."""
        self._closed = True
        self._wake.set()

    def look_again(self) -> None:
        """The lag may have changed."""
        self._wake.set()

    async def write(self, response: web.StreamResponse, deadline: float, bookmark: Callable[[], bytes] | None) -> None:
        """Write what comes until the deadline (of the loop's clock), with a bookmark now and then."""
        clock = asyncio.get_running_loop().time
        next_bookmark = _bookmark_time(clock(), deadline)
        while not self._closed and (now := clock()) < deadline:
            self._wake.clear()
            lag_s, lines = self._lag_s(), list[bytes]()
            while self._queue and self._queue[0][0] <= now - lag_s:
                lines.append(self._queue.popleft()[1])
            if now >= next_bookmark:
                next_bookmark = _bookmark_time(now, deadline)
                if bookmark is not None and not self._queue:  # it must not overtake an event
                    lines.append(bookmark())
            if lines:
                await response.write(b"".join(lines))
                continue
            due = self._queue[0][0] + lag_s if self._queue else deadline
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, next_bookmark, due)):
                    await self._wake.wait()


def _bookmark_time(now: float, deadline: float) -> float:
    regular, last = now + BOOKMARK_EVERY_S, deadline - BOOKMARK_BEFORE_END_S
    return last if now < last < regular else regular
