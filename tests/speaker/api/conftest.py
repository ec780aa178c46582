"""Fixtures of the tests that run a whole watcher."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.api.client import connect
from lab.apiserver.embedded import EmbeddedApi
from speaker.api.watcher import Watcher
from speaker.channel import announcer_end, watcher_end
from speaker.options import Options
from tests.speaker.api.watched import NODE, Cluster, ListeningAnnouncer, Start


@pytest.fixture
def cluster(embedded_api: EmbeddedApi) -> Cluster:
    """A cluster with a node, a pool, an advertisement and a heartbeat key."""
    cluster = Cluster(embedded_api)
    cluster.add_node("node-1")
    cluster.add_pool()
    cluster.add_advertisement()
    cluster.add_key()
    return cluster


@pytest.fixture
def start(embedded_api: EmbeddedApi, tmp_path: Path) -> Iterator[Start]:
    """Start a watcher, which ends with the test: ``start()`` or ``start(key=…)`` with fields of ``Options``."""
    running: list[tuple[Watcher, threading.Thread, ListeningAnnouncer]] = []

    def start_one(**options: Any) -> tuple[Watcher, ListeningAnnouncer]:
        ours, theirs = socket.socketpair()
        client = connect(embedded_api.kubeconfig(tmp_path / "kubeconfig"), user_agent="berthlb-speaker")
        watcher = Watcher(client, watcher_end(theirs), Options(**{"node": NODE, **options}))
        thread = threading.Thread(target=watcher.run, daemon=True)
        thread.start()
        announcer = ListeningAnnouncer(announcer_end(ours))
        running.append((watcher, thread, announcer))
        return watcher, announcer

    yield start_one
    for watcher, thread, announcer in running:
        watcher.stop()
        thread.join(10)
        announcer.channel.close()
        assert not thread.is_alive()
