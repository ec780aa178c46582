"""What the kernel says of interfaces, addresses and routes.

It is no enemy. A message of a layout that we do not know must be an error all the same, and never a loop or another
exception: the announcer reads it in the loop that answers.
"""

from __future__ import annotations

import struct

from speaker.wire import netlink
from speaker.wire.links import DUMPS, MAX_UNUSABLE, LinkTable
from speaker.wire.netlink import DumpEnd, NetlinkError, RequestRefused

_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
MOST_MESSAGES = 65536 // _HEADER.size


def _said(kind: int, body: bytes, *attributes: tuple[int, bytes]) -> bytes:
    for number, octets in attributes:
        body += (_ATTRIBUTE.pack(4 + len(octets), number) + octets).ljust(4 + -(-len(octets) // 4) * 4, b"\0")
    return _HEADER.pack(_HEADER.size + len(body), kind, 0, 7, 0) + body


_LINK = struct.pack("=BxHiII", 0, 1, 3, 0x1 | 0x2 | 0x40 | 0x10000, 0)
_NAME, _MAC, _DOWNS = (3, b"eth0\0"), (1, b"\2\0\0\0\0\1"), (48, b"\4\0\0\0")
_ADDRESS = struct.pack("=BBBBI", 2, 24, 0, 0, 3)
_ADDRESS6 = struct.pack("=BBBBI", 10, 64, 0x40, 253, 3)
_ROUTE = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
_HOP = struct.pack("=HBBi", 16, 0, 0, 3) + _ATTRIBUTE.pack(8, 5) + b"\xc0\0\2\xfe"
SEEDS = (
    _said(netlink.NEW_LINK, _LINK, _NAME, _MAC, _DOWNS) + _said(netlink.NEW_ADDRESS, _ADDRESS, (2, b"\xc0\0\2\x01")),
    _said(netlink.NEW_ADDRESS, _ADDRESS6, (1, bytes.fromhex("fe80000000000000000000fffe000001"))),
    _said(netlink.NEW_ROUTE, _ROUTE, (4, b"\3\0\0\0"), (5, b"\xc0\0\2\xfe"), (6, b"\1\0\0\0"), (15, b"\xfe\0\0\0")),
    _said(netlink.NEW_ROUTE, _ROUTE, (9, _HOP + _HOP)),
    _said(netlink.DEL_LINK, _LINK, _NAME, _MAC) + _said(3, b"\0\0\0\0") + _said(2, b"\xfe\xff\xff\xff"),
)


def netlink_messages(data: bytes) -> None:
    """The table is in the middle of answers to a dump, and takes whatever can be read."""
    table = LinkTable()
    for dump in DUMPS:
        table.begin_dump(dump)
        count = 0
        try:
            for message in netlink.parse(data):
                count += 1
                if not isinstance(message, DumpEnd | RequestRefused):
                    table.tells_of_routes(message)
                    table.receive(message)
        except NetlinkError:
            pass
        assert count <= MOST_MESSAGES
        links = table.links()
        assert len({state.index for state in links}) == len(links)
        assert len(table.unusable()) <= MAX_UNUSABLE
        table.take_lost()
        table.end_dump()
