"""Heartbeats in IPv4: Ethernet (RFC 894), IPv4 (RFC 791) and UDP around a datagram.

The IP header's checksum is checked. A header has no options, a packet is no fragment.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv4Address

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import OwnAddress, WireAddress, own_of
from speaker.wire.bpf import DROP, IF_ANY_BIT, IF_EQUAL, LOAD_HALF, LOAD_OCTET, Instruction
from speaker.wire.checksum import internet_checksum
from speaker.wire.ethernet import ETHERTYPE_IPV4, HEADER_OCTETS, FrameError
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

ETHERTYPE = ETHERTYPE_IPV4
HEADERS_OCTETS = HEADER_OCTETS + 20 + 8
GROUP = WireAddress.of(AddressText("224.0.0.254"))
"""In the block that routers never forward (224.0.0.0/24, RFC 5771 §4); its last address, for experiments (RFC 4727)."""
GROUP_MAC = Mac(b"\x01\x00\x5e\x00\x00\xfe")
"""RFC 1112 §6.4."""

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_PLAIN = 0x45  # version 4, a header of five words
_DO_NOT_FRAGMENT = 0x4000
_FRAGMENT = 0x3FFF  # more fragments, or an offset
_ICMP_PROTOCOL = 1
_UNREACHABLE, _PORT_UNREACHABLE = 3, 3

LAYOUT = FrameLayout(
    protocol_at=23,
    icmp=_ICMP_PROTOCOL,
    port_unreachable=_UNREACHABLE << 8 | _PORT_UNREACHABLE,
    payload_at=34,
    quoted_protocol_at=51,
    quoted_ports_at=62,
    to_at=30,
    plain=(
        Instruction(LOAD_OCTET, 0, 0, 14),
        Instruction(IF_EQUAL, 0, 2, _PLAIN),
        Instruction(LOAD_HALF, 0, 0, 20),
        Instruction(IF_ANY_BIT, 0, 1, _FRAGMENT),
        DROP,
    ),
)


def own(state: LinkState) -> list[OwnAddress]:
    """All of the link's IPv4 addresses."""
    return own_of(state.prefixes, Family.IPV4)


@lru_cache(maxsize=1024)  # each heartbeat asks, and there are not many senders
def is_hosts(source: WireAddress) -> bool:
    address = IPv4Address(source)
    return not (address.is_multicast or address.is_loopback or address.is_unspecified or address.is_reserved)


def encode(frame: UdpFrame) -> bytes:
    source, to = frame.source, frame.to
    length = UDP_HEADER.size + len(frame.data)
    pseudo = source + to + struct.pack("!HH", UDP, length)
    checksum = internet_checksum(pseudo + UDP_HEADER.pack(frame.port, frame.to_port, length, 0) + frame.data) or 0xFFFF
    header = (_PLAIN, NETWORK_CONTROL, _IPV4.size + length, 0, _DO_NOT_FRAGMENT, frame.hops, UDP)
    ip_checksum = internet_checksum(_IPV4.pack(*header, 0, source, to))
    return b"".join(
        (
            ETHERNET_HEADER.pack(frame.to_mac, frame.mac, ETHERTYPE),
            _IPV4.pack(*header, ip_checksum, source, to),
            UDP_HEADER.pack(frame.port, frame.to_port, length, checksum),
            frame.data,
        )
    )


def parse(frame: bytes) -> UdpFrame | PortUnreachable:
    return parse_frame(frame, ETHERTYPE, _ICMP_PROTOCOL, _packet, _port_unreachable)


def _packet(packet: bytes) -> Packet:
    version, _, length, _, fragment, hops, protocol, _, source, to = _IPV4.unpack_from(packet)
    if version != _PLAIN:
        raise FrameError("not IPv4 without options")
    if not _IPV4.size <= length <= len(packet):
        raise FrameError(f"an IPv4 packet of {length} octets in {len(packet)}")
    if fragment & _FRAGMENT:
        raise FrameError("a fragment")
    if internet_checksum(packet[: _IPV4.size]):
        raise FrameError("the IPv4 header's checksum is wrong")
    return Packet(protocol, hops, source, to, packet[_IPV4.size : length])


def _port_unreachable(mac: Mac, packet: Packet) -> PortUnreachable:
    """RFC 792."""
    message = packet.payload
    kind, code, _, _ = ICMP_HEADER.unpack_from(message)
    if (kind, code) != (_UNREACHABLE, _PORT_UNREACHABLE):
        raise FrameError(f"ICMP type {kind}, code {code} is not port unreachable")
    if internet_checksum(message):
        raise FrameError("the ICMP checksum is wrong")
    quoted = message[ICMP_HEADER.size :]  # the first octets of the packet, its header as it arrived
    version, _, _, _, _, _, protocol, _, asker, asked = _IPV4.unpack_from(quoted)
    if version != _PLAIN or protocol != UDP:
        raise FrameError("not about a UDP datagram")
    asker_port, asked_port, _, _ = UDP_HEADER.unpack_from(quoted, _IPV4.size)
    source, to = WireAddress(packet.source), WireAddress(packet.to)
    return PortUnreachable(mac, source, to, WireAddress(asked), asked_port, WireAddress(asker), asker_port)
