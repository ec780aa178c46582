"""Heartbeat sockets on a real (virtual) wire."""

from __future__ import annotations

import random
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.heartbeats.datagrams import UdpFrame
from speaker.wire.heartbeats.sockets import (
    DATAGRAM_OCTETS,
    GROUP_MAC,
    HEARTBEAT_GROUP,
    HEARTBEAT_PORT,
    Datagram,
    HeartbeatDrop,
    HeartbeatSocket,
    PortRefused,
)
from speaker.wire.sockets import discard
from tests.arp_frames import on_wire
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import as_speaker, heartbeat_socket, mac_of, state_of

pytestmark = pytest.mark.lab

Heard = Datagram | PortRefused | HeartbeatDrop


def address(number: int) -> WireAddress:
    return on_wire(f"192.0.2.{number}")


def opened(host: WireHost, stack: ExitStack, prefix: str, interface: str = "eth0") -> HeartbeatSocket:
    made = heartbeat_socket(host, prefix, interface)
    stack.callback(made.close)
    return made


class Pair:
    """Two nodes with a heartbeat socket each."""

    def __init__(self, wire: Wire, stack: ExitStack) -> None:
        self.hosts = [wire.host(f"node-{n}") for n in (1, 2)]
        self.macs = [mac_of(host) for host in self.hosts]
        self.one, self.two = (opened(host, stack, f"192.0.2.{n}/24") for n, host in enumerate(self.hosts, 1))

    def both_hear_each_other(self) -> None:
        for sender, receiver, ours, theirs in ((self.one, self.two, 0, 1), (self.two, self.one, 1, 0)):
            assert sender.send(b"to all") == 0
            assert received(receiver) == [Datagram(address(ours + 1), self.macs[ours], True, b"to all")]
            assert sender.send(b"to you", address(theirs + 1), self.macs[theirs]) == 0
            assert received(receiver) == [Datagram(address(ours + 1), self.macs[ours], False, b"to you")]
            assert list(sender.receive(10)) == [], "nobody hears itself"


@pytest.fixture
def pair(wire: Wire, stack: ExitStack) -> Pair:
    return Pair(wire, stack)


def received(heartbeat: HeartbeatSocket) -> list[Heard]:
    select.select([heartbeat.socket], [], [], 10)
    return list(heartbeat.receive(100))


