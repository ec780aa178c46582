"""A client outside that follows a Service's addresses as it would follow DNS, with a short TTL."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from lab.client import Lab
from tests.lab.asking import can_get

TTL_S = 1.0
PAUSE_S = 0.05
PATIENCE_S = 10.0  # for one answer, on a busy machine


@dataclass(frozen=True)
class Asked:
    """One request of the client."""

    resolved: float
    """When it asked for the addresses; at most ``TTL_S`` before the request."""
    address: str
    answered: bool


class Follower:
    """A ``with`` block, in which it asks the addresses in turn. ``resolve`` says which there are."""

    def __init__(self, lab: Lab, host: str, port: int, resolve: Callable[[], Sequence[str]]) -> None:
        self.asked: list[Asked] = []
        self._lab, self._host, self._port, self._resolve = lab, host, port, resolve
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        resolved, addresses = float("-inf"), list[str]()
        for turn in itertools.count():
            if self._over.wait(PAUSE_S):
                return
            if time.monotonic() >= resolved + TTL_S:
                resolved = time.monotonic()
                addresses = list(self._resolve())
            if addresses:
                address = addresses[turn % len(addresses)]
                answer = can_get(self._lab, self._host, address, self._port, PATIENCE_S)
                self.asked.append(Asked(resolved, address, answer is not None))

    def failed_since(self, since: float) -> list[Asked]:
        """Requests that failed although their addresses were asked for after this."""
        return [each for each in self.asked if each.resolved > since and not each.answered]

    def answered_since(self, since: float) -> int:
        return sum(each.resolved > since and each.answered for each in self.asked)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
