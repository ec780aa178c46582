"""Waiting for an outcome instead of for a time, on a machine that may be busy.

A limit of seconds says how long something may take on a machine that has nothing else to do. Where several tasks per
core want to run, each gets its share only, and all takes longer by that factor: a second counts for less. So the same
test is as strict on an idle machine as its numbers say, and does not fail on a busy one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")

POLL_S = 0.01
MOST_CROWDED = 30.0
"""However busy the machine is, a limit comes to an end."""


def crowd() -> float:
    """How many tasks want to run for each core, 1 at least (proc_loadavg(5), the fourth field)."""
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return min(MOST_CROWDED, max(1.0, running / len(os.sched_getaffinity(0))))


class Stopwatch:
    """Seconds as an idle machine would have counted them. ``look`` often: each span counts by how crowded it was at its
    end."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked = time.monotonic()

    def look(self) -> float:
        now = time.monotonic()
        self.seconds += (now - self._looked) / crowd()
        self._looked = now
        return self.seconds


def wait_until(probe: Callable[[], T | None], timeout: float = 10.0, message: str = "", every: float = POLL_S) -> T:
    """Ask ``every`` so many seconds until the answer is truthy, and return it. Where asking takes longer than that, it
    pauses for as long: it must not keep the processor from what is waited for.

    ``AssertionError`` after ``timeout`` seconds of an idle machine."""
    watch = Stopwatch()
    while True:
        asked = time.monotonic()
        if answer := probe():
            return answer
        if watch.look() > timeout:
            raise AssertionError(message or f"not so within {timeout} s; last answer: {answer!r}")
        time.sleep(max(every, time.monotonic() - asked))


class Ending(Protocol):
    """Of ``subprocess.Popen``, or one of a lab's."""

    def poll(self) -> int | None: ...


def ended(process: Ending, timeout: float = 10.0) -> int:
    """The code with which the process ends within ``timeout`` seconds of an idle machine."""
    wait_until(lambda: process.poll() is not None, timeout, "the process does not end")
    code = process.poll()
    assert code is not None
    return code


def assert_stays(probe: Callable[[], object], seconds: float, message: str = "") -> None:
    """It is so, and is so each time that it is asked for ``seconds``: what must not happen does not."""
    until = time.monotonic() + seconds
    while True:
        answer = probe()
        assert answer, message or f"no longer so; last answer: {answer!r}"
        if time.monotonic() > until:
            return
        time.sleep(POLL_S)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block takes no longer, on an idle machine."""
    watch, over = Stopwatch(), threading.Event()

    def look() -> None:
        while not over.wait(POLL_S):
            watch.look()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
    assert watch.look() < seconds, f"took {watch.seconds:.2f} s"
