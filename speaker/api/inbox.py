"""Calls that other threads have a loop make, and what wakes the loop up: the watcher's, and a silent speaker's."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from typing import Any

from cluster.api.listwatch import Change


class Inbox:
    """``fileno`` is readable when ``take_all`` has something to do. Any thread may ``put``; the loop takes."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.taken = 0
        """Calls made so far."""

    def fileno(self) -> int:
        return self._wake

    def put(self, call: Callable[[], object]) -> None:
        """Have the loop make a call."""
        self._calls.put(call)
        self.wake()

    def into(self, set_object: Callable[[str, Any], object]) -> Callable[[Change[Any]], object]:
        """Have the loop call ``set_object`` (key, object or None) for each change."""
        return lambda change: self.put(lambda: set_object(change.key, change.new))

    def wake(self) -> None:
        """Have the loop look around, without a call."""
        os.eventfd_write(self._wake, 1)

    def awake(self) -> None:
        """``fileno`` was readable: from now on it is again when something comes."""
        os.eventfd_read(self._wake)

    def take_all(self) -> None:
        """Make every call that waits, in order."""
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            self.taken += 1
            call()
