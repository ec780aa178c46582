"""Frames from the LAN: codecs, responders and the filters in the kernel ahead of them.

What must hold of any frame:

- A codec reads it or raises `FrameError`, and what it reads it can write and read again.
- A responder answers only a question for an address that it holds or stands in for, as the codec would, from itself, to
  one station that is neither itself nor the one that it stands in for.
- It answers and hands on nothing that the filters would have dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import NeighbourSeen
from speaker.wire.addresses import WireAddress
from speaker.wire.arp import filter as arp_filter
from speaker.wire.arp import frames as arp_codec
from speaker.wire.arp.frames import ArpFrame, Operation
from speaker.wire.arp.responder import ArpResponder
from speaker.wire.bpf import Instruction
from speaker.wire.checksum import internet_checksum
from speaker.wire.ethernet import BROADCAST, FrameError
from speaker.wire.heartbeats.encapsulation import Encapsulation, UdpFrame
from speaker.wire.heartbeats.families import ENCAPSULATIONS
from speaker.wire.heartbeats.filter import heartbeat_code
from speaker.wire.heartbeats.port import HEARTBEAT_PORT
from speaker.wire.heartbeats.sockets import DATAGRAM_OCTETS
from speaker.wire.nd import filter as nd_filter
from speaker.wire.nd import frames as nd_codec
from speaker.wire.nd.frames import NeighbourAdvertisement, NeighbourSolicitation
from speaker.wire.nd.responder import NdResponder
from speaker.wire.resolution import DropReason
from tests.speaker.wire import bpf
from tests.speaker.wire.bpf import instructions, passes
from tests.speaker.wire.nd.messages import resummed

ETH0, NOW = LinkName("eth0"), 100.0
OWN, CLIENT, AWAY = (Mac(b"\2\0\0\0\0" + last) for last in (b"\1", b"\xaa", b"\xff"))
NONCE, PROOF = b"a nonce!", b"twelveoctets"


def _address(text: str) -> WireAddress:
    return WireAddress.of(AddressText(text))


VIP, ASKER, HOME = _address("192.0.2.200"), _address("192.0.2.50"), _address("192.0.2.1")
AWAYS, AWAYS6 = _address("192.0.2.201"), _address("2001:db8::201")
"""Of the node that is away, with the MAC ``AWAY``."""
VIP6, ASKER6, HOME6 = _address("2001:db8::200"), _address("2001:db8::50"), _address("fe80::1")


def prove(*_: object) -> bytes:
    return PROOF


def packet_type(frame: bytes) -> int:
    """What the kernel says of a frame that arrives, by its destination."""
    to = frame[:6]
    if to == BROADCAST:
        return bpf.BROADCAST
    if to[:1] and to[0] & 1:
        return bpf.MULTICAST
    return bpf.HOST if to == OWN else bpf.OTHER_HOST


def _assert_filters_agree(
    verdict: bytes | NeighbourSeen | DropReason,
    frame: bytes,
    questions: Sequence[Instruction],
    answers: Sequence[Instruction],
) -> None:
    kind = packet_type(frame)
    if isinstance(verdict, bytes):
        assert passes(questions, frame, kind), "answered, and the filter drops it"
    elif isinstance(verdict, NeighbourSeen):
        assert passes(questions, frame, kind) or passes(answers, frame, kind), "handed on, and both filters drop it"


def _assert_one_other_station(reply: bytes, mac: Mac) -> None:
    """Neither ourselves nor the ``mac`` that the reply names."""
    assert not reply[0] & 1
    assert reply[:6] not in {OWN, mac, bytes(6)}
    assert reply[6:12] == OWN


# ------------------------------------------------------------------------ ARP

_ARP = ArpResponder(ETH0, OWN, prove)
_ARP.hold(VIP)
_ARP.hold(AWAYS, AWAY)
_ARP.filter.tighten()
_ARP_QUESTIONS, _ARP_ANSWERS = instructions(_ARP.filter.code), instructions(arp_filter.ANSWERS)
ARP_SEEDS = (
    arp_codec.request(VIP, ASKER, CLIENT).encode(),
    arp_codec.request(VIP, ASKER, CLIENT, OWN, NONCE).encode(),
    arp_codec.request(VIP, arp_codec.NO_ADDRESS, CLIENT).encode(),
    arp_codec.gratuitous(Operation.REPLY, VIP, CLIENT).encode(),
    arp_codec.request(AWAYS, ASKER, CLIENT, nonce=NONCE).encode(),
    arp_codec.request(AWAYS, ASKER, AWAY).encode(),
    arp_codec.gratuitous(Operation.REPLY, AWAYS, AWAY).encode(),
    ArpFrame(OWN, CLIENT, Operation.REPLY, CLIENT, ASKER, OWN, HOME, proof=PROOF).encode(),
)


def arp(frame: bytes) -> None:
    read = frame[: arp_codec.READ_OCTETS]
    verdict = _ARP.receive(read, NOW)
    _assert_filters_agree(verdict, frame, _ARP_QUESTIONS, _ARP_ANSWERS)
    try:
        said = ArpFrame.parse(read)
    except FrameError:
        assert verdict is DropReason.MALFORMED
        return
    assert ArpFrame.parse(said.encode()) == said
    if isinstance(verdict, bytes):
        assert said.operation is Operation.REQUEST
        mac = {VIP: OWN, AWAYS: AWAY}[said.target]
        _assert_one_other_station(verdict, mac)
        proved = ArpFrame.parse(verdict).proof
        assert verdict == arp_codec.reply_to(said, mac, proved, OWN).encode()
        assert not proved or said.nonce
        _ARP.asker(read)


# ------------------------------------------------------------------------ Neighbour Discovery

_ND = NdResponder(ETH0, OWN, prove)
_ND.hold(VIP6)
_ND.hold(AWAYS6, AWAY)
_ND.filter.tighten()
_ND_QUESTIONS, _ND_ANSWERS = instructions(_ND.filter.code), instructions(nd_filter.ANSWERS)
_RESUMMED = b"\1"
ND_SEEDS = tuple(
    _RESUMMED + message.encode()
    for message in (
        nd_codec.solicit(VIP6, ASKER6, CLIENT),
        nd_codec.solicit(VIP6, ASKER6, CLIENT, to=OWN, nonce=NONCE),
        NeighbourSolicitation(OWN, CLIENT, ASKER6, VIP6, VIP6),
        nd_codec.probe(VIP6, CLIENT),
        nd_codec.unsolicited(VIP6, CLIENT),
        nd_codec.solicit(AWAYS6, ASKER6, CLIENT, nonce=NONCE),
        nd_codec.solicit(AWAYS6, ASKER6, AWAY),
        nd_codec.unsolicited(AWAYS6, AWAY),
        nd_codec.answer_to(nd_codec.solicit(ASKER6, HOME6, OWN), CLIENT, PROOF),
    )
)


def neighbour_discovery(data: bytes) -> None:
    """The first octet says whether length and checksum are made right: hardly any guess would have them so."""
    how, frame = data[:1], data[1:]
    if how == _RESUMMED and len(frame) >= nd_codec.LEAST_OCTETS:
        frame = resummed(frame)
    read = frame[: nd_codec.READ_OCTETS]
    verdict = _ND.receive(read, NOW)
    _assert_filters_agree(verdict, frame, _ND_QUESTIONS, _ND_ANSWERS)
    try:
        said = nd_codec.parse(read)
    except FrameError:
        assert verdict is DropReason.MALFORMED
        return
    assert nd_codec.parse(said.encode()) == said
    if isinstance(verdict, bytes):
        assert isinstance(said, NeighbourSolicitation)
        mac = {VIP6: OWN, AWAYS6: AWAY}[said.target]
        _assert_one_other_station(verdict, mac)
        reply = nd_codec.parse(verdict)
        assert isinstance(reply, NeighbourAdvertisement)
        assert verdict == nd_codec.answer_to(said, mac, reply.proof, OWN).encode()
        assert not reply.proof or said.nonce
        _ND.asker(read)


# ------------------------------------------------------------------------ heartbeats' frames

_HOMES = {Family.IPV4: HOME, Family.IPV6: HOME6}
_PEERS = {Family.IPV4: ASKER, Family.IPV6: _address("fe80::50")}
_LONGEST = {ip: ip.headers_octets + DATAGRAM_OCTETS for ip in ENCAPSULATIONS.values()}
_HEARTBEATS = {
    ip: instructions(heartbeat_code(ip.layout, (_HOMES[family], ip.group), HEARTBEAT_PORT, _LONGEST[ip]))
    for family, ip in ENCAPSULATIONS.items()
}
_FAMILIES = (Family.IPV4, Family.IPV6)


def _udp(ip: Encapsulation, to: WireAddress, source: WireAddress, mac: Mac) -> bytes:
    to_mac = ip.group_mac if to == ip.group else mac
    return ip.encode(UdpFrame(to_mac, CLIENT, to, source, HEARTBEAT_PORT, HEARTBEAT_PORT, 255, b"heartbeat"))


def _refusal(ip: Encapsulation) -> bytes:
    """The kernel of the peer says that nobody listens there."""
    home, peer = _HOMES[ip.family], _PEERS[ip.family]
    octets = ip.layout.payload_at
    kind = ip.layout.port_unreachable.to_bytes(2, "big")
    message = kind + bytes(6) + _udp(ip, peer, home, CLIENT)[14:]
    header = bytearray(_udp(ip, home, peer, OWN)[:octets])
    header[ip.layout.protocol_at] = ip.layout.icmp
    at, length = (16, octets - 14 + len(message)) if ip.family is Family.IPV4 else (18, len(message))
    header[at : at + 2] = length.to_bytes(2, "big")
    return bytes(header) + message


HEARTBEAT_SEEDS = tuple(
    how + frame
    for family, ip in ENCAPSULATIONS.items()
    for how in (bytes((_FAMILIES.index(family),)), bytes((2 + _FAMILIES.index(family),)))
    for frame in (
        _udp(ip, ip.group, _PEERS[family], CLIENT),
        _udp(ip, _HOMES[family], _PEERS[family], OWN),
        _refusal(ip),
    )
)


def heartbeat_frames(data: bytes) -> None:
    """The first octet says of which family the socket is, and whether the checksums are made right."""
    how, frame = data[:1] or b"\0", data[1:]
    ip = ENCAPSULATIONS[_FAMILIES[how[0] % 2]]
    if how[0] & 2:
        frame = _with_checksums(ip, frame)
    try:
        packet = ip.parse(frame[: _LONGEST[ip]])
    except FrameError:
        return
    home = _HOMES[ip.family]
    if isinstance(packet, UdpFrame):
        matters = packet.to_port == HEARTBEAT_PORT and packet.to in {home, ip.group}
        assert ip.parse(ip.encode(packet)) == packet
    else:
        matters = packet.asked_port == packet.asker_port == HEARTBEAT_PORT and packet.to == home
    ip.is_hosts(packet.source)
    kind = packet_type(frame)
    if matters and len(frame) <= _LONGEST[ip] and kind <= bpf.MULTICAST:
        assert passes(_HEARTBEATS[ip], frame, kind), "it would be believed, and the filter drops it"


def _with_checksums(ip: Encapsulation, frame: bytes) -> bytes:
    """IPv4's header and ICMP: UDP's is not looked at."""
    at = ip.layout.payload_at
    if len(frame) < at + 8:
        return frame
    made = bytearray(frame)
    end, pseudo = len(made), b""
    if ip.family is Family.IPV4:
        made[24:26] = bytes(2)
        made[24:26] = internet_checksum(bytes(made[14:34])).to_bytes(2, "big")
        end = min(end, 14 + int.from_bytes(made[16:18], "big"))
    else:
        end = min(end, at + int.from_bytes(made[18:20], "big"))
        pseudo = bytes(made[22:54]) + (end - at).to_bytes(4, "big") + bytes((0, 0, 0, made[20]))
    if made[ip.layout.protocol_at] == ip.layout.icmp:
        made[at + 2 : at + 4] = bytes(2)
        made[at + 2 : at + 4] = internet_checksum(pseudo + bytes(made[at:end])).to_bytes(2, "big")
    return bytes(made)
