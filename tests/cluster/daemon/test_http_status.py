"""The status server, asked over real sockets."""

from __future__ import annotations

import errno
import http.client
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from cluster.daemon.http_status import MAX_CLIENTS, CannotListenError, StatusServer
from cluster.daemon.listen import Listen
from tests.waiting import assert_stays, wait_until

ANY_PORT = Listen("127.0.0.1", 0)


def ask_at(address: Listen, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def idle_clients(address: Listen) -> list[socket.socket]:
    """As many as are served at a time."""
    return [socket.create_connection(address, timeout=5) for _ in range(MAX_CLIENTS)]


class State:
    healthy: str | None = None
    ready: str | None = "waiting for services"
    remark: str | None = None


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def ask(state: State) -> Iterator[Callable[[str], tuple[int, str]]]:
    registry = CollectorRegistry()
    Gauge("berthlb_example", "An example.", registry=registry).set(7)
    server = StatusServer([ANY_PORT], registry, lambda: state.healthy, lambda: state.ready, lambda: state.remark)
    server.start()
    yield lambda path: ask_at(server.addresses[0], path)
    server.stop()


def test_metrics_are_those_of_the_registry(ask: Callable[[str], tuple[int, str]]) -> None:
    status, body = ask("/metrics")
    assert status == 200
    assert "berthlb_example 7.0" in body


def test_a_probe_says_what_is_missing_until_nothing_is(ask: Callable[[str], tuple[int, str]], state: State) -> None:
    assert ask("/healthz") == (200, "ok\n")
    assert ask("/readyz") == (503, "waiting for services\n")
    state.ready = None
    assert ask("/readyz") == (200, "ok\n")


def test_what_is_wrong_with_a_daemon_that_is_ready_is_said_and_costs_nothing(
    ask: Callable[[str], tuple[int, str]], state: State
) -> None:
    state.remark = "nobody is heard"
    assert ask("/readyz") == (503, "waiting for services\n")
    state.ready = None
    assert ask("/readyz") == (200, "ok, but: nobody is heard\n")
    assert ask("/healthz") == (200, "ok\n")


def test_an_error_of_ours_closes_the_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> str | None:
        raise LookupError("a mistake")

    server = StatusServer([ANY_PORT], CollectorRegistry(), fails, lambda: None)
    server.start()
    with pytest.raises(http.client.RemoteDisconnected):
        ask_at(server.addresses[0], "/healthz")
    assert ask_at(server.addresses[0], "/readyz") == (200, "ok\n"), "it serves on"
    server.stop()
    (logged,) = wait_until(lambda: caplog.records)
    assert logged.exc_info is not None
    assert logged.exc_info[0] is LookupError


def test_a_client_that_hangs_up_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Event()
    gone = threading.Event()

    def slow() -> str | None:
        asked.set()
        gone.wait(5)
        return "x" * 1_000_000

    server = StatusServer([ANY_PORT], CollectorRegistry(), slow, lambda: None)
    server.start()
    client = socket.create_connection(server.addresses[0], timeout=5)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset instead of an end
    client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert asked.wait(5)
    client.close()
    gone.set()
    assert ask_at(server.addresses[0], "/readyz") == (200, "ok\n")
    server.stop()
    wait_until(lambda: not [each for each in threading.enumerate() if "process_request_thread" in each.name])
    assert not caplog.records


def test_other_paths_are_not_found(ask: Callable[[str], tuple[int, str]]) -> None:
    assert ask("/")[0] == 404


def test_clients_that_never_ask_do_not_grow_without_end() -> None:
    server = StatusServer([ANY_PORT], CollectorRegistry(), lambda: None, lambda: None)
    server.start()
    idle = idle_clients(server.addresses[0])
    try:
        with socket.create_connection(server.addresses[0], timeout=5) as one_more:
            assert one_more.recv(1) == b""
    finally:
        for each in idle:
            each.close()
        server.stop()


def test_who_exhausts_one_address_does_not_keep_the_probes_from_another() -> None:
    listen = [ANY_PORT, Listen("127.0.0.2", 0), Listen("::1", 0)]
    server = StatusServer(listen, CollectorRegistry(), lambda: None, lambda: None)
    server.start()
    exhausted, *others = server.addresses
    idle = idle_clients(exhausted)
    try:
        assert [ask_at(each, "/healthz") for each in others] == [(200, "ok\n"), (200, "ok\n")]
    finally:
        for each in idle:
            each.close()
        server.stop()


def test_where_no_descriptor_is_left_a_client_waits_and_nothing_spins() -> None:
    """``accept`` fails with EMFILE and leaves the client in the queue, so that the socket stays readable. In a process
    of its own, where nobody else needs a descriptor meanwhile."""
    run_out = "from tests.cluster.daemon.test_http_status import run_out_of_descriptors as run; run()"
    subprocess.run([sys.executable, "-c", run_out], cwd=Path(__file__).parents[3], check=True, timeout=60)


def run_out_of_descriptors() -> None:
    server = StatusServer([ANY_PORT], CollectorRegistry(), lambda: None, lambda: None)
    server.start()
    with socket.create_connection(server.addresses[0], 10) as first:  # once it answers it has all that it needs itself
        first.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.0 200"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]  # no number below the limit is free
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
        try:
            client.settimeout(10)
            client.connect(server.addresses[0])
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            used = time.process_time()
            assert_stays(lambda: time.process_time() - used < 0.25, 0.5, "it spins")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in taken:
                os.close(each)
        assert client.recv(12) == b"HTTP/1.0 200"
    server.stop()


@pytest.mark.parametrize(
    ("host", "answers", "refuses"),
    [
        ("", ["127.0.0.1", "127.0.0.2", "::1"], []),
        ("::", ["127.0.0.1", "127.0.0.2", "::1"], []),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2"], ["::1"]),
        ("::1", ["::1"], ["127.0.0.1"]),
    ],
)
def test_no_address_is_every_address_of_both_families(host: str, answers: list[str], refuses: list[str]) -> None:
    server = StatusServer([Listen(host, 0)], CollectorRegistry(), lambda: None, lambda: None)
    server.start()
    try:
        port = server.addresses[0].port
        assert [ask_at(Listen(each, port), "/healthz") for each in answers] == [(200, "ok\n")] * len(answers)
        for each in refuses:
            with pytest.raises(ConnectionRefusedError):
                ask_at(Listen(each, port), "/healthz")
    finally:
        server.stop()


def test_a_machine_without_ipv6_serves_every_address_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with ``ipv6.disable=1`` makes no socket of that family."""
    make = socket.socket

    def without_ipv6(family: int = -1, *arguments: Any, **named: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return make(family, *arguments, **named)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    server = StatusServer([Listen("", 0)], CollectorRegistry(), lambda: None, lambda: None)
    monkeypatch.undo()
    server.start()
    try:
        assert ask_at(Listen("127.0.0.1", server.addresses[0].port), "/healthz") == (200, "ok\n")
    finally:
        server.stop()


def test_an_address_that_cannot_be_had_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListenError, match=rf"127\.0\.0\.1:{port}: Address already in use"):
            StatusServer([ANY_PORT, Listen("127.0.0.1", port)], CollectorRegistry(), lambda: None, lambda: None)
