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

**Keeping up.** Making the trees anew and having the kernel take them costs milliseconds when thousands of addresses are
held, so they are not made anew for each change. What is held and not passed yet is let pass at once, by some ranges
that are tested ahead of the trees, together with its neighbours: addresses of a pool are given out one after the other,
so the next one mostly needs nothing. What is released goes on being passed. When the owner has time for it (`tighten`)
the trees are made from what is held then, and the filter is as narrow as it can be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from speaker.ranges import Range, Ranges, coarser, ranges_of

SIZES = (4096, 1024, 256, 64)
"""Instructions that a program may have: BPF_MAXINSNS, and what is tried in turn where the kernel refuses the memory.
Those before 6.8 lend a socket 20 KiB of option memory, for the old and the new filter together."""
_RANGES_PER_LEAF = 16
_MAX_JUMP = 255
"""Conditional jumps have one octet for their distance."""
_INSTRUCTIONS_PER_RANGE = 5
"""Upper bound, both trees: twice two tests, and its part of the leaf's ends and of the inner nodes (2 × 4 / 16)."""
_FIXED_INSTRUCTIONS = 24
_NEIGHBOURHOOD_BITS = 6
"""A new address is let pass with the 64 that have all but its last six bits."""

_LOAD_WORD, _LOAD_HALF, _LOAD_LENGTH = 0x20, 0x28, 0x80
_JUMP, _IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _RETURN = 0x05, 0x15, 0x25, 0x35, 0x06
_PACKET_TYPE = 0xFFFFF004
"""SKF_AD_OFF + SKF_AD_PKTTYPE: 0 to this host, 1 broadcast, 2 multicast, 3 to another host, 4 outgoing."""
_OPERATION_AT, _SENDER_AT, _TARGET_AT = 20, 28, 38


class Instruction(NamedTuple):
    """``struct sock_filter``, in the machine's own byte order."""

    code: int
    if_true: int
    if_false: int
    k: int


INSTRUCTION = struct.Struct("=HBBI")

_DROP = Instruction(_RETURN, 0, 0, 0)
_PASS = Instruction(_RETURN, 0, 0, 0xFFFF)
_GO_ON = Instruction(_JUMP, 0, 0, 1)
"""At the end of a leaf: past its `_PASS`."""
_MISS = Instruction(_JUMP, 0, 0, 0xFFFFFFFF)
"""Stands for a jump to the end of a tree until its length is known."""


class ArpFilter:
    """What the filter of one link is made from, and its program. Addresses are four octets each."""

    def __init__(self, held: Iterable[bytes] = (), size: int = SIZES[0]) -> None:
        self._held = Ranges(ranges_of(int.from_bytes(octets, "big") for octets in held))
        self._size = size
        self.tighten()

    def hold(self, octets: bytes) -> None:
        """Let pass what matters for this address too."""
        number = int.from_bytes(octets, "big")
        self._held.add(number)
        self.tight = False
        if number not in self._in_trees and number not in self._ahead:
            self._missing.add(number >> _NEIGHBOURHOOD_BITS)

    def release(self, octets: bytes) -> None:
        """This address does not matter any more."""
        self._held.remove(int.from_bytes(octets, "big"))
        self.tight = False

    @property
    def behind(self) -> bool:
        """Something is held that the last ``code`` does not let pass: attach it anew."""
        return bool(self._missing)

    @property
    def code(self) -> bytes:
        """The program, an array of `INSTRUCTION`. It passes every frame that matters for what is held."""
        if self._missing:
            self._neighbourhoods |= self._missing
            self._missing.clear()
            blocks = coarser(ranges_of(self._neighbourhoods), self._most_ahead)
            bits = _NEIGHBOURHOOD_BITS
            self._ahead = Ranges(Range(first << bits, ((last + 1) << bits) - 1) for first, last in blocks)
        ahead = assemble(_leaf(tuple(self._ahead), _GO_ON)) if self._ahead else b""
        return b"".join((_HEAD, ahead, self._sender_tree, _MIDDLE, ahead, self._target_tree))

    def tighten(self) -> None:
        """Make the program from what is held now: the next ``code`` passes as little else as its size allows."""
        room = self._size - _FIXED_INSTRUCTIONS - 2 * (2 * self._most_ahead + 2)
        ranges = list(self._held)
        if sum(3 if first == last else 5 for first, last in ranges) > room:
            ranges = coarser(ranges, max(1, room // _INSTRUCTIONS_PER_RANGE))
        self._in_trees = Ranges(ranges)
        self._sender_tree = assemble(_ending_behind(_tree(ranges, _MISS)))
        self._target_tree = assemble(_tree(ranges, _DROP))
        self._ahead = Ranges()
        self._neighbourhoods: set[int] = set()
        self._missing: set[int] = set()
        """Neighbourhoods, of which the former are passed and the latter not yet."""
        self.tight = True
        """``tighten`` would not change anything."""

    def shrink(self) -> bool:
        """Make do with a smaller program, from now on; whether there is one."""
        smaller = [size for size in SIZES if size < self._size]
        if smaller:
            self._size = smaller[0]
            self.tighten()
        return bool(smaller)

    @property
    def _most_ahead(self) -> int:
        return max(1, min(self._size // 64, 16))


def assemble(instructions: Iterable[Instruction]) -> bytes:
    return b"".join([INSTRUCTION.pack(*instruction) for instruction in instructions])


_HEAD = assemble(
    (
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
    )
)
_MIDDLE = assemble(
    (
        Instruction(_LOAD_HALF, 0, 0, _OPERATION_AT),
        Instruction(_IF_EQUAL, 1, 0, 1),
        _DROP,
        Instruction(_LOAD_WORD, 0, 0, _TARGET_AT),
    )
)


def _ending_behind(tree: list[Instruction]) -> Iterable[Instruction]:
    """The tree whose misses go on behind its end."""
    end = len(tree)
    return (
        Instruction(_JUMP, 0, 0, end - at - 1) if instruction is _MISS else instruction
        for at, instruction in enumerate(tree)
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
