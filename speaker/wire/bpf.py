"""Classic BPF programs: filters in the kernel, so that frames that concern nobody here do not wake the announcer.

A program is a list of instructions (Documentation/networking/filter.rst of Linux). It is attached to a socket with
SO_ATTACH_FILTER, which replaces the program before it between two frames, and needs no capability of its own. It looks
at the frame from its Ethernet header on. A load from behind the frame's end drops the frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from speaker.wire.ranges import NumberRange

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS."""
LOAD_WORD, LOAD_HALF, LOAD_OCTET, LOAD_LENGTH = 0x20, 0x28, 0x30, 0x80
JUMP, IF_EQUAL, IF_GREATER, IF_AT_LEAST, IF_ANY_BIT, RETURN = 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
PACKET_TYPE = 0xFFFFF004
"""SKF_AD_OFF + SKF_AD_PKTTYPE, a word to load: one of those that follow."""
VLAN_TAG_PRESENT = 0xFFFFF030
"""SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT, a word to load: 0 or 1."""
TO_US, TO_ALL, TO_GROUP, TO_OTHERS, FROM_US = range(5)
"""PACKET_HOST, _BROADCAST, _MULTICAST, _OTHERHOST, _OUTGOING. Tagged frames of VLANs that do not exist here are for
others."""

_RANGES_PER_LEAF = 16
_MAX_JUMP = 255
"""Conditional jumps have one octet for their distance."""


class Instruction(NamedTuple):
    """``struct sock_filter``, in the machine's own byte order."""

    code: int
    if_true: int
    if_false: int
    k: int


INSTRUCTION = struct.Struct("=HBBI")
DROP = Instruction(RETURN, 0, 0, 0)
PASS = Instruction(RETURN, 0, 0, 0xFFFF)


def assemble(instructions: Iterable[Instruction]) -> bytes:
    """The program as the kernel takes it, an array of `INSTRUCTION`."""
    return b"".join([INSTRUCTION.pack(*instruction) for instruction in instructions])


NOTHING = assemble((DROP,))
"""Of a socket that is there to have a port, not to receive."""


def tree(ranges: Sequence[NumberRange], miss: Instruction) -> list[Instruction]:
    """Pass if the accumulator is in one of the ranges, else ``miss``: a binary tree, whose leaves test a few ranges one
    after the other."""
    if len(ranges) <= _RANGES_PER_LEAF:
        return leaf(ranges, miss)
    middle = len(ranges) // 2
    low, high = tree(ranges[:middle], miss), tree(ranges[middle:], miss)
    pivot = ranges[middle].first
    if len(low) <= _MAX_JUMP:
        return [Instruction(IF_AT_LEAST, len(low), 0, pivot), *low, *high]
    return [Instruction(IF_AT_LEAST, 0, 1, pivot), Instruction(JUMP, 0, 0, len(low)), *low, *high]


def leaf(ranges: Sequence[NumberRange], miss: Instruction) -> list[Instruction]:
    """The same for some dozens of ranges at most. It ends in ``miss`` and `PASS`."""
    tests = sum(1 if first == last else 2 for first, last in ranges)
    made: list[Instruction] = []
    for first, last in ranges:
        if first == last:
            made.append(Instruction(IF_EQUAL, tests - len(made), 0, first))
        else:
            made.append(Instruction(IF_AT_LEAST, 0, 1, first))
            made.append(Instruction(IF_GREATER, 0, tests - len(made), last))
    return [*made, miss, PASS]
