"""The keeper's loop: one thread and one selector, in which nothing waits.

A descriptor that becomes readable, a timer that is due and a child that has ended each call a function, one after the
other. What takes time is answered later, when a process has ended or a timer is due.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True)
class Timer:
    due: float
    act: Callable[[], None] = field(compare=False)


class KeeperLoop:
    """Calls functions until ``end``."""

    def __init__(self, on_child_ended: Callable[[], None]) -> None:
        """SIGTERM and SIGINT end the loop. ``on_child_ended`` is called after SIGCHLD."""
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._stopping = False
        self._catch_signals(on_child_ended)

    def run(self) -> None:
        while not self._stopping:
            now = time.monotonic()
            wait = max(0.0, self._timers[0].due - now) if self._timers else None
            for key, _ in self._selector.select(wait):
                key.data()
            while self._timers and self._timers[0].due <= time.monotonic():
                self._timers.pop(0).act()

    def end(self) -> None:
        self._stopping = True

    def when_readable(self, source: socket.socket | int, act: Callable[[], None]) -> None:
        """Call ``act`` each time that a socket or descriptor has something to read, its end included."""
        self._selector.register(source, selectors.EVENT_READ, act)

    def forget(self, source: socket.socket | int) -> None:
        self._selector.unregister(source)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self._timers = sorted([*self._timers, Timer(time.monotonic() + seconds, act)])

    def _catch_signals(self, on_child_ended: Callable[[], None]) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def hear() -> None:
            numbers = os.read(reading, 4096)
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self.end()
            on_child_ended()

        self.when_readable(reading, hear)
