"""Heartbeats in IPv6: Ethernet (RFC 2464), IPv6 (RFC 8200) and UDP around a datagram.

They come from the sending link's link-local address, which every interface that speaks IPv6 has, and which no router
forwards. UDP's header follows IPv6's: a packet with extension headers is none of ours, a fragment included.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv6Address

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.effects import LINK_LOCAL_LENGTH, LinkState
from speaker.wire.addresses import OwnAddress, WireAddress
from speaker.wire.checksum import internet_checksum
from speaker.wire.ethernet import HEADER_OCTETS, FrameError
from speaker.wire.heartbeats.encapsulation import NETWORK_CONTROL, UDP, FrameLayout, PortUnreachable, UdpFrame

ETHERTYPE = 0x86DD
HEADERS_OCTETS = HEADER_OCTETS + 40 + 8
GROUP = WireAddress.of(AddressText("ff02::114"))
"""Link-local scope (RFC 4291 §2.7); for experiments (RFC 4727)."""
GROUP_MAC = Mac(b"\x33\x33\x00\x00\x01\x14")
"""RFC 2464 §7."""

_ETHERNET = struct.Struct("!6s6sH")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")
_ICMP = struct.Struct("!BBHI")
_PSEUDO = struct.Struct("!16s16sII")
"""What a checksum covers besides the payload (RFC 8200 §8.1)."""
_VERSION = 6
_FIRST_WORD = _VERSION << 28 | NETWORK_CONTROL << 20
"""Version, traffic class, and no flow label."""
_ICMPV6 = 58
_UNREACHABLE, _PORT_UNREACHABLE = 1, 4

LAYOUT = FrameLayout(
    protocol_at=20,
    icmp=_ICMPV6,
    port_unreachable=_UNREACHABLE << 8 | _PORT_UNREACHABLE,
    payload_at=54,
    quoted_protocol_at=68,
    quoted_ports_at=102,
    to_at=50,
)


def own(state: LinkState) -> list[OwnAddress]:
    """The link-local address alone: wherever the link has another one, peers need not be on its subnet."""
    if state.link_local is None:
        return []
    return [OwnAddress(WireAddress.of(state.link_local), LINK_LOCAL_LENGTH)]


@lru_cache(maxsize=1024)  # each heartbeat asks, and there are not many senders
def is_hosts(source: WireAddress) -> bool:
    return IPv6Address(bytes(source)).is_link_local


def encode(frame: UdpFrame) -> bytes:
    source, to = frame.source, frame.to
    length = _UDP.size + len(frame.data)
    unsummed = _UDP.pack(frame.port, frame.to_port, length, 0) + frame.data
    checksum = _checksum(source, to, UDP, unsummed) or 0xFFFF  # without one, the datagram is to be thrown away
    return b"".join(
        (
            _ETHERNET.pack(frame.to_mac, frame.mac, ETHERTYPE),
            _IPV6.pack(_FIRST_WORD, length, UDP, frame.hops, source, to),
            _UDP.pack(frame.port, frame.to_port, length, checksum),
            frame.data,
        )
    )


def parse(frame: bytes) -> UdpFrame | PortUnreachable:
    try:
        to_mac, mac, ethertype = _ETHERNET.unpack_from(frame)
        if ethertype != ETHERTYPE:
            raise FrameError(f"EtherType {ethertype:#06x} is not IPv6")
        protocol, hops, source, to, payload = _packet(frame[HEADER_OCTETS:])
        if protocol == UDP:
            port, to_port, length, checksum = _UDP.unpack_from(payload)
            if length != len(payload):
                raise FrameError(f"a UDP datagram of {length} octets in {len(payload)}")
            if not checksum:
                raise FrameError("UDP without a checksum")
            data = payload[_UDP.size :]
            return UdpFrame(Mac(to_mac), Mac(mac), WireAddress(to), WireAddress(source), to_port, port, hops, data)
        if protocol == _ICMPV6:
            return _port_unreachable(Mac(mac), source, to, payload)
    except struct.error as error:
        raise FrameError(str(error)) from error
    raise FrameError(f"next header {protocol} is neither UDP nor ICMPv6")


def _packet(packet: bytes) -> tuple[int, int, bytes, bytes, bytes]:
    """Next header, hop limit, source, destination and payload."""
    first_word, length, protocol, hops, source, to = _IPV6.unpack_from(packet)
    if first_word >> 28 != _VERSION:
        raise FrameError("not version 6")
    if _IPV6.size + length > len(packet):
        raise FrameError(f"an IPv6 packet of {length} octets in {len(packet) - _IPV6.size}")
    return protocol, hops, source, to, packet[_IPV6.size : _IPV6.size + length]


def _port_unreachable(mac: Mac, source: bytes, to: bytes, message: bytes) -> PortUnreachable:
    """RFC 4443 §3.1."""
    kind, code, _, _ = _ICMP.unpack_from(message)
    if (kind, code) != (_UNREACHABLE, _PORT_UNREACHABLE):
        raise FrameError(f"ICMPv6 type {kind}, code {code} is not port unreachable")
    if _checksum(source, to, _ICMPV6, message):
        raise FrameError("the ICMPv6 checksum is wrong")
    quoted = message[_ICMP.size :]  # the first octets of the packet, its header as it arrived
    first_word, _, protocol, _, asker, asked = _IPV6.unpack_from(quoted)
    if first_word >> 28 != _VERSION or protocol != UDP:
        raise FrameError("not about a UDP datagram")
    asker_port, asked_port, _, _ = _UDP.unpack_from(quoted, _IPV6.size)
    return PortUnreachable(
        mac, WireAddress(source), WireAddress(to), WireAddress(asked), asked_port, WireAddress(asker), asker_port
    )


def _checksum(source: bytes, to: bytes, protocol: int, payload: bytes) -> int:
    """Of a payload in which its field is zero; zero for one that carries the right one."""
    return internet_checksum(_PSEUDO.pack(source, to, len(payload), protocol) + payload)
