"""The netlink socket that tells of interfaces, addresses and default routes.

It asks for everything (``links.DUMPS``), and then hears of what changes. It never waits: a dump's answers
arrive like events, a few at a time. When events were lost (the socket's buffer was full) or a dump was inconsistent,
everything is asked for again. I/O only: what was said goes into a `LinkTable`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
from collections import deque

from speaker.wire import netlink
from speaker.wire.links import DUMPS, LinkTable
from speaker.wire.netlink import Dump, DumpEnd, Message, NetlinkError, RequestRefused

_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_RECEIVE_OCTETS = 65536
_RECEIVES_PER_PASS = 16  # so that a storm of routes does not keep the loop from its other sockets
_RCVBUF_OCTETS = 1 << 20


class LinkSocket:
    """The netlink socket that feeds a `LinkTable`. Non-blocking; needs no capability."""

    def __init__(self) -> None:
        self.table = LinkTable()
        self.malformed = 0
        """Messages that could not be read."""
        self._sequence = itertools.count(1)
        self._awaited: int | None = None
        self._to_dump: deque[Dump] = deque()
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RCVBUF_OCTETS)
        with contextlib.suppress(OSError):  # before Linux 4.20 a dump of routes has every table's
            self.socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self.socket.bind((0, netlink.GROUPS))
        self._refresh(*DUMPS)

    def receive(self) -> bool:
        """Take in what the kernel said; whether anything did. Raises ``OSError`` if the socket is of no more use."""
        heard = False
        for _ in range(_RECEIVES_PER_PASS):
            try:
                data = self.socket.recv(_RECEIVE_OCTETS)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._refresh(*DUMPS)  # events were lost
                continue
            heard = True
            try:
                for message in netlink.parse(data):
                    self._take(message)
            except NetlinkError:
                self.malformed += 1
        return heard

    def close(self) -> None:
        self.socket.close()

    def _take(self, message: Message) -> None:
        if isinstance(message, DumpEnd | RequestRefused):
            if message.sequence == self._awaited:
                self._end_dump(message)
            return
        routes_may_differ = self._awaited is None and self.table.tells_of_routes(message)
        self.table.receive(message)
        if routes_may_differ:
            self._refresh(*netlink.ROUTES)

    def _end_dump(self, end: DumpEnd | RequestRefused) -> None:
        dump = self._to_dump.popleft()
        self._awaited = None
        if isinstance(end, DumpEnd) and end.interrupted:
            self._to_dump.append(dump)
        elif isinstance(end, RequestRefused) and end.error != errno.ENOENT:  # a table that does not exist is empty
            raise OSError(end.error, "the kernel refuses to list interfaces, addresses or routes")
        else:
            self.table.end_dump()
        self._ask_next()

    def _refresh(self, *dumps: Dump) -> None:
        """Ask for all of this, after what is being answered now."""
        being_answered = 0 if self._awaited is None else 1
        for dump in dumps:
            if dump not in itertools.islice(self._to_dump, being_answered, None):
                self._to_dump.append(dump)
        if not being_answered:
            self._ask_next()

    def _ask_next(self) -> None:
        if self._to_dump:
            self._awaited = next(self._sequence)
            self.table.begin_dump(self._to_dump[0])
            self.socket.send(netlink.dump_request(self._to_dump[0], self._awaited))