def counter(host: WireHost, name: str) -> int:
    """A counter of the host's UDP, as /proc/net/snmp has it."""
    names, values = (line.split() for line in host.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Udp:"))
    return int(values[names.index(name)])


def test_group_and_unicast_arrive_with_their_sender_and_not_at_the_sender(pair: Pair) -> None:
    pair.both_hear_each_other()
    assert [counter(host, "InErrors") for host in pair.hosts] == [1, 1], "the unicast datagram that the port refused"


def host_firewall(pair: Pair) -> None:
    for host in pair.hosts:
        host.nft("""table ip closed {
            chain in { type filter hook input priority 0; policy drop; }
            chain raw { type filter hook prerouting priority -300; policy drop; }
            chain out { type filter hook output priority 0; policy drop; }
        }""")  # fmt: skip


def reverse_path_filter(pair: Pair) -> None:
    """Modes 1 (strict) and 2 (loose), and no way back to the peer."""
    for host, mode in zip(pair.hosts, "12", strict=True):
        for where in ("all", "eth0"):
            host.run("sysctl", "-qw", f"net.ipv4.conf.{where}.rp_filter={mode}")
        host.run("ip", "route", "flush", "dev", "eth0")


def routing_rules(pair: Pair) -> None:
    for host in pair.hosts:
        host.run("ip", "rule", "add", "to", "192.0.2.0/24", "unreachable", "priority", "1")
        host.run("ip", "rule", "add", "to", "224.0.0.0/4", "blackhole", "priority", "2")


def wrong_neighbours(pair: Pair) -> None:
    for host, peer in zip(pair.hosts, ("192.0.2.2", "192.0.2.1"), strict=True):
        for wrong in (peer, HEARTBEAT_GROUP.text):
            host.run("ip", "neigh", "replace", wrong, "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", "eth0")


@pytest.mark.parametrize("obstacle", [host_firewall, reverse_path_filter, routing_rules, wrong_neighbours])
def test_nothing_in_the_hosts_network_stack_makes_a_speaker_deaf_or_mute(
    pair: Pair, obstacle: Callable[[Pair], None]
) -> None:
    obstacle(pair)
    pair.both_hear_each_other()


def test_sending_needs_no_neighbour_entry_and_makes_none(pair: Pair) -> None:
    """The kernel's table of neighbours is one for all namespaces, with a limit: what needs an entry can be kept from
    sending by anybody who fills it. (A datagram to the group makes an entry, too, if a UDP socket sends it.)"""
    pair.both_hear_each_other()
    for host in pair.hosts:
        entries = host.run("ip", "-4", "neigh", "show", "nud", "all", "dev", "eth0")
        assert HEARTBEAT_GROUP.text not in entries
        assert "192.0.2." not in entries


def test_each_socket_hears_its_own_interface_only(pair: Pair, stack: ExitStack) -> None:
    one = pair.hosts[0]
    one.run("ip", "link", "add", "lan1", "type", "veth", "peer", "name", "lan1p")
    one.run("ip", "address", "add", "198.51.100.1/24", "dev", "lan1")
    for end in ("lan1", "lan1p"):
        one.run("ip", "link", "set", end, "up")
    second = opened(one, stack, "198.51.100.1/24", "lan1")
    assert pair.two.send(b"x") == 0
    assert len(received(pair.one)) == 1
    assert list(second.receive(10)) == []


def test_new_name_of_the_interface_changes_nothing(pair: Pair) -> None:
    for host in pair.hosts:
        host.run("ip", "link", "set", "eth0", "name", "lan7")
    pair.both_hear_each_other()


def test_interface_that_has_lost_its_name_to_another_is_not_opened(wire: Wire) -> None:
    host = wire.host("node-1")
    stale = state_of(host, "192.0.2.1/24")
    host.run("ip", "link", "set", "eth0", "name", "lan7")
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    with pytest.raises(OSError, match="another interface"):
        as_speaker(host, lambda: HeartbeatSocket(stale))


def test_new_address_and_mac_are_sent_from_and_received(pair: Pair, stack: ExitStack) -> None:
    host = pair.hosts[0]
    host.run("ip", "link", "set", "eth0", "address", "02:00:5e:00:53:01")
    pair.one.set_state(state_of(host, "198.51.100.7/24"))
    new = Mac(bytes.fromhex("02005e005301"))
    assert pair.one.send(b"x") == 0
    assert received(pair.two) == [Datagram(on_wire("198.51.100.7"), new, True, b"x")]
    assert pair.two.send(b"before", address(1), new) == 0
    assert pair.two.send(b"y", on_wire("198.51.100.7"), new) == 0
    assert received(pair.one) == [Datagram(address(2), pair.macs[1], False, b"y")], "the old address is nobody's"


@pytest.mark.parametrize("to", [HEARTBEAT_GROUP.text, "192.0.2.1"])
def test_datagram_that_a_router_may_have_forwarded_is_not_believed(pair: Pair, to: str) -> None:
    """The sender is a kernel's UDP socket, as older speakers have."""

    def send(ttl: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            plain.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            plain.sendto(b"x", (to, HEARTBEAT_PORT))

    pair.hosts[1].call(lambda: send(254))
    assert received(pair.one) == [HeartbeatDrop.NOT_FROM_THIS_LINK]
    pair.hosts[1].call(lambda: send(255))
    assert received(pair.one) == [Datagram(address(2), pair.macs[1], to == HEARTBEAT_GROUP.text, b"x")]


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.254", "255.255.255.255", "240.0.0.1"])
def test_source_that_is_no_hosts_address_is_not_believed(pair: Pair, source: str) -> None:
    forge(pair, UdpFrame(GROUP_MAC, pair.macs[1], HEARTBEAT_GROUP, on_wire(source), 7948, 7948, 255, b"x").encode())
    assert received(pair.one) == [HeartbeatDrop.BAD_SENDER]


def forge(pair: Pair, *frames: bytes) -> None:
    """Send these frames from the second host."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for frame in frames:
                raw.send(frame)

    pair.hosts[1].call(send)


def test_longer_datagrams_than_any_heartbeat_do_not_arrive(wire: Wire, stack: ExitStack) -> None:
    hosts = [wire.host(f"node-{n}") for n in (1, 2)]
    hosts[0].run("ip", "link", "add", "lan1", "type", "veth", "peer", "lan1", "netns", str(hosts[1].pid))
    for host in hosts:
        host.run("ip", "link", "set", "lan1", "mtu", "9000", "up")
    one, two = (opened(host, stack, f"198.51.100.{n}/24", "lan1") for n, host in enumerate(hosts, 1))
    wait_until(lambda: one.send(bytes(DATAGRAM_OCTETS + 1)) == 0)
    assert one.send(bytes(DATAGRAM_OCTETS)) == 0
    sender = mac_of(hosts[0], "lan1")
    assert received(two) == [Datagram(on_wire("198.51.100.1"), sender, True, bytes(DATAGRAM_OCTETS))]


def test_frame_that_the_interface_cannot_send_is_told_by_its_errno(pair: Pair) -> None:
    assert pair.one.send(bytes(3000)) != 0
    pair.hosts[0].run("ip", "link", "set", "eth0", "down")
    assert pair.one.send(b"x") != 0
    pair.hosts[0].run("ip", "link", "set", "eth0", "up")
    wait_until(lambda: pair.hosts[0].link()["operstate"] == "UP")
    assert pair.one.send(b"x") == 0, "what went wrong before is not told again"


def test_hostile_frames_get_a_verdict_and_change_nothing(pair: Pair) -> None:
    heartbeat = UdpFrame(pair.macs[0], pair.macs[1], address(1), address(2), 7948, 7948, 255, b"heartbeat").encode()
    refusal = bytes(
        Ether(heartbeat[:14]) / IP(src="192.0.2.2", dst="192.0.2.1") / ICMP(type=3, code=3)
        / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT) / b"heartbeat"
    )  # fmt: skip
    chance = random.Random(7)
    made = []
    for _ in range(2000):
        frame = bytearray(chance.choice((heartbeat, refusal)))
        for _ in range(chance.randint(1, 3)):
            frame[chance.randrange(14, len(frame))] = chance.randrange(256)
        made.append(bytes(frame[: chance.randint(14, len(frame))]))
    for at in range(0, len(made), 100):
        forge(pair, *made[at : at + 100])
        assert not any(isinstance(heard, PortRefused) for heard in pair.one.receive(200))
    discard(pair.one.socket)
    pair.both_hear_each_other()


def test_refusal_by_the_other_kernel_names_it(pair: Pair, wire: Wire, stack: ExitStack) -> None:
    lost, closed = wire.host("node-3"), address(3)
    assert pair.one.send(b"anybody?", closed, mac_of(lost)) == 0
    assert received(pair.one) == [PortRefused(closed)]
    opened(lost, stack, "192.0.2.3/24")
    assert pair.one.send(b"anybody?", closed, mac_of(lost)) == 0
    assert pair.two.send(b"later") == 0
    assert received(pair.one) == [Datagram(address(2), pair.macs[1], True, b"later")], "a living speaker has the port"


def test_forged_refusals_are_none(pair: Pair) -> None:
    """Who did not get a datagram cannot refuse it, and nor can somebody else in its place."""
    victim, victims_mac = address(3), Mac(bytes.fromhex("020000000003"))
    original = IP(src="192.0.2.1", dst=victim.text) / UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT) / b"12345678"

    def refusal(source: str, sender: Mac, about: IP = original) -> bytes:
        ethernet = Ether(dst=pair.macs[0].hex(":"), src=sender.hex(":"))
        return bytes(ethernet / IP(src=source, dst="192.0.2.1") / ICMP(type=3, code=3) / about)

    forge(pair, refusal(victim.text, victims_mac))
    assert received(pair.one) == [HeartbeatDrop.NOT_ASKED], "no datagram was sent"
    assert pair.one.send(b"x", victim, victims_mac) == 0
    elsewhere = IP(src="192.0.2.9", dst=victim.text) / UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT) / b"12345678"
    forge(
        pair,
        refusal(victim.text, pair.macs[1]),
        refusal("192.0.2.2", victims_mac),
        refusal(victim.text, victims_mac, elsewhere),
    )
    assert received(pair.one) == [HeartbeatDrop.NOT_ASKED] * 3
    forge(pair, refusal(victim.text, victims_mac))
    assert received(pair.one) == [PortRefused(victim)], "this is what an honest one looks like"


def test_frames_that_found_the_queue_full_are_counted_once(pair: Pair) -> None:
    assert pair.one.lost() == 0
    while not pair.one.lost():
        assert pair.two.send(bytes(1000)) == 0
    kept = len(list(pair.one.receive(100_000)))
    assert kept > 64, "more than is read in a turn: a turn that empties the queue has lost nothing"
    assert pair.one.lost() == 0
    pair.both_hear_each_other()


def test_datagrams_to_the_group_do_not_count_as_the_hosts_errors(pair: Pair) -> None:
    for _ in range(20):
        assert pair.one.send(b"x") == 0
    wait_until(lambda: len(list(pair.two.receive(100))) or None)
    assert counter(pair.hosts[1], "InErrors") == 0
    assert counter(pair.hosts[1], "NoPorts") == 0
