"""Hearing anything at all, on a real (virtual) wire."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from speaker.link import Mac
from speaker.wire.ethernet import BROADCAST
from speaker.wire.frame_watch import FRAMES_AT_ONCE, MAX_TOLD, TOLD_AGAIN_S, FrameWatch
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import mac_of, state_of

pytestmark = pytest.mark.lab

NOBODY: frozenset[Mac] = frozenset()


class Watched:
    """A node that watches, and somebody who sends whatever it is told."""

    def __init__(self, wire: Wire, stack: ExitStack) -> None:
        self.node, self.other = wire.host("node"), wire.host("other")
        for host in (self.node, self.other):
            host.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")  # nobody says anything unasked
        self.mac, self.others_mac = mac_of(self.node), mac_of(self.other)
        state = state_of(self.node, "192.0.2.1/24")
        self.watch = self.node.call(lambda: FrameWatch(state))
        self.sender = self._raw(self.other)
        for opened in (self.watch, self.sender):
            stack.callback(opened.close)
        self._stack = stack

    def _raw(self, host: WireHost) -> socket.socket:
        made = host.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        host.call(lambda: made.bind(("eth0", 0)))
        return made

    def send(self, to: bytes, sender: bytes, ethertype: int = 0x88B5) -> None:
        """EtherType 0x88B5 is for local experiments (IEEE 802)."""
        self.sender.send(to + sender + ethertype.to_bytes(2, "big") + bytes(46))

    def heard(self, now: float = 0.0, own: frozenset[Mac] = NOBODY, wanted: int = 1) -> list[Mac]:
        """Of those that the test made up, so many or more: the bridge says something now and then, too."""
        heard: list[Mac] = []

        def enough() -> bool:
            if self.watch.resumes_at is not None:
                self.watch.resume()
            heard.extend(mac for mac in self.watch.receive(own, now) if mac[:4] == numbered(0)[:4])
            return len(heard) >= wanted

        wait_until(enough)
        return heard


@pytest.fixture
def watched(wire: Wire, stack: ExitStack) -> Watched:
    return Watched(wire, stack)


def numbered(number: int) -> Mac:
    return Mac(b"\x02\x00\x00\x02" + number.to_bytes(2, "big"))


def test_senders_of_frames_of_any_kind_are_told_once_a_second(watched: Watched) -> None:
    watched.send(watched.mac, numbered(1))
    watched.send(BROADCAST, numbered(2), 0x0806)
    watched.send(bytes.fromhex("01005e0000fb"), numbered(3), 0x88B6)
    watched.send(bytes.fromhex("333300000001"), numbered(1), 0x88B7)
    assert watched.heard(10.0, wanted=3) == [numbered(1), numbered(2), numbered(3)]
    watched.send(BROADCAST, numbered(2))
    watched.send(BROADCAST, numbered(4))
    assert watched.heard(10.0 + TOLD_AGAIN_S / 2) == [numbered(4)]
    watched.send(BROADCAST, numbered(2))
    assert watched.heard(10.0 + TOLD_AGAIN_S) == [numbered(2)]


@pytest.mark.parametrize(
    ("to", "ethertype"),
    [
        ("0180c2000000", 0x0027),
        ("0180c2000001", 0x8808),
        ("0180c200000e", 0x88CC),
        ("01000ccccccc", 0x0100),
        ("01000ccccccd", 0x0032),
        ("0200000000aa", 0x9000),
        ("ffffffffffff", 0x8100),
    ],
    ids=["spanning tree", "pause", "LLDP", "CDP", "per-VLAN spanning tree", "loopback", "tagged"],
)
def test_what_a_switch_says_on_a_port_that_it_blocks_proves_nothing(watched: Watched, to: str, ethertype: int) -> None:
    directly = direct(watched)
    directly(bytes.fromhex(to), numbered(1), ethertype)
    directly(bytes.fromhex("0180c2000010"), numbered(2), 0x88B5)  # the next that is no bridge's own
    heard = watched.heard()
    assert heard == [numbered(2)]


def direct(watched: Watched) -> Callable[[bytes, bytes, int], None]:
    """A cable to the node without a bridge between, which would keep such frames for itself."""
    node = watched.node
    node.run("ip", "link", "add", "lan1", "type", "veth", "peer", "lan1", "netns", str(watched.other.pid))
    for host in (node, watched.other):
        host.run("sysctl", "-qw", "net.ipv6.conf.lan1.disable_ipv6=1")
        host.run("ip", "link", "set", "lan1", "up")
    watched.watch.close()
    state = state_of(node, "198.51.100.1/24", interface="lan1")
    watched.watch = node.call(lambda: FrameWatch(state))
    watched.sender.close()
    watched.sender = watched.other.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    watched.other.call(lambda: watched.sender.bind(("lan1", 0)))
    return watched.send


def test_own_frames_prove_nothing(watched: Watched) -> None:
    watched.node.poke("192.0.2.77")  # its kernel asks for the address
    watched.send(BROADCAST, watched.mac)  # a frame that the network returned
    watched.send(BROADCAST, numbered(1))
    assert watched.heard(own=frozenset((watched.mac,))) == [numbered(1)]


def test_flood_is_read_for_a_moment_and_dropped_by_the_kernel_for_a_while(watched: Watched) -> None:
    told: list[Mac] = []
    reads, now = 0, 100.0
    for number in range(3000):
        watched.send(BROADCAST, numbered(number))
        if watched.watch.resumes_at is not None and now >= watched.watch.resumes_at:
            watched.watch.resume()
        if select.select([watched.watch.socket], [], [], 0)[0]:
            told += watched.watch.receive(NOBODY, now)
            reads += 1
        now += 1 / 50_000
    assert reads < 100, "most of it never woke anybody"
    assert FRAMES_AT_ONCE <= len(told) <= MAX_TOLD
    watched.watch.resume()
    watched.send(BROADCAST, numbered(9999))
    assert watched.heard(now + 10.0) == [numbered(9999)]
