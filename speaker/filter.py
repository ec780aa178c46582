"""The in-kernel filter of a link's ARP socket: what is nobody's business here never wakes the announcer.

A classic BPF program (Documentation/networking/filter.rst of Linux), made from the addresses held on the link and
attached with SO_ATTACH_FILTER, which replaces the program before it between two frames: an address that stays held
loses nothing. Only a capability to open the socket is needed, no more.

It passes ARP for Ethernet and IPv4 that was sent to everybody or to this interface (which leaves out our own frames
and tagged frames of VLANs that do not exist here) and that is

- a Reply sent to this interface alone: the answer to a question of ours;
- a Request or a Reply whose sender is a held address: a rival;
- a Request for a held address.

Addresses are looked up in a binary tree over sorted ranges (neighbouring addresses make one range) whose leaves test a
few ranges one after the other. The kernel allows 4,096 instructions (BPF_MAXINSNS): where the held set needs more, the
ranges with the smallest gaps between them are merged and the filter passes a superset; the responder looks again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS."""
_RANGES_PER_LEAF = 16
_MAX_JUMP = 255
"""Conditional jumps have one octet for their distance."""
_INSTRUCTIONS_PER_RANGE = 5
"""Upper bound, both trees: twice two tests, and its part of the leaf's ends and of the inner nodes (2 × 4 / 16)."""
_FIXED_INSTRUCTIONS = 32

_LOAD_WORD, _LOAD_HALF, _LOAD_LENGTH = 0x20, 0x28, 0x80
_JUMP, _IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _RETURN = 0x05, 0x15, 0x25, 0x35, 0x06
_PACKET_TYPE = 0xFFFFF004
"""SKF_AD_OFF + SKF_AD_PKTTYPE: 0 to this host, 1 broadcast, 2 multicast, 3 to another host, 4 outgoing."""
_OPERATION_AT, _SENDER_AT, _TARGET_AT = 20, 28, 38


class Instruction(NamedTuple):
    """``struct sock_filter``."""

    code: int
    if_true: int
    if_false: int
    k: int


_DROP = Instruction(_RETURN, 0, 0, 0)
_PASS = Instruction(_RETURN, 0, 0, 0xFFFF)
_MISS = Instruction(_JUMP, 0, 0, 0xFFFFFFFF)
"""Stands for a jump to the end of a tree until its length is known."""


class Range(NamedTuple):
    """Addresses from ``first`` to ``last``, both included, as numbers."""

    first: int
    last: int


def program(held: Iterable[bytes], limit: int = MAX_INSTRUCTIONS) -> tuple[Instruction, ...]:
    """The filter for these addresses (four octets each), of at most ``limit`` instructions (64 or more).

    It passes every frame that matters for them; with many scattered addresses it passes some others too.
    """
    ranges = ranges_of(int.from_bytes(octets, "big") for octets in held)
    made = _program(ranges)
    if len(made) > limit:
        made = _program(coarser(ranges, max(1, (limit - _FIXED_INSTRUCTIONS) // _INSTRUCTIONS_PER_RANGE)))
    return made


def assemble(instructions: Sequence[Instruction]) -> bytes:
    """The program as an array of ``struct sock_filter`` in the machine's own byte order."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def ranges_of(numbers: Iterable[int]) -> list[Range]:
    """Sorted ranges that contain exactly these numbers."""
    ranges: list[Range] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1].last + 1:
            ranges[-1] = Range(ranges[-1].first, number)
        else:
            ranges.append(Range(number, number))
    return ranges


def coarser(ranges: Sequence[Range], count: int) -> list[Range]:
    """At most ``count`` ranges that contain all of these: the smallest gaps are closed."""
    if len(ranges) <= count:
        return list(ranges)
    gaps = sorted(range(1, len(ranges)), key=lambda i: ranges[i].first - ranges[i - 1].last, reverse=True)
    starts = [0, *sorted(gaps[: count - 1]), len(ranges)]
    return [Range(ranges[a].first, ranges[b - 1].last) for a, b in pairwise(starts)]


def _program(ranges: Sequence[Range]) -> tuple[Instruction, ...]:
    sender = _tree(ranges, _MISS)
    end = len(sender)
    sender = [
        Instruction(_JUMP, 0, 0, end - at - 1) if instruction is _MISS else instruction
        for at, instruction in enumerate(sender)
    ]
    return (
        Instruction(_LOAD_LENGTH, 0, 0, 0),
        Instruction(_IF_AT_LEAST, 0, 12, 42),
        Instruction(_LOAD_WORD, 0, 0, _PACKET_TYPE),
        Instruction(_IF_GREATER, 10, 0, 2),
        Instruction(_LOAD_WORD, 0, 0, 14),
        Instruction(_IF_EQUAL, 0, 8, 0x00010800),  # hardware Ethernet, protocol IPv4
        Instruction(_LOAD_HALF, 0, 0, 18),
        Instruction(_IF_EQUAL, 0, 6, 0x0604),  # the lengths of their addresses
        Instruction(_LOAD_HALF, 0, 0, _OPERATION_AT),
        Instruction(_IF_EQUAL, 5, 0, 1),  # a Request: on to the sender
        Instruction(_IF_EQUAL, 0, 3, 2),
        Instruction(_LOAD_WORD, 0, 0, _PACKET_TYPE),
        Instruction(_IF_EQUAL, 0, 2, 0),  # a Reply to us alone
        _PASS,
        _DROP,
        Instruction(_LOAD_WORD, 0, 0, _SENDER_AT),
        *sender,
        Instruction(_LOAD_HALF, 0, 0, _OPERATION_AT),
        Instruction(_IF_EQUAL, 1, 0, 1),
        _DROP,
        Instruction(_LOAD_WORD, 0, 0, _TARGET_AT),
        *_tree(ranges, _DROP),
    )


def _tree(ranges: Sequence[Range], miss: Instruction) -> list[Instruction]:
    """Pass if the accumulator is in one of the ranges; else ``miss``."""
    if len(ranges) <= _RANGES_PER_LEAF:
        return _leaf(ranges, miss)
    middle = len(ranges) // 2
    low, high = _tree(ranges[:middle], miss), _tree(ranges[middle:], miss)
    pivot = ranges[middle].first
    if len(low) <= _MAX_JUMP:
        return [Instruction(_IF_AT_LEAST, len(low), 0, pivot), *low, *high]
    return [Instruction(_IF_AT_LEAST, 0, 1, pivot), Instruction(_JUMP, 0, 0, len(low)), *low, *high]


def _leaf(ranges: Sequence[Range], miss: Instruction) -> list[Instruction]:
    tests = sum(1 if first == last else 2 for first, last in ranges)
    made: list[Instruction] = []
    for first, last in ranges:
        if first == last:
            made.append(Instruction(_IF_EQUAL, tests - len(made), 0, first))
        else:
            made.append(Instruction(_IF_AT_LEAST, 0, 1, first))
            made.append(Instruction(_IF_GREATER, 0, tests - len(made), last))
    return [*made, miss, _PASS]
