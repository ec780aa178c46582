"""A small interpreter of classic BPF, and frames to try filters with."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.arp import frames
from speaker.wire.arp.frames import ArpFrame, Operation
from speaker.wire.bpf import INSTRUCTION, Instruction

OWN = Mac(bytes.fromhex("020000000001"))
OTHER = Mac(bytes.fromhex("020000000002"))
HOST, BROADCAST, MULTICAST, OTHER_HOST, OUTGOING = range(5)


def instructions(code: bytes) -> list[Instruction]:
    return [Instruction(*fields) for fields in INSTRUCTION.iter_unpack(code)]


def passes(instructions: Sequence[Instruction], frame: bytes, packet_type: int = BROADCAST) -> bool:
    """What the kernel would decide."""
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        match code:
            case 0x80:
                accumulator = len(frame)
            case 0x20 | 0x28 | 0x30:
                size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
                if k == 0xFFFFF004:
                    accumulator = packet_type
                elif k + size > len(frame):
                    return False
                else:
                    accumulator = int.from_bytes(frame[k : k + size], "big")
            case 0x05:
                at += k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x25:
                at += if_true if accumulator > k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x45:
                at += if_true if accumulator & k else if_false
            case 0x06:
                return k != 0
            case _:
                raise AssertionError(f"instruction {code:#x} is not used here")


def on_wire(number: int) -> WireAddress:
    return WireAddress(number.to_bytes(4, "big"))


def request(sender: int, target: int) -> bytes:
    return frames.request(on_wire(target), on_wire(sender), OTHER).encode()


def reply(sender: int, target: int) -> bytes:
    return ArpFrame(OWN, OTHER, Operation.REPLY, OTHER, on_wire(sender), OWN, on_wire(target)).encode()


addresses = st.integers(0, 2**32 - 1)
# Neighbours are where mistakes of a search tree show.
address_sets = st.sets(st.one_of(addresses, st.integers(0xC0000200, 0xC0000240)), max_size=120)
