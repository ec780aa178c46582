"""The filter in the kernel for heartbeats, made from the link's own addresses.

It passes whole IPv4 packets without options that go to one of these addresses or to the group and are UDP to the
heartbeat port, or ICMP's "port unreachable" about such a datagram. It looks at the port first, since most of what a
node receives is for other programs.
"""

from __future__ import annotations

from collections.abc import Iterable

from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import (
    DROP,
    IF_ANY_BIT,
    IF_EQUAL,
    IF_GREATER,
    JUMP,
    LOAD_HALF,
    LOAD_LENGTH,
    LOAD_OCTET,
    LOAD_WORD,
    PACKET_TYPE,
    TO_GROUP,
    Instruction,
    assemble,
    tree,
)
from speaker.wire.ranges import coarser, ranges_of

_MOST_RANGES = 256
"""Of addresses: beyond it neighbouring ones are merged, and the receiver looks again. So the program stays below 1,024
instructions, for which every kernel lends the memory (see ``held_filter``)."""


def heartbeat_code(addresses: Iterable[WireAddress], port: int, longest: int) -> bytes:
    """The program for heartbeats to these addresses (the group's among them) and this port, in frames of at most
    ``longest`` octets."""
    ranges = coarser(ranges_of(address.number for address in addresses), _MOST_RANGES)
    return assemble(
        (
            Instruction(LOAD_OCTET, 0, 0, 23),
            Instruction(IF_EQUAL, 0, 2, 17),  # UDP
            Instruction(LOAD_HALF, 0, 0, 36),
            Instruction(IF_EQUAL, 8, 7, port),  # to our port
            Instruction(IF_EQUAL, 0, 6, 1),  # ICMP
            Instruction(LOAD_HALF, 0, 0, 34),
            Instruction(IF_EQUAL, 0, 4, 0x0303),  # port unreachable, and behind it the packet that it is about:
            Instruction(LOAD_OCTET, 0, 0, 51),
            Instruction(IF_EQUAL, 0, 2, 17),  # UDP
            Instruction(LOAD_WORD, 0, 0, 62),
            Instruction(IF_EQUAL, 1, 0, port << 16 | port),  # between our ports
            DROP,
            Instruction(LOAD_OCTET, 0, 0, 14),
            Instruction(IF_EQUAL, 0, 8, 0x45),  # IPv4 without options
            Instruction(LOAD_HALF, 0, 0, 20),
            Instruction(IF_ANY_BIT, 6, 0, 0x3FFF),  # a fragment
            Instruction(LOAD_LENGTH, 0, 0, 0),
            Instruction(IF_GREATER, 4, 0, longest),
            Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
            Instruction(IF_GREATER, 2, 0, TO_GROUP),
            Instruction(LOAD_WORD, 0, 0, 30),
            Instruction(JUMP, 0, 0, 1),
            DROP,
            *tree(ranges, DROP),
        )
    )
