"""Routing netlink messages (rtnetlink(7)), as far as links need them: requests encoded, answers and events parsed.

They are read by hand, since the alternative is dear for four fixed layouts: importing pyroute2's message classes takes
16 MB, a third of a second, and brings asyncio and ssl into the announcer (measured, 0.9.7). The tests hold this reading
equal to pyroute2's.

The kernel is trusted, but may be a version that this module does not know: lengths are checked, unknown attributes are
skipped, and a message that does not fit is `NetlinkError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from speaker.link import LinkName, Mac
from speaker.wire.addresses import OwnAddress, WireAddress
from speaker.wire.ethernet import is_group

GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE: what to bind the socket
to."""

NEW_LINK, DEL_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x300, 0x10

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NEXT_HOP = struct.Struct("=HBBi")
_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")

_AF_UNSPEC, _AF_INET, _AF_INET6 = 0, 2, 10
_ARPHRD_ETHER = 1
_IFLA_ADDRESS, _IFLA_NAME, _IFLA_MASTER, _IFLA_CARRIER_DOWN_COUNT = 1, 3, 10, 48
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
_SCOPE_HOST = 254
_ADDRESS_OCTETS = {_AF_INET: 4, _AF_INET6: 16}
_RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 4, 5, 6, 9, 15
_MAIN_TABLE, _UNICAST = 254, 1
_IFF_UP, _IFF_BROADCAST, _IFF_RUNNING, _IFF_NOARP, _IFF_SLAVE, _IFF_LOWER_UP = 0x1, 0x2, 0x40, 0x80, 0x800, 0x10000
_ATTRIBUTE_KIND = 0x3FFF  # without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER


class NetlinkError(ValueError):
    """A message of the kernel that does not have the layout which we know."""


class Unfit(Enum):
    """Why an interface cannot be announced on, as a predicate."""

    NOT_ETHERNET = "is not Ethernet"
    NO_MAC = "has no MAC of its own"
    NO_BROADCAST = "has no broadcast"
    NO_ARP = "has ARP switched off"
    PART_OF_ANOTHER = "is part of a bridge, a bond or a VRF"


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface (RTM_NEWLINK)."""

    index: int
    name: LinkName
    mac: Mac
    carrier: bool
    """Administratively up, and the driver and the link layer say that it can carry frames."""
    unfit: Unfit | None
    """Why ARP cannot be answered there; ``None`` where it can."""
    downs: int
    """How often the carrier was lost since the interface was made: tells of a loss that was over before we looked."""


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address on an interface (RTM_NEWADDR). One that the kernel may not use, or not yet (RFC 4862 §5.4), is left
    out; one that it may use no more is removed."""

    index: int
    own: OwnAddress


@dataclass(frozen=True, slots=True)
class Gateway:
    """The next hop of a default route in the main table (RTM_NEWROUTE)."""

    index: int
    address: WireAddress
    metric: int


class Removed(NamedTuple):
    """What is no more."""

    what: Interface | InterfaceAddress | Gateway


class DumpEnd(NamedTuple):
    """The answer to a request is complete."""

    sequence: int
    interrupted: bool
    """Something changed meanwhile and the answer may be inconsistent: ask again (NLM_F_DUMP_INTR)."""


class RequestRefused(NamedTuple):
    """A request was answered by an error, and by nothing else."""

    sequence: int
    error: int
    """An ``errno``."""


Known = Interface | InterfaceAddress | Gateway
Message = Known | Removed | DumpEnd | RequestRefused


class Dump(NamedTuple):
    """Everything of one kind."""

    kind: int
    """`GET_LINK`, `GET_ADDRESS` or `GET_ROUTE`."""
    family: int = _AF_UNSPEC


LINKS, ADDRESSES = Dump(GET_LINK), Dump(GET_ADDRESS)
ROUTES = (Dump(GET_ROUTE, _AF_INET), Dump(GET_ROUTE, _AF_INET6))
"""Of the main table."""


def dump_request(dump: Dump, sequence: int) -> bytes:
    """Ask for everything of one kind."""
    if dump.kind == GET_LINK:
        body = _LINK.pack(dump.family, 0, 0, 0, 0)
    elif dump.kind == GET_ADDRESS:
        body = _ADDRESS.pack(dump.family, 0, 0, 0, 0)
    else:
        body = _ROUTE.pack(dump.family, 0, 0, 0, _MAIN_TABLE, 0, 0, _UNICAST, 0)
    return _HEADER.pack(_HEADER.size + len(body), dump.kind, _REQUEST | _DUMP, sequence, 0) + body


