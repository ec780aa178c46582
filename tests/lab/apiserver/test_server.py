"""What only the embedded API server can be made to do: forget its history, fail on purpose, be treated badly."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.apiserver.embedded import EmbeddedApi
from tests.waiting import ended, wait_until

pytestmark = pytest.mark.slow

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def make(api: EmbeddedApi, name: str, **data: str) -> str:
    """Create a ConfigMap; its version."""
    status, made = api.request("POST", CONFIG_MAPS, {"metadata": {"name": name}, "data": data})
    assert status == 201, made
    return str(made["metadata"]["resourceVersion"])


class OpenWatch:
    """A watch of ConfigMaps whose events are read when the test wants them."""

    def __init__(self, api: EmbeddedApi, query: str = "resourceVersion=1&timeoutSeconds=20", agent: str = "t") -> None:
        self.connection = http.client.HTTPConnection(api.host, api.port, timeout=10)
        self.connection.request("GET", f"{CONFIG_MAPS}?watch=true&{query}", headers={"User-Agent": agent})
        self.answer = self.connection.getresponse()

    def next(self) -> Any:
        return json.loads(self.answer.readline())

    def name(self) -> str:
        return str(self.next()["object"]["metadata"]["name"])

    def abandon(self) -> None:
        """Vanish, as a client does whose process is killed."""
        assert self.connection.sock is not None or self.answer.fp is not None
        self.answer.close()
        self.connection.close()


@pytest.fixture
def small_api() -> Iterator[EmbeddedApi]:
    """A server that remembers ten changes of a kind and lets five events wait for a client."""
    with EmbeddedApi(history=10, watch_queue=5) as api:
        yield api


# ------------------------------------------------------------------------ a bounded past


def test_watch_from_a_compacted_version_ends_with_an_expired_error(embedded_api: EmbeddedApi) -> None:
    since = make(embedded_api, "a")
    make(embedded_api, "b")
    embedded_api.inject(compact=True)
    watch = OpenWatch(embedded_api, f"resourceVersion={since}")
    event = watch.next()
    assert (watch.answer.status, event["type"]) == (200, "ERROR")
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert watch.answer.read() == b""


def test_watch_from_the_present_survives_a_compaction(embedded_api: EmbeddedApi) -> None:
    since = make(embedded_api, "a")
    embedded_api.inject(compact=True)
    watch = OpenWatch(embedded_api, f"resourceVersion={since}")
    make(embedded_api, "b")
    assert watch.name() == "b"


def test_watch_from_before_the_bounded_history_expires(small_api: EmbeddedApi) -> None:
    since = make(small_api, "first")
    for number in range(10):
        make(small_api, f"in-time-{number}")
    assert OpenWatch(small_api, f"resourceVersion={since}").name() == "in-time-0"
    make(small_api, "one-too-many")
    assert OpenWatch(small_api, f"resourceVersion={since}").next()["object"]["code"] == 410


def test_page_of_a_compacted_version_expires(embedded_api: EmbeddedApi) -> None:
    for name in "abc":
        make(embedded_api, name)
    _, page = embedded_api.request("GET", f"{CONFIG_MAPS}?limit=1")
    make(embedded_api, "d")
    embedded_api.inject(compact=True)
    status, expired = embedded_api.request("GET", f"{CONFIG_MAPS}?limit=9&continue={page['metadata']['continue']}")
    assert (status, expired["reason"]) == (410, "Expired")


# ------------------------------------------------------------------------ faults


def test_status_strikes_as_often_as_it_was_told_to(embedded_api: EmbeddedApi) -> None:
    embedded_api.inject(path=CONFIG_MAPS, verb="list", status=429, retryAfter=3, count=2)
    connection = http.client.HTTPConnection(embedded_api.host, embedded_api.port)
    for expected in (429, 429, 200):
        connection.request("GET", CONFIG_MAPS)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == expected
        if expected == 429:
            assert answer.headers["Retry-After"] == "3"
            assert (body["kind"], body["code"], body["reason"]) == ("Status", 429, "TooManyRequests")


def test_fault_strikes_only_the_client_path_and_verb_that_it_names(embedded_api: EmbeddedApi) -> None:
    embedded_api.inject(userAgent="speaker", path="/api/v1/namespaces", verb="create", status=500)
    speaker = {"User-Agent": "berthlb-speaker/1"}
    body = {"metadata": {"name": "a"}}
    assert embedded_api.request("POST", CONFIG_MAPS, body, speaker)[0] == 500
    assert embedded_api.request("GET", CONFIG_MAPS, None, speaker)[0] == 200
    assert embedded_api.request("POST", "/api/v1/nodes", body, speaker)[0] == 201
    assert embedded_api.request("POST", CONFIG_MAPS, body)[0] == 201


def test_cleared_faults_strike_no_more(embedded_api: EmbeddedApi) -> None:
    embedded_api.inject(status=500)
    assert embedded_api.request("GET", "/lab/faults") == (200, [{"status": 500}])
    assert embedded_api.request("GET", CONFIG_MAPS)[0] == 500
    embedded_api.clear_faults()
    assert embedded_api.request("GET", CONFIG_MAPS)[0] == 200


def test_dropped_connection_gets_no_answer(embedded_api: EmbeddedApi) -> None:
    embedded_api.inject(verb="list", drop=True, count=1)
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        embedded_api.request("GET", CONFIG_MAPS)
    assert embedded_api.request("GET", CONFIG_MAPS)[0] == 200


def test_latency_delays_only_whom_it_concerns(embedded_api: EmbeddedApi) -> None:
    embedded_api.inject(userAgent="slow", latency=0.3)
    before = time.monotonic()
    assert embedded_api.request("GET", CONFIG_MAPS, None, {"User-Agent": "slow"})[0] == 200
    assert time.monotonic() - before >= 0.3


def test_lagging_watch_hears_later_than_another_and_of_everything_once_the_lag_ends(embedded_api: EmbeddedApi) -> None:
    embedded_api.inject(userAgent="laggard", lag=3600)
    late, early = OpenWatch(embedded_api, agent="laggard"), OpenWatch(embedded_api, agent="other")
    for name in "abc":
        make(embedded_api, name)
    assert [early.name() for _ in range(3)] == ["a", "b", "c"]
    embedded_api.clear_faults()
    assert [late.name() for _ in range(3)] == ["a", "b", "c"]


def test_lag_is_as_long_as_asked(embedded_api: EmbeddedApi) -> None:
    embedded_api.inject(userAgent="laggard", lag=0.5)
    watch = OpenWatch(embedded_api, agent="laggard")
    before = time.monotonic()
    make(embedded_api, "a")
    assert watch.name() == "a"
    assert time.monotonic() - before >= 0.5


def test_watches_close_when_told_to(embedded_api: EmbeddedApi) -> None:
    closed, other = OpenWatch(embedded_api, agent="closed"), OpenWatch(embedded_api, agent="other")
    embedded_api.inject(userAgent="closed", closeWatches=True)
    assert closed.answer.read() == b""
    make(embedded_api, "a")
    assert other.name() == "a"


def test_garbled_rule_is_refused(embedded_api: EmbeddedApi) -> None:
    assert embedded_api.request("POST", "/lab/faults", [{"explode": True}])[0] == 400
    assert embedded_api.request("GET", "/lab/faults") == (200, [])


# ------------------------------------------------------------------------ treated badly


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'"text"', b"{} trailing"])
def test_malformed_body_is_a_bad_request(embedded_api: EmbeddedApi, body: bytes) -> None:
    connection = http.client.HTTPConnection(embedded_api.host, embedded_api.port)
    connection.request("POST", CONFIG_MAPS, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 400
    assert json.loads(answer.read())["reason"] == "BadRequest"


def test_body_over_the_limit_is_refused(embedded_api: EmbeddedApi) -> None:
    status, body = embedded_api.request("POST", CONFIG_MAPS, {"metadata": {"name": "a" * 3 * 1024 * 1024}})
    assert (status, body["reason"]) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": ["a"]},
        {"metadata": {"name": "a", "labels": {"x": 1}}},
        {"metadata": {"name": "a", "ownerReferences": {"uid": "x"}}},
        {"metadata": {"name": ["a"]}},
    ],
)
def test_body_of_the_wrong_shape_is_refused_and_leaves_nothing(embedded_api: EmbeddedApi, body: Any) -> None:
    assert embedded_api.request("POST", CONFIG_MAPS, body)[0] == 400
    assert embedded_api.request("GET", CONFIG_MAPS)[1]["items"] == []


def test_watch_of_a_vanished_client_is_forgotten(embedded_api: EmbeddedApi) -> None:
    watch = OpenWatch(embedded_api)
    wait_until(lambda: embedded_api.server.watches == 1)
    watch.abandon()
    wait_until(lambda: embedded_api.server.watches == 0, message="nothing is written to it, and yet it is noticed")


def test_watch_of_a_slow_client_is_dropped_and_delays_nobody(small_api: EmbeddedApi) -> None:
    slow, quick = OpenWatch(small_api), OpenWatch(small_api)
    written = 0
    while small_api.server.watches == 2:
        make(small_api, f"big-{written}", data="x" * 500_000)
        assert quick.name() == f"big-{written}"
        written += 1
        assert written < 200, "the slow client's watch should have been dropped"
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        slow.answer.read()


# ------------------------------------------------------------------------ a process


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[bytes], http.client.HTTPConnection]]:
    """The server as a process, and a connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        process = subprocess.Popen([sys.executable, "-m", "lab.apiserver", f"--fd={fd}"], pass_fds=[fd])
    try:
        yield process, http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    finally:
        process.kill()
        process.wait()


def test_process_serves_on_an_inherited_socket() -> None:
    with running() as (_, connection):
        connection.request("GET", "/readyz")
        assert connection.getresponse().read() == b"ok"


def test_terminated_process_ends_its_watches_and_exits_cleanly() -> None:
    with running() as (process, connection):
        connection.request("GET", f"{CONFIG_MAPS}?watch=true")
        answer = connection.getresponse()
        process.send_signal(signal.SIGTERM)
        assert answer.read() == b""
        assert ended(process, 5.0) == 0
