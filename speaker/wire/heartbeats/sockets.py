"""The heartbeats of one interface in one family: sent and received as frames, past everything that may stop a datagram.

A speaker whose heartbeats do not arrive is taken for dead, so heartbeats depend on the wire and on nothing else. A UDP
socket would make them depend on more. The kernel refuses to send to a group when its table of neighbours is full (one
table for all namespaces, and any host on the segment can fill it), and a host firewall, a routing rule or the reverse
path filter drop what arrives. Frames of our own need no neighbour entry and no route, and a packet socket sees what the
interface receives before any of these does. (What stands in front of all protocols can stop heartbeats still, as it
can stop ARP: XDP, tc, and nftables in the netdev family.)

Three things are left to the kernel:

- A UDP socket has the port (``port``).
- Another one, without a port, is a member of the group (``memberships``), for the interface's own filter and for
  switches that watch memberships.
- The kernel of a node that lost its speaker answers a datagram with "port unreachable". That too is read from the wire,
  and counts if it comes from the MAC to which a datagram went.

**A family that the link does not speak now**, since it has no address to send from, is neither spoken nor heard: who
could not be answered is not to be heard. The sockets stay. When an address appears, the group is joined anew: an
interface that was without IPv6 for a moment (it was down, its MTU was below 1,280) has lost the membership.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

from cluster.addresses import Family
from speaker.link import Mac
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import WireAddress, nearest
from speaker.wire.bpf import NOTHING
from speaker.wire.ethernet import FrameError, is_group
from speaker.wire.groups import Groups
from speaker.wire.heartbeats.encapsulation import Encapsulation, PortUnreachable, UdpFrame
from speaker.wire.heartbeats.families import ENCAPSULATIONS
from speaker.wire.heartbeats.filter import heartbeat_code
from speaker.wire.heartbeats.port import HEARTBEAT_PORT, port_owner
from speaker.wire.memberships import Memberships
from speaker.wire.process import boottime
from speaker.wire.sockets import PacketSocket, attach_filter, forgiven

ON_LINK_HOPS = 255
"""A datagram that still has as many was not forwarded by any router (RFC 5082)."""
DATAGRAM_OCTETS = 2048
"""More than any heartbeat; a longer datagram is none."""
MAX_ASKED = 512
"""Speakers whose refusal is understood: those that were written to last."""


class HeartbeatDrop(Enum):
    """Why a frame on the heartbeat port counts for nothing; the value is its metric label."""

    MALFORMED = "malformed_frame"
    NOT_FROM_THIS_LINK = "not_from_this_link"
    """A router may have forwarded it: its TTL, or hop limit, is not 255."""
    NOT_FOR_US = "not_for_us"
    BAD_SENDER = "bad_sender"
    """Its source is no host's address."""
    NOT_ASKED = "refusal_not_asked_for"
    """A refusal of a datagram that was not sent, or not to that MAC."""


class Datagram(NamedTuple):
    """A heartbeat that arrived."""

    source: WireAddress
    mac: Mac
    """Of the frame."""
    by_group: bool
    """It was addressed to the group, and not to us alone."""
    data: bytes


class PortRefused(NamedTuple):
    """The kernel of a node that was written to says that no speaker listens there."""

    source: WireAddress


