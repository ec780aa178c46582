"""What is known of kube-proxy, and when this node is looked at."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from speaker.api.looks import LONGEST_PAUSE_S, Looks, ProxyState
from speaker.api.node_look import NodeLook, NodeWatch
from tests.waiting import wait_until

UNKNOWN = ProxyState()
SERVES = ProxyState("nftables", True)


def test_looks_become_rare_and_frequent_again_when_kube_proxy_ceases_to_serve() -> None:
    looks = Looks()
    pauses = []
    for _ in range(7):
        looks.found(SERVES)
        pauses.append(looks.pause_s)
    assert pauses == [2.0, 4.0, 8.0, 16.0, *[LONGEST_PAUSE_S] * 3]
    pauses = []
    for _ in range(3):
        looks.found(ProxyState("nftables", False))
        pauses.append(looks.pause_s)
    assert pauses == [2.0, 4.0, 8.0]


def test_what_is_known_is_missed_twice_before_it_is_not() -> None:
    looks = Looks()
    assert looks.found(UNKNOWN) == UNKNOWN
    assert looks.found(SERVES) == SERVES
    assert looks.found(UNKNOWN) == SERVES
    assert looks.found(ProxyState(None, False)) == ProxyState(None, False), "what it says counts at once"
    assert looks.found(ProxyState("iptables", None)) == ProxyState("iptables", False)
    assert looks.found(UNKNOWN) == ProxyState("iptables", None)
    assert looks.found(UNKNOWN) == UNKNOWN


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = self.server.answers[self.path]  # type: ignore[attr-defined]  # ours
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's own word)
        pass


@contextmanager
def serving(path: str, status: int, body: bytes, host: str = "127.0.0.1") -> Iterator[int]:
    """A server on this machine; its port."""
    kind = type(
        "Server", (ThreadingHTTPServer,), {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET}
    )
    with kind((host, 0), Answers) as server:
        server.answers = {path: (status, body)}
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port: int = once.getsockname()[1]
        return port


def looked(mode_port: int, health_port: int, proc: Path = Path("/proc"), until: ProxyState | None = None) -> NodeLook:
    """The first look; with ``until``, the first that found this, since a busy machine answers late now and then."""
    looks: list[NodeLook] = []
    watch = NodeWatch(looks.append, proc=proc, mode_port=mode_port, health_port=health_port)
    try:
        watch.want(wanted=True)
        return wait_until(lambda: next((look for look in looks if until in (None, look.proxy)), None))
    finally:
        watch.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("mode", "health", "known"),
    [
        ((200, b"nftables"), (200, b"{}"), SERVES),
        ((200, b"iptables\n"), (503, b""), ProxyState("iptables", False)),
        ((404, b"nftables"), (404, b""), UNKNOWN),
        ((200, b"<html>"), (500, b""), UNKNOWN),
        ((200, b"m" * 10_000), (302, b""), UNKNOWN),
        ((200, b""), (200, b""), ProxyState(None, True)),
    ],
)
def test_kube_proxy_is_asked(host: str, mode: tuple[int, bytes], health: tuple[int, bytes], known: ProxyState) -> None:
    with ExitStack() as servers:
        mode_port = servers.enter_context(serving("/proxyMode", *mode, host))
        health_port = servers.enter_context(serving("/healthz", *health, host))
        looked(mode_port, health_port, until=known)


def test_where_nobody_answers_nothing_is_known() -> None:
    assert looked(closed_port(), closed_port()).proxy == UNKNOWN


def test_one_that_takes_a_connection_and_says_nothing_holds_nobody_up_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert looked(mute.getsockname()[1], closed_port()).proxy == UNKNOWN


def test_this_node_s_sockets_are_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        look = looked(closed_port(), closed_port())
        assert server.getsockname()[1] in {each.port for each in look.sockets if each.protocol == "TCP"}
        assert look.local_ports


def test_a_kernel_without_ipv6_has_fewer_lists(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text("heading\n")
    look = looked(closed_port(), closed_port(), tmp_path)
    assert (look.sockets, look.local_ports) == ((), range(32768, 61000))
