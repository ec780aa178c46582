"""Waiting for an outcome instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(probe: Callable[[], T | None], timeout: float = 10.0, message: str = "") -> T:
    """Ask every 10 ms until the answer is truthy, and return it; ``AssertionError`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if answer := probe():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(message or f"not so within {timeout} s; last answer: {answer!r}")
        time.sleep(0.01)
