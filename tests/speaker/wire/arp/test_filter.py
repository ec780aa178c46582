"""The ARP filters' programs, run by a small interpreter of classic BPF, and how the one keeps up as addresses come and
go: never too narrow, as narrow as it can be when it had the time."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from speaker.wire.arp import frames
from speaker.wire.arp.filter import ANSWERS, ArpFilter
from speaker.wire.bpf import Instruction
from speaker.wire.held_filter import SIZES
from tests.speaker.wire.bpf import (
    BROADCAST,
    HOST,
    OTHER_HOST,
    OUTGOING,
    address_sets,
    addresses,
    instructions,
    on_wire,
    passes,
    reply,
    request,
)

near = st.integers(0xC0000200, 0xC0000280)


def program(held: Iterable[int]) -> list[Instruction]:
    return instructions(ArpFilter(map(on_wire, sorted(held))).code)


@given(held=address_sets, data=st.data())
def test_program_passes_exactly_what_concerns_held_addresses(held: set[int], data: st.DataObject) -> None:
    made = program(held)
    near = [n for h in held for n in (h - 1, h, h + 1) if 0 <= n < 2**32]
    some = st.one_of(addresses, st.sampled_from(near)) if near else addresses
    sender, target = data.draw(some), data.draw(some)
    assert passes(made, request(sender, target)) == (sender in held or target in held)
    assert passes(made, reply(sender, target), BROADCAST) == (sender in held)
    assert not passes(made, reply(sender, target), HOST), "that is an answer"


def test_a_thousand_scattered_addresses_are_still_exact() -> None:
    held = {0x0A000000 + 7 * n for n in range(1000)}
    made = program(held)
    assert len(made) <= SIZES[0]
    for n in range(7000):
        assert passes(made, request(1, 0x0A000000 + n)) == (n % 7 == 0)


def test_jumps_stay_inside_the_program_and_within_their_octet() -> None:
    for count in (0, 1, 15, 16, 17, 33, 300, 900):
        made = program({0x0A000000 + 3 * n for n in range(count)})
        for at, (code, if_true, if_false, k) in enumerate(made):
            assert 0 <= if_true <= 255
            assert 0 <= if_false <= 255
            if code == 0x05:
                assert at + 1 + k < len(made)
            elif code & 0x07 == 0x05:
                assert at + 1 + max(if_true, if_false) < len(made)


def test_frames_for_others_and_from_ourselves_do_not_pass() -> None:
    made = program({0x0A000001})
    asked = request(5, 0x0A000001)
    assert passes(made, asked, BROADCAST)
    assert passes(made, asked, HOST)
    assert not passes(made, asked, OTHER_HOST)
    assert not passes(made, asked, OUTGOING)


@given(frame=st.binary(max_size=80), packet_type=st.integers(0, 4))
def test_arbitrary_octets_pass_only_as_arp(frame: bytes, packet_type: int) -> None:
    if passes(program({0x0A000001}), frame, packet_type):
        assert len(frame) >= 42
        assert frame[14:20] == frames.FIXED_FIELDS[2:]


def test_answers_are_replies_to_us_alone() -> None:
    made = instructions(ANSWERS)
    for packet_type in range(5):
        assert passes(made, reply(5, 6), packet_type) == (packet_type == HOST)
        assert not passes(made, request(5, 6), packet_type)
    for length in range(42):
        assert not passes(made, reply(5, 6)[:length], HOST)


@given(frame=st.binary(max_size=80))
def test_arbitrary_octets_are_an_answer_only_as_an_arp_reply(frame: bytes) -> None:
    if passes(instructions(ANSWERS), frame, HOST):
        assert len(frame) >= 42
        assert frame[14:22] == frames.FIXED_FIELDS[2:] + b"\0\2"


@given(
    steps=st.lists(st.tuples(st.sampled_from(["hold", "release", "look", "tighten"]), st.one_of(near, addresses))),
    data=st.data(),
)
def test_what_is_held_passes_at_once_and_nothing_else_in_the_end(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    made, held = ArpFilter(), set[int]()
    attached = instructions(made.code)
    for what, number in steps:
        match what:
            case "hold":
                held.add(number)
                made.hold(on_wire(number))
            case "release":
                held.discard(number)
                made.release(on_wire(number))
            case "tighten":
                made.tighten()
                assert made.code == ArpFilter(map(on_wire, sorted(held))).code, "as if made from all at once"
                attached = instructions(made.code)
        if made.behind:
            attached = instructions(made.code)
            assert not made.behind
        for address in held:
            assert passes(attached, request(0, address))
            assert passes(attached, reply(address, 1))
    made.tighten()
    assert made.tight
    around = [n for h in (*held, *(number for _, number in steps)) for n in (h - 1, h, h + 1) if 0 <= n < 2**32]
    target = data.draw(st.one_of(addresses, st.sampled_from(around)) if around else addresses)
    assert passes(instructions(made.code), request(0, target)) == (target in held or 0 in held)


def test_addresses_given_out_one_after_the_other_rarely_need_another_program() -> None:
    made, programs = ArpFilter(), 0
    for number in range(0x0A000000, 0x0A000000 + 3000, 3):
        made.hold(on_wire(number))
        if made.behind:
            programs += 1
            assert made.code
    assert programs <= 3000 // 64 + 1


def test_program_does_not_grow_by_what_was_held_once() -> None:
    made = ArpFilter()
    for number in range(0, 2**32, 2**20):
        made.hold(on_wire(number))
        assert len(instructions(made.code)) < 200, "until it is made anew, addresses far and wide pass instead"
        made.release(on_wire(number))
    made.tighten()
    assert made.code == ArpFilter().code


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), count=st.integers(500, 6000))
def test_smaller_programs_fit_and_still_pass_what_is_held(seed: int, count: int) -> None:
    chance = random.Random(seed)
    held = chance.sample(range(0x0A000000, 0x0A100000), count)
    made = ArpFilter(map(on_wire, held[: count // 2]))
    for number in held[count // 2 :]:
        made.hold(on_wire(number))
    for size in SIZES:
        attached = instructions(made.code)
        assert len(attached) <= size
        for address in chance.sample(held, 50):
            assert passes(attached, request(0, address))
        assert made.shrink() is (size != SIZES[-1])
