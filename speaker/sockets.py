"""The announcer's sockets: ARP and heartbeats, one of each per announced interface. I/O only, no decisions.

All of them are non-blocking, belong to one interface and work with the capability NET_RAW alone. What a network or a
kernel does to a single frame (no buffer, interface down) is counted and never ends the loop: the protocols above expect
loss.
"""

from __future__ import annotations

import array
import errno
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cluster.objects import AddressText
from speaker.arp_filter import INSTRUCTION, ArpFilter
from speaker.frames import ETHERTYPE_ARP
from speaker.plan import LinkName

HEARTBEAT_PORT = 7948
HEARTBEAT_GROUP = AddressText("224.0.0.254")
"""In the block that routers never forward (224.0.0.0/24, RFC 5771 §4); its last address, for experiments (RFC 4727)."""
ON_LINK_TTL = 255
"""A datagram that still has it was not forwarded by any router (RFC 5082)."""

_SO_ATTACH_FILTER = 26
_SO_RCVBUF_OCTETS = 1 << 20  # a burst of 2,000 small frames; the kernel caps it at net.core.rmem_max
_IP_MULTICAST_ALL = 49
_IP_RECVTTL = 12
_IP_TTL = 2
_IP_RECVERR = 11
_ICMP_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err
_ORIGIN_ICMP = 2
_UNREACHABLE, _PORT_UNREACHABLE = 3, 3

FRAME_OCTETS = 64
"""What is read of a frame: ARP ends at 42."""
DATAGRAM_OCTETS = 2048
"""More than any heartbeat; a longer datagram is none."""

OUR_FAULT = frozenset((errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EDESTADDRREQ))
"""Errors that mean a mistake of ours. Any other, the network or the kernel may cause at any time (among them whatever a
forged ICMP message asks for: EPROTO, ENOPROTOOPT, EACCES …), and the next frame may fare better."""


class ArpSocket:
    """Every ARP frame on one interface that passes the filter."""

    def __init__(self, link: LinkName, let_pass: ArpFilter) -> None:
        """Raises ``OSError`` if the interface has gone, ``PermissionError`` without NET_RAW."""
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SO_RCVBUF_OCTETS)
            self.attach(let_pass)  # protocol 0 receives nothing: no frame gets in ahead of the filter
            self.socket.bind((link, ETHERTYPE_ARP))
        except OSError:
            self.socket.close()
            raise

    def attach(self, let_pass: ArpFilter) -> None:
        """Let pass what the filter does now, from the next frame on."""
        while True:
            code = array.array("B", let_pass.code)
            option = struct.pack("@HP", len(code) // INSTRUCTION.size, code.buffer_info()[0])
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
            except OSError as error:
                if error.errno != errno.ENOMEM or not let_pass.shrink():
                    raise
            else:
                return

    def send(self, frame: bytes) -> bool:
        """Whether the kernel took the frame."""
        try:
            self.socket.send(frame)
        except OSError as error:
            if error.errno in OUR_FAULT:
                raise
            return False
        return True

    def close(self) -> None:
        self.socket.close()


class Datagram(NamedTuple):
    source: AddressText
    data: bytes


class HeartbeatSocket:
    """Heartbeats on one interface: the group's and our own unicast."""

    def __init__(self, link: LinkName, index: int) -> None:
        """Raises ``OSError`` if the interface has gone or something else has the port."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            here = struct.pack("=4s4si", bytes(4), bytes(4), index)
            membership = struct.pack("=4s4si", socket.inet_aton(HEARTBEAT_GROUP), bytes(4), index)
            ip, level = socket.IPPROTO_IP, socket.SOL_SOCKET
            self.socket.setsockopt(level, socket.SO_BINDTODEVICE, link.encode() + b"\0")
            self.socket.setsockopt(level, socket.SO_RCVBUF, _SO_RCVBUF_OCTETS)
            self.socket.setsockopt(level, socket.SO_DONTROUTE, 1)  # peers are on the link
            self.socket.setsockopt(ip, socket.IP_TTL, ON_LINK_TTL)
            self.socket.setsockopt(ip, socket.IP_MULTICAST_TTL, ON_LINK_TTL)
            self.socket.setsockopt(ip, socket.IP_MULTICAST_LOOP, 0)
            self.socket.setsockopt(ip, _IP_MULTICAST_ALL, 0)  # other programs' groups stay theirs
            self.socket.setsockopt(ip, socket.IP_MULTICAST_IF, here)
            self.socket.setsockopt(ip, _IP_RECVTTL, 1)
            self.socket.setsockopt(ip, _IP_RECVERR, 1)
            self.socket.bind(("", HEARTBEAT_PORT))
            self.socket.setsockopt(ip, socket.IP_ADD_MEMBERSHIP, membership)
        except OSError:
            self.socket.close()
            raise

    def send(self, data: bytes, to: AddressText = HEARTBEAT_GROUP) -> bool:
        """Whether the kernel took the datagram."""
        for _ in range(3):
            try:
                self.socket.sendto(data, (to, HEARTBEAT_PORT))
            except ConnectionRefusedError:
                continue  # an earlier datagram's refusal, reported in this one's place, and cleared by it
            except OSError as error:
                if error.errno in OUR_FAULT:
                    raise
                return False
            else:
                return True
        return False

    def receive(self, limit: int) -> Iterator[Datagram | None]:
        """Up to ``limit`` datagrams that are waiting; ``None`` for one that a router forwarded or that is too long."""
        for _ in range(limit):
            try:
                data, ancillary, flags, source = self.socket.recvmsg(DATAGRAM_OCTETS, 64)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # belongs to a datagram that was sent: see `refused`
            except OSError as error:
                if error.errno in OUR_FAULT:
                    raise
                return
            if flags & socket.MSG_TRUNC or _ttl(ancillary) != ON_LINK_TTL:
                yield None
            else:
                yield Datagram(AddressText(source[0]), data)

    def refused(self, limit: int) -> Iterator[AddressText]:
        """Whose kernels said "port unreachable" (ICMP type 3, code 3) to a datagram of ours since the last call."""
        for _ in range(limit):
            try:
                _, ancillary, _, destination = self.socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return  # nothing (more) is queued
            for level, kind, data in ancillary:
                if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR) and _is_refusal(data, destination[0]):
                    yield AddressText(destination[0])

    def close(self) -> None:
        self.socket.close()


def discard(waiting: socket.socket, limit: int = 100_000) -> None:
    """Throw away what a socket has received so far."""
    for _ in range(limit):
        try:
            waiting.recv(1)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in OUR_FAULT:
                raise


def _ttl(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_TTL):
            return int.from_bytes(data[:4], "little" if struct.pack("=H", 1)[0] else "big")
    return None


def _is_refusal(data: bytes, destination: str) -> bool:
    """Whether an entry of the error queue is the destination's own kernel saying that the port is closed."""
    if len(data) < _ICMP_ERROR.size + 8:
        return False
    _, origin, kind, code, _, _, _ = _ICMP_ERROR.unpack_from(data)
    offender = socket.inet_ntoa(data[_ICMP_ERROR.size + 4 : _ICMP_ERROR.size + 8])
    return (origin, kind, code) == (_ORIGIN_ICMP, _UNREACHABLE, _PORT_UNREACHABLE) and offender == destination
