"""Answers Neighbour Solicitations on one link, and recognises the other frames that matter.

A core, and a hot path of the speaker: a frame goes in; an advertisement, an observation or the reason for dropping the
frame comes out. The responder answers for the addresses that it was told to hold and for no others: a solicitation for
anything else, however it got past the filter in the kernel (which may pass more), stays unanswered.

**Answers are nearly ready-made.** Nearly every solicitation has the one option that tells the asker's MAC. Two answers
to such differ in the asker alone, so that all the rest, and what it adds to the checksum, is prepared when an address
becomes held. Solicitations of another form are read and answered by the codec: those without the option, which confirm
that we are still there, those that look for duplicates, those of a speaker that wants a proof. A test holds both ways
equal.

**Proofs.** A speaker that wants to know whether it is really us who answers puts a nonce into its question. The answer
carries a proof, which only somebody with the cluster's key can make. There is a limit to how many are made in a second;
a question beyond it gets the answer alone.

**Rivals.** A frame that claims a held address for another MAC, an advertisement or a solicitation that comes from the
address, is never answered. It is handed on (`NeighbourSeen`) for the protocol to judge. A probe of duplicate address
detection claims nothing yet: its answer tells the prober that the address is taken (RFC 4862 §5.4.4).

**Senders that cannot be** get no answer and prove nothing: a MAC that is a group's (the answer would go to many),
nobody's or our own, and an address that is no host's.
"""

from __future__ import annotations

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

_NO_HOSTS = bytes(first in {0, 0xFF} for first in range(256))
"""By the first octet: the unspecified address (a probe's sender), loopback, embedded IPv4 addresses; groups."""

_USUAL_HEADER = bytes.fromhex("86dd600000000020") + bytes((frames.ICMPV6, frames.HOP_LIMIT))
"""Octets 12 to 22 of a frame whose message has 32 octets, with neither a traffic class nor a flow label."""
_USUAL_OCTETS = 86
_SOLICITATION, _ADVERTISEMENT = bytes((MessageType.SOLICITATION, 0)), bytes((MessageType.ADVERTISEMENT, 0))
"""Type and code."""
_SOURCE_MAC_OPTION = b"\1\1"
_BESIDES_OCTETS = 32 + frames.ICMPV6
"""What the checksum covers of a message of 32 octets besides the octets from the IPv6 source on."""


class _PreparedAnswer(Prepared):
    """The octets of the usual answer for a held address before and behind the asker's, and the checksum without
    these."""

    __slots__ = ("before", "behind", "checksum")

    def prepare(self, mac: Mac) -> None:
        nobody = NeighbourAdvertisement(
            NO_MAC, mac, self.address, NO_ADDRESS, self.address, mac, solicited=True, override=True
        )
        answer = nobody.encode()
        self.before, self.behind = answer[6:38], answer[58:]
        self.checksum = int.from_bytes(answer[56:58], "big")


class NdResponder(HeldResponder[_PreparedAnswer]):
    """The responder of one link, the filter in the kernel ahead of it, and the groups that are asked."""

    def __init__(self, link: LinkName, mac: Mac, prove: Prove = no_proof) -> None:
        super().__init__(link, mac, prove, NdFilter(), _PreparedAnswer)

    def hold(self, address: WireAddress) -> None:
        if address not in self._held:
            super().hold(address)
            self.groups.want(solicited_node(address))

    def release(self, address: WireAddress) -> None:
        if address in self._held:
            super().release(address)
            self.groups.want_no_more(solicited_node(address))

    def receive(self, frame: bytes, now: float) -> bytes | NeighbourSeen | DropReason:
        if (
            frame[12:22] != _USUAL_HEADER
            or frame[54:56] != _SOLICITATION
            or frame[78:80] != _SOURCE_MAC_OPTION
            or len(frame) < _USUAL_OCTETS
        ):
            return self._receive_other(frame, now)
        prepared = self._ready.get(frame[62:78])
        asker, asker_mac = frame[22:38], frame[80:86]
        if (
            prepared is None
            or _NO_HOSTS[asker[0]]
            or asker_mac[0] & 1
            or asker_mac in self._no_askers
            or asker in self._ready
            or (frame[:6] != self._mac and not frame[0] & 1)
            or (int.from_bytes(frame[22:86], "big") + _BESIDES_OCTETS) % 0xFFFF
        ):
            return self._receive_other(frame, now)
        self._count(prepared)
        checksum = (prepared.checksum - int.from_bytes(asker, "big")) % 0xFFFF
        return b"".join(
            (asker_mac, prepared.before, asker, _ADVERTISEMENT, checksum.to_bytes(2, "big"), prepared.behind)
        )

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
        if _NO_HOSTS[question.sender[0]] and question.sender != NO_ADDRESS:
            return None
        self._count(prepared)
        proved = question.nonce and self._proofs.take(1, now)
        proof = self._prove(question.nonce, self._mac, question.target.text) if proved else b""
        return frames.answer_to(question, self._mac, proof).encode()

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
        return self._seen(message) if answers_us or claimed in self._ready else DropReason.NOT_HELD

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
