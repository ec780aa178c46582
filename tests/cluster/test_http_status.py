"""The status server, asked over real sockets."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from cluster.http_status import StatusServer, parse_listen


class State:
    healthy: str | None = None
    ready: str | None = "waiting for services"


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def ask(state: State) -> Iterator[Callable[[str], tuple[int, str]]]:
    registry = CollectorRegistry()
    Gauge("berthlb_example", "An example.", registry=registry).set(7)
    server = StatusServer("127.0.0.1", 0, registry, lambda: state.healthy, lambda: state.ready)
    server.start()

    def get(path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*server.address, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    yield get
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


def test_other_paths_are_not_found(ask: Callable[[str], tuple[int, str]]) -> None:
    assert ask("/")[0] == 404


def test_clients_that_never_ask_do_not_grow_without_end() -> None:
    server = StatusServer("127.0.0.1", 0, CollectorRegistry(), lambda: None, lambda: None)
    server.start()
    idle = [socket.create_connection(server.address, timeout=5) for _ in range(32)]
    try:
        with socket.create_connection(server.address, timeout=5) as one_more:
            assert one_more.recv(1) == b""
    finally:
        for each in idle:
            each.close()
        server.stop()


def test_an_address_in_use_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            StatusServer("127.0.0.1", port, CollectorRegistry(), lambda: None, lambda: None)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("127.0.0.1:7472", ("127.0.0.1", 7472)), (":80", ("0.0.0.0", 80)), ("[::1]:0", ("::1", 0))],
)
def test_listen_addresses(text: str, meaning: tuple[str, int]) -> None:
    assert parse_listen(text) == meaning


@pytest.mark.parametrize("text", ["7472", "127.0.0.1:", "127.0.0.1:99999", "::1:80", "host:http", "1:²"])
def test_a_listen_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not ADDRESS:PORT"):
        parse_listen(text)
