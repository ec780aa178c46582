"""What carries a heartbeat, whatever the family: a UDP datagram (RFC 768) in a packet of IPv4 or of IPv6, in an
Ethernet frame.

The speaker makes these frames and reads them itself, so that nothing in between decides whether it is alive: no
neighbour table that is full, no host firewall, no routing rule, no reverse path filter. What is left to the kernel is
in ``port`` and ``memberships``.

Two kinds of packets are read: a UDP datagram, and "port unreachable" of the family's ICMP about a datagram of ours, by
which a kernel says that nobody listens there. Both must be whole and plain, without IP options or extension headers,
and what their headers say must fit the frame; anything else raises `FrameError`. UDP's checksum is always sent, and is
not checked: a virtual network may leave it to hardware that is not there, and heartbeats are authenticated.

`Encapsulation` is the record of what differs. ``families`` has one for each family, and no other part of heartbeats
tells the families apart, except for what the kernel calls them (``port``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.addresses import Family
from speaker.link import Mac
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import OwnAddress, WireAddress
from speaker.wire.bpf import Instruction
from speaker.wire.ethernet import HEADER_OCTETS, FrameError

NETWORK_CONTROL = 0xC0
"""DSCP CS6 (RFC 4594 §3.1), as routing protocols and VRRP mark what they say: IPv4's type of service, IPv6's traffic
class."""
UDP = 17
"""As the IP header names it (IANA, protocol numbers)."""
ETHERNET_HEADER = struct.Struct("!6s6sH")
UDP_HEADER = struct.Struct("!HHHH")
ICMP_HEADER = struct.Struct("!BBHI")
"""Of "port unreachable", in both versions; the packet that it is about follows."""


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
    hops: int
    """IPv4's time to live, IPv6's hop limit."""
    data: bytes


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


class Packet(NamedTuple):
    """What an IP header says, and what is behind it."""

    protocol: int
    hops: int
    source: bytes
    to: bytes
    payload: bytes


def parse_frame(
    frame: bytes,
    ethertype: int,
    icmp: int,
    packet_of: Callable[[bytes], Packet],
    unreachable_of: Callable[[Mac, Packet], PortUnreachable],
) -> UdpFrame | PortUnreachable:
    """Read a frame of the family with this EtherType and this ICMP. ``packet_of`` reads what is behind Ethernet's
    header, ``unreachable_of`` a message of ICMP. Raises `FrameError`."""
    try:
        to_mac, mac, found = ETHERNET_HEADER.unpack_from(frame)
        if found != ethertype:
            raise FrameError(f"EtherType {found:#06x} is not {ethertype:#06x}")
        packet = packet_of(frame[HEADER_OCTETS:])
        if packet.protocol == UDP:
            port, to_port, length, _ = UDP_HEADER.unpack_from(packet.payload)
            if length != len(packet.payload):
                raise FrameError(f"a UDP datagram of {length} octets in {len(packet.payload)}")
            to, source, data = WireAddress(packet.to), WireAddress(packet.source), packet.payload[UDP_HEADER.size :]
            return UdpFrame(Mac(to_mac), Mac(mac), to, source, to_port, port, packet.hops, data)
        if packet.protocol == icmp:
            return unreachable_of(Mac(mac), packet)
    except struct.error as error:
        raise FrameError(str(error)) from error
    raise FrameError(f"protocol {packet.protocol} is neither UDP nor ICMP")


@dataclass(frozen=True)
class FrameLayout:
    """A frame of one family. Places are octets from the frame's first one."""

    protocol_at: int
    """The number of what the packet carries, an octet."""
    icmp: int
    """That of the family's ICMP; UDP's is one for both."""
    port_unreachable: int
    """ICMP's type and code, an octet each."""
    payload_at: int
    """UDP's ports, or ICMP's type and code."""
    quoted_protocol_at: int
    """In ICMP's message, of the packet that it is about."""
    quoted_ports_at: int
    to_at: int
    """The last word of the destination."""
    plain: tuple[Instruction, ...] = ()
    """Goes on behind its end where a packet is plain, and drops it otherwise."""


@dataclass(frozen=True)
class Encapsulation:
    """What one family brings."""

    family: Family
    ethertype: int
    headers_octets: int
    """What a frame has before the datagram: the headers of Ethernet, IP and UDP."""
    group: WireAddress
    group_mac: Mac
    own: Callable[[LinkState], Sequence[OwnAddress]]
    """Of a link's addresses those that heartbeats come from and are received at. None: the link does not speak the
    family now."""
    is_hosts: Callable[[WireAddress], bool]
    """Whether an address may be the source of a heartbeat."""
    encode: Callable[[UdpFrame], bytes]
    """The frame; the driver pads it. ``struct.error`` if the datagram is longer than the packet can say."""
    parse: Callable[[bytes], UdpFrame | PortUnreachable]
    """Read a frame as received; octets after the packet are padding. Raises `FrameError`."""
    layout: FrameLayout
    """Where the filter in the kernel finds what it compares."""
