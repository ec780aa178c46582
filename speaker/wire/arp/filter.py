"""The filters in the kernel for ARP: one made from the addresses held on the link, one for answers to us.

**The first** (`ArpFilter`) passes ARP for Ethernet and IPv4 that was sent to everybody or to this interface (which
leaves out our own frames, and tagged frames of VLANs that do not exist here) and that is

- a Request for a held address;
- a Request, or a Reply to everybody, whose sender is a held address: a rival.

**The second** (`ANSWERS`) passes every ARP Reply for Ethernet and IPv4 that was sent to this interface alone.

How the first follows what is held, ``held_filter`` says.
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

_OPERATION_AT, _SENDER_AT, _TARGET_AT = 20, 28, 38


class ArpFilter(HeldFilter):
    """What the filter of one link is made from, and its program."""

    def __init__(self, held: Iterable[WireAddress] = (), size: int = SIZES[0]) -> None:
        super().__init__(_HEAD, _MIDDLE, held, size)


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
