"""The ARP filter as addresses come and go: never too narrow, as narrow as it can be when it had the time."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from speaker.arp_filter import INSTRUCTION, SIZES, ArpFilter
from speaker.filter import Instruction
from tests.speaker.test_filter import addresses, octets, passes, reply, request

near = st.integers(0xC0000200, 0xC0000280)


def instructions(made: ArpFilter) -> list[Instruction]:
    return [Instruction(*fields) for fields in INSTRUCTION.iter_unpack(made.code)]


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["hold", "release", "look", "tighten"]), st.one_of(near, addresses))),
    data=st.data(),
)
def test_what_is_held_passes_at_once_and_nothing_else_in_the_end(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    made, held = ArpFilter(), set[int]()
    attached = instructions(made)
    for what, number in steps:
        match what:
            case "hold":
                held.add(number)
                made.hold(number.to_bytes(4, "big"))
            case "release":
                held.discard(number)
                made.release(number.to_bytes(4, "big"))
            case "tighten":
                made.tighten()
                assert made.code == ArpFilter(octets(sorted(held))).code, "as if made from all at once"
                attached = instructions(made)
        if made.behind:
            attached = instructions(made)
            assert not made.behind
        for address in held:
            assert passes(attached, request(0, address))
            assert passes(attached, reply(address, 1))
    made.tighten()
    assert made.tight
    around = [n for h in (*held, *(number for _, number in steps)) for n in (h - 1, h, h + 1) if 0 <= n < 2**32]
    target = data.draw(st.one_of(addresses, st.sampled_from(around)) if around else addresses)
    assert passes(instructions(made), request(0, target)) == (target in held or 0 in held)


def test_addresses_given_out_one_after_the_other_rarely_need_another_program() -> None:
    made, programs = ArpFilter(), 0
    for number in range(0x0A000000, 0x0A000000 + 3000, 3):
        made.hold(number.to_bytes(4, "big"))
        if made.behind:
            programs += 1
            assert made.code
    assert programs <= 3000 // 64 + 1


def test_program_does_not_grow_by_what_was_held_once() -> None:
    made = ArpFilter()
    for number in range(0, 2**32, 2**20):
        made.hold(number.to_bytes(4, "big"))
        assert len(instructions(made)) < 200, "until it is made anew, addresses far and wide pass instead"
        made.release(number.to_bytes(4, "big"))
    made.tighten()
    assert made.code == ArpFilter().code


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(500, 6000))
def test_smaller_programs_fit_and_still_pass_what_is_held(seed: int, count: int) -> None:
    chance = random.Random(seed)
    held = chance.sample(range(0x0A000000, 0x0A100000), count)
    made = ArpFilter(octets(held[: count // 2]))
    for number in held[count // 2 :]:
        made.hold(number.to_bytes(4, "big"))
    for size in SIZES:
        attached = instructions(made)
        assert len(attached) <= size
        for address in chance.sample(held, 50):
            assert passes(attached, request(0, address))
        assert made.shrink() is (size != SIZES[-1])
