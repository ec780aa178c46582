"""Neighbour Discovery's filters, run by a small interpreter of classic BPF, beside a model of what they pass."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import FrameError
from speaker.wire.held_filter import SIZES
from speaker.wire.nd import frames
from speaker.wire.nd.filter import ANSWERS, PROBE_ANSWERS, NdFilter
from speaker.wire.nd.frames import NeighbourAdvertisement, NeighbourSolicitation
from tests.speaker.wire.bpf import HOST, MULTICAST, OTHER_HOST, OUTGOING, instructions, passes
from tests.speaker.wire.nd.messages import ASKER, CLIENT, OTHER, VIP, address, advertisements, octets, questions

addresses = octets.map(WireAddress)
packet_types = st.integers(0, 4)
Message = NeighbourSolicitation | NeighbourAdvertisement


def matters(message: Message, packet_type: int, held: set[WireAddress]) -> bool:
    """What the filter is to pass, in the words of its docstring."""
    if packet_type in {OTHER_HOST, OUTGOING}:
        return False
    words = {each[12:] for each in held}
    if isinstance(message, NeighbourSolicitation):
        return message.target[12:] in words or message.sender[12:] in words
    return packet_type != HOST and message.target[12:] in words


@settings(deadline=None)
@given(held=st.sets(addresses, max_size=60), packet_type=packet_types, data=st.data())
def test_filter_equals_its_model(held: set[WireAddress], packet_type: int, data: st.DataObject) -> None:
    targets = st.one_of(addresses, st.sampled_from(sorted(held))) if held else addresses
    message = data.draw(st.one_of(questions(targets), advertisements(targets)))
    code = instructions(NdFilter(sorted(held)).code)
    assert passes(code, message.encode(), packet_type) == matters(message, packet_type, held)


def test_rival_passes_by_whichever_message_it_claims_the_address() -> None:
    code = instructions(NdFilter([VIP]).code)
    for message in (
        frames.solicit(OTHER, VIP, CLIENT),
        NeighbourAdvertisement(CLIENT, CLIENT, ASKER, frames.ALL_NODES, VIP, CLIENT),
    ):
        assert passes(code, message.encode(), MULTICAST)
    assert not passes(code, frames.unsolicited(OTHER, CLIENT).encode(), MULTICAST)


@pytest.mark.parametrize(
    ("at", "octet"), [(20, 6), (20, 17), (20, 0), (21, 254), (54, 133), (54, 137), (54, 128), (55, 1)]
)
def test_what_is_no_neighbour_discovery_does_not_pass(at: int, octet: int) -> None:
    for message, code in ((frames.solicit(VIP, ASKER, CLIENT), NdFilter([VIP]).code), (ANSWER, ANSWERS)):
        frame = bytearray(message.encode())
        assert passes(instructions(code), bytes(frame), HOST)
        frame[at] = octet
        assert not passes(instructions(code), bytes(frame), HOST)


ANSWER = frames.answer_to(frames.solicit(VIP, ASKER, CLIENT), Mac(bytes(6)))


def test_answers_are_advertisements_to_us_alone_and_never_in_both_queues() -> None:
    held, answers = instructions(NdFilter([VIP]).code), instructions(ANSWERS)
    for packet_type in range(5):
        assert passes(answers, ANSWER.encode(), packet_type) == (packet_type == HOST)
        assert not passes(answers, frames.solicit(VIP, ASKER, CLIENT).encode(), packet_type)
    assert not passes(held, ANSWER.encode(), HOST)
    for length in range(78):
        assert not passes(answers, ANSWER.encode()[:length], HOST)
        assert not passes(held, frames.solicit(VIP, ASKER, CLIENT).encode()[:length], HOST)


def test_answers_to_a_probe_are_passed_too_while_they_are_waited_for() -> None:
    """They go to all nodes (RFC 4861 §7.2.4)."""
    answer, code = frames.answer_to(frames.probe(VIP, CLIENT), CLIENT), instructions(PROBE_ANSWERS)
    for packet_type in range(5):
        assert passes(code, answer.encode(), packet_type) == (packet_type <= MULTICAST)
        assert passes(code, ANSWER.encode(), packet_type) == (packet_type <= MULTICAST)
        assert not passes(code, frames.solicit(VIP, ASKER, CLIENT).encode(), packet_type)


@given(frame=st.binary(max_size=120), packet_type=packet_types)
def test_arbitrary_octets_pass_only_as_neighbour_discovery(frame: bytes, packet_type: int) -> None:
    for code in (NdFilter([VIP]).code, ANSWERS, PROBE_ANSWERS):
        if passes(instructions(code), frame, packet_type):
            assert len(frame) >= 78
            assert frame[20:22] == b"\x3a\xff"
            assert frame[54:56] in {b"\x87\0", b"\x88\0"}


@given(message=st.one_of(questions(), advertisements()), packet_type=packet_types)
def test_whatever_the_codec_reads_and_that_matters_is_passed(message: Message, packet_type: int) -> None:
    """No form that a message may have hides it from the filter."""
    claimed = message.target
    code = instructions(NdFilter([claimed]).code)
    try:
        frames.parse(message.encode())
    except FrameError:
        return
    expected = packet_type <= MULTICAST and (isinstance(message, NeighbourSolicitation) or packet_type != HOST)
    assert passes(code, message.encode(), packet_type) == expected


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["hold", "release", "look", "tighten"]), addresses), max_size=30),
)
def test_what_is_held_passes_at_once_and_nothing_else_in_the_end(steps: list[tuple[str, WireAddress]]) -> None:
    made, held = NdFilter(), set[WireAddress]()
    attached = instructions(made.code)
    for what, each in steps:
        match what:
            case "hold" if each not in held:
                held.add(each)
                made.hold(each)
            case "release" if each in held:
                held.discard(each)
                made.release(each)
            case "tighten":
                made.tighten()
        if made.behind or what == "tighten":
            attached = instructions(made.code)
        for each_held in held:
            assert passes(attached, frames.solicit(each_held, ASKER, CLIENT).encode())
    made.tighten()
    assert made.code == NdFilter(sorted(held)).code, "as if made from all at once"


def test_addresses_that_end_alike_pass_until_the_last_of_them_goes() -> None:
    twin = address("2001:db8:1::200")
    made = NdFilter([VIP, twin])
    made.release(VIP)
    made.tighten()
    assert passes(instructions(made.code), frames.solicit(twin, ASKER, CLIENT).encode())
    made.release(twin)
    made.tighten()
    assert made.code == NdFilter().code


@pytest.mark.parametrize("size", SIZES)
def test_program_of_many_scattered_addresses_is_one_that_the_kernel_takes(size: int) -> None:
    held = [WireAddress(VIP[:12] + (7 * n).to_bytes(4, "big")) for n in range(1000)]
    code = instructions(NdFilter(held, size).code)
    assert len(code) <= size
    for at, (operation, if_true, if_false, k) in enumerate(code):
        assert 0 <= min(if_true, if_false) <= max(if_true, if_false) <= 255
        if operation == 0x05:
            assert at + 1 + k < len(code)
        elif operation & 0x07 == 0x05:
            assert at + 1 + max(if_true, if_false) < len(code)
    for n in range(0, 7000, 11):
        target = WireAddress(VIP[:12] + n.to_bytes(4, "big"))
        passed = passes(code, frames.solicit(target, address("fe80::ffff:ffff"), CLIENT).encode())
        assert passed if n % 7 == 0 else not passed or size < SIZES[0]
