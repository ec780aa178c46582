"""The codec of Neighbour Discovery, with scapy as the independent reading and writing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
)
from scapy.layers.l2 import Ether

from speaker.link import Mac
from speaker.protocol import datagram
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import FrameError
from speaker.wire.nd import frames
from speaker.wire.nd.frames import ALL_NODES, ALL_NODES_MAC, NO_ADDRESS, NeighbourAdvertisement, NeighbourSolicitation
from tests.speaker.wire.nd.messages import (
    ASKER,
    CLIENT,
    NONCE,
    OWN,
    PROOF,
    VIP,
    address,
    advertisements,
    hosts,
    macs,
    questions,
    resummed,
)

messages = st.one_of(questions(), advertisements())
STEM = frames.solicit(VIP, ASKER, CLIENT).encode()[:54]
"""The headers of a frame."""


@given(message=messages, padding=st.binary(max_size=40))
def test_frame_survives_encoding_and_padding(
    message: NeighbourSolicitation | NeighbourAdvertisement, padding: bytes
) -> None:
    assert frames.parse(message.encode() + padding) == message


@given(message=messages)
def test_scapy_reads_what_we_encode(message: NeighbourSolicitation | NeighbourAdvertisement) -> None:
    encoded = message.encode()
    read = Ether(encoded)
    assert (read.dst, read.src, read.type) == (message.destination.hex(":"), message.source.hex(":"), 0x86DD)
    ip = read[IPv6]
    assert (ip.version, ip.nh, ip.hlim, ip.plen) == (6, 58, 255, len(encoded) - 54)
    assert (ip.src, ip.dst) == (read_as(message.sender), read_as(message.to))
    if isinstance(message, NeighbourSolicitation):
        assert (ip[ICMPv6ND_NS].tgt, ip[ICMPv6ND_NS].code) == (read_as(message.target), 0)
        option = ip.getlayer(ICMPv6NDOptSrcLLAddr)
        assert (option and option.lladdr) == (message.sender_mac and message.sender_mac.hex(":"))
    else:
        said = ip[ICMPv6ND_NA]
        assert (said.tgt, said.R, said.S, said.O) == (
            read_as(message.target), message.router, message.solicited, message.override,
        )  # fmt: skip
        option = ip.getlayer(ICMPv6NDOptDstLLAddr)
        assert (option and option.lladdr) == (message.target_mac and message.target_mac.hex(":"))
    del ip.payload.cksum
    assert bytes(Ether(bytes(read))) == encoded, "with the checksum that scapy computes"


def read_as(octets: WireAddress) -> str:
    """The text that scapy has for an address."""
    return str(IPv6(b"\x60" + bytes(7) + octets + bytes(16)).src)


@given(target=hosts, sender=hosts, mac=macs, flags=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_we_read_what_scapy_encodes(
    target: WireAddress, sender: WireAddress, mac: Mac, flags: tuple[bool, bool, bool]
) -> None:
    text = mac.hex(":")
    group = frames.solicited_node(target)
    asked = (
        Ether(src=text, dst=frames.group_mac(group).hex(":"))
        / IPv6(src=sender.text, dst=group.text, hlim=255)
        / ICMPv6ND_NS(tgt=target.text)
        / ICMPv6NDOptSrcLLAddr(lladdr=text)
    )
    assert frames.parse(bytes(asked)) == frames.solicit(target, sender, mac)
    router, solicited, override = flags
    said = (
        Ether(src=text, dst=CLIENT.hex(":"))
        / IPv6(src=target.text, dst=sender.text, hlim=255)
        / ICMPv6ND_NA(tgt=target.text, R=router, S=solicited, O=override)
        / ICMPv6NDOptMTU()
        / ICMPv6NDOptDstLLAddr(lladdr=text)
    )
    assert frames.parse(bytes(said)) == NeighbourAdvertisement(
        CLIENT, mac, target, sender, target, mac, router, solicited, override
    )


def test_octets_of_a_solicitation_and_its_answer() -> None:
    """Written down from RFC 4861 §4.3, §4.4 and §4.6.1, RFC 2464 and RFC 4291."""
    question = bytes.fromhex(
        "3333ff000200 0200000000aa 86dd"
        "60000000 0020 3a ff 20010db8000000000000000000000050 ff0200000000000000000001ff000200"
        "87 00 1733 00000000 20010db8000000000000000000000200 01 01 0200000000aa"
    )
    assert frames.solicit(VIP, ASKER, CLIENT).encode() == question
    answer = bytes.fromhex(
        "0200000000aa 020000000001 86dd"
        "60000000 0020 3a ff 20010db8000000000000000000000200 20010db8000000000000000000000050"
        "88 00 8627 60000000 20010db8000000000000000000000200 02 01 020000000001"
    )
    read = frames.parse(question)
    assert isinstance(read, NeighbourSolicitation)
    assert frames.answer_to(read, OWN).encode() == answer


@pytest.mark.parametrize(
    ("question", "destination", "to", "solicited"),
    [
        (frames.solicit(VIP, ASKER, CLIENT), CLIENT, ASKER, True),
        (frames.solicit(VIP, ASKER, CLIENT, to=OWN), CLIENT, ASKER, True),
        (NeighbourSolicitation(OWN, CLIENT, ASKER, VIP, VIP), CLIENT, ASKER, True),
        (NeighbourSolicitation(OWN, OWN, ASKER, VIP, VIP, CLIENT), CLIENT, ASKER, True),
        (frames.probe(VIP, CLIENT), CLIENT, ALL_NODES, False),
    ],
    ids=["by multicast", "by unicast", "by unicast, without the option", "the option before the header", "probe"],
)
def test_answer_of_each_kind(
    question: NeighbourSolicitation, destination: Mac, to: WireAddress, solicited: bool
) -> None:
    assert frames.answer_to(question, OWN) == NeighbourAdvertisement(
        destination, OWN, VIP, to, VIP, OWN, router=False, solicited=solicited, override=True
    )


def test_unsolicited_is_to_all_nodes_and_overrides() -> None:
    assert frames.unsolicited(VIP, OWN) == NeighbourAdvertisement(
        ALL_NODES_MAC, OWN, VIP, ALL_NODES, VIP, OWN, override=True
    )


def test_proof_is_as_long_as_the_protocols() -> None:
    assert frames.PROOF_OCTETS == datagram.PROOF_OCTETS


@pytest.mark.parametrize(
    ("what", "at", "octets"),
    [
        ("EtherType", 12, "0806"),
        ("version 4", 14, "45"),
        ("hop limit 254: a router passed it on", 21, "fe"),
        ("hop limit 0", 21, "00"),
        ("next header: fragment", 20, "2c"),
        ("next header: UDP", 20, "11"),
        ("router solicitation", 54, "85"),
        ("redirect", 54, "89"),
        ("code 1", 55, "01"),
        ("target: a group", 62, "ff02"),
        ("source: a group", 22, "ff02"),
        ("option of length zero", 79, "00"),
        ("option longer than the message", 79, "02"),
        ("option far longer than the message", 79, "ff"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_what_rfc_4861_says_to_discard_is_refused(what: str, at: int, octets: str) -> None:
    frame = bytearray(frames.solicit(VIP, ASKER, CLIENT).encode())
    assert frames.parse(resummed(frame))
    frame[at : at + len(octets) // 2] = bytes.fromhex(octets)
    with pytest.raises(FrameError):
        frames.parse(resummed(frame))


@pytest.mark.parametrize(
    "message",
    [
        NeighbourSolicitation(CLIENT, CLIENT, NO_ADDRESS, frames.probe(VIP, CLIENT).to, VIP, sender_mac=CLIENT),
        NeighbourSolicitation(CLIENT, CLIENT, NO_ADDRESS, ALL_NODES, VIP),
        NeighbourSolicitation(CLIENT, CLIENT, NO_ADDRESS, VIP, VIP),
        NeighbourAdvertisement(ALL_NODES_MAC, CLIENT, VIP, ALL_NODES, VIP, CLIENT, solicited=True),
    ],
    ids=["probe with a MAC", "probe to all nodes", "probe to one address", "answer to a group"],
)
def test_contradictions_that_rfc_4861_names_are_refused(
    message: NeighbourSolicitation | NeighbourAdvertisement,
) -> None:
    with pytest.raises(FrameError):
        frames.parse(message.encode())


@given(message=messages)
def test_every_truncation_is_a_frame_error(message: NeighbourSolicitation | NeighbourAdvertisement) -> None:
    encoded = message.encode()
    for length in range(len(encoded)):
        with pytest.raises(FrameError):
            frames.parse(encoded[:length])


@given(message=messages, bit=st.integers(0))
def test_every_flipped_bit_of_what_the_checksum_covers_is_noticed(
    message: NeighbourSolicitation | NeighbourAdvertisement, bit: int
) -> None:
    frame = bytearray(message.encode())
    bit %= 8 * (len(frame) - 22)
    frame[22 + bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        frames.parse(bytes(frame))


@pytest.mark.parametrize("length", [23, 25, 31, 33])
def test_lengths_that_no_message_has_are_refused(length: int) -> None:
    frame = frames.solicit(VIP, ASKER, CLIENT).encode().ljust(100, b"\0")[: 54 + length]
    with pytest.raises(FrameError):
        frames.parse(resummed(frame))
    with pytest.raises(FrameError):
        frames.parse(resummed(frame) + bytes(8))


@given(before=st.lists(st.tuples(st.integers(3, 255), st.integers(1, 4)), max_size=5), message=messages)
def test_unknown_options_are_skipped(
    before: list[tuple[int, int]], message: NeighbourSolicitation | NeighbourAdvertisement
) -> None:
    """The types that are known are 1, 2, and 253 behind our magic."""
    encoded = message.encode()
    unknown = b"".join(bytes((kind, size)) + bytes(8 * size - 2) for kind, size in before)
    assert frames.parse(resummed(encoded[:78] + unknown + encoded[78:])) == message
    assert frames.parse(resummed(encoded + unknown)) == message


def test_first_of_two_options_counts_and_one_of_another_size_is_refused() -> None:
    encoded = frames.solicit(VIP, ASKER, CLIENT).encode()
    read = frames.parse(resummed(encoded + b"\1\1" + OWN))
    assert isinstance(read, NeighbourSolicitation)
    assert read.sender_mac == CLIENT
    with pytest.raises(FrameError):
        frames.parse(resummed(encoded[:78] + b"\1\2" + bytes(14)))


@pytest.mark.parametrize("size", [1, 2])
def test_nonce_and_proof_are_read_whole_or_not_at_all(size: int) -> None:
    asked = frames.solicit(VIP, ASKER, CLIENT)
    short = bytes((253, size)) + (b"BLB?" + NONCE)[: 8 * size - 2]
    read = frames.parse(resummed(asked.encode() + short.ljust(8 * size, b"\0")))
    assert isinstance(read, NeighbourSolicitation)
    assert read.nonce == (NONCE if size == 2 else b"")
    answer = frames.answer_to(asked, OWN)
    short = bytes((253, size)) + (b"BLB!" + PROOF)[: 8 * size - 2]
    assert frames.parse(resummed(answer.encode() + short)) == answer


def test_scapy_finds_nothing_but_an_unknown_option_in_what_speakers_say() -> None:
    asked = frames.solicit(VIP, ASKER, CLIENT, nonce=NONCE)
    answer = frames.answer_to(asked, OWN, PROOF)
    for message, size in ((asked, 2), (answer, 3)):
        option = Ether(message.encode())[ICMPv6NDOptUnknown]
        assert (option.type, option.len) == (253, size)
        assert not option.payload
    assert frames.parse(answer.encode()) == answer


@given(frame=st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(lambda tail: STEM + tail)))
@example(frame=b"")
def test_arbitrary_octets_are_read_or_refused(frame: bytes) -> None:
    try:
        message = frames.parse(frame)
    except FrameError:
        return
    again = frames.parse(message.encode())
    assert again == message


@given(
    tail=st.binary(min_size=24, max_size=96).filter(lambda tail: len(tail) % 8 == 0), kind=st.sampled_from([135, 136])
)
def test_arbitrary_options_with_a_right_checksum_are_read_or_refused(tail: bytes, kind: int) -> None:
    frame = bytearray(STEM + tail)
    frame[54:56] = bytes((kind, 0))
    try:
        message = frames.parse(resummed(frame))
    except FrameError:
        return
    assert frames.parse(message.encode()) == message


def test_groups_and_their_macs() -> None:
    """RFC 4291 §2.7.1's example, and RFC 2464 §7."""
    group = frames.solicited_node(address("4037::01:800:200e:8c6c"))
    assert group.text == "ff02::1:ff0e:8c6c"
    assert frames.group_mac(group).hex(":") == "33:33:ff:0e:8c:6c"
