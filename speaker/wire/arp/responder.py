"""Answers ARP for the addresses that this node holds, and recognises the other frames that matter.

The core of the hot path, without a socket: a frame that came in on a link goes in, a reply, an observation or the
reason for dropping it comes out. What it answers for is the set that ownership says is held on that link, no more: a
request for anything else, however it got past the in-kernel filter (which may pass a superset), stays unanswered.

Replies are ready-made. All that differs between two replies for one address on one link is the asker, whose hardware
and protocol address stand together in the request and stand together again in the reply; the 26 octets between are
prepared when an address becomes held. A test holds these replies equal to the codec's.

What is held comes as changes, and what was answered is told as changes: neither costs more where more is held.

A question that carries a nonce comes from a speaker that wants to know whether it is really us who answers: the reply
carries a proof, which only somebody with the cluster's key can make. It is the same reply otherwise. Making a proof
costs half as much as all the rest, so that there is a limit to how many are made in a second; a question beyond it gets
the reply alone.

A frame that claims a held address for another MAC is never answered: it is handed on as a rival's (`ArpSeen`), for
ownership to judge. A sender that cannot be one gets no reply and proves nothing: a MAC that is a group's (the reply
would go to everybody), nobody's or our own, an address that is no host's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import AnswerChange, ArpSeen, LinkState
from speaker.wire.allowance import Allowance
from speaker.wire.arp import frames
from speaker.wire.arp.filter import ArpFilter
from speaker.wire.arp.frames import ARP_FRAME_OCTETS, BROADCAST, FIXED_FIELDS, ArpFrame, FrameError, Operation

PROOFS_PER_S = 1000.0
"""Per link; fifty peers that each ask for one every 50 ms."""
PROOFS_AT_ONCE = 100

Prove = Callable[[bytes, Mac, AddressText], bytes]
"""Nonce, own MAC, held address -> the proof that we answer for it, or nothing while there is no key."""


def no_proof(*_: object) -> bytes:
    """What there is without a key."""
    return b""


_NO_HOSTS = bytes(first in {0, 127} or first >= 224 for first in range(256))
"""By the first octet: addresses that are nobody's (0.0.0.0 is a probe's sender), loopback, groups, reserved."""
_NO_ADDRESS = bytes(4)
_NONCE_MAGIC, _TRAILER_MAGIC = frames.NONCE_MAGIC, frames.TRAILER_MAGIC
_REQUEST_FIELDS = FIXED_FIELDS + Operation.REQUEST.to_bytes(2, "big")
_REPLY_FIELDS = FIXED_FIELDS + Operation.REPLY.to_bytes(2, "big")


_NOWHERE: frozenset[LinkName] = frozenset()


class DropReason(Enum):
    """Why a frame was neither answered nor handed on; the value is its metric label."""

    MALFORMED = "malformed"
    NOT_FOR_US = "not_for_us"
    """The Ethernet destination is neither broadcast nor the link's own MAC."""
    OWN_FRAME = "own_frame"
    """Sent by ourselves and returned by the network (a hairpin port, a second interface on the same segment)."""
    BAD_SENDER = "bad_sender"
    """The sender's MAC is a group's or nothing, or its address is no host's."""
    NOT_HELD = "not_held"


class _Ready:
    """A held address on one link: the octets of its reply between the asker's, and the requests answered since this
    was last told."""

    __slots__ = ("address", "answered", "middle")

    def __init__(self, address: AddressText, middle: bytes) -> None:
        self.address = address
        self.middle = middle
        self.answered = 0


