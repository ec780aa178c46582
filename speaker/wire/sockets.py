"""Packet sockets: whole frames in and out of one interface. I/O only, no decisions.

A packet socket is non-blocking and needs the capability NET_RAW alone. It belongs to an interface by its index, so that
a new name changes nothing for it. What a network or a kernel does to a single frame (no buffer, interface down) is told
by its ``errno`` and never ends the loop: the protocols above expect loss.
"""

from __future__ import annotations

import array
import errno
import socket
import struct

from speaker.link import LinkName
from speaker.wire.bpf import INSTRUCTION

_SO_ATTACH_FILTER = 26
_SO_RCVBUF_OCTETS = 1 << 20  # a burst of 2,000 small frames; the kernel caps it at net.core.rmem_max
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats

OUR_FAULT = frozenset((errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EDESTADDRREQ))
"""Errors that mean a mistake of ours. Any other, the network or the kernel may cause at any time, and the next frame
may fare better."""


class PacketSocket:
    """Frames of one EtherType on one interface that pass a filter."""

    def __init__(self, link: LinkName, index: int, ethertype: int, code: bytes) -> None:
        """``code`` is the filter, as ``bpf`` assembles it. Raises ``OSError`` if the interface has gone or another one
        has its name by now, ``PermissionError`` without NET_RAW."""
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SO_RCVBUF_OCTETS)
            attach_filter(self.socket, code)  # protocol 0 receives nothing: no frame gets in ahead of the filter
            self.socket.bind((link, ethertype))
            if socket.if_nametoindex(self.socket.getsockname()[0]) != index:
                raise OSError(errno.ENODEV, "another interface has the name by now")
        except OSError:
            self.socket.close()
            raise

    def send(self, frame: bytes) -> int:
        """0, or the ``errno`` with which the kernel refused the frame."""
        refused = 0
        for _ in range(2):
            try:
                self.socket.send(frame)
            except OSError as error:
                refused = forgiven(error)
                if refused != errno.ENETDOWN:  # which may be news of an earlier moment, told once
                    break
            else:
                return 0
        return refused

    def lost(self) -> int:
        """Frames that passed the filter and found the queue full, since the last call."""
        statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        return int(_STATISTICS.unpack(statistics)[1])

    def close(self) -> None:
        self.socket.close()


def attach_filter(to: socket.socket, code: bytes) -> None:
    """Let the socket receive what passes this program, from the next frame on."""
    kept = array.array("B", code)
    option = struct.pack("@HP", len(kept) // INSTRUCTION.size, kept.buffer_info()[0])
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def forgiven(error: OSError) -> int:
    """The ``errno`` of what a network may do to us; raises what is a mistake of ours."""
    if error.errno in OUR_FAULT or error.errno is None:
        raise error
    return error.errno


def discard(waiting: socket.socket, limit: int = 100_000) -> None:
    """Throw away what a socket has received so far."""
    for _ in range(limit):
        try:
            waiting.recv(1)
        except BlockingIOError:
            return
        except OSError as error:
            forgiven(error)
