"""Heartbeat sockets on a real (virtual) wire, in both families."""

from __future__ import annotations

import ctypes
import errno
import platform
import random
import select
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from cluster.addresses import Family
from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import IF_EQUAL, INSTRUCTION, LOAD_WORD, RETURN, Instruction, assemble
from speaker.wire.heartbeats.encapsulation import Encapsulation, UdpFrame
from speaker.wire.heartbeats.families import IPV4, IPV6
from speaker.wire.heartbeats.port import HEARTBEAT_PORT
from speaker.wire.heartbeats.sockets import (
    DATAGRAM_OCTETS,
    Datagram,
    HeartbeatDrop,
    HeartbeatSocket,
    PortRefused,
    open_heartbeats,
)
from speaker.wire.sockets import discard
from tests.arp_frames import on_wire
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import as_speaker, heartbeat_socket, mac_of, state_of

pytestmark = pytest.mark.lab

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_SECCOMP_RET_ERRNO, _SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
_SYS_SOCKET = {"x86_64": 41, "aarch64": 198}

Heard = Datagram | PortRefused | HeartbeatDrop


def opened(
    host: WireHost, stack: ExitStack, prefix: str, interface: str = "eth0", ip: Encapsulation = IPV4
) -> HeartbeatSocket:
    made = heartbeat_socket(host, ip, prefix, interface=interface)
    stack.callback(made.close)
    return made


class Pair:
    """Two nodes with a heartbeat socket each."""

    def __init__(self, wire: Wire, stack: ExitStack, ip: Encapsulation) -> None:
        self.ip = ip
        self._wire = wire
        self._stack = stack
        self.hosts: list[WireHost] = []
        self.macs: list[Mac] = []
        self.one, self.two = (self.open(self.host(f"node-{n}")) for n in (1, 2))

    def host(self, name: str) -> WireHost:
        """Another host, whose kernel has its address."""
        host = self._wire.host(name)
        self.hosts.append(host)
        self.macs.append(mac_of(host))
        host.run("ip", "-6", "address", "flush", "dev", "eth0")
        host.run("ip", "address", "add", f"fe80::{len(self.hosts)}/64", "dev", "eth0", "nodad")
        return host

    def open(self, host: WireHost) -> HeartbeatSocket:
        number = self.hosts.index(host) + 1
        return opened(host, self._stack, f"192.0.2.{number}/24" if self.ip is IPV4 else f"fe80::{number}", ip=self.ip)

    def address(self, number: int) -> WireAddress:
        return on_wire(f"192.0.2.{number}" if self.ip is IPV4 else f"fe80::{number}")

    def both_hear_each_other(self) -> None:
        for sender, receiver, ours, theirs in ((self.one, self.two, 0, 1), (self.two, self.one, 1, 0)):
            source = self.address(ours + 1)
            assert sender.send(b"to all") == 0
            assert received(receiver) == [Datagram(source, self.macs[ours], True, b"to all")]
            assert sender.send_to(self.address(theirs + 1), self.macs[theirs], b"to you") == 0
            assert received(receiver) == [Datagram(source, self.macs[ours], False, b"to you")]
            assert list(sender.receive(10)) == [], "nobody hears itself"

    def packet(self, source: str, to: str) -> Packet:
        return IP(src=source, dst=to) if self.ip is IPV4 else IPv6(src=source, dst=to)

    def refusal(self, source: str, sender: Mac, about: Packet) -> bytes:
        """What the first host hears of a kernel about a datagram."""
        message = ICMP(type=3, code=3) if self.ip is IPV4 else ICMPv6DestUnreach(code=4)
        ethernet = Ether(dst=self.macs[0].hex(":"), src=sender.hex(":"))
        return bytes(ethernet / self.packet(source, self.address(1).text) / message / about)


@pytest.fixture
def pair(wire: Wire, stack: ExitStack) -> Pair:
    return Pair(wire, stack, IPV4)


@pytest.fixture(params=[IPV4, IPV6], ids=["IPv4", "IPv6"])
def either(request: pytest.FixtureRequest, wire: Wire, stack: ExitStack) -> Pair:
    """A pair of either family."""
    return Pair(wire, stack, request.param)


