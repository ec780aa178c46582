"""Heartbeats in IPv6, with scapy as the independent reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether

from cluster.objects import AddressText
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import FrameError
from speaker.wire.heartbeats.encapsulation import PortUnreachable, UdpFrame
from speaker.wire.heartbeats.ipv6 import GROUP, GROUP_MAC, encode, is_hosts, parse
from speaker.wire.nd.frames import group_mac
from tests.speaker.wire.heartbeats.made_up import OWN, PEER, udp_frames

HERE, THERE = WireAddress.of(AddressText("fe80::11")), WireAddress.of(AddressText("fe80::12"))
EXAMPLE = UdpFrame(PEER, OWN, THERE, HERE, 7948, 7948, 255, b"heartbeat")


@given(frame=udp_frames(16), padding=st.binary(max_size=40))
def test_frame_survives_encoding_and_padding(frame: UdpFrame, padding: bytes) -> None:
    assert parse(encode(frame) + padding) == frame


@given(frame=udp_frames(16))
def test_scapy_reads_what_we_encode_and_finds_the_checksum_right(frame: UdpFrame) -> None:
    read = Ether(encode(frame))
    assert (read.dst, read.src, read.type) == (frame.to_mac.hex(":"), frame.mac.hex(":"), 0x86DD)
    ip = read[IPv6]
    assert (ip.src, ip.dst, ip.hlim) == (frame.source.text, frame.to.text, frame.hops)
    assert (ip.version, ip.tc, ip.fl, ip.nh, ip.plen) == (6, 0xC0, 0, 17, 8 + len(frame.data))
    assert (read[UDP].sport, read[UDP].dport) == (frame.port, frame.to_port)
    assert bytes(read[UDP])[8:] == frame.data
    said = read[UDP].chksum
    del read[UDP].chksum
    assert Ether(bytes(read))[UDP].chksum == said
    assert said != 0, "zero would say that there is no checksum"


def test_a_sum_of_zero_is_sent_as_its_other_form() -> None:
    """RFC 8200 §8.1: a checksum of zero is none, and the datagram is to be thrown away."""

    def checksum(data: bytes) -> bytes:
        return encode(UdpFrame(PEER, OWN, THERE, HERE, 7948, 7948, 255, data))[60:62]

    completes_the_sum = checksum(bytes(2))
    assert checksum(completes_the_sum) == b"\xff\xff"


@given(frame=udp_frames(16))
def test_we_read_what_scapy_encodes(frame: UdpFrame) -> None:
    made = (
        Ether(dst=frame.to_mac.hex(":"), src=frame.mac.hex(":"))
        / IPv6(src=frame.source.text, dst=frame.to.text, hlim=frame.hops, fl=7)
        / UDP(sport=frame.port, dport=frame.to_port)
        / frame.data
    )
    assert parse(bytes(made)) == frame


def refusal(about: IPv6, quoted: int = 1232) -> bytes:
    outer = Ether(dst=OWN.hex(":"), src=PEER.hex(":")) / IPv6(src=THERE.text, dst=HERE.text, hlim=64)
    return bytes(outer / ICMPv6DestUnreach(code=4) / bytes(about)[:quoted])


SENT = IPv6(encode(EXAMPLE)[14:])


@pytest.mark.parametrize("quoted", [48, 49, 1232], ids=["headers", "one octet more", "much"])
def test_refusal_says_whose_and_about_what(quoted: int) -> None:
    assert parse(refusal(SENT, quoted)) == PortUnreachable(
        PEER, source=THERE, to=HERE, asked=THERE, asked_port=7948, asker=HERE, asker_port=7948
    )


@given(data=st.data())
def test_hostile_octets_are_a_packet_or_a_frame_error(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([encode(EXAMPLE), refusal(SENT)]))
    kind = data.draw(st.integers(0, 2))
    if kind == 0:
        octets = data.draw(st.binary(max_size=160))
    elif kind == 1:
        octets = whole[: data.draw(st.integers(0, 54))] + data.draw(st.binary(max_size=80))
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        octets = whole[:at] + data.draw(st.binary(min_size=1, max_size=4)) + whole[at + 1 :]
    try:
        parsed = parse(octets)
    except FrameError:
        return
    if isinstance(parsed, UdpFrame):
        assert encode(parsed)[54:60] == octets[54:60]
        assert len(parsed.data) <= len(octets) - 62


@pytest.mark.parametrize("whole", [encode(EXAMPLE), refusal(SENT)], ids=["datagram", "refusal"])
def test_every_truncation_is_a_frame_error(whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(FrameError):
            parse(whole[:length])


def changed(whole: bytes, at: int, *octets: int) -> bytes:
    return whole[:at] + bytes(octets) + whole[at + len(octets) :]


@pytest.mark.parametrize(
    ("at", "octets"),
    [
        (12, (0x08, 0)),
        (14, (0x4C,)),
        (18, (0, 7)),
        (18, (0xFF, 0xFF)),
        (20, (6,)),
        (20, (0,)),
        (20, (44,)),
        (58, (0, 7)),
        (58, (0, 18)),
        (60, (0, 0)),
    ],
    ids=[
        "EtherType", "version", "length below UDP's", "length above the frame", "TCP", "hop-by-hop options", "fragment",
        "UDP length below its header", "UDP length above the packet", "no checksum",
    ],
)  # fmt: skip
def test_each_field_is_checked(at: int, octets: tuple[int, ...]) -> None:
    with pytest.raises(FrameError):
        parse(changed(encode(EXAMPLE), at, *octets))


@pytest.mark.parametrize(
    "frame",
    [
        refusal(IPv6(src=HERE.text, dst=THERE.text) / TCP() / bytes(20)),
        refusal(IPv6(src=HERE.text, dst=THERE.text) / IPv6ExtHdrDestOpt() / UDP(sport=7948, dport=7948)),
        refusal(IPv6(src=HERE.text, dst=THERE.text) / IPv6ExtHdrFragment() / UDP(sport=7948, dport=7948)),
        changed(refusal(SENT), 56, 0, 0),
        bytes(
            Ether() / IPv6(src=THERE.text, dst=HERE.text) / ICMPv6DestUnreach(code=1) / SENT
        ),
    ],
    ids=["about TCP", "about options", "about a fragment", "wrong checksum", "address unreachable"],
)  # fmt: skip
def test_what_is_no_refusal_of_a_datagram_is_none(frame: bytes) -> None:
    with pytest.raises(FrameError):
        parse(frame)


@pytest.mark.parametrize(
    ("source", "may"),
    [("fe80::1", True), ("febf::1", True), ("::", False), ("::1", False), ("2001:db8::1", False), ("ff02::114", False)],
)
def test_heartbeats_come_from_link_local_addresses(source: str, may: bool) -> None:
    assert is_hosts(WireAddress.of(AddressText(source))) is may


def test_the_group_goes_to_its_mac() -> None:
    assert group_mac(GROUP) == GROUP_MAC
