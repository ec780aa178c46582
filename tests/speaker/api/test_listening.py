"""From the kernel's lists of sockets to the ports that this node listens on."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Address, Family
from cluster.node_report import MAX_LISTENING, REPORT_ANNOTATION
from cluster.objects import Lease, Node, NodeAddress, NodeStatus, ObjectMeta
from cluster.sharing import Port
from speaker.api.listening import LASTING_S, BoundSocket, Listening, read_sockets
from speaker.directory import ListedLink
from speaker.link import LinkName

HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def address(text: str) -> Address:
    ip = ip_address(text)
    return Address(Family(ip.version), int(ip))


def bound(protocol: str, port: int, at: str = "0.0.0.0", identity: str = "1") -> BoundSocket:
    return BoundSocket(protocol, address(at), port, identity)


def line(local: str, port: int, state: str, inode: int = 7) -> str:
    words = ip_address(local).packed
    swapped = b"".join(
        words[at : at + 4] if sys.byteorder == "big" else words[at : at + 4][::-1] for at in range(0, len(words), 4)
    )
    rest = "00000000:00000000 00:00000000 00000000 0 0"
    return f"   0: {swapped.hex().upper()}:{port:04X} 00000000:0000 {state} {rest} {inode} 1\n"


def node_with(*addresses: str) -> Listening:
    listening = Listening()
    status = NodeStatus(addresses=tuple(NodeAddress(type="InternalIP", address=each) for each in addresses))
    listening.set_node(Node(ObjectMeta(name="node-a"), status=status))
    return listening


def test_the_kernel_s_own_lists_are_read() -> None:
    """Sockets of this process, in the network namespace that it is in: nothing is sent."""
    with ExitStack() as opened:
        tcp = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        tcp6 = opened.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        udp = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        client = opened.enter_context(socket.create_connection(tcp.getsockname()))
        connected = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        connected.connect(("127.0.0.1", 9))
        found: set[tuple[str, str, int]] = set()
        for name, protocol in (("tcp", "TCP"), ("tcp6", "TCP"), ("udp", "UDP")):
            with Path("/proc/net", name).open(encoding="ascii") as lines:
                found |= {(each.protocol, each.address.text, each.port) for each in read_sockets(lines, protocol)}
        assert ("TCP", "127.0.0.1", tcp.getsockname()[1]) in found
        assert ("TCP", "::1", tcp6.getsockname()[1]) in found
        assert ("UDP", "127.0.0.1", udp.getsockname()[1]) in found
        assert client.getsockname()[1] not in {port for protocol, _, port in found if protocol == "TCP"}
        assert connected.getsockname()[1] not in {port for protocol, _, port in found if protocol == "UDP"}


def test_what_is_no_line_of_a_list_is_passed_over() -> None:
    lines = [
        HEADING,
        "\n",
        "no such line\n",
        line("0.0.0.0", 22, "0A").replace("0016", "xyz"),
        line("::ffff:192.0.2.1", 80, "0A"),
    ]
    assert list(read_sockets(lines, "TCP")) == [bound("TCP", 80, "192.0.2.1", "7")]


@given(st.lists(st.text(max_size=200)), st.sampled_from(["TCP", "UDP"]))
def test_no_list_is_refused(lines: list[str], protocol: str) -> None:
    list(read_sockets(lines, protocol))


def test_a_list_of_many_connections_is_read_up_to_the_first() -> None:
    def lines() -> Iterable[str]:
        yield HEADING
        yield line("0.0.0.0", 22, "0A")
        yield line("192.0.2.1", 22, "01")
        raise AssertionError("nothing of interest follows")

    assert [each.port for each in read_sockets(lines(), "TCP")] == [22]


@pytest.mark.parametrize(
    ("at", "counts"),
    [
        ("0.0.0.0", True),
        ("::", True),
        ("192.0.2.11", True),
        ("2001:db8::11", True),
        ("198.51.100.11", True),  # of a link
        ("127.0.0.1", False),
        ("::1", False),
        ("172.17.0.1", False),
        ("fe80::11", False),
        ("169.254.20.10", False),
    ],
)
def test_a_socket_counts_that_is_reached_at_a_node_s_address(at: str, *, counts: bool) -> None:
    listening = node_with("192.0.2.11", "2001:db8::11", "node-a.example")
    listening.set_links((ListedLink(LinkName("eth1"), b"", ("198.51.100.11/24", "fe80::11/64")),))
    assert listening.look([bound("TCP", 22, at)], 0.0) == ({("TCP", 22)} if counts else frozenset())


@pytest.mark.parametrize("port", [0, 30000, 32767, 32768, 60999])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_node_ports_and_the_kernel_s_choice_are_left_out(protocol: str, port: int) -> None:
    listening = node_with()
    for now in (0.0, 100.0):
        assert listening.look([bound(protocol, port)], now) == frozenset()


def test_the_kernel_s_choice_is_what_it_says() -> None:
    listening = node_with()
    sockets = [bound("TCP", 33000), bound("TCP", 1500)]
    assert listening.look(sockets, 0.0, range(1024, 2000)) == {("TCP", 33000)}


def test_a_resolver_s_sockets_never_count() -> None:
    """It binds a port of its own choice for each question, so that every look finds others."""
    listening = node_with()
    for look in range(100):
        sockets = [bound("UDP", 1024 + look, identity=str(look)), bound("UDP", 2000, identity=str(look))]
        assert listening.look(sockets, look * 30.0) == frozenset()


def test_a_udp_server_counts_once_it_has_lasted() -> None:
    listening = node_with()
    sockets = [bound("UDP", 53), bound("TCP", 53)]
    assert listening.look(sockets, 0.0) == {("TCP", 53)}
    assert listening.look(sockets, LASTING_S - 1) == {("TCP", 53)}
    assert listening.look(sockets, LASTING_S) == {("TCP", 53), ("UDP", 53)}


def test_a_service_that_restarts_changes_nothing() -> None:
    listening = node_with()
    everything = {("TCP", 22), ("UDP", 53)}
    for now in (0.0, 30.0):
        listening.look([bound("TCP", 22), bound("UDP", 53)], now)
    assert listening.look([], 60.0) == everything
    assert listening.look([bound("TCP", 22, identity="2"), bound("UDP", 53, identity="2")], 90.0) == everything
    assert listening.look([], 122.0) == everything
    assert listening.look([], 152.0) == frozenset()


def test_what_the_speaker_before_has_reported_counts_until_it_is_missed() -> None:
    """An upgrade of the speakers makes no port free, not even for a moment."""
    before = Lease(ObjectMeta(annotations={REPORT_ANNOTATION: '{"listening":["53/UDP","2222/TCP"]}'}))
    listening = node_with()
    listening.remember(before)
    sockets = [bound("UDP", 53), bound("TCP", 22)]
    assert listening.look(sockets, 0.0) == {("UDP", 53), ("TCP", 2222), ("TCP", 22)}
    listening.remember(before)
    assert listening.look(sockets, 2.0) == {("UDP", 53), ("TCP", 22)}


def test_ports_are_bounded() -> None:
    listening = node_with()
    lowest: set[Port] = {("TCP", port) for port in range(1, MAX_LISTENING + 1)}
    for now in (0.0, 30.0):
        assert listening.look([bound("TCP", port) for port in range(9000, 0, -1)], now) == lowest
