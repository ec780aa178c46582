"""Heartbeats as whole frames: Ethernet (RFC 894), IPv4 (RFC 791) and UDP (RFC 768) around a datagram.

The speaker makes these frames and reads them itself, so that nothing in between decides whether it is alive: no
neighbour table that is full, no host firewall, no routing rule, no reverse path filter. What is left to the kernel is
in ``sockets``.

Two kinds of packets are read: a UDP datagram, and the ICMP message "port unreachable" (RFC 792) about a datagram of
ours, by which a kernel says that nobody listens there. Both must be whole and without IP options, and what their
headers say must fit the frame; anything else raises `FrameError`. The IP header's checksum is checked. UDP's is not,
since a virtual network may leave it to hardware that is not there, and heartbeats are authenticated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.checksum import internet_checksum
from speaker.wire.ethernet import HEADER_OCTETS, FrameError

ETHERTYPE_IPV4 = 0x0800
HEADERS_OCTETS = HEADER_OCTETS + 20 + 8
"""Ethernet, IPv4 and UDP headers: what a frame has before the datagram."""

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_ICMP = struct.Struct("!BBHI")
_PLAIN = 0x45  # version 4, a header of five words
_NETWORK_CONTROL = 0xC0  # DSCP CS6 (RFC 4594 §3.1), as routing protocols and VRRP mark what they say
_DO_NOT_FRAGMENT = 0x4000
_FRAGMENT = 0x3FFF  # more fragments, or an offset
_UDP_PROTOCOL, _ICMP_PROTOCOL = 17, 1
_UNREACHABLE, _PORT_UNREACHABLE = 3, 3


@dataclass(frozen=True, slots=True)
class UdpFrame:
    """One UDP datagram in one Ethernet frame."""

    to_mac: Mac
    mac: Mac
    """The sender's, as the Ethernet header says."""
    to: WireAddress
    source: WireAddress
    to_port: int
    port: int
    """The sender's."""
    ttl: int
    data: bytes

    def encode(self) -> bytes:
        """The frame; the driver pads it. ``struct.error`` if the datagram is longer than IPv4 can say."""
        source, to = self.source, self.to
        length = _UDP.size + len(self.data)
        pseudo = source + to + struct.pack("!HH", _UDP_PROTOCOL, length)
        checksum = internet_checksum(pseudo + _UDP.pack(self.port, self.to_port, length, 0) + self.data) or 0xFFFF
        header = (_PLAIN, _NETWORK_CONTROL, 20 + length, 0, _DO_NOT_FRAGMENT, self.ttl, _UDP_PROTOCOL)
        ip_checksum = internet_checksum(_IPV4.pack(*header, 0, source, to))
        return b"".join(
            (
                _ETHERNET.pack(self.to_mac, self.mac, ETHERTYPE_IPV4),
                _IPV4.pack(*header, ip_checksum, source, to),
                _UDP.pack(self.port, self.to_port, length, checksum),
                self.data,
            )
        )


@dataclass(frozen=True, slots=True)
class PortUnreachable:
    """A kernel says that no process has the port that a datagram was sent to."""

    mac: Mac
    source: WireAddress
    """Whose kernel says it."""
    to: WireAddress
    asked: WireAddress
    """Where the datagram in question was sent to, and to which port."""
    asked_port: int
    asker: WireAddress
    """Who had sent it, from which port."""
    asker_port: int


def parse(frame: bytes) -> UdpFrame | PortUnreachable:
    """Read a frame as received; octets after the packet are padding. Raises `FrameError`."""
    try:
        to_mac, mac, ethertype = _ETHERNET.unpack_from(frame)
        if ethertype != ETHERTYPE_IPV4:
            raise FrameError(f"EtherType {ethertype:#06x} is not IPv4")
        protocol, ttl, source, to, payload = _packet(frame[HEADER_OCTETS:])
        if protocol == _UDP_PROTOCOL:
            port, to_port, length, _ = _UDP.unpack_from(payload)
            if length != len(payload):
                raise FrameError(f"a UDP datagram of {length} octets in {len(payload)}")
            return UdpFrame(
                Mac(to_mac),
                Mac(mac),
                WireAddress(to),
                WireAddress(source),
                to_port,
                port,
                ttl,
                payload[_UDP.size :],
            )
        if protocol == _ICMP_PROTOCOL:
            return _port_unreachable(Mac(mac), source, to, payload)
    except struct.error as error:
        raise FrameError(str(error)) from error
    raise FrameError(f"protocol {protocol} is neither UDP nor ICMP")


def _packet(packet: bytes) -> tuple[int, int, bytes, bytes, bytes]:
    """Protocol, TTL, source, destination and payload of an IPv4 packet."""
    version, _, length, _, fragment, ttl, protocol, _, source, to = _IPV4.unpack_from(packet)
    if version != _PLAIN:
        raise FrameError("not IPv4 without options")
    if not _IPV4.size <= length <= len(packet):
        raise FrameError(f"an IPv4 packet of {length} octets in {len(packet)}")
    if fragment & _FRAGMENT:
        raise FrameError("a fragment")
    if internet_checksum(packet[: _IPV4.size]):
        raise FrameError("the IPv4 header's checksum is wrong")
    return protocol, ttl, source, to, packet[_IPV4.size : length]


def _port_unreachable(mac: Mac, source: bytes, to: bytes, message: bytes) -> PortUnreachable:
    kind, code, _, _ = _ICMP.unpack_from(message)
    if (kind, code) != (_UNREACHABLE, _PORT_UNREACHABLE):
        raise FrameError(f"ICMP type {kind}, code {code} is not port unreachable")
    if internet_checksum(message):
        raise FrameError("the ICMP checksum is wrong")
    quoted = message[_ICMP.size :]  # the first octets of the packet, its header as it arrived
    version, _, _, _, _, _, protocol, _, asker, asked = _IPV4.unpack_from(quoted)
    if version != _PLAIN or protocol != _UDP_PROTOCOL:
        raise FrameError("not about a UDP datagram")
    asker_port, asked_port, _, _ = _UDP.unpack_from(quoted, _IPV4.size)
    return PortUnreachable(
        mac,
        WireAddress(source),
        WireAddress(to),
        WireAddress(asked),
        asked_port,
        WireAddress(asker),
        asker_port,
    )
