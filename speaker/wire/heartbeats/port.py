"""The heartbeat port on one interface, which a socket of the kernel has while the speaker lives.

So the kernel of a living speaker tells nobody that the port is closed. The socket receives nothing: heartbeats are read
as frames. I/O only.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from cluster.addresses import Family
from speaker.protocol.effects import LinkState
from speaker.wire.bpf import NOTHING
from speaker.wire.sockets import attach_filter

HEARTBEAT_PORT = 7948

_SO_BINDTOIFINDEX = 62
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29
"""When off, datagrams to groups are offered to members alone, and do not count as receive errors of the host."""
_SOCKETS = {
    Family.IPV4: (socket.AF_INET, ((socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0),)),
    Family.IPV6: (
        socket.AF_INET6,
        ((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1), (socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)),
    ),
}


def port_owner(state: LinkState, family: Family) -> socket.socket:
    """A socket that has the port on the interface, for one family. Raises ``OSError``: ``EADDRINUSE`` if something else
    has it, ``EAFNOSUPPORT`` if the kernel does not know the family."""
    domain, options = _SOCKETS[family]
    made = socket.socket(domain, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        attach_filter(made, NOTHING)
        for option in options:
            with contextlib.suppress(OSError):  # _IPV6_MULTICAST_ALL is Linux 4.20's
                made.setsockopt(*option)
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