def parse(data: bytes) -> Iterator[Message]:
    """The messages of one datagram that concern links; the rest is skipped. ``NetlinkError``."""
    start, interrupted = 0, False
    while start + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, start)
        if length < _HEADER.size or start + length > len(data):
            raise NetlinkError(f"a message of {length} octets in {len(data) - start}")
        interrupted = interrupted or bool(flags & _DUMP_INTERRUPTED)
        body = data[start + _HEADER.size : start + length]
        start += (length + 3) & ~3
        if kind == _DONE:
            yield DumpEnd(sequence, interrupted)
        elif kind == _ERROR:
            if len(body) < _S32.size:
                raise NetlinkError("an error without a number")
            if error := _S32.unpack_from(body)[0]:
                yield RequestRefused(sequence, -error)
        elif kind in _PARSERS:
            try:
                for found in _PARSERS[kind](body):
                    yield Removed(found) if kind in _DELETIONS and not isinstance(found, Removed) else found
            except struct.error as problem:
                raise NetlinkError(str(problem)) from problem


def _interface(body: bytes) -> Iterator[Interface]:
    family, kind, index, flags, _ = _LINK.unpack_from(body)
    if family != _AF_UNSPEC:
        return  # AF_BRIDGE: news of a bridge's port, which is not the interface's end
    attributes = _attributes(body, _LINK.size)
    mac = attributes.get(_IFLA_ADDRESS, b"")
    carrying = _IFF_UP | _IFF_RUNNING | _IFF_LOWER_UP
    yield Interface(
        index=index,
        name=LinkName(attributes.get(_IFLA_NAME, b"").rstrip(b"\0").decode(errors="replace")),
        mac=Mac(mac),
        carrier=flags & carrying == carrying,
        unfit=_unfit(kind, flags, mac, _number(attributes.get(_IFLA_MASTER))),
        downs=_number(attributes.get(_IFLA_CARRIER_DOWN_COUNT)),
    )


def _unfit(kind: int, flags: int, mac: bytes, master: int) -> Unfit | None:
    if kind != _ARPHRD_ETHER or len(mac) != 6:
        return Unfit.NOT_ETHERNET
    if not any(mac) or is_group(mac):
        return Unfit.NO_MAC
    if flags & _IFF_SLAVE or master:
        return Unfit.PART_OF_ANOTHER
    if not flags & _IFF_BROADCAST:
        return Unfit.NO_BROADCAST
    return Unfit.NO_ARP if flags & _IFF_NOARP else None


def _new_address(body: bytes) -> Iterator[InterfaceAddress | Removed]:
    _, _, flags, _, _ = _ADDRESS.unpack_from(body)
    for found in _interface_address(body):
        yield Removed(found) if flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED) else found


def _interface_address(body: bytes) -> Iterator[InterfaceAddress]:
    family, length, _, scope, index = _ADDRESS.unpack_from(body)
    if family not in _ADDRESS_OCTETS or scope >= _SCOPE_HOST:
        return
    attributes = _attributes(body, _ADDRESS.size)
    octets = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    if len(octets) == _ADDRESS_OCTETS[family]:
        yield InterfaceAddress(index, OwnAddress(WireAddress(octets), length))


def _gateway(body: bytes) -> Iterator[Gateway]:
    family, destination_length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    octets = _ADDRESS_OCTETS.get(family)
    if octets is None or destination_length or kind != _UNICAST:
        return
    attributes = _attributes(body, _ROUTE.size)
    if (_number(attributes.get(_RTA_TABLE)) or table) != _MAIN_TABLE:
        return
    metric = _number(attributes.get(_RTA_PRIORITY))
    if len(attributes.get(_RTA_GATEWAY, b"")) == octets:
        yield Gateway(_number(attributes.get(_RTA_OIF)), WireAddress(attributes[_RTA_GATEWAY]), metric)
    hops, start = attributes.get(_RTA_MULTIPATH, b""), 0
    while start + _NEXT_HOP.size <= len(hops):
        length, _, _, index = _NEXT_HOP.unpack_from(hops, start)
        if length < _NEXT_HOP.size:
            raise NetlinkError("a next hop without a length")
        via = _attributes(hops[start : start + length], _NEXT_HOP.size).get(_RTA_GATEWAY, b"")
        if len(via) == octets:
            yield Gateway(index, WireAddress(via), metric)
        start += (length + 3) & ~3


_PARSERS: dict[int, Callable[[bytes], Iterator[Known | Removed]]] = {
    NEW_LINK: _interface,
    DEL_LINK: _interface,
    NEW_ADDRESS: _new_address,
    DEL_ADDRESS: _interface_address,
    NEW_ROUTE: _gateway,
    DEL_ROUTE: _gateway,
}
_DELETIONS = frozenset((DEL_LINK, DEL_ADDRESS, DEL_ROUTE))


def _attributes(body: bytes, start: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while start + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        if length < _ATTRIBUTE.size or start + length > len(body):
            raise NetlinkError(f"an attribute of {length} octets in {len(body) - start}")
        found[kind & _ATTRIBUTE_KIND] = body[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
    return found


def _number(octets: bytes | None) -> int:
    return _U32.unpack_from(octets)[0] if octets is not None and len(octets) >= 4 else 0
