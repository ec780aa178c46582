"""Frames from the LAN: codecs, responders and the filters in the kernel ahead of them.

What must hold of any frame:

- A codec reads it or raises `FrameError`, and what it reads it can write and read again.
- A responder answers only a question for an address that it holds, as the codec would, to one station that is not
  itself; and it answers and hands on nothing that the filters would have dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from speaker.wire.heartbeats import datagrams
from speaker.wire.heartbeats.datagrams import PortUnreachable, UdpFrame
from speaker.wire.heartbeats.filter import heartbeat_code
from speaker.wire.heartbeats.sockets import DATAGRAM_OCTETS, GROUP_MAC, HEARTBEAT_GROUP, HEARTBEAT_PORT
from speaker.wire.nd import filter as nd_filter
from speaker.wire.nd import frames as nd_codec
from speaker.wire.nd.frames import NeighbourAdvertisement, NeighbourSolicitation
from speaker.wire.nd.responder import NdResponder
from speaker.wire.resolution import DropReason
from tests.speaker.wire import bpf
from tests.speaker.wire.bpf import instructions, passes
from tests.speaker.wire.nd.messages import resummed

ETH0, NOW = LinkName("eth0"), 100.0
OWN, CLIENT = Mac(b"\2\0\0\0\0\1"), Mac(b"\2\0\0\0\0\xaa")
NONCE, PROOF = b"a nonce!", b"twelveoctets"


def _address(text: str) -> WireAddress:
    return WireAddress.of(AddressText(text))


VIP, ASKER, HOME = _address("192.0.2.200"), _address("192.0.2.50"), _address("192.0.2.1")
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


def _assert_one_other_station(reply: bytes) -> None:
    assert not reply[0] & 1
    assert reply[:6] not in {OWN, bytes(6)}
    assert reply[6:12] == OWN


# ------------------------------------------------------------------------ ARP

_ARP = ArpResponder(ETH0, OWN, prove)
_ARP.hold(VIP)
_ARP.filter.tighten()
_ARP_QUESTIONS, _ARP_ANSWERS = instructions(_ARP.filter.code), instructions(arp_filter.ANSWERS)
ARP_SEEDS = (
    arp_codec.request(VIP, ASKER, CLIENT).encode(),
    arp_codec.request(VIP, ASKER, CLIENT, OWN, NONCE).encode(),
    arp_codec.request(VIP, arp_codec.NO_ADDRESS, CLIENT).encode(),
    arp_codec.gratuitous(Operation.REPLY, VIP, CLIENT).encode(),
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
        assert (said.operation, said.target) == (Operation.REQUEST, VIP)
        _assert_one_other_station(verdict)
        proved = ArpFrame.parse(verdict).proof
        assert verdict == arp_codec.reply_to(said, OWN, proved).encode()
        assert not proved or said.nonce
        _ARP.asker(read)


# ------------------------------------------------------------------------ Neighbour Discovery

_ND = NdResponder(ETH0, OWN, prove)
_ND.hold(VIP6)
_ND.filter.tighten()
_ND_QUESTIONS, _ND_ANSWERS = instructions(_ND.filter.code), instructions(nd_filter.ANSWERS)
_RAW, _RESUMMED = b"\0", b"\1"
ND_SEEDS = tuple(
    _RESUMMED + message.encode()
    for message in (
        nd_codec.solicit(VIP6, ASKER6, CLIENT),
        nd_codec.solicit(VIP6, ASKER6, CLIENT, to=OWN, nonce=NONCE),
        NeighbourSolicitation(OWN, CLIENT, ASKER6, VIP6, VIP6),
        nd_codec.probe(VIP6, CLIENT),
        nd_codec.unsolicited(VIP6, CLIENT),
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
        assert said.target == VIP6
        _assert_one_other_station(verdict)
        reply = nd_codec.parse(verdict)
        assert isinstance(reply, NeighbourAdvertisement)
        assert verdict == nd_codec.answer_to(said, OWN, reply.proof).encode()
        assert not reply.proof or said.nonce
        _ND.asker(read)


# ------------------------------------------------------------------------ heartbeats' frames

_LONGEST = datagrams.HEADERS_OCTETS + DATAGRAM_OCTETS
_HEARTBEATS = instructions(heartbeat_code((HOME, HEARTBEAT_GROUP), HEARTBEAT_PORT, _LONGEST))
_HEARTBEAT = UdpFrame(GROUP_MAC, CLIENT, HEARTBEAT_GROUP, ASKER, HEARTBEAT_PORT, HEARTBEAT_PORT, 255, b"heartbeat")
_OURS = UdpFrame(CLIENT, OWN, ASKER, HOME, HEARTBEAT_PORT, HEARTBEAT_PORT, 255, b"heartbeat")


def _refusal() -> bytes:
    about = _OURS.encode()[14:]
    message = bytes((3, 3, 0, 0, 0, 0, 0, 0)) + about
    header = bytearray(UdpFrame(OWN, CLIENT, HOME, ASKER, 0, 0, 64, b"").encode()[:34])
    header[16:18], header[23] = (20 + len(message)).to_bytes(2, "big"), 1
    return bytes(header) + message


HEARTBEAT_SEEDS = (_RAW + _HEARTBEAT.encode(), _RESUMMED + _HEARTBEAT.encode(), _RESUMMED + _refusal())


def heartbeat_frames(data: bytes) -> None:
    """The first octet says whether the checksums are made right."""
    how, frame = data[:1], data[1:]
    if how == _RESUMMED:
        frame = _with_checksums(frame)
    try:
        packet = datagrams.parse(frame[:_LONGEST])
    except FrameError:
        return
    if isinstance(packet, UdpFrame):
        matters = packet.to_port == HEARTBEAT_PORT and packet.to in {HOME, HEARTBEAT_GROUP}
        again = datagrams.parse(packet.encode())
        assert again == packet
    else:
        matters = _refuses(packet)
    if matters and len(frame) <= _LONGEST and packet_type(frame) <= bpf.MULTICAST:
        assert passes(_HEARTBEATS, frame, packet_type(frame)), "it would be believed, and the filter drops it"


def _refuses(packet: PortUnreachable) -> bool:
    return packet.asked_port == packet.asker_port == HEARTBEAT_PORT and packet.to == HOME


def _with_checksums(frame: bytes) -> bytes:
    if len(frame) < 42:
        return frame
    made = bytearray(frame)
    made[24:26] = bytes(2)
    made[24:26] = internet_checksum(bytes(made[14:34])).to_bytes(2, "big")
    if made[23] == 1:
        end = 14 + int.from_bytes(made[16:18], "big")
        made[36:38] = bytes(2)
        made[36:38] = internet_checksum(bytes(made[34:end])).to_bytes(2, "big")
    return bytes(made)