class LinkResponder:
    """The responder of one link, and the filter before it."""

    def __init__(self, link: LinkName, mac: Mac, prove: Prove = no_proof) -> None:
        self.link = link
        self._prove = prove
        self._proofs = Allowance(PROOFS_PER_S, PROOFS_AT_ONCE)
        self._proofs_at = 0.0
        """When the next proof may be made."""
        self.filter = ArpFilter()
        self._mac = mac
        self.own_macs: frozenset[Mac] = frozenset((mac,))
        """Of all announced links: frames from these are our own."""
        self._no_askers = frozenset((frames.NO_MAC, mac))
        self._held: dict[bytes, _Ready] = {}
        self._ready = self._held
        """What is answered: nothing, while that is suspended."""
        self._answered: list[_Ready] = []
        """Those with requests answered that were not told yet."""

    def set_macs(self, mac: Mac, own: frozenset[Mac]) -> None:
        """Answer with ``mac`` from now on; frames from any of ``own`` are our own."""
        self.own_macs = own
        if mac != self._mac:
            self._mac = mac
            self._no_askers = frozenset((frames.NO_MAC, mac))
            for octets, ready in self._held.items():
                ready.middle = self._middle(octets)

    def suspend(self, suspended: bool) -> None:
        """Answer nothing, or what is held again."""
        self._ready = {} if suspended else self._held

    def hold(self, address: AddressText) -> None:
        octets = frames.ipv4_octets(address)
        self._held[octets] = _Ready(address, self._middle(octets))
        self.filter.hold(octets)

    def release(self, address: AddressText) -> None:
        octets = frames.ipv4_octets(address)
        self._held.pop(octets, None)
        self.filter.release(octets)

    def take_answered(self) -> Iterator[tuple[AddressText, int]]:
        """Addresses that were asked for, with the requests answered since they were last told."""
        answered, self._answered = self._answered, []
        for ready in answered:
            yield ready.address, ready.answered
            ready.answered = 0

    def receive(self, frame: bytes, now: float) -> bytes | ArpSeen | DropReason:
        """A reply to send out of the same link, or what ownership should see, or why the frame counts for nothing."""
        if frame[12:22] != _REQUEST_FIELDS or len(frame) < ARP_FRAME_OCTETS:
            return self._receive_other(frame)
        destination = frame[:6]
        if destination != BROADCAST and destination != self._mac:  # noqa: PLR1714 -- building a tuple costs more
            return DropReason.NOT_FOR_US
        ready = self._ready.get(frame[38:42])
        asker = frame[22:28]
        if ready is None or frame[22] & 1 or asker in self._no_askers or frame[28:32] in self._ready:
            return self._judge(frame)
        if _NO_HOSTS[frame[28]] and frame[28:32] != _NO_ADDRESS:
            return DropReason.BAD_SENDER
        if not ready.answered:
            self._answered.append(ready)
        ready.answered += 1
        reply = asker + ready.middle + frame[22:32]
        if frame[_TRAILER_MAGIC] == _NONCE_MAGIC and now >= self._proofs_at:
            return reply + self._proof(frame[frames.NONCE], ready.address, now)
        return reply

    def seen(self, frame: bytes) -> ArpSeen:
        """What a well-formed frame says."""
        parsed = ArpFrame.parse(frame)
        return ArpSeen(
            link=self.link,
            sender=parsed.sender,
            sender_mac=parsed.sender_mac,
            target=parsed.target,
            is_reply=parsed.operation is Operation.REPLY,
            proof=parsed.proof,
        )

    def _proof(self, nonce: bytes, address: AddressText, now: float) -> bytes:
        """What the reply to a question with this nonce ends in."""
        allowed = self._proofs.take(1, now)
        self._proofs_at = self._proofs.ready_at(1)
        if not allowed or len(nonce) != frames.NONCE_OCTETS:
            return b""
        proof = self._prove(nonce, self._mac, address)
        return frames.proof_trailer(proof) if proof else b""

    def _receive_other(self, frame: bytes) -> ArpSeen | DropReason:
        try:
            parsed = ArpFrame.parse(frame)
        except FrameError:
            return DropReason.MALFORMED
        if parsed.destination not in {BROADCAST, self._mac}:
            return DropReason.NOT_FOR_US
        return self._judge(frame)

    def _judge(self, frame: bytes) -> ArpSeen | DropReason:
        """A well-formed frame that gets no reply."""
        seen = self.seen(frame)
        if seen.sender_mac in self.own_macs or frame[6:12] in self.own_macs:
            return DropReason.OWN_FRAME
        if seen.sender_mac[0] & 1 or seen.sender_mac == frames.NO_MAC or (_NO_HOSTS[frame[28]] and seen.is_reply):
            return DropReason.BAD_SENDER
        answers_us = seen.is_reply and frame[:6] == self._mac
        claims_held = frame[28:32] in self._ready
        return seen if answers_us or claims_held else DropReason.NOT_HELD

    def _middle(self, octets: bytes) -> bytes:
        return self._mac + _REPLY_FIELDS + self._mac + octets


class Responder:
    """What is held, link by link.

    Each link's part is reached through `on`, once per batch of frames.
    """

    def __init__(self, prove: Prove = no_proof) -> None:
        self._prove = prove
        self._links: dict[LinkName, LinkResponder] = {}
        self._held: dict[AddressText, frozenset[LinkName]] = {}
        self._suspended: frozenset[LinkName] = frozenset()

    def on(self, link: LinkName) -> LinkResponder:
        """The responder of an announced link; ``KeyError`` for another."""
        return self._links[link]

    def links_of(self, address: AddressText) -> frozenset[LinkName]:
        """Where the address is answered; nowhere, if it is not held."""
        return self._held.get(address, _NOWHERE) - self._suspended

    def set_links(self, links: Iterable[LinkState]) -> None:
        """The announced links as they are now, MACs included."""
        states = {state.name: state for state in links}
        own = frozenset(state.mac for state in states.values())
        for gone in self._links.keys() - states.keys():
            del self._links[gone]
        for name, state in states.items():
            if name not in self._links:
                self._links[name] = LinkResponder(name, state.mac, self._prove)
                for address, where in self._held.items():
                    if name in where and frames.is_ipv4(address):
                        self._links[name].hold(address)
                self._links[name].suspend(name in self._suspended)
            self._links[name].set_macs(state.mac, own)

    def change_answers(self, change: AnswerChange) -> frozenset[LinkName]:
        """Answer for what changed as it is from now on; the links whose set changed (their filters are to follow)."""
        changed: set[LinkName] = set()
        for address, now in change.links.items():
            was = self._held.get(address, _NOWHERE)
            if now:
                self._held[address] = now
            else:
                self._held.pop(address, None)
            if was == now or not frames.is_ipv4(address):
                continue
            for link in was ^ now:
                if link in self._links:
                    if link in now:
                        self._links[link].hold(address)
                    else:
                        self._links[link].release(address)
                    changed.add(link)
        if change.suspended != self._suspended:
            self._suspended = change.suspended
            for name, responder in self._links.items():
                responder.suspend(name in change.suspended)
        return frozenset(changed)

    def take_answered(self) -> dict[AddressText, int]:
        """Requests answered per address since they were last told, over all links."""
        totals: dict[AddressText, int] = {}
        for link in self._links.values():
            for address, count in link.take_answered():
                totals[address] = totals.get(address, 0) + count
        return totals