class HeartbeatSocket:
    """The group's heartbeats and our own unicast, on one interface and in one family."""

    def __init__(self, state: LinkState, encapsulation: Encapsulation) -> None:
        """Raises ``OSError`` if the interface has gone, something else has the port, or the kernel does not know the
        family (``EAFNOSUPPORT``)."""
        self._ip = encapsulation
        self._longest = encapsulation.headers_octets + DATAGRAM_OCTETS
        self._asked: OrderedDict[tuple[WireAddress, Mac], None] = OrderedDict()
        self._set(state)
        self._groups = Groups()
        with ExitStack() as opened:
            self._port = opened.enter_context(port_owner(state, encapsulation.family))
            self._packets = PacketSocket(state.name, state.index, encapsulation.ethertype, self._code())
            opened.pop_all()
        self.socket = self._packets.socket
        self._memberships = Memberships(state.name, state.index, self._groups)
        self._join(frozenset())

    def set_state(self, state: LinkState) -> None:
        """The interface is as described from now on: its addresses and its MAC are what is sent from and received."""
        before = self._own
        self._set(state)
        if self._own != before:
            attach_filter(self.socket, self._code())
        if self._own.isdisjoint(before):
            self._join(before)

    @property
    def speaks(self) -> bool:
        """Whether the link has an address to send from."""
        return bool(self._own)

    def send(self, data: bytes) -> int:
        """To the group; 0, or the ``errno`` with which the kernel refused the frame."""
        return self._send(data, self._ip.group, self._ip.group_mac)

    def send_to(self, to: WireAddress, mac: Mac, data: bytes) -> int:
        """To one speaker. Its kernel's refusal is understood from now on."""
        self._asked[to, mac] = None
        self._asked.move_to_end((to, mac))
        if len(self._asked) > MAX_ASKED:
            self._asked.popitem(last=False)
        return self._send(data, to, mac)

    def receive(self, limit: int) -> Iterator[Datagram | PortRefused | HeartbeatDrop]:
        """Up to ``limit`` of what is waiting."""
        for _ in range(limit):
            try:
                frame = self.socket.recv(self._longest)
            except BlockingIOError:
                return
            except OSError as error:
                forgiven(error)
                return
            yield self._judge(frame)

    def lost(self) -> int:
        """Frames that were for us and found the queue full, since the last call."""
        return self._packets.lost()

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due; ``None`` while nothing is to be done."""
        return self._memberships.next_deadline()

    def handle_timer(self, now: float) -> None:
        """Join the group, where the kernel refused it."""
        self._memberships.handle_timer(now)

    def close(self) -> None:
        self._packets.close()
        self._port.close()
        self._memberships.close()

    def _set(self, state: LinkState) -> None:
        self._mac = state.mac
        self._addresses = self._ip.own(state)
        self._own = frozenset(own.address for own in self._addresses)

    def _join(self, before: frozenset[WireAddress]) -> None:
        """Be a member while the link speaks the family. None of the addresses from ``before`` is left."""
        if before:
            self._groups.want_no_more(self._ip.group)
        if self._own:
            self._groups.want(self._ip.group)
            self._memberships.rejoin()
        self._memberships.handle_timer(boottime())

    def _code(self) -> bytes:
        if not self._own:
            return NOTHING
        return heartbeat_code(self._ip.layout, (*self._own, self._ip.group), HEARTBEAT_PORT, self._longest)

    def _send(self, data: bytes, to: WireAddress, mac: Mac) -> int:
        if not self._addresses:
            return errno.EADDRNOTAVAIL
        source = nearest(self._addresses, to)  # to the group: the interface's first, which no subnet has
        frame = UdpFrame(mac, self._mac, to, source, HEARTBEAT_PORT, HEARTBEAT_PORT, ON_LINK_HOPS, data)
        return self._packets.send(self._ip.encode(frame))

    def _judge(self, frame: bytes) -> Datagram | PortRefused | HeartbeatDrop:
        try:
            packet = self._ip.parse(frame)
        except FrameError:
            return HeartbeatDrop.MALFORMED
        if packet.to not in self._own and packet.to != self._ip.group:
            return HeartbeatDrop.NOT_FOR_US
        if isinstance(packet, PortUnreachable):
            ours = packet.asked_port == HEARTBEAT_PORT == packet.asker_port and packet.asker in self._own
            if ours and packet.source == packet.asked and (packet.asked, packet.mac) in self._asked:
                return PortRefused(packet.source)
            return HeartbeatDrop.NOT_ASKED
        if packet.to_port != HEARTBEAT_PORT:
            return HeartbeatDrop.NOT_FOR_US
        if packet.hops != ON_LINK_HOPS:
            return HeartbeatDrop.NOT_FROM_THIS_LINK
        if is_group(packet.mac) or not self._ip.is_hosts(packet.source):
            return HeartbeatDrop.BAD_SENDER
        return Datagram(packet.source, packet.mac, packet.to == self._ip.group, packet.data)


def open_heartbeats(state: LinkState) -> dict[Family, HeartbeatSocket]:
    """One for each family that the kernel knows. Raises ``OSError`` if one of them cannot be had now."""
    return in_each_family(lambda family: HeartbeatSocket(state, ENCAPSULATIONS[family]))


class Closeable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closeable)


def in_each_family(open_one: Callable[[Family], C]) -> dict[Family, C]:
    """What ``open_one`` opens in each family that the kernel knows: all of it, or nothing and its ``OSError``. It says
    of a family that the kernel does not know by ``EAFNOSUPPORT``."""
    made: dict[Family, C] = {}
    with ExitStack() as opened:
        for family in Family:
            try:
                made[family] = open_one(family)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                continue
            opened.callback(made[family].close)
        opened.pop_all()
    return made
