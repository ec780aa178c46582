"""The wire and what a test opens on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.wire.network import Wire, WireHost
from tests.wire.speakers import Speaker, Start


@pytest.fixture
def wire() -> Iterator[Wire]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root here")
    made = Wire()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closes what the test opened."""
    with contextlib.ExitStack() as opened:
        yield opened


@pytest.fixture
def start(stack: contextlib.ExitStack) -> Start:
    """Starts a speaker on a host, and ends it with the test."""

    def start(host: WireHost) -> Speaker:
        speaker = Speaker(host)
        stack.callback(speaker.end)
        return speaker

    return start
