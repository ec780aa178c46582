"""Answers ARP on one link, and recognises the other frames that matter.

A core, and the hot path of the speaker: a frame goes in; a reply, an observation or the reason for dropping it comes
out. The responder answers for the addresses that it was told to hold and for no others: a request for anything else,
however it got past the filter in the kernel (which may pass more), stays unanswered.

**Replies are ready-made.** Two replies for one address on one link differ in the asker alone, whose hardware and
protocol address stand together in the request and stand together again in the reply. The 26 octets between are prepared
when an address becomes held. A test holds these replies equal to the codec's.

**Proofs.** A speaker that wants to know whether it is really us who answers puts a nonce into its question. The reply
carries a proof, which only somebody with the cluster's key can make, and is the same reply otherwise. Making a proof
costs half as much as all the rest, so there is a limit to how many are made in a second; a question beyond it gets the
reply alone.

**Rivals.** A frame that claims a held address for another MAC is never answered. It is handed on (`NeighbourSeen`) for
the protocol to judge.

**Senders that cannot be** get no reply and prove nothing: a MAC that is a group's (the reply would go to everybody),
nobody's or our own, and an address that is no host's.
"""

from __future__ import annotations

from speaker.link import LinkName, Mac
from speaker.protocol.effects import NeighbourSeen
from speaker.wire.arp import frames
from speaker.wire.arp.filter import ArpFilter
from speaker.wire.arp.frames import ARP_FRAME_OCTETS, FIXED_FIELDS, ArpFrame, Operation
from speaker.wire.ethernet import BROADCAST, NO_MAC, FrameError, is_group
from speaker.wire.held_responder import HeldResponder, Prepared
from speaker.wire.resolution import DropReason, Prove, no_proof

_NO_HOSTS = bytes(first in {0, 127} or first >= 224 for first in range(256))
"""By the first octet: addresses that are nobody's (0.0.0.0 is a probe's sender), loopback, groups, reserved."""
_NO_ADDRESS = bytes(frames.NO_ADDRESS)
_NONCE_MAGIC, _TRAILER_MAGIC = frames.NONCE_MAGIC, frames.TRAILER_MAGIC
_REQUEST_FIELDS = FIXED_FIELDS + Operation.REQUEST.to_bytes(2, "big")
_REPLY_FIELDS = FIXED_FIELDS + Operation.REPLY.to_bytes(2, "big")


class _PreparedReply(Prepared):
    """The octets of the reply for a held address between the asker's."""

    __slots__ = ("middle",)

    def prepare(self, source: Mac) -> None:
        self.middle = source + _REPLY_FIELDS + self.mac + self.address


class ArpResponder(HeldResponder[_PreparedReply]):
    """The responder of one link, and the filter in the kernel ahead of it."""

    def __init__(self, link: LinkName, mac: Mac, prove: Prove = no_proof) -> None:
        super().__init__(link, mac, prove, ArpFilter(), _PreparedReply)
        self._proofs_at = 0.0
        """When the next proof may be made."""

    def receive(self, frame: bytes, now: float) -> bytes | NeighbourSeen | DropReason:
        if frame[12:22] != _REQUEST_FIELDS or len(frame) < ARP_FRAME_OCTETS:
            return self._receive_other(frame)
        destination = frame[:6]
        if destination != BROADCAST and destination != self._mac:  # noqa: PLR1714 -- building a tuple costs more
            return DropReason.NOT_FOR_US
        ready = self._ready.get(frame[38:42])
        asker = frame[22:28]
        if ready is None or frame[22] & 1 or asker in self._no_askers or frame[28:32] in self._ready:
            return self._judge(frame)
        if asker == ready.mac:
            return DropReason.STOOD_IN_FOR
        if _NO_HOSTS[frame[28]] and frame[28:32] != _NO_ADDRESS:
            return DropReason.BAD_SENDER
        if not ready.answered:
            self._answered.append(ready)
        ready.answered += 1
        reply = asker + ready.middle + frame[22:32]
        if frame[_TRAILER_MAGIC] == _NONCE_MAGIC and now >= self._proofs_at:
            return reply + self._proof(frame[frames.NONCE], ready, now)
        return reply

    def asker(self, frame: bytes) -> NeighbourSeen | None:
        return None if frame[28:32] == _NO_ADDRESS else self._seen(frame)

    def _seen(self, frame: bytes) -> NeighbourSeen:
        """What a well-formed frame says."""
        parsed = ArpFrame.parse(frame)
        return NeighbourSeen(
            link=self.link,
            sender=parsed.sender.text,
            sender_mac=parsed.sender_mac,
            target=parsed.target.text,
            is_reply=parsed.operation is Operation.REPLY,
            proof=parsed.proof,
        )

    def _proof(self, nonce: bytes, ready: _PreparedReply, now: float) -> bytes:
        """What the reply to a question with this nonce ends in."""
        allowed = self._proofs.take(1, now)
        self._proofs_at = self._proofs.ready_at(1)
        if not allowed or len(nonce) != frames.NONCE_OCTETS:
            return b""
        proof = self._prove(nonce, ready.mac, ready.address.text)
        return frames.proof_trailer(proof) if proof else b""

    def _receive_other(self, frame: bytes) -> NeighbourSeen | DropReason:
        try:
            parsed = ArpFrame.parse(frame)
        except FrameError:
            return DropReason.MALFORMED
        if parsed.destination not in {BROADCAST, self._mac}:
            return DropReason.NOT_FOR_US
        return self._judge(frame)

    def _judge(self, frame: bytes) -> NeighbourSeen | DropReason:
        """A well-formed frame that gets no reply."""
        seen = self._seen(frame)
        if seen.sender_mac in self._own_macs or frame[6:12] in self._own_macs:
            return DropReason.OWN_FRAME
        if is_group(seen.sender_mac) or seen.sender_mac == NO_MAC or (_NO_HOSTS[frame[28]] and seen.is_reply):
            return DropReason.BAD_SENDER
        if seen.is_reply and frame[:6] == self._mac:
            return seen  # the answer to a question of ours
        claimed = frame[28:32]
        if self._is_stood_in_for(claimed, seen.sender_mac):
            return DropReason.STOOD_IN_FOR
        return seen if claimed in self._ready else DropReason.NOT_HELD
