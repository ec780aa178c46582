"""The ARP codec, with scapy as the independent reading."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol import datagram
from speaker.wire.addresses import WireAddress
from speaker.wire.arp import frames
from speaker.wire.arp.frames import ArpFrame, Operation
from speaker.wire.ethernet import FrameError
from tests.arp_frames import gratuitous, request

macs = st.binary(min_size=6, max_size=6).map(Mac)
ipv4 = st.binary(min_size=4, max_size=4).map(WireAddress)
arp_frames = st.builds(
    ArpFrame,
    destination=macs,
    source=macs,
    operation=st.sampled_from(Operation),
    sender_mac=macs,
    sender=ipv4,
    target_mac=macs,
    target=ipv4,
)
nonces, proofs = st.binary(min_size=8, max_size=8), st.binary(min_size=12, max_size=12)


def speaking(frame: ArpFrame, nonce: bytes, proof: bytes) -> ArpFrame:
    """The frame as one speaker sends it to another."""
    if frame.operation is Operation.REQUEST:
        return replace(frame, nonce=nonce)
    return replace(frame, proof=proof)


speakers_frames = st.builds(speaking, arp_frames, nonces, proofs)


@given(frame=arp_frames, padding=st.binary(max_size=40))
def test_frame_survives_encoding_and_padding(frame: ArpFrame, padding: bytes) -> None:
    assert ArpFrame.parse(frame.encode() + padding) == frame


@given(frame=speakers_frames, padding=st.binary(max_size=40))
def test_nonce_and_proof_survive_in_a_frame_of_ethernets_least_length(frame: ArpFrame, padding: bytes) -> None:
    assert len(frame.encode()) == 60
    assert ArpFrame.parse(frame.encode() + padding) == frame


@given(frame=speakers_frames)
def test_nonce_and_proof_are_read_where_they_belong_and_whole_or_not_at_all(frame: ArpFrame) -> None:
    whole = frame.encode()
    plain = replace(frame, nonce=b"", proof=b"")
    ends_at = 54 if frame.nonce else 58
    for length in range(42, ends_at):
        assert ArpFrame.parse(whole[:length]) == plain
    other = Operation.REPLY if frame.operation is Operation.REQUEST else Operation.REQUEST
    assert ArpFrame.parse(replace(plain, operation=other).encode() + whole[42:]) == replace(plain, operation=other)


def test_proof_is_as_long_as_the_protocols() -> None:
    assert frames.PROOF_OCTETS == datagram.PROOF_OCTETS


@given(frame=st.one_of(arp_frames, speakers_frames))
def test_scapy_reads_what_we_encode(frame: ArpFrame) -> None:
    read = Ether(frame.encode())
    assert (read.dst, read.src, read.type) == (frame.destination.hex(":"), frame.source.hex(":"), 0x0806)
    arp = read[ARP]
    assert (arp.hwtype, arp.ptype, arp.hwlen, arp.plen, arp.op) == (1, 0x0800, 6, 4, int(frame.operation))
    assert (arp.hwsrc, arp.psrc) == (frame.sender_mac.hex(":"), frame.sender.text)
    assert (arp.hwdst, arp.pdst) == (frame.target_mac.hex(":"), frame.target.text)


@given(frame=arp_frames)
def test_we_read_what_scapy_encodes(frame: ArpFrame) -> None:
    made = Ether(dst=frame.destination.hex(":"), src=frame.source.hex(":")) / ARP(
        op=int(frame.operation),
        hwsrc=frame.sender_mac.hex(":"),
        psrc=frame.sender.text,
        hwdst=frame.target_mac.hex(":"),
        pdst=frame.target.text,
    )
    assert ArpFrame.parse(bytes(made)) == frame


@given(
    octets=st.one_of(
        st.binary(max_size=90),
        st.binary(max_size=60).map(lambda b: bytes(12) + frames.FIXED_FIELDS + b),
        st.tuples(speakers_frames, st.integers(0, 60), st.binary(max_size=20)).map(
            lambda parts: parts[0].encode()[: parts[1]] + parts[2]
        ),
    )
)
def test_hostile_octets_are_a_frame_or_a_frame_error(octets: bytes) -> None:
    try:
        parsed = ArpFrame.parse(octets)
    except FrameError:
        return
    assert parsed.encode()[:42] == octets[:42]


@pytest.mark.parametrize(
    ("at", "octet"),
    [(12, 0x86), (15, 6), (16, 0x86), (18, 8), (19, 16), (21, 0), (21, 3), (20, 1)],
    ids=["EtherType", "hardware", "protocol", "MAC length", "address length", "operation 0", "RARP", "operation 257"],
)
def test_each_fixed_field_is_checked(at: int, octet: int) -> None:
    frame = bytearray(request(AddressText("192.0.2.1"), AddressText("192.0.2.2"), Mac(bytes(6))).encode())
    frame[at] = octet
    with pytest.raises(FrameError):
        ArpFrame.parse(bytes(frame))


def test_every_truncation_is_a_frame_error() -> None:
    frame = request(AddressText("192.0.2.1"), AddressText("192.0.2.2"), Mac(bytes(6))).encode()
    for length in range(42):
        with pytest.raises(FrameError):
            ArpFrame.parse(frame[:length])


@pytest.mark.parametrize("operation", list(Operation))
def test_gratuitous_frames_carry_the_senders_own_mac_as_target(operation: Operation) -> None:
    mac = Mac(bytes.fromhex("020000000001"))
    arp = Ether(gratuitous(operation, AddressText("192.0.2.9"), mac).encode())
    assert arp.dst == "ff:ff:ff:ff:ff:ff"
    assert arp[ARP].hwsrc == arp[ARP].hwdst == arp.src == mac.hex(":")
    assert arp[ARP].psrc == arp[ARP].pdst == "192.0.2.9"
    assert arp[ARP].op == operation


def test_a_probe_asks_in_nobodys_name() -> None:
    """RFC 5227 §2.1.1, as scapy reads it: who learned the sender's address from it would learn nothing."""
    target, mac = WireAddress.of(AddressText("192.0.2.10")), Mac(bytes.fromhex("02005e000001"))
    read = Ether(frames.probe(target, mac))
    assert (read.dst, read.src) == ("ff:ff:ff:ff:ff:ff", "02:00:5e:00:00:01")
    asked = read[ARP]
    assert (asked.op, asked.psrc, asked.hwsrc) == (Operation.REQUEST, "0.0.0.0", "02:00:5e:00:00:01")
    assert (asked.pdst, asked.hwdst) == ("192.0.2.10", "00:00:00:00:00:00")
