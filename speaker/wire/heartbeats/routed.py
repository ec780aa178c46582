"""Heartbeats as ordinary datagrams, which the kernel routes: for speakers that know of nodes' lives and hold nothing.

Such a speaker has no capability. Whatever keeps a node's datagrams from the others (its own packet filter, a route, a
firewall between two networks) makes it as silent to them as a power cut does. That is the price for reaching nodes of
other networks; who reads the reports takes no single speaker's word.

1. One UDP socket for each family that the kernel knows has the heartbeat port, at all addresses of the node. Groups are
   neither joined nor written to.
2. A datagram goes out with TTL or hop limit 255, so that speakers on its own LAN, which want that, take it too. What
   arrives may have been forwarded: its tag alone says whether it counts.
3. The kernel of a node that lost its speaker says "port unreachable" (ICMP type 3, code 3; ICMPv6 type 1, code 4). That
   counts if it comes from the address that was written to, and comes out of the socket's queue of errors (ip(7),
   ``IP_RECVERR``).

I/O only.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from types import MappingProxyType

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.effects import ROUTED_MAC, LinkState
from speaker.wire.addresses import WireAddress
from speaker.wire.heartbeats.port import HEARTBEAT_PORT
from speaker.wire.heartbeats.sockets import (
    DATAGRAM_OCTETS,
    ON_LINK_HOPS,
    Datagram,
    HeartbeatDrop,
    HeartbeatSocket,
    PortRefused,
    in_each_family,
)
from speaker.wire.sockets import forgiven

CS6 = 0xC0  # RFC 2474, as the frames of other speakers have it
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err; the address of who says so follows
_UNREACHABLE = frozenset({(2, 3, 3), (3, 1, 4)})  # (origin, type, code): ICMP's and ICMPv6's "port unreachable"
_SO_MEMINFO, _MEMINFO = 55, struct.Struct("=9I")  # the last is how many datagrams found the queue full
_OPTIONS = MappingProxyType(
    {
        Family.IPV4: (
            socket.AF_INET,
            (
                (socket.IPPROTO_IP, socket.IP_TTL, ON_LINK_HOPS),
                (socket.IPPROTO_IP, socket.IP_TOS, CS6),
                (socket.IPPROTO_IP, _IP_RECVERR, 1),
            ),
        ),
        Family.IPV6: (
            socket.AF_INET6,
            (
                (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1),
                (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ON_LINK_HOPS),
                (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, CS6),
                (socket.IPPROTO_IPV6, _IPV6_RECVERR, 1),
            ),
        ),
    }
)


class RoutedHeartbeats:
    """Those of one family. It has the methods of a ``HeartbeatSocket``."""

    speaks = True
    """Whether there is an address to send from, the kernel says with each datagram."""

    def __init__(self, family: Family) -> None:
        """Raises ``OSError``: ``EADDRINUSE`` if something else has the port, ``EAFNOSUPPORT`` if the kernel does not
        know the family."""
        domain, options = _OPTIONS[family]
        self.socket = socket.socket(domain, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._lost = 0
        try:
            for option in options:
                self.socket.setsockopt(*option)
            self.socket.bind(("", HEARTBEAT_PORT))
        except OSError:
            self.socket.close()
            raise

    def set_state(self, state: LinkState) -> None:
        """It does not matter what the node's interfaces are."""

    def send(self, _data: bytes) -> int:
        """To the group, which there is none of."""
        return 0

    def send_to(self, to: WireAddress, _mac: Mac, data: bytes) -> int:
        """To one speaker; 0, or the ``errno`` with which the kernel refused the datagram."""
        refused = 0
        for _ in range(2):
            try:
                self.socket.sendto(data, (to.text, HEARTBEAT_PORT))
            except OSError as error:
                refused = forgiven(error)
                if refused == errno.EAGAIN:
                    break
            else:
                return 0  # the first error may have been news of an earlier datagram, told once
        return refused

    def receive(self, limit: int) -> Iterator[Datagram | PortRefused | HeartbeatDrop]:
        """Up to ``limit`` of what is waiting, and as many refusals."""
        yield from self._refusals(limit)
        for _ in range(limit):
            try:
                data, sender = self.socket.recvfrom(DATAGRAM_OCTETS)
            except BlockingIOError:
                return
            except OSError as error:
                forgiven(error)  # news of an earlier datagram, whose details are in the other queue
                continue
            yield self._judge(sender[0], data)

    def lost(self) -> int:
        """Datagrams that found the queue full, since the last call."""
        before = self._lost
        self._lost = _MEMINFO.unpack(self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1]
        return (self._lost - before) % (1 << 32)

    def next_deadline(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None:
        """Nothing is ever due."""

    def close(self) -> None:
        self.socket.close()

    def _judge(self, sender: str, data: bytes) -> Datagram | HeartbeatDrop:
        if "%" in sender:  # a link-local address, by which nothing is routed
            return HeartbeatDrop.BAD_SENDER
        return Datagram(WireAddress.of(AddressText(sender)), ROUTED_MAC, False, data)

    def _refusals(self, limit: int) -> Iterator[PortRefused]:
        for _ in range(limit):
            try:
                _, told, _, to = self.socket.recvmsg(0, 256, socket.MSG_ERRQUEUE)
            except BlockingIOError:
                return
            except OSError as error:
                forgiven(error)
                return
            asked = WireAddress.of(AddressText(to[0].partition("%")[0]))
            if any(_is_refusal(detail, asked) for _, _, detail in told):
                yield PortRefused(asked)


def _is_refusal(detail: bytes, asked: WireAddress) -> bool:
    """Whether a message says that nobody has the port, and comes from who was asked: ``struct sockaddr_in`` has the
    address behind family and port, ``struct sockaddr_in6`` behind four octets more."""
    if len(detail) < _ERROR.size:
        return False
    _, origin, kind, code, *_ = _ERROR.unpack_from(detail)
    at = _ERROR.size + (4 if len(asked) == 4 else 8)
    return (origin, kind, code) in _UNREACHABLE and detail[at : at + len(asked)] == asked


Heartbeats = HeartbeatSocket | RoutedHeartbeats


def open_routed(_state: LinkState) -> dict[Family, RoutedHeartbeats]:
    """One for each family that the kernel knows. Raises ``OSError`` if one of them cannot be had now."""
    return in_each_family(RoutedHeartbeats)
