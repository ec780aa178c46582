"""The filters in the kernel for Neighbour Discovery: one made from the addresses held on a link, one for answers.

**The first** (`NdFilter`) passes what has IPv6's next header ICMPv6 and the hop limit 255, was sent to a group or to
this interface (which leaves out our own frames, and tagged frames of VLANs that do not exist here), and is

- a solicitation for a held address;
- a solicitation that comes from a held address, or an advertisement to a group that tells of one: a rival.

**The second** (`ANSWERS`) passes every advertisement that was sent to this interface alone. While answers to probes are
waited for, which go to all nodes (RFC 4861 §7.2.4), it passes every advertisement (`PROBE_ANSWERS`).

How the first follows what is held, ``held_filter`` says. The socket receives all of the node's IPv6 packets: those that
are not ICMPv6 are dropped by the second instruction.
"""

from __future__ import annotations

from collections.abc import Iterable

from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import (
    DROP,
    IF_AT_LEAST,
    IF_EQUAL,
    IF_GREATER,
    LOAD_HALF,
    LOAD_LENGTH,
    LOAD_WORD,
    PACKET_TYPE,
    PASS,
    TO_GROUP,
    TO_US,
    Instruction,
    assemble,
)
from speaker.wire.held_filter import SIZES, HeldFilter
from speaker.wire.nd.frames import HOP_LIMIT, ICMPV6, LEAST_OCTETS, MessageType

_NEXT_HEADER_AT, _SENDER_AT, _TYPE_AT, _TARGET_AT = 20, 34, 54, 74
"""Of the addresses, the last word."""
_HEADER = ICMPV6 << 8 | HOP_LIMIT
_SOLICITATION, _ADVERTISEMENT = MessageType.SOLICITATION << 8, MessageType.ADVERTISEMENT << 8
"""Type and code."""


class NdFilter(HeldFilter):
    """What the filter of one link is made from, and its program."""

    def __init__(self, held: Iterable[WireAddress] = (), size: int = SIZES[0]) -> None:
        super().__init__(_HEAD, _MIDDLE, held, size)


_HEAD = assemble(
    (
        Instruction(LOAD_HALF, 0, 0, _NEXT_HEADER_AT),
        Instruction(IF_EQUAL, 0, 9, _HEADER),
        Instruction(LOAD_LENGTH, 0, 0, 0),
        Instruction(IF_AT_LEAST, 0, 7, LEAST_OCTETS),
        Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        Instruction(IF_GREATER, 5, 0, TO_GROUP),
        Instruction(LOAD_HALF, 0, 0, _TYPE_AT),
        Instruction(IF_EQUAL, 4, 0, _SOLICITATION),
        Instruction(IF_EQUAL, 0, 2, _ADVERTISEMENT),
        Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        Instruction(IF_EQUAL, 0, 1, TO_US),  # an advertisement to us alone is an answer
        DROP,
        Instruction(LOAD_WORD, 0, 0, _TARGET_AT),
    )
)
_MIDDLE = assemble(
    (
        Instruction(LOAD_HALF, 0, 0, _TYPE_AT),
        Instruction(IF_EQUAL, 1, 0, _SOLICITATION),
        DROP,
        Instruction(LOAD_WORD, 0, 0, _SENDER_AT),
    )
)


def _advertisements(to: Instruction) -> bytes:
    """Those of which ``to`` says that they are passed, by the packet's type."""
    return assemble(
        (
            Instruction(LOAD_HALF, 0, 0, _NEXT_HEADER_AT),
            Instruction(IF_EQUAL, 0, 7, _HEADER),
            Instruction(LOAD_LENGTH, 0, 0, 0),
            Instruction(IF_AT_LEAST, 0, 5, LEAST_OCTETS),
            Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
            to,
            Instruction(LOAD_HALF, 0, 0, _TYPE_AT),
            Instruction(IF_EQUAL, 0, 1, _ADVERTISEMENT),
            PASS,
            DROP,
        )
    )


ANSWERS = _advertisements(Instruction(IF_EQUAL, 0, 3, TO_US))
"""Advertisements to us alone."""
PROBE_ANSWERS = _advertisements(Instruction(IF_GREATER, 3, 0, TO_GROUP))
"""Advertisements to us, or to a group."""
