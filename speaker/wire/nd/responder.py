"""Answers Neighbour Solicitations on one link, and recognises the other frames that matter.

A core, and a hot path of the speaker: a frame goes in; an advertisement, an observation or the reason for dropping the
frame comes out. The responder answers for the addresses that it was told to hold and for no others: a solicitation for
anything else, however it got past the filter in the kernel (which may pass more), stays unanswered.

**Answers are nearly ready-made.** Nearly every solicitation has the one option that tells the asker's MAC. Two answers
to such differ in the asker alone, so that all the rest is prepared when an address becomes held. A checksum is a sum
modulo 0xFFFF (RFC 1071), to which each field adds its own number. What the known fields add to the question's and the
answer's is prepared as well. Solicitations of another form are read and answered by the codec: those without the
option, which confirm that we are still there, those that look for duplicates, those of a speaker that wants a proof. A
test holds both ways equal.

**Probes.** Whoever has an address that this node has probed says so to all nodes, and is handed on.

**Rivals.** A frame that claims a held address for another MAC, an advertisement or a solicitation that comes from the
address, is never answered. It is handed on (`NeighbourSeen`) for the protocol to judge. A probe of duplicate address
detection claims nothing yet: its answer tells the prober that the address is taken (RFC 4862 §5.4.4).

**Senders that cannot be** get no answer and prove nothing: a MAC that is a group's (the answer would go to many),
nobody's or our own, and an address that is no host's.
"""

from __future__ import annotations

from struct import Struct

from speaker.link import LinkName, Mac
from speaker.protocol.effects import NeighbourSeen
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import NO_MAC, FrameError, is_group
from speaker.wire.held_responder import HeldResponder, Prepared
from speaker.wire.nd import frames
from speaker.wire.nd.filter import NdFilter
from speaker.wire.nd.frames import (
    NO_ADDRESS,
    MessageType,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    solicited_node,
)
from speaker.wire.resolution import DropReason, Prove, no_proof

_number = int.from_bytes

_NO_HOSTS = bytes(first in {0, 0xFF} for first in range(256))
"""By the first octet: the unspecified address (a probe's sender), loopback, embedded IPv4 addresses; groups."""

_USUAL = Struct("!6s6x10s16s16sHHI16s2s6s")
"""A question: destination, EtherType and fixed fields of IPv6, the asker, to whom it is addressed, type and code,
checksum, reserved bits, target, and an option's head and content."""
_USUAL_HEADER = bytes.fromhex("86dd600000000020") + bytes((frames.ICMPV6, frames.HOP_LIMIT))
"""Of a message of 32 octets, with neither a traffic class nor a flow label."""
_ANSWER = Struct("!6s32s16sI28s")
"""The asker's MAC; from our MAC to the sender; the asker; type, code and checksum; what follows."""
_SOLICITATION, _ADVERTISEMENT = MessageType.SOLICITATION << 8, MessageType.ADVERTISEMENT << 24
"""Type and code: of a question two octets, of an answer four, with a checksum of 0."""
_SOURCE_MAC_OPTION = b"\1\1"
_KNOWN_SUM = 32 + frames.ICMPV6 + _SOLICITATION + _number(_SOURCE_MAC_OPTION)
"""What the length, the next header, type and code and the option's head add to a question's checksum."""


class _PreparedAnswer(Prepared):
    """What the usual answer for a held address has besides the asker, and what known fields add to the checksums."""

    __slots__ = ("before", "behind", "checksum", "group", "question_sum", "question_sum_by_group")

    def prepare(self, source: Mac) -> None:
        nobody = NeighbourAdvertisement(
            NO_MAC, source, self.address, NO_ADDRESS, self.address, self.mac, solicited=True, override=True
        )
        answer = nobody.encode()
        self.before, self.behind = answer[6:38], answer[58:]
        self.checksum = _number(answer[56:58])
        """Of the answer, without the asker's address."""
        self.group = solicited_node(self.address)
        number = self.address.number
        self.question_sum = (number + number + _KNOWN_SUM) % 0xFFFF
        self.question_sum_by_group = (self.group.number + number + _KNOWN_SUM) % 0xFFFF
        """Of a question to the address itself, or to its group, without the asker's address and MAC, the checksum and
        the reserved bits."""


