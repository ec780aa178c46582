"""What address resolution is to the rest of the wire side, whatever the family: ARP for IPv4 (RFC 826), Neighbour
Discovery for IPv6 (RFC 4861 §7.2).

Both answer the question who has an address, ask it themselves, and tell unasked. A room of the wire side (``arp``,
``nd``) has the frames, the filter in the kernel and the responder of one of them, all without a socket. `Resolution` is
the room's door: the record of what differs. ``families`` has one for each family that is spoken, and no other part of
address resolution tells the families apart.

The parts that know a `Resolution` and no family:

- ``responders`` makes a `Responder` for each link and has it follow what is answered for;
- ``resolver`` opens the sockets of one link, keeps the filter up to date, and sends questions;
- ``memberships`` joins the groups to which questions for the addresses go;
- ``gratuitous`` decides when which round of frames goes out;
- ``receiving`` carries frames to the responder and verdicts back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import NeighbourSeen
from speaker.wire.addresses import WireAddress
from speaker.wire.groups import Groups

Prove = Callable[[bytes, Mac, AddressText], bytes]
"""Nonce, MAC that is answered with, address that is answered for -> the proof that we answer for it, or nothing while
there is no key."""
Round = tuple[Callable[[WireAddress, Mac], bytes], ...]
"""What makes the frames of one gratuitous announcement, one frame each, from the address and the own MAC."""


class DropReason(Enum):
    """Why a frame was neither answered nor handed on; the value is its metric label."""

    MALFORMED = "malformed"
    NOT_FOR_US = "not_for_us"
    """The Ethernet destination is neither a group that we hear nor the link's own MAC."""
    OWN_FRAME = "own_frame"
    """Sent by ourselves and returned by the network (a hairpin port, a second interface on the same segment)."""
    BAD_SENDER = "bad_sender"
    """The sender's MAC is a group's or nothing, or its address is no host's."""
    NOT_HELD = "not_held"
    STOOD_IN_FOR = "stood_in_for"
    """Sent by the node with whose MAC we answer for the address: it asks for its own, or says what we say."""


class Filter(Protocol):
    """The filter in the kernel ahead of a responder. It passes what matters for the addresses that are answered for,
    and may pass more until it is tightened."""

    @property
    def code(self) -> bytes:
        """The program, an array of ``bpf.INSTRUCTION``. It passes every frame that matters."""

    @property
    def behind(self) -> bool:
        """The last ``code`` does not pass everything that matters: attach it anew."""

    @property
    def tight(self) -> bool:
        """``tighten`` would not change anything."""

    def tighten(self) -> None:
        """Pass as little else as can be had, from the next ``code`` on."""

    def shrink(self) -> bool:
        """Make do with a smaller program, from now on; whether there is one."""


class Responder(Protocol):
    """Answers for addresses of one family on one link. A core: frames in, verdicts out."""

    @property
    def filter(self) -> Filter: ...

    @property
    def groups(self) -> Groups:
        """The groups to which questions for the addresses go: none, where they go to everybody."""

    def set_macs(self, mac: Mac, own: frozenset[Mac]) -> None:
        """Send from ``mac``, and answer with it for what is our own, from now on; frames from any of ``own`` are our
        own."""

    def suspend(self, suspended: bool) -> None:
        """Answer nothing, or what is answered for again."""

    def hold(self, address: WireAddress, mac: Mac | None = None) -> None:
        """Answer for an address: that it is at ``mac``, another node's, or else at our own."""

    def release(self, address: WireAddress) -> None:
        """Answer for it no more."""

    def expect(self, address: WireAddress) -> None:
        """Hand on what says that somebody has the address, which was probed."""

    def expect_no_more(self, address: WireAddress) -> None:
        """Do so no more."""

    def take_answered(self) -> Iterator[tuple[WireAddress, int]]:
        """Addresses that were asked for, with the questions answered since they were last told."""

    def receive(self, frame: bytes, now: float) -> bytes | NeighbourSeen | DropReason:
        """A reply to send out of the same link, or what the protocol should see, or why the frame counts for
        nothing."""

    def asker(self, frame: bytes) -> NeighbourSeen | None:
        """Who asked the question that was answered; ``None`` where it has no address yet."""


@dataclass(frozen=True)
class Resolution:
    """What one family brings."""

    family: Family
    ethertype: int
    frame_octets: int
    """What is read of a frame."""
    responder: Callable[[LinkName, Mac, Prove], Responder]
    answers: bytes
    """The filter for answers to our own questions, as ``bpf`` assembles it."""
    probe_answers: bytes
    """The filter that passes answers to probes too, while some are waited for."""
    question: Callable[[WireAddress, WireAddress, Mac, Mac | None, bytes], bytes]
    """Target, own address, own MAC, MAC to ask or ``None`` to ask everybody, nonce or nothing -> the frame."""
    probe: Callable[[WireAddress, Mac], bytes]
    """Target, own MAC -> the frame that asks everybody whether anybody has the target, in nobody's name."""
    first_round: Round
    """Said at once of an address that was taken over: what updates every entry that there is."""
    every_round: Round
    """Said in repeats, slowly for ever, and to a rival."""


def no_proof(*_: object) -> bytes:
    """What there is without a key."""
    return b""
