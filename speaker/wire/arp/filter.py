"""The filters in the kernel for ARP: one made from the addresses held on the link, one for answers to us.

**The first** (`ArpFilter`) passes ARP for Ethernet and IPv4 that was sent to everybody or to this interface (which
leaves out our own frames, and tagged frames of VLANs that do not exist here) and that is

- a Request for a held address;
- a Request, or a Reply to everybody, whose sender is a held address: a rival.

**The second** (`ANSWERS`) passes every ARP Reply for Ethernet and IPv4 that was sent to this interface alone.

Addresses are looked up in a binary tree over sorted ranges of numbers; neighbouring addresses make one range. The
kernel allows 4,096 instructions. Where the held set needs more, the ranges with the smallest gaps between them are
merged, and the filter passes more than it must; the responder looks again.

**Keeping up.** Making the trees and having the kernel take them costs milliseconds when thousands of addresses are
held, so the trees are not made anew for each change:

1. An address that is held and not passed yet is passed at once, by some ranges that are tested ahead of the trees,
   together with its neighbours. Addresses of a pool are given out one after the other, so the next one mostly needs
   nothing.
2. An address that is released goes on being passed.
3. When the owner of the filter has time for it (`tighten`), the trees are made from what is held then, and the filter
   is as narrow as it can be.
"""

from __future__ import annotations

from collections.abc import Iterable

from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import (
    DROP,
    IF_AT_LEAST,
    IF_EQUAL,
    IF_GREATER,
    JUMP,
    LOAD_HALF,
    LOAD_LENGTH,
    LOAD_WORD,
    MAX_INSTRUCTIONS,
    PACKET_TYPE,
    PASS,
    TO_GROUP,
    TO_US,
    Instruction,
    assemble,
    leaf,
    tree,
)
from speaker.wire.ranges import NumberRange, Ranges, coarser, ranges_of

SIZES = (MAX_INSTRUCTIONS, 1024, 256, 64)
"""Instructions that a program may have: BPF_MAXINSNS, and what is tried, one after the other, where the kernel refuses
the memory. Kernels before 6.8 lend a socket 20 KiB of option memory, for the old and the new filter together."""
_INSTRUCTIONS_PER_RANGE = 5
"""Upper bound, both trees: twice two tests, and its part of the leaf's ends and of the inner nodes (2 × 4 / 16)."""
_FIXED_INSTRUCTIONS = 24
_NEIGHBOURHOOD_BITS = 6
"""A new address is let pass with the 64 that have all but its last six bits."""

_OPERATION_AT, _SENDER_AT, _TARGET_AT = 20, 28, 38

_GO_ON = Instruction(JUMP, 0, 0, 1)
"""At the end of a leaf: past its `PASS`."""
_MISS = Instruction(JUMP, 0, 0, 0xFFFFFFFF)
"""Stands for a jump to the end of a tree until its length is known."""


class ArpFilter:
    """What the filter of one link is made from, and its program."""

    def __init__(self, held: Iterable[WireAddress] = (), size: int = SIZES[0]) -> None:
        self._held = Ranges(ranges_of(address.number for address in held))
        self._size = size
        self.tighten()

    def hold(self, address: WireAddress) -> None:
        """Let pass what matters for this address too."""
        number = address.number
        self._held.add(number)
        self.tight = False
        if number not in self._in_trees and number not in self._ahead:
            self._missing.add(number >> _NEIGHBOURHOOD_BITS)

    def release(self, address: WireAddress) -> None:
        """This address does not matter any more."""
        self._held.remove(address.number)
        self.tight = False

    @property
    def behind(self) -> bool:
        return bool(self._missing)

    @property
    def code(self) -> bytes:
        if self._missing:
            self._neighbourhoods |= self._missing
            self._missing.clear()
            blocks = coarser(ranges_of(self._neighbourhoods), self._most_ahead)
            bits = _NEIGHBOURHOOD_BITS
            self._ahead = Ranges(NumberRange(first << bits, ((last + 1) << bits) - 1) for first, last in blocks)
        ahead = assemble(leaf(tuple(self._ahead), _GO_ON)) if self._ahead else b""
        return b"".join((_HEAD, ahead, self._sender_tree, _MIDDLE, ahead, self._target_tree))

    def tighten(self) -> None:
        room = self._size - _FIXED_INSTRUCTIONS - 2 * (2 * self._most_ahead + 2)
        ranges = list(self._held)
        if sum(3 if first == last else 5 for first, last in ranges) > room:
            ranges = coarser(ranges, max(1, room // _INSTRUCTIONS_PER_RANGE))
        self._in_trees = Ranges(ranges)
        self._sender_tree = assemble(_ending_behind(tree(ranges, _MISS)))
        self._target_tree = assemble(tree(ranges, DROP))
        self._ahead = Ranges()
        self._neighbourhoods: set[int] = set()
        self._missing: set[int] = set()
        """Neighbourhoods, of which the former are passed and the latter not yet."""
        self.tight = True
        """``tighten`` would not change anything."""

    def shrink(self) -> bool:
        smaller = [size for size in SIZES if size < self._size]
        if smaller:
            self._size = smaller[0]
            self.tighten()
        return bool(smaller)

    @property
    def _most_ahead(self) -> int:
        return max(1, min(self._size // 64, 16))


_HEAD = assemble(
    (
        Instruction(LOAD_LENGTH, 0, 0, 0),
        Instruction(IF_AT_LEAST, 0, 11, 42),
        Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        Instruction(IF_GREATER, 9, 0, TO_GROUP),
        Instruction(LOAD_WORD, 0, 0, 14),
        Instruction(IF_EQUAL, 0, 7, 0x00010800),  # hardware Ethernet, protocol IPv4
        Instruction(LOAD_HALF, 0, 0, 18),
        Instruction(IF_EQUAL, 0, 5, 0x0604),  # the lengths of their addresses
        Instruction(LOAD_HALF, 0, 0, _OPERATION_AT),
        Instruction(IF_EQUAL, 4, 0, 1),  # a Request: on to the sender
        Instruction(IF_EQUAL, 0, 2, 2),
        Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        Instruction(IF_EQUAL, 0, 1, TO_US),  # a Reply to us alone is an answer
        DROP,
        Instruction(LOAD_WORD, 0, 0, _SENDER_AT),
    )
)
_MIDDLE = assemble(
    (
        Instruction(LOAD_HALF, 0, 0, _OPERATION_AT),
        Instruction(IF_EQUAL, 1, 0, 1),
        DROP,
        Instruction(LOAD_WORD, 0, 0, _TARGET_AT),
    )
)


ANSWERS = assemble(
    (
        Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        Instruction(IF_EQUAL, 0, 7, TO_US),
        Instruction(LOAD_LENGTH, 0, 0, 0),
        Instruction(IF_AT_LEAST, 0, 5, 42),
        Instruction(LOAD_WORD, 0, 0, 14),
        Instruction(IF_EQUAL, 0, 3, 0x00010800),  # hardware Ethernet, protocol IPv4
        Instruction(LOAD_WORD, 0, 0, 18),
        Instruction(IF_EQUAL, 0, 1, 0x06040002),  # the lengths of their addresses; a Reply
        PASS,
        DROP,
    )
)
"""Replies to us alone."""


def _ending_behind(tree: list[Instruction]) -> Iterable[Instruction]:
    """The tree whose misses go on behind its end."""
    end = len(tree)
    return (
        Instruction(JUMP, 0, 0, end - at - 1) if instruction is _MISS else instruction
        for at, instruction in enumerate(tree)
    )
