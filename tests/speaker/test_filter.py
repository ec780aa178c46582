"""The in-kernel filter's program, run by a small interpreter of classic BPF."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.objects import AddressText
from speaker import frames
from speaker.effects import Mac
from speaker.filter import MAX_INSTRUCTIONS, Instruction, Range, assemble, coarser, program, ranges_of
from speaker.frames import ArpFrame, Operation

OWN = Mac(bytes.fromhex("020000000001"))
OTHER = Mac(bytes.fromhex("020000000002"))
HOST, BROADCAST, MULTICAST, OTHER_HOST, OUTGOING = range(5)


def passes(instructions: Sequence[Instruction], frame: bytes, packet_type: int = BROADCAST) -> bool:
    """What the kernel would decide."""
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        match code:
            case 0x80:
                accumulator = len(frame)
            case 0x20 | 0x28:
                size = 4 if code == 0x20 else 2
                if k == 0xFFFFF004:
                    accumulator = packet_type
                elif k + size > len(frame):
                    return False
                else:
                    accumulator = int.from_bytes(frame[k : k + size], "big")
            case 0x05:
                at += k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x25:
                at += if_true if accumulator > k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x06:
                return k != 0
            case _:
                raise AssertionError(f"instruction {code:#x} is not used here")


def text(number: int) -> AddressText:
    return frames.address_text(number.to_bytes(4, "big"))


def octets(numbers: Sequence[int]) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in numbers]


def request(sender: int, target: int) -> bytes:
    return frames.request(text(target), text(sender), OTHER).encode()


def reply(sender: int, target: int) -> bytes:
    return ArpFrame(OWN, OTHER, Operation.REPLY, OTHER, text(sender), OWN, text(target)).encode()


addresses = st.integers(0, 2**32 - 1)
# Neighbours are where mistakes of a search tree show.
address_sets = st.sets(st.one_of(addresses, st.integers(0xC0000200, 0xC0000240)), max_size=120)


@given(held=address_sets, data=st.data())
def test_program_passes_exactly_what_concerns_held_addresses(held: set[int], data: st.DataObject) -> None:
    made = program(octets(sorted(held)))
    near = [n for h in held for n in (h - 1, h, h + 1) if 0 <= n < 2**32]
    some = st.one_of(addresses, st.sampled_from(near)) if near else addresses
    sender, target = data.draw(some), data.draw(some)
    assert passes(made, request(sender, target)) == (sender in held or target in held)
    assert passes(made, reply(sender, target), BROADCAST) == (sender in held)
    assert passes(made, reply(sender, target), HOST)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(500, 6000), limit=st.sampled_from([64, 256, 1024, 4096]))
def test_program_of_any_set_fits_and_passes_a_superset(seed: int, size: int, limit: int) -> None:
    chance = random.Random(seed)
    held = {chance.randrange(2**32) for _ in range(size // 2)}
    held |= {0x0A000000 + 2 * chance.randrange(size) for _ in range(size // 2)}
    made = program(octets(sorted(held)), limit)
    assert len(made) <= limit
    for address in chance.sample(sorted(held), 50):
        assert passes(made, request(0, address))
        assert passes(made, reply(address, 1))


def test_a_thousand_scattered_addresses_are_still_exact() -> None:
    held = {0x0A000000 + 7 * n for n in range(1000)}
    made = program(octets(sorted(held)))
    assert len(made) <= MAX_INSTRUCTIONS
    for n in range(7000):
        assert passes(made, request(1, 0x0A000000 + n)) == (n % 7 == 0)


def test_jumps_stay_inside_the_program_and_within_their_octet() -> None:
    for count in (0, 1, 15, 16, 17, 33, 300, 900):
        made = program(octets([0x0A000000 + 3 * n for n in range(count)]))
        for at, (code, if_true, if_false, k) in enumerate(made):
            assert 0 <= if_true <= 255
            assert 0 <= if_false <= 255
            if code == 0x05:
                assert at + 1 + k < len(made)
            elif code & 0x07 == 0x05:
                assert at + 1 + max(if_true, if_false) < len(made)
        assert len(assemble(made)) == 8 * len(made)


def test_frames_for_others_and_from_ourselves_do_not_pass() -> None:
    made = program(octets([0x0A000001]))
    asked = request(5, 0x0A000001)
    assert passes(made, asked, BROADCAST)
    assert passes(made, asked, HOST)
    assert not passes(made, asked, OTHER_HOST)
    assert not passes(made, asked, OUTGOING)


@given(frame=st.binary(max_size=80), packet_type=st.integers(0, 4))
def test_arbitrary_octets_pass_only_as_arp(frame: bytes, packet_type: int) -> None:
    if passes(program(octets([0x0A000001])), frame, packet_type):
        assert len(frame) >= 42
        assert frame[14:20] == frames.FIXED_FIELDS[2:]


def test_neighbouring_addresses_make_one_range_and_small_gaps_are_closed_first() -> None:
    assert ranges_of([5, 3, 4, 9, 20]) == [Range(3, 5), Range(9, 9), Range(20, 20)]
    assert coarser(ranges_of([5, 3, 4, 9, 20]), 2) == [Range(3, 9), Range(20, 20)]
    assert coarser(ranges_of([1, 9]), 2) == [Range(1, 1), Range(9, 9)]