def received(heartbeat: HeartbeatSocket, seconds: float = 10.0) -> list[Heard]:
    select.select([heartbeat.socket], [], [], seconds)
    return list(heartbeat.receive(100))


def counter(pair: Pair, host: WireHost, name: str) -> int:
    """A counter of the host's UDP in the pair's family, as /proc/net/snmp and /proc/net/snmp6 have them."""
    if pair.ip is IPV6:
        lines = dict(line.split() for line in host.run("cat", "/proc/net/snmp6").splitlines())
        return int(lines[f"Udp6{name}"])
    names, values = (line.split() for line in host.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Udp:"))
    return int(values[names.index(name)])


def test_group_and_unicast_arrive_with_their_sender_and_not_at_the_sender(either: Pair) -> None:
    either.both_hear_each_other()
    refused = [counter(either, host, "InErrors") for host in either.hosts]
    assert refused == [1, 1], "the unicast datagram that the port refused"


def host_firewall(pair: Pair) -> None:
    for host in pair.hosts:
        host.nft("""table inet closed {
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
        host.run("ip", "-6", "rule", "add", "to", "fe80::/10", "unreachable", "priority", "1")
        host.run("ip", "-6", "rule", "add", "to", "ff00::/8", "blackhole", "priority", "2")


def wrong_neighbours(pair: Pair) -> None:
    for host, peer in zip(pair.hosts, (pair.address(2), pair.address(1)), strict=True):
        for wrong in (peer.text, pair.ip.group.text):
            host.run("ip", "neigh", "replace", wrong, "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", "eth0")


@pytest.mark.parametrize("obstacle", [host_firewall, reverse_path_filter, routing_rules, wrong_neighbours])
def test_nothing_in_the_hosts_network_stack_makes_a_speaker_deaf_or_mute(
    either: Pair, obstacle: Callable[[Pair], None]
) -> None:
    obstacle(either)
    either.both_hear_each_other()


def test_sending_needs_no_neighbour_entry_and_makes_none(either: Pair) -> None:
    """The kernel's table of neighbours is one for all namespaces, with a limit: what needs an entry can be kept from
    sending by anybody who fills it. (A datagram to the group makes an entry, too, if a UDP socket sends it.)"""
    either.both_hear_each_other()
    for host in either.hosts:
        entries = host.run("ip", f"-{int(either.ip.family)}", "neigh", "show", "nud", "all", "dev", "eth0").split()
        assert {either.ip.group.text, either.address(1).text, either.address(2).text}.isdisjoint(entries)


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
        as_speaker(host, lambda: HeartbeatSocket(stale, IPV4))


def test_new_address_and_mac_are_sent_from_and_received(pair: Pair, stack: ExitStack) -> None:
    host = pair.hosts[0]
    host.run("ip", "link", "set", "eth0", "address", "02:00:5e:00:53:01")
    renumbered = state_of(host, "198.51.100.7/24")
    as_speaker(host, lambda: pair.one.set_state(renumbered))
    new = Mac(bytes.fromhex("02005e005301"))
    assert pair.one.send(b"x") == 0
    assert received(pair.two) == [Datagram(on_wire("198.51.100.7"), new, True, b"x")]
    assert pair.two.send_to(pair.address(1), new, b"before") == 0
    assert pair.two.send_to(on_wire("198.51.100.7"), new, b"y") == 0
    assert received(pair.one) == [Datagram(pair.address(2), pair.macs[1], False, b"y")], "the old address is nobody's"


def test_family_that_the_link_does_not_speak_is_neither_spoken_nor_heard(either: Pair) -> None:
    host, member = either.hosts[0], either.ip.group.text
    memberships = ("ip", f"-{int(either.ip.family)}", "maddress", "show", "dev", "eth0")
    assert member in host.run(*memberships)
    either.one.set_state(state_of(host))
    assert not either.one.speaks
    assert either.one.send(b"x") == either.one.send_to(either.address(2), either.macs[1], b"x") == errno.EADDRNOTAVAIL
    for _ in range(2):
        assert either.two.send(b"who would answer this?") == 0
    assert list(either.one.receive(10)) == []
    assert member not in host.run(*memberships)
    again = state_of(host, "192.0.2.1/24", "fe80::1")
    as_speaker(host, lambda: either.one.set_state(again))
    assert member in host.run(*memberships)
    either.both_hear_each_other()


def test_group_is_joined_anew_where_ipv6_was_away_and_came_back_with_another_address(
    wire: Wire, stack: ExitStack
) -> None:
    pair = Pair(wire, stack, IPV6)
    host = pair.hosts[0]
    for mtu in ("1200", "1500"):  # IPv6 needs 1280
        host.run("ip", "link", "set", "eth0", "mtu", mtu)
    host.run("ip", "address", "add", "fe80::7/64", "dev", "eth0", "nodad")
    memberships = ("ip", "-6", "maddress", "show", "dev", "eth0")
    assert IPV6.group.text not in host.run(*memberships), "the kernel lost it"
    again = state_of(host, "fe80::7")
    as_speaker(host, lambda: pair.one.set_state(again))
    assert IPV6.group.text in host.run(*memberships)


def test_kernel_without_ipv6_has_heartbeats_in_ipv4(wire: Wire) -> None:
    host = wire.host("node-1")
    state = state_of(host, "192.0.2.1/24")

    def without_ipv6() -> dict[Family, HeartbeatSocket]:
        refuse_sockets(socket.AF_INET6)
        return open_heartbeats(state)

    made = as_speaker(host, without_ipv6)
    assert made.keys() == {Family.IPV4}
    assert made[Family.IPV4].send(b"x") == 0
    for each in made.values():
        each.close()


def refuse_sockets(domain: int) -> None:
    """Let the kernel know this family no more, as far as this thread is concerned: a filter for its system calls
    (seccomp(2)), which looks at ``struct seccomp_data``, fails them as a kernel does that was built without it."""
    code = assemble(
        (
            Instruction(LOAD_WORD, 0, 0, 0),  # the system call's number
            Instruction(IF_EQUAL, 0, 3, _SYS_SOCKET[platform.machine()]),
            Instruction(LOAD_WORD, 0, 0, 16),  # its first argument
            Instruction(IF_EQUAL, 0, 1, domain),
            Instruction(RETURN, 0, 0, _SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT),
            Instruction(RETURN, 0, 0, _SECCOMP_RET_ALLOW),
        )
    )
    program = ctypes.create_string_buffer(code)
    described = struct.pack("@HP", len(code) // INSTRUCTION.size, ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described, 0, 0) == 0, ctypes.get_errno()


@pytest.mark.parametrize("by_group", [True, False])
def test_datagram_that_a_router_may_have_forwarded_is_not_believed(either: Pair, by_group: bool) -> None:
    """The sender is a kernel's UDP socket, as older speakers have."""
    to = either.ip.group if by_group else either.address(1)
    v4 = (socket.AF_INET, socket.IPPROTO_IP, socket.IP_TTL, socket.IP_MULTICAST_TTL)
    v6 = (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, socket.IPV6_MULTICAST_HOPS)
    domain, level, *options = v4 if either.ip is IPV4 else v6

    def send(hops: int) -> None:
        with socket.socket(domain, socket.SOCK_DGRAM) as plain:
            for option in options:
                plain.setsockopt(level, option, hops)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            plain.sendto(b"x", (to.text, HEARTBEAT_PORT))

    either.hosts[1].call(lambda: send(254))
    assert received(either.one) == [HeartbeatDrop.NOT_FROM_THIS_LINK]
    either.hosts[1].call(lambda: send(255))
    assert received(either.one) == [Datagram(either.address(2), either.macs[1], by_group, b"x")]


@pytest.mark.parametrize(
    ("ip", "sources"),
    [
        (IPV4, ["0.0.0.0", "127.0.0.1", "224.0.0.254", "255.255.255.255", "240.0.0.1"]),
        (IPV6, ["::", "::1", "2001:db8::2", "ff02::114"]),
    ],
    ids=["IPv4", "IPv6"],
)
def test_source_that_is_no_hosts_address_is_not_believed(
    wire: Wire, stack: ExitStack, ip: Encapsulation, sources: list[str]
) -> None:
    pair = Pair(wire, stack, ip)
    for source in map(on_wire, sources):
        forge(pair, ip.encode(UdpFrame(ip.group_mac, pair.macs[1], ip.group, source, 7948, 7948, 255, b"x")))
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


def test_hostile_frames_get_a_verdict_and_change_nothing(either: Pair) -> None:
    one, two = either.address(1), either.address(2)
    heartbeat = either.ip.encode(UdpFrame(either.macs[0], either.macs[1], one, two, 7948, 7948, 255, b"heartbeat"))
    about = either.packet(one.text, two.text) / UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT) / b"heartbeat"
    refusal = either.refusal(two.text, either.macs[1], about)
    chance = random.Random(7)
    made = []
    for _ in range(2000):
        frame = bytearray(chance.choice((heartbeat, refusal)))
        for _ in range(chance.randint(1, 3)):
            frame[chance.randrange(14, len(frame))] = chance.randrange(256)
        made.append(bytes(frame[: chance.randint(14, len(frame))]))
    for at in range(0, len(made), 100):
        forge(either, *made[at : at + 100])
        assert not any(isinstance(heard, PortRefused) for heard in either.one.receive(200))
    discard(either.one.socket)
    either.both_hear_each_other()


def test_refusal_by_the_other_kernel_names_it(either: Pair) -> None:
    lost, closed = either.host("node-3"), either.address(3)

    def refused() -> bool:
        """Asked again and again, as a suspect is: a kernel looks for our MAC first, and may have no room for that."""
        assert either.one.send_to(closed, mac_of(lost), b"anybody?") == 0
        return set(received(either.one, 0.5)) == {PortRefused(closed)}

    wait_until(refused, 20)
    either.open(lost)
    discard(either.one.socket)
    assert either.one.send_to(closed, mac_of(lost), b"anybody?") == 0
    assert either.two.send(b"later") == 0
    said = Datagram(either.address(2), either.macs[1], True, b"later")
    assert received(either.one) == [said], "a living speaker has the port"


def test_forged_refusals_are_none(either: Pair) -> None:
    """Who did not get a datagram cannot refuse it, and nor can somebody else in its place."""
    victim, victims_mac = either.address(3), Mac(bytes.fromhex("020000000003"))
    ports = UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT)
    original = either.packet(either.address(1).text, victim.text) / ports / b"12345678"
    forge(either, either.refusal(victim.text, victims_mac, original))
    assert received(either.one) == [HeartbeatDrop.NOT_ASKED], "no datagram was sent"
    assert either.one.send_to(victim, victims_mac, b"x") == 0
    elsewhere = either.packet(either.address(9).text, victim.text) / ports / b"12345678"
    forge(
        either,
        either.refusal(victim.text, either.macs[1], original),
        either.refusal(either.address(2).text, victims_mac, original),
        either.refusal(victim.text, victims_mac, elsewhere),
    )
    assert received(either.one) == [HeartbeatDrop.NOT_ASKED] * 3
    forge(either, either.refusal(victim.text, victims_mac, original))
    assert received(either.one) == [PortRefused(victim)], "this is what an honest one looks like"


def test_frames_that_found_the_queue_full_are_counted_once(pair: Pair) -> None:
    assert pair.one.lost() == 0
    while not pair.one.lost():
        assert pair.two.send(bytes(1000)) == 0
    kept = len(list(pair.one.receive(100_000)))
    assert kept > 64, "more than is read in a turn: a turn that empties the queue has lost nothing"
    assert pair.one.lost() == 0
    pair.both_hear_each_other()


def test_datagrams_to_the_group_do_not_count_as_the_hosts_errors(either: Pair) -> None:
    for _ in range(20):
        assert either.one.send(b"x") == 0
    wait_until(lambda: len(list(either.two.receive(100))) or None)
    assert counter(either, either.hosts[1], "InErrors") == 0
    assert counter(either, either.hosts[1], "NoPorts") == 0
