"""A filter in the kernel that passes frames by the addresses in them: what is passed follows what is held.

A frame matters if one of two words in it, which the family names (``head``, ``middle``), is that of a held address: its
last 32 bits. Of an IPv6 address the others are not compared, since what tells the addresses of a link apart is nearly
always the last word. What is asked for an address that differs from a held one before that alone is passed too.

Words are looked up in a binary tree over sorted ranges of numbers; neighbouring numbers make one range. The kernel
allows 4,096 instructions. Where the held set needs more, the ranges with the smallest gaps between them are merged, and
the filter passes more than it must; the responder looks again.

**Keeping up.** Making the trees and having the kernel take them costs milliseconds when thousands of addresses are
held, so the trees are not made anew for each change:

1. A number that is held and not passed yet is passed at once, by some ranges that are tested ahead of the trees,
   together with its neighbours. Addresses of a pool are given out one after the other, so the next one mostly needs
   nothing.
2. A number that is released goes on being passed.
3. When the owner of the filter has time for it (`tighten`), the trees are made from what is held then, and the filter
   is as narrow as it can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import DROP, JUMP, MAX_INSTRUCTIONS, Instruction, assemble, leaf, tree
from speaker.wire.ranges import NumberRange, Ranges, coarser, ranges_of

SIZES = (MAX_INSTRUCTIONS, 1024, 256, 64)
"""Instructions that a program may have: BPF_MAXINSNS, and what is tried, one after the other, where the kernel refuses
the memory. Kernels before 6.8 lend a socket 20 KiB of option memory, for the old and the new filter together."""
_INSTRUCTIONS_PER_RANGE = 5
"""Upper bound, both trees: twice two tests, and its part of the leaf's ends and of the inner nodes (2 × 4 / 16)."""
_FIXED_INSTRUCTIONS = 24
"""Upper bound of ``head`` and ``middle`` together, and of the ends of the trees."""
_NEIGHBOURHOOD_BITS = 6
"""A new number is let pass with the 64 that have all but its last six bits."""

_GO_ON = Instruction(JUMP, 0, 0, 1)
"""At the end of a leaf: past its `PASS`."""
_MISS = Instruction(JUMP, 0, 0, 0xFFFFFFFF)
"""Stands for a jump to the end of a tree until its length is known."""


class HeldFilter:
    """What the filter of one link is made from, and its program."""

    def __init__(self, head: bytes, middle: bytes, held: Iterable[WireAddress], size: int) -> None:
        """``head`` drops what cannot matter and loads the first word; ``middle``, reached if that is no held one, drops
        frames whose second word does not count and loads it. Both as ``bpf`` assembles them."""
        self._head = head
        self._middle = middle
        self._addresses = set(held)
        numbers = Counter(map(_number, self._addresses))
        self._more = numbers - Counter(numbers.keys())
        """How many other held addresses have the same number, where there are any."""
        self._held = Ranges(ranges_of(numbers))
        self._size = size
        self.tighten()

    def hold(self, address: WireAddress) -> None:
        """Let pass what matters for this address too."""
        if address in self._addresses:
            return
        self._addresses.add(address)
        number = _number(address)
        if number in self._held:
            self._more[number] += 1
            return
        self._held.add(number)
        self.tight = False
        if number not in self._in_trees and number not in self._ahead:
            self._missing.add(number >> _NEIGHBOURHOOD_BITS)

    def release(self, address: WireAddress) -> None:
        """This address does not matter any more."""
        if address not in self._addresses:
            return
        self._addresses.remove(address)
        number = _number(address)
        if number in self._more:
            self._more[number] -= 1
            if not self._more[number]:
                del self._more[number]
            return
        self._held.remove(number)
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
        return b"".join((self._head, ahead, self._first_tree, self._middle, ahead, self._second_tree))

    def tighten(self) -> None:
        room = self._size - _FIXED_INSTRUCTIONS - 2 * (2 * self._most_ahead + 2)
        ranges = list(self._held)
        if sum(3 if first == last else 5 for first, last in ranges) > room:
            ranges = coarser(ranges, max(1, room // _INSTRUCTIONS_PER_RANGE))
        self._in_trees = Ranges(ranges)
        self._first_tree = assemble(_ending_behind(tree(ranges, _MISS)))
        self._second_tree = assemble(tree(ranges, DROP))
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


def _number(address: WireAddress) -> int:
    """The last 32 bits: of an IPv4 address, all of them."""
    return int.from_bytes(address[-4:], "big")


def _ending_behind(tree: list[Instruction]) -> Iterable[Instruction]:
    """The tree whose misses go on behind its end."""
    end = len(tree)
    return (
        Instruction(JUMP, 0, 0, end - at - 1) if instruction is _MISS else instruction
        for at, instruction in enumerate(tree)
    )
