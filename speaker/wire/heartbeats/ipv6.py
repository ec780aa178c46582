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
from speaker.wire.checksum import ipv6_checksum
from speaker.wire.ethernet import ETHERTYPE_IPV6, HEADER_OCTETS, FrameError
from speaker.wire.heartbeats.encapsulation import (
    ETHERNET_HEADER,
    ICMP_HEADER,
    NETWORK_CONTROL,
    UDP,
    UDP_HEADER,
    FrameLayout,
    Packet,
    PortUnreachable,
    UdpFrame,
    parse_frame,
)

ETHERTYPE = ETHERTYPE_IPV6
HEADERS_OCTETS = HEADER_OCTETS + 40 + 8
GROUP = WireAddress.of(AddressText("ff02::114"))
"""Link-local scope (RFC 4291 §2.7); for experiments (RFC 4727)."""
GROUP_MAC = Mac(b"\x33\x33\x00\x00\x01\x14")
"""RFC 2464 §7."""

_IPV6 = struct.Struct("!IHBB16s16s")
_VERSION = 6
_FIRST_WORD = _VERSION << 28 | NETWORK_CONTROL << 20
"""Version, traffic class, and no flow label."""
_ICMPV6 = 58
_CHECKSUM = slice(6, 8)
"""Of UDP's header."""
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
    length = UDP_HEADER.size + len(frame.data)
    unsummed = UDP_HEADER.pack(frame.port, frame.to_port, length, 0) + frame.data
    checksum = ipv6_checksum(UDP, source + to + unsummed) or 0xFFFF  # without one, the datagram is to be thrown away
    return b"".join(
        (
            ETHERNET_HEADER.pack(frame.to_mac, frame.mac, ETHERTYPE),
            _IPV6.pack(_FIRST_WORD, length, UDP, frame.hops, source, to),
            UDP_HEADER.pack(frame.port, frame.to_port, length, checksum),
            frame.data,
        )
    )


def parse(frame: bytes) -> UdpFrame | PortUnreachable:
    return parse_frame(frame, ETHERTYPE, _ICMPV6, _packet, _port_unreachable)


def _packet(packet: bytes) -> Packet:
    first_word, length, protocol, hops, source, to = _IPV6.unpack_from(packet)
    if first_word >> 28 != _VERSION:
        raise FrameError("not version 6")
    if _IPV6.size + length > len(packet):
        raise FrameError(f"an IPv6 packet of {length} octets in {len(packet) - _IPV6.size}")
    payload = packet[_IPV6.size : _IPV6.size + length]
    if protocol == UDP and payload[_CHECKSUM] == bytes(2):
        raise FrameError("UDP without a checksum")
    return Packet(protocol, hops, source, to, payload)


def _port_unreachable(mac: Mac, packet: Packet) -> PortUnreachable:
    """RFC 4443 §3.1."""
    message = packet.payload
    kind, code, _, _ = ICMP_HEADER.unpack_from(message)
    if (kind, code) != (_UNREACHABLE, _PORT_UNREACHABLE):
        raise FrameError(f"ICMPv6 type {kind}, code {code} is not port unreachable")
    if ipv6_checksum(_ICMPV6, packet.source + packet.to + message):
        raise FrameError("the ICMPv6 checksum is wrong")
    quoted = message[ICMP_HEADER.size :]  # the first octets of the packet, its header as it arrived
    first_word, _, protocol, _, asker, asked = _IPV6.unpack_from(quoted)
    if first_word >> 28 != _VERSION or protocol != UDP:
        raise FrameError("not about a UDP datagram")
    asker_port, asked_port, _, _ = UDP_HEADER.unpack_from(quoted, _IPV6.size)
    source, to = WireAddress(packet.source), WireAddress(packet.to)
    return PortUnreachable(mac, source, to, WireAddress(asked), asked_port, WireAddress(asker), asker_port)
