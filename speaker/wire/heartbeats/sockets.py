"""The heartbeats of one interface: sent and received as frames, past everything that may stop a datagram.

A speaker whose heartbeats do not arrive is taken for dead, so heartbeats depend on the wire and on nothing else. A UDP
socket would make them depend on more. The kernel refuses to send to a group when its table of neighbours is full (one
table for all namespaces, and any host on the segment can fill it), and a host firewall, a routing rule or the reverse
path filter drop what arrives. Frames of our own need no neighbour entry and no route, and a packet socket sees what the
interface receives before any of these does. (What stands in front of all protocols can stop heartbeats still, as it
can stop ARP: XDP, tc, and nftables in the netdev family.)

Three things are left to the kernel:

- An ordinary UDP socket has the port, so that the kernel of a living speaker tells nobody that the port is closed. It
  receives nothing.
- Another one, without a port, is a member of the group, for the interface's own filter and for switches that watch
  memberships. As the socket that has the port is no member, datagrams to the group are not offered to it, and do not
  count as receive errors of the host.
- The kernel of a node that lost its speaker answers a datagram with "port unreachable". That too is read from the wire,
  and counts if it comes from the MAC to which a datagram went.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address
from typing import NamedTuple

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import WireAddress, nearest, own_of
from speaker.wire.bpf import NOTHING
from speaker.wire.ethernet import FrameError, is_group
from speaker.wire.heartbeats import datagrams
from speaker.wire.heartbeats.datagrams import ETHERTYPE_IPV4, HEADERS_OCTETS, PortUnreachable, UdpFrame
from speaker.wire.heartbeats.filter import heartbeat_code
from speaker.wire.sockets import PacketSocket, attach_filter, forgiven

HEARTBEAT_PORT = 7948
HEARTBEAT_GROUP = WireAddress.of(AddressText("224.0.0.254"))
"""In the block that routers never forward (224.0.0.0/24, RFC 5771 §4); its last address, for experiments (RFC 4727)."""
GROUP_MAC = Mac(b"\x01\x00\x5e\x00\x00\xfe")
"""RFC 1112 §6.4."""
ON_LINK_TTL = 255
"""A datagram that still has it was not forwarded by any router (RFC 5082)."""
DATAGRAM_OCTETS = 2048
"""More than any heartbeat; a longer datagram is none."""
MAX_ASKED = 512
"""Speakers whose refusal is understood: those that were written to last."""

_LONGEST_FRAME = HEADERS_OCTETS + DATAGRAM_OCTETS
_SO_BINDTOIFINDEX = 62
_IP_MULTICAST_ALL = 49


class HeartbeatDrop(Enum):
    """Why a frame on the heartbeat port counts for nothing; the value is its metric label."""

    MALFORMED = "malformed_frame"
    NOT_FROM_THIS_LINK = "not_from_this_link"
    """A router may have forwarded it: its TTL is not 255."""
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
    """The group's heartbeats and our own unicast, on one interface."""

    def __init__(self, state: LinkState) -> None:
        """Raises ``OSError`` if the interface has gone or something else has the port."""
        self._set(state)
        self._asked: OrderedDict[tuple[WireAddress, Mac], None] = OrderedDict()
        self._packets = PacketSocket(state.name, state.index, ETHERTYPE_IPV4, self._code())
        self.socket = self._packets.socket
        self._port: socket.socket | None = None
        self._membership: socket.socket | None = None
        try:
            self._port = _port_owner(state)
            self._membership = _group_member(state.index)
        except OSError:
            self.close()
            raise

    def set_state(self, state: LinkState) -> None:
        """The interface is as described from now on: its addresses and its MAC are what is sent from and received."""
        before = self._own
        self._set(state)
        if self._own != before:
            attach_filter(self.socket, self._code())

    def send(self, data: bytes, to: WireAddress = HEARTBEAT_GROUP, mac: Mac = GROUP_MAC) -> int:
        """0, or the ``errno`` with which the kernel refused the frame."""
        if not self._addresses:
            return errno.EADDRNOTAVAIL
        source = nearest(self._addresses, to)  # to the group: the interface's first, which no subnet has
        if to != HEARTBEAT_GROUP:
            self._asked[to, mac] = None
            self._asked.move_to_end((to, mac))
            if len(self._asked) > MAX_ASKED:
                self._asked.popitem(last=False)
        frame = UdpFrame(mac, self._mac, to, source, HEARTBEAT_PORT, HEARTBEAT_PORT, ON_LINK_TTL, data)
        return self._packets.send(frame.encode())

    def receive(self, limit: int) -> Iterator[Datagram | PortRefused | HeartbeatDrop]:
        """Up to ``limit`` of what is waiting."""
        for _ in range(limit):
            try:
                frame = self.socket.recv(_LONGEST_FRAME)
            except BlockingIOError:
                return
            except OSError as error:
                forgiven(error)
                return
            yield self._judge(frame)

    def lost(self) -> int:
        """Frames that were for us and found the queue full, since the last call."""
        return self._packets.lost()

    def close(self) -> None:
        for opened in (self._packets, self._port, self._membership):
            if opened is not None:
                opened.close()

    def _set(self, state: LinkState) -> None:
        self._mac = state.mac
        self._addresses = own_of(state.prefixes, Family.IPV4)
        self._own = frozenset(own.address for own in self._addresses)

    def _code(self) -> bytes:
        return heartbeat_code((*self._own, HEARTBEAT_GROUP), HEARTBEAT_PORT, _LONGEST_FRAME)

    def _judge(self, frame: bytes) -> Datagram | PortRefused | HeartbeatDrop:
        try:
            packet = datagrams.parse(frame)
        except FrameError:
            return HeartbeatDrop.MALFORMED
        if packet.to not in self._own and packet.to != HEARTBEAT_GROUP:
            return HeartbeatDrop.NOT_FOR_US
        if isinstance(packet, PortUnreachable):
            ours = packet.asked_port == HEARTBEAT_PORT == packet.asker_port and packet.asker in self._own
            if ours and packet.source == packet.asked and (packet.asked, packet.mac) in self._asked:
                return PortRefused(packet.source)
            return HeartbeatDrop.NOT_ASKED
        if packet.to_port != HEARTBEAT_PORT:
            return HeartbeatDrop.NOT_FOR_US
        if packet.ttl != ON_LINK_TTL:
            return HeartbeatDrop.NOT_FROM_THIS_LINK
        if is_group(packet.mac) or not _is_hosts(packet.source):
            return HeartbeatDrop.BAD_SENDER
        return Datagram(packet.source, packet.mac, packet.to == HEARTBEAT_GROUP, packet.data)


@lru_cache(maxsize=1024)  # each heartbeat asks, and there are not many senders
def _is_hosts(source: WireAddress) -> bool:
    address = IPv4Address(source)
    return not (address.is_multicast or address.is_loopback or address.is_unspecified or address.is_reserved)


def _port_owner(state: LinkState) -> socket.socket:
    """A socket that has the heartbeat port on the interface, and receives nothing."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        attach_filter(made, NOTHING)
        made.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)  # groups are none of its business
        _bind_to_interface(made, state)
        made.bind(("", HEARTBEAT_PORT))
    except OSError:
        made.close()
        raise
    return made


def _bind_to_interface(made: socket.socket, state: LinkState) -> None:
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, state.index)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:  # before Linux 5.1
            raise
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, state.name.encode() + b"\0")


def _group_member(index: int) -> socket.socket:
    """A socket that is a member of the group on the interface, and has no port."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        membership = struct.pack("=4s4si", HEARTBEAT_GROUP, bytes(4), index)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError:
        made.close()
        raise
    return made
