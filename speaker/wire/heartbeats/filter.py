"""The filter in the kernel for heartbeats, made from the link's own addresses.

It passes whole, plain packets that go to one of these addresses or to the group and are UDP to the heartbeat port, or
"port unreachable" about such a datagram. An empty datagram is a knock, which says nothing to who lives, and is dropped.
The filter looks at the port first, since most of what a node receives is for other programs. The `FrameLayout` says
where all that stands in a frame of one family.

Of a destination the last 32 bits are compared: of an IPv4 address all. What passes by them alone, the receiver drops.
"""

from __future__ import annotations

from collections.abc import Iterable

from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import (
    DROP,
    IF_EQUAL,
    IF_GREATER,
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
from speaker.wire.heartbeats.encapsulation import UDP, UDP_HEADER, FrameLayout
from speaker.wire.ranges import coarser, ranges_of

_MOST_RANGES = 256
"""Of addresses: beyond it neighbouring ones are merged, and the receiver looks again. So the program stays below 1,024
instructions, for which every kernel lends the memory (see ``held_filter``)."""


def heartbeat_code(layout: FrameLayout, addresses: Iterable[WireAddress], port: int, longest: int) -> bytes:
    """The program for heartbeats to these addresses (the group's among them) and this port, in frames of at most
    ``longest`` octets."""
    words = (int.from_bytes(address[-4:], "big") for address in addresses)
    ranges = coarser(ranges_of(words), _MOST_RANGES)
    return assemble(
        (
            Instruction(LOAD_OCTET, 0, 0, layout.protocol_at),
            Instruction(IF_EQUAL, 0, 4, UDP),
            Instruction(LOAD_HALF, 0, 0, layout.payload_at + 2),
            Instruction(IF_EQUAL, 0, 9, port),  # to our port
            Instruction(LOAD_HALF, 0, 0, layout.payload_at + 4),
            Instruction(IF_GREATER, 8, 7, UDP_HEADER.size),
            Instruction(IF_EQUAL, 0, 6, layout.icmp),
            Instruction(LOAD_HALF, 0, 0, layout.payload_at),
            Instruction(IF_EQUAL, 0, 4, layout.port_unreachable),  # and behind it the packet that it is about:
            Instruction(LOAD_OCTET, 0, 0, layout.quoted_protocol_at),
            Instruction(IF_EQUAL, 0, 2, UDP),
            Instruction(LOAD_WORD, 0, 0, layout.quoted_ports_at),
            Instruction(IF_EQUAL, 1, 0, port << 16 | port),  # between our ports
            DROP,
            *layout.plain,
            Instruction(LOAD_LENGTH, 0, 0, 0),
            Instruction(IF_GREATER, 2, 0, longest),
            Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
            Instruction(IF_GREATER, 0, 1, TO_GROUP),
            DROP,
            Instruction(LOAD_WORD, 0, 0, layout.to_at),
            *tree(ranges, DROP),
        )
    )
