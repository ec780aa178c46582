"""Heartbeat sockets on a real (virtual) wire."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from cluster.objects import AddressText
from speaker.plan import LinkName
from speaker.sockets import HEARTBEAT_GROUP, HEARTBEAT_PORT, Datagram, HeartbeatSocket, discard
from tests.waiting import wait_until
from tests.wire.network import Host, Wire

pytestmark = pytest.mark.lab


def opened(host: Host, stack: ExitStack, interface: str = "eth0") -> HeartbeatSocket:
    index = int(host.link(interface)["ifindex"])
    made = host.call(lambda: HeartbeatSocket(LinkName(interface), index))
    stack.callback(made.close)
    return made


def received(heartbeat: HeartbeatSocket) -> list[Datagram | None]:
    select.select([heartbeat.socket], [], [], 1)
    return list(heartbeat.receive(100))


def test_group_and_unicast_arrive_with_the_senders_address_and_not_at_the_sender(wire: Wire, stack: ExitStack) -> None:
    hosts = [wire.host(f"node-{n}") for n in (1, 2)]
    one, two = (opened(host, stack) for host in hosts)
    assert one.send(b"to all")
    assert received(two) == [Datagram(AddressText("192.0.2.1"), b"to all")]
    assert one.send(b"to you", AddressText("192.0.2.2"))
    assert received(two) == [Datagram(AddressText("192.0.2.1"), b"to you")]
    assert list(one.receive(10)) == []


def test_each_socket_hears_its_own_interface_only(wire: Wire, stack: ExitStack) -> None:
    one, two = wire.host("node-1"), wire.host("node-2")
    one.run("ip", "link", "add", "lan1", "type", "veth", "peer", "name", "lan1p")
    one.run("ip", "address", "add", "198.51.100.1/24", "dev", "lan1")
    for end in ("lan1", "lan1p"):
        one.run("ip", "link", "set", end, "up")
    first, second = opened(one, stack), opened(one, stack, "lan1")
    sender = opened(two, stack)
    assert sender.send(b"x")
    assert len(received(first)) == 1
    assert list(second.receive(10)) == []


@pytest.mark.parametrize("to", [HEARTBEAT_GROUP, "192.0.2.1"])
def test_datagram_that_a_router_may_have_forwarded_is_not_believed(wire: Wire, stack: ExitStack, to: str) -> None:
    receiver, other = opened(wire.host("node-1"), stack), wire.host("node-2")

    def send(ttl: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            plain.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            plain.sendto(b"x", (to, HEARTBEAT_PORT))

    other.call(lambda: send(254))
    assert received(receiver) == [None]
    other.call(lambda: send(255))
    assert received(receiver) == [Datagram(AddressText("192.0.2.2"), b"x")]


def test_too_long_datagram_is_none(wire: Wire, stack: ExitStack) -> None:
    hosts = [wire.host(f"node-{n}") for n in (1, 2)]
    one, two = (opened(host, stack) for host in hosts)
    assert one.send(bytes(4000))
    assert received(two) == [None]


def test_refusal_by_the_other_kernel_names_it_and_keeps_the_socket_usable(wire: Wire, stack: ExitStack) -> None:
    hosts = [wire.host(f"node-{n}") for n in (1, 2, 3)]
    one, listening = opened(hosts[0], stack), opened(hosts[2], stack)
    closed = AddressText("192.0.2.2")
    assert one.send(b"anybody?", closed)
    assert wait_until(lambda: list(one.refused(10))) == [closed]
    assert list(one.refused(10)) == []
    for _ in range(5):  # also when refusals are waiting, the others hear us
        assert one.send(b"again", closed)
        assert one.send(b"heartbeat")
    select.select([listening.socket], [], [], 1)
    wait_until(lambda: len(list(listening.receive(100))) or None)


def test_forged_icmp_of_any_kind_neither_breaks_the_socket_nor_passes_for_a_refusal(
    wire: Wire, stack: ExitStack
) -> None:
    node, forger = wire.host("node-1"), wire.host("forger")
    one, third = opened(node, stack), opened(wire.host("node-3"), stack)
    victim = AddressText("192.0.2.3")
    original = IP(src="192.0.2.1", dst=victim) / UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT) / b"12345678"

    def forge() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            for kind, code in [(3, code) for code in range(16)] + [(4, 0), (11, 0), (12, 0)]:
                raw.sendto(bytes(ICMP(type=kind, code=code) / original), ("192.0.2.1", 0))

    for _ in range(3):
        forger.call(forge)
        assert list(one.refused(100)) == [], "the offender is not the destination"
        assert list(one.receive(100)) == []
    forger.call(forge)
    discard(one.socket)
    assert third.send(b"heartbeat")
    assert received(one) == [Datagram(victim, b"heartbeat")]
    assert one.send(b"heartbeat")
    assert received(third) == [Datagram(AddressText("192.0.2.1"), b"heartbeat")]


def test_address_that_nobody_has_is_no_refusal(wire: Wire, stack: ExitStack) -> None:
    one = opened(wire.host("node-1"), stack)
    assert one.send(b"x", AddressText("192.0.2.99"))
    select.select([], [], [one.socket], 3.5)  # until the kernel gives up asking for its MAC
    assert list(one.refused(10)) == []
