"""Has an interface receive more than its own frames, for as long as it is announced on.

A network card passes what goes to its MAC, to everybody, and to the groups that it was told of. Some do it wrong: WiFi
cards that answer ARP in their firmware, or drop groups to save power; bridges of hypervisors that know one MAC for each
virtual machine and no groups. In the modes ``allmulti`` and ``promiscuous`` more passes (packet(7),
PACKET_ADD_MEMBERSHIP, for which the socket's NET_RAW suffices). What is not for this node goes no further than the
filters of the other sockets.

The mode belongs to the interface by its index, so a new name changes nothing. The kernel counts who wants it and ends
it with the socket, however the process ends. I/O only.
"""

from __future__ import annotations

import socket
import struct

from speaker.link import Reception

_SOL_PACKET, _ADD_MEMBERSHIP = 263, 1
_MEMBERSHIP = struct.Struct("=iHH8x")
"""``struct packet_mreq``, without an address."""
_KINDS = {Reception.PROMISCUOUS: 1, Reception.ALL_MULTICAST: 2}


class WiderReception:
    """The socket that has an interface receive more."""

    def __init__(self, index: int, reception: Reception) -> None:
        """Raises ``OSError`` if the interface has gone. With `Reception.FILTERED` nothing is asked of it."""
        self._socket: socket.socket | None = None
        if reception not in _KINDS:
            return
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # protocol 0 receives nothing
        try:
            self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, _MEMBERSHIP.pack(index, _KINDS[reception], 0))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
