"""Heartbeats in IPv4, with scapy as the independent reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from cluster.objects import AddressText
from speaker.wire.addresses import WireAddress
from speaker.wire.checksum import internet_checksum
from speaker.wire.ethernet import FrameError
from speaker.wire.heartbeats.encapsulation import PortUnreachable, UdpFrame
from speaker.wire.heartbeats.ipv4 import encode, parse
from tests.speaker.wire.heartbeats.made_up import OWN, PEER, udp_frames

HERE, THERE = WireAddress.of(AddressText("192.0.2.11")), WireAddress.of(AddressText("192.0.2.12"))
EXAMPLE = UdpFrame(PEER, OWN, THERE, HERE, 7948, 7948, 255, b"heartbeat")


@given(frame=udp_frames(4), padding=st.binary(max_size=40))
def test_frame_survives_encoding_and_padding(frame: UdpFrame, padding: bytes) -> None:
    assert parse(encode(frame) + padding) == frame


@given(frame=udp_frames(4))
def test_scapy_reads_what_we_encode_and_finds_the_checksums_right(frame: UdpFrame) -> None:
    octets = encode(frame)
    read = Ether(octets)
    assert (read.dst, read.src, read.type) == (frame.to_mac.hex(":"), frame.mac.hex(":"), 0x0800)
    assert (read[IP].src, read[IP].dst, read[IP].ttl) == (frame.source.text, frame.to.text, frame.hops)
    assert (read[IP].flags, read[IP].frag) == ("DF", 0)
    assert (read[UDP].sport, read[UDP].dport) == (frame.port, frame.to_port)
    assert bytes(read[UDP])[8:] == frame.data
    said = (read[IP].chksum, read[UDP].chksum)
    del read[IP].chksum, read[UDP].chksum
    again = Ether(bytes(read))
    assert (again[IP].chksum, again[UDP].chksum) == said
    assert said[1] != 0, "zero would say that there is no checksum"


@given(frame=udp_frames(4))
def test_we_read_what_scapy_encodes(frame: UdpFrame) -> None:
    made = (
        Ether(dst=frame.to_mac.hex(":"), src=frame.mac.hex(":"))
        / IP(src=frame.source.text, dst=frame.to.text, ttl=frame.hops, id=7)
        / UDP(sport=frame.port, dport=frame.to_port)
        / frame.data
    )
    assert parse(bytes(made)) == frame


def refusal(about: IP, quoted: int = 548) -> bytes:
    outer = Ether(dst=OWN.hex(":"), src=PEER.hex(":")) / IP(src=THERE.text, dst=HERE.text, ttl=64, tos=0xC0)
    return bytes(outer / ICMP(type=3, code=3) / bytes(about)[:quoted])


@pytest.mark.parametrize("quoted", [28, 29, 548], ids=["header and eight octets", "one more", "much"])
def test_refusal_says_whose_and_about_what(quoted: int) -> None:
    about = IP(encode(EXAMPLE)[14:])
    assert parse(refusal(about, quoted)) == PortUnreachable(
        PEER, source=THERE, to=HERE, asked=THERE, asked_port=7948, asker=HERE, asker_port=7948
    )


@given(data=st.data())
def test_hostile_octets_are_a_packet_or_a_frame_error(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([encode(EXAMPLE), refusal(IP(encode(EXAMPLE)[14:]))]))
    kind = data.draw(st.integers(0, 2))
    if kind == 0:
        octets = data.draw(st.binary(max_size=120))
    elif kind == 1:
        octets = whole[: data.draw(st.integers(0, 34))] + data.draw(st.binary(max_size=60))
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        octets = whole[:at] + data.draw(st.binary(min_size=1, max_size=4)) + whole[at + 1 :]
    try:
        parsed = parse(octets)
    except FrameError:
        return
    if isinstance(parsed, UdpFrame):
        assert encode(parsed)[34:40] == octets[34:40]
        assert len(parsed.data) <= len(octets) - 42


@pytest.mark.parametrize("whole", [encode(EXAMPLE), refusal(IP(encode(EXAMPLE)[14:]))], ids=["datagram", "refusal"])
def test_every_truncation_is_a_frame_error(whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(FrameError):
            parse(whole[:length])


def fixed(at: int, *octets: int) -> bytes:
    """The example with other octets, and an IP checksum that fits them."""
    frame = bytearray(encode(EXAMPLE))
    frame[at : at + len(octets)] = bytes(octets)
    frame[24:26] = bytes(2)
    frame[24:26] = internet_checksum(bytes(frame[14:34])).to_bytes(2, "big")
    return bytes(frame)


@pytest.mark.parametrize(
    "frame",
    [
        fixed(12, 0x86, 0xDD),
        fixed(14, 0x46),
        fixed(14, 0x65),
        fixed(16, 0, 19),
        fixed(16, 0xFF, 0xFF),
        fixed(20, 0x20, 0),
        fixed(20, 0, 1),
        fixed(23, 6),
        fixed(38, 0, 7),
        fixed(38, 0, 18),
        encode(EXAMPLE)[:24] + b"\0\0" + encode(EXAMPLE)[26:],
    ],
    ids=[
        "EtherType", "options", "version", "length below its header", "length above the frame", "first fragment",
        "later fragment", "TCP", "UDP length below its header", "UDP length above the packet", "IP checksum",
    ],
)  # fmt: skip
def test_each_field_is_checked(frame: bytes) -> None:
    assert parse(fixed(22, 255)) == EXAMPLE
    with pytest.raises(FrameError):
        parse(frame)


@pytest.mark.parametrize(
    "about",
    [
        IP(src=HERE.text, dst=THERE.text, proto=6) / bytes(20),
        IP(src=HERE.text, dst=THERE.text, options=b"\x94\x04\0\0") / UDP(sport=7948, dport=7948),
    ],
    ids=["TCP", "options"],
)
def test_refusal_of_something_else_is_none(about: IP) -> None:
    with pytest.raises(FrameError):
        parse(refusal(about))


@pytest.mark.parametrize("octets", [b"", b"\0\0", b"\xff\xff", b"\x12\x34\x56", bytes(20)])
def test_checksum_is_that_of_rfc_1071(octets: bytes) -> None:
    total = sum(int.from_bytes(octets[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(octets), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert internet_checksum(octets) == 0xFFFF - total
