"""ARP for IPv4 in Ethernet frames: parse and encode (RFC 826; probes and announcements, RFC 5227).

A frame is 42 octets: the Ethernet header (destination, source, type 0x0806) and the ARP packet for Ethernet and IPv4.
Senders pad it to Ethernet's least length of 60.

Receivers ignore the padding, and speakers say more to each other there: a question may carry a *nonce*, and the answer
to it a *proof*, each behind four octets that tell it from padding. An answer without a proof may come from any host
that answers ARP. ``datagram`` makes proofs and judges them.

What is read here is checked for its form (`FrameError`). The responder judges whether its content is believable.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import BROADCAST, ETHERTYPE_IPV4, NO_MAC, PADDED_OCTETS, FrameError

ETHERTYPE_ARP = 0x0806
ARP_FRAME_OCTETS = 42
"""Ethernet header and ARP packet, without padding."""
READ_OCTETS = 64
"""What is read of a frame: more than the 60 that a speaker's frame has with a nonce or a proof."""
NO_ADDRESS = WireAddress(4)
"""Sender of a probe (RFC 5227 §1.1): somebody asks who has an address without owning one yet."""

FIXED_FIELDS = struct.pack("!HHHBB", ETHERTYPE_ARP, 1, ETHERTYPE_IPV4, 6, 4)
"""Octets 12 to 20 of every frame here: EtherType, then hardware Ethernet, protocol IPv4 and their address lengths."""
NONCE_MAGIC, PROOF_MAGIC = b"BLB?", b"BLB!"
NONCE_OCTETS, PROOF_OCTETS = 8, 12
TRAILER_MAGIC = slice(42, 46)
NONCE = slice(46, 46 + NONCE_OCTETS)
_PROOF = slice(46, 46 + PROOF_OCTETS)
_OPERATION = slice(20, 22)
_KNOWN_OPERATIONS = frozenset((1, 2))


class Operation(IntEnum):
    """ARP operation (ar$op, RFC 826)."""

    REQUEST = 1
    REPLY = 2


@dataclass(frozen=True, slots=True)
class ArpFrame:
    """One ARP packet in its Ethernet frame."""

    destination: Mac
    """Ethernet destination."""
    source: Mac
    """Ethernet source. The same as ``sender_mac``, save in the answers of somebody who stands in for another."""
    operation: Operation
    sender_mac: Mac
    sender: WireAddress
    target_mac: Mac
    target: WireAddress
    nonce: bytes = b""
    """Of a Request that asks for a proof: eight octets."""
    proof: bytes = b""
    """Of a Reply to such a Request: twelve octets."""

    @classmethod
    def parse(cls, frame: bytes) -> ArpFrame:
        """Read a frame as received; octets after the 42nd are padding, unless they say that they are more.

        Raises `FrameError` for a short frame, another protocol or an unknown operation.
        """
        if len(frame) < ARP_FRAME_OCTETS:
            raise FrameError(f"{len(frame)} octets are too few for ARP")
        if frame[12:20] != FIXED_FIELDS:
            raise FrameError("not ARP for Ethernet and IPv4")
        operation = int.from_bytes(frame[_OPERATION], "big")
        if operation not in _KNOWN_OPERATIONS:
            raise FrameError(f"unknown operation {operation}")
        magic = frame[TRAILER_MAGIC]
        asks = operation == Operation.REQUEST and magic == NONCE_MAGIC and len(frame) >= NONCE.stop
        proves = operation == Operation.REPLY and magic == PROOF_MAGIC and len(frame) >= _PROOF.stop
        return cls(
            destination=Mac(frame[0:6]),
            source=Mac(frame[6:12]),
            operation=Operation(operation),
            sender_mac=Mac(frame[22:28]),
            sender=WireAddress(frame[28:32]),
            target_mac=Mac(frame[32:38]),
            target=WireAddress(frame[38:42]),
            nonce=frame[NONCE] if asks else b"",
            proof=frame[_PROOF] if proves else b"",
        )

    def encode(self) -> bytes:
        """The 42 octets to send, which the driver pads; 60 with a nonce or a proof."""
        packet = b"".join(
            (
                self.destination,
                self.source,
                FIXED_FIELDS,
                self.operation.to_bytes(2, "big"),
                self.sender_mac,
                self.sender,
                self.target_mac,
                self.target,
            )
        )
        if self.nonce:
            packet = (packet + NONCE_MAGIC + self.nonce).ljust(PADDED_OCTETS, b"\0")
        elif self.proof:
            packet += proof_trailer(self.proof)
        return packet


def request(target: WireAddress, sender: WireAddress, mac: Mac, to: Mac = BROADCAST, nonce: bytes = b"") -> ArpFrame:
    """The question who has ``target``, asked by ``sender`` at ``mac``; to everybody, or as a poll to one MAC
    (RFC 1122 §2.3.2.1)."""
    return ArpFrame(to, mac, Operation.REQUEST, mac, sender, NO_MAC, target, nonce)


def reply_to(question: ArpFrame, mac: Mac, proof: bytes = b"", source: Mac | None = None) -> ArpFrame:
    """The answer of RFC 826: the asked-for address is at ``mac``, said to the asker alone, by ``mac`` itself or by
    ``source`` in its place."""
    asker_mac, asker = question.sender_mac, question.sender
    return ArpFrame(asker_mac, source or mac, Operation.REPLY, mac, question.target, asker_mac, asker, proof=proof)


def proof_trailer(proof: bytes) -> bytes:
    """What follows the 42 octets of a Reply with a proof, up to Ethernet's least length."""
    return (PROOF_MAGIC + proof).ljust(PADDED_OCTETS - ARP_FRAME_OCTETS, b"\0")


def gratuitous(operation: Operation, address: WireAddress, mac: Mac) -> ArpFrame:
    """An announcement to everybody that ``address`` is at ``mac`` (RFC 5227 §3).

    The target hardware address is the sender's own in both forms: within a second of an entry's last update Linux
    ignores a Reply whose target hardware address is ff:ff:ff:ff:ff:ff, and takes this one.
    """
    return ArpFrame(BROADCAST, mac, operation, mac, address, mac, address)


# ------------------------------------------------------------------------------------------------ as octets, to be sent


def question(target: WireAddress, sender: WireAddress, mac: Mac, to: Mac | None, nonce: bytes) -> bytes:
    """A `request` to one MAC, or to everybody."""
    return request(target, sender, mac, to or BROADCAST, nonce).encode()


def probe(target: WireAddress, mac: Mac) -> bytes:
    """The question whether anybody has ``target``, asked by nobody (RFC 5227 §2.1.1)."""
    return request(target, NO_ADDRESS, mac).encode()


def gratuitous_request(address: WireAddress, mac: Mac) -> bytes:
    """Updates every entry that there is, also one that is younger than Linux's locktime, where a Reply may not."""
    return gratuitous(Operation.REQUEST, address, mac).encode()


def gratuitous_reply(address: WireAddress, mac: Mac) -> bytes:
    """Some equipment learns from Replies only."""
    return gratuitous(Operation.REPLY, address, mac).encode()
