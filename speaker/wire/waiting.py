"""What the announcer's loop waits for: sockets, each with what to call when it can be read.

A pass of the loop may close a socket that was found ready in the same pass. Its call is left out.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Protocol


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Waiting:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._left: set[object] = set()
        """Sockets that are waited for no longer since the last wait."""

    def add(self, opened: HasFileno, call: Callable[[], object], *, writes: bool = False) -> None:
        """Wait until a socket can be read, and with ``writes`` also until it can be written. Called again, only
        ``writes`` may be another."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)
        known = self._selector.get_map().get(opened)
        if known is None:
            self._selector.register(opened, events, call)
        elif known.events != events:
            self._selector.modify(opened, events, call)

    def remove(self, opened: HasFileno) -> None:
        """Wait for it no longer. To be called before it is closed."""
        self._selector.unregister(opened)
        self._left.add(opened)

    def wait(self, seconds: float) -> list[selectors.SelectorKey]:
        """Wait for so long at most; what is ready, for `call`."""
        self._left.clear()
        return [key for key, _ in self._selector.select(seconds)]

    def call(self, ready: list[selectors.SelectorKey]) -> None:
        """Make the calls of what `wait` returned, in its order."""
        for key in ready:
            if key.fileobj not in self._left:
                key.data()

    def close(self) -> None:
        self._selector.close()