class NdResponder(HeldResponder[_PreparedAnswer]):
    """The responder of one link, the filter in the kernel ahead of it, and the groups that are asked."""

    def __init__(self, link: LinkName, mac: Mac, prove: Prove = no_proof) -> None:
        super().__init__(link, mac, prove, NdFilter(), _PreparedAnswer)

    def hold(self, address: WireAddress, mac: Mac | None = None) -> None:
        if address not in self._held:
            self.groups.want(solicited_node(address))
        super().hold(address, mac)

    def release(self, address: WireAddress) -> None:
        if address in self._held:
            super().release(address)
            self.groups.want_no_more(solicited_node(address))

    def receive(self, frame: bytes, now: float) -> bytes | NeighbourSeen | DropReason:
        if len(frame) != _USUAL.size:
            return self._receive_other(frame, now)
        destination, header, asker, to, kind, checksum, reserved, target, option, asker_mac = _USUAL.unpack(frame)
        ready = self._ready
        prepared = ready.get(target)
        if (
            prepared is None
            or header != _USUAL_HEADER
            or kind != _SOLICITATION
            or option != _SOURCE_MAC_OPTION
            or _NO_HOSTS[asker[0]]
            or asker_mac[0] & 1
            or asker_mac in self._no_askers
            or asker_mac == prepared.mac
            or asker in ready
            or (not destination[0] & 1 and destination != self._mac)
        ):
            return self._receive_other(frame, now)
        if to == prepared.group:
            known = prepared.question_sum_by_group
        elif to == target:
            known = prepared.question_sum
        else:
            return self._receive_other(frame, now)
        asker_sum = _number(asker)
        if (known + asker_sum + _number(asker_mac) + checksum + reserved) % 0xFFFF:
            return self._receive_other(frame, now)
        if not prepared.answered:
            self._answered.append(prepared)
        prepared.answered += 1
        checksum = (prepared.checksum - asker_sum) % 0xFFFF
        return _ANSWER.pack(asker_mac, prepared.before, asker, _ADVERTISEMENT | checksum, prepared.behind)

    def asker(self, frame: bytes) -> NeighbourSeen | None:
        message = frames.parse(frame)
        return None if message.sender == NO_ADDRESS else self._seen(message)

    def _receive_other(self, frame: bytes, now: float) -> bytes | NeighbourSeen | DropReason:
        try:
            message = frames.parse(frame)
        except FrameError:
            return DropReason.MALFORMED
        if message.destination != self._mac and not is_group(message.destination):
            return DropReason.NOT_FOR_US
        if isinstance(message, NeighbourSolicitation) and (reply := self._answer(message, now)):
            return reply
        return self._judge(message)

    def _answer(self, question: NeighbourSolicitation, now: float) -> bytes | None:
        """The reply to a question for a held address, if its sender may have one."""
        prepared = self._ready.get(question.target)
        asker_mac = question.sender_mac or question.source
        if prepared is None or is_group(asker_mac) or asker_mac in self._no_askers or question.sender in self._ready:
            return None
        if asker_mac == prepared.mac:
            return None
        if _NO_HOSTS[question.sender[0]] and question.sender != NO_ADDRESS:
            return None
        self._count(prepared)
        proved = question.nonce and self._proofs.take(1, now)
        proof = self._prove(question.nonce, prepared.mac, question.target.text) if proved else b""
        return frames.answer_to(question, prepared.mac, proof, self._mac).encode()

    def _judge(self, message: NeighbourSolicitation | NeighbourAdvertisement) -> NeighbourSeen | DropReason:
        """A well-formed frame that gets no answer."""
        claimed, mac = _claim(message)
        probes = isinstance(message, NeighbourSolicitation) and claimed == NO_ADDRESS
        if mac in self._own_macs or message.source in self._own_macs:
            return DropReason.OWN_FRAME
        if is_group(mac) or mac == NO_MAC or (_NO_HOSTS[claimed[0]] and not probes):
            return DropReason.BAD_SENDER
        answers_us = (
            isinstance(message, NeighbourAdvertisement) and message.solicited and message.destination == self._mac
        )
        if answers_us or claimed in self._probed:
            return self._seen(message)
        if self._is_stood_in_for(claimed, mac):
            return DropReason.STOOD_IN_FOR
        if claimed in self._ready:
            return self._seen(message)
        return DropReason.STOOD_IN_FOR if self._is_stood_in_for(message.target, mac) else DropReason.NOT_HELD

    def _seen(self, message: NeighbourSolicitation | NeighbourAdvertisement) -> NeighbourSeen:
        claimed, mac = _claim(message)
        if isinstance(message, NeighbourSolicitation):
            return NeighbourSeen(self.link, claimed.text, mac, message.target.text, is_reply=False)
        return NeighbourSeen(self.link, claimed.text, mac, message.to.text, is_reply=True, proof=message.proof)

    def _count(self, prepared: _PreparedAnswer) -> None:
        if not prepared.answered:
            self._answered.append(prepared)
        prepared.answered += 1


def _claim(message: NeighbourSolicitation | NeighbourAdvertisement) -> tuple[WireAddress, Mac]:
    """The address that the sender says is its own, and at which MAC it is."""
    if isinstance(message, NeighbourSolicitation):
        return message.sender, message.sender_mac or message.source
    return message.target, message.target_mac or message.source
