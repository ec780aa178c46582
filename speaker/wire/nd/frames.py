"""Ethernet frames that carry Neighbour Solicitations and Advertisements: parse and encode (RFC 4861 §4.3, §4.4).

A frame is the Ethernet header (14 octets), the IPv6 header (40), and an ICMPv6 message: 24 octets, which end with the
target address, and options of a multiple of eight. The message's length is the IPv6 header's; what follows is padding.

What each message says, as RFC 4861 §7.2.4 and RFC 4862 §5.4 want it:

- *Answer to somebody*: to the asker alone, Solicited and Override set.
- *Answer to a probe of duplicate address detection* (its source is ``::``): to all nodes, Override set and Solicited
  not. The frame goes to the prober's MAC all the same: nobody else waits for it, and an IPv6 packet to a group may go
  to one station (RFC 6085).
- *Unsolicited*: to all nodes, Override set and Solicited not. An entry that knows another MAC takes the new one
  (RFC 4861 §7.2.5), and a router that has none makes one (RFC 9131).

Each has the option with our MAC; without it, Override means nothing. None has the Router flag, whether or not the node
forwards packets: the address of a Service is nobody's router.

Speakers say more to each other, in an option of the type that is kept for experiments (253, RFC 4727): a solicitation
may carry a *nonce*, and the answer to it a *proof*, each behind four octets that tell it from others' experiments.
Everybody else skips the option (RFC 4861 §9). Whether a proof is one, ``datagram`` knows.

Everything here comes from the LAN and may be hostile. What RFC 4861 §7.1 demands is checked before anything else is
done with a frame: the hop limit of 255, which says that no router has passed it on; the checksum; lengths; the options,
none of which has length zero; and what the addresses may be. A frame that fails raises `FrameError`. Extension headers
are refused: hosts send none with these messages, and fragments are forbidden (RFC 6980).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.checksum import ipv6_checksum
from speaker.wire.ethernet import ETHERTYPE_IPV6, FrameError

ICMPV6 = 58
"""IPv6's next header."""
HOP_LIMIT = 255
LEAST_OCTETS = 78
"""Of a frame, without options."""
READ_OCTETS = 1514
"""What is read of one: Ethernet's most. A longer one is as good as truncated."""

NO_ADDRESS = WireAddress(bytes(16))
"""Source of a solicitation that detects duplicates (RFC 4862 §5.4.2): nobody has the address yet."""
ALL_NODES = WireAddress(bytes.fromhex("ff020000000000000000000000000001"))
ALL_NODES_MAC = Mac(bytes.fromhex("333300000001"))
SOLICITED_NODE_PREFIX = bytes.fromhex("ff0200000000000000000001ff")
"""Followed by the last three octets of an address: its solicited-node group (RFC 4291 §2.7.1)."""

NONCE_MAGIC, PROOF_MAGIC = b"BLB?", b"BLB!"
NONCE_OCTETS, PROOF_OCTETS = 8, 12

_VERSION_6 = 0x60000000
_FIXED = struct.Struct("!HIHBB")
"""EtherType; IPv6's version (with traffic class and flow label, which mean nothing here), length, next header, hops."""
_MESSAGE = struct.Struct("!BBHI16s")
_MESSAGE_AT = 54
_ADDRESSES_AT = 22
"""The IPv6 source and destination, and right behind them the message: all that the checksum covers in full."""
_ROUTER, _SOLICITED, _OVERRIDE = 0x80000000, 0x40000000, 0x20000000
_GROUP = 0xFF
"""First octet of the address of any group."""
_SOURCE_MAC, _TARGET_MAC, _EXPERIMENT = 1, 2, 253


class MessageType(IntEnum):
    """ICMPv6 type."""

    SOLICITATION = 135
    ADVERTISEMENT = 136


@dataclass(frozen=True, slots=True)
class NeighbourSolicitation:
    """The question at which MAC ``target`` is; or, without a sender, whether anybody has it."""

    destination: Mac
    source: Mac
    """Of the Ethernet header, both."""
    sender: WireAddress
    to: WireAddress
    """Of the IPv6 header: the target's solicited-node group, or the target itself where its MAC is only confirmed."""
    target: WireAddress
    sender_mac: Mac | None = None
    """The option Source Link-Layer Address; may be missing where the target is asked alone, or there is no sender."""
    nonce: bytes = b""
    """Asks for a proof: eight octets."""

    def encode(self) -> bytes:
        """The frame to send."""
        nonce = NONCE_MAGIC + self.nonce if self.nonce else b""
        options = _mac_option(_SOURCE_MAC, self.sender_mac) + _experiment(nonce)
        return _frame(self, MessageType.SOLICITATION, 0, options)


@dataclass(frozen=True, slots=True)
class NeighbourAdvertisement:
    """``target`` is at ``target_mac``."""

    destination: Mac
    source: Mac
    sender: WireAddress
    to: WireAddress
    target: WireAddress
    target_mac: Mac | None = None
    """The option Target Link-Layer Address; may be missing from an answer to who asked the target alone."""
    router: bool = False
    solicited: bool = False
    """Answers a question: confirms that packets reach the target."""
    override: bool = False
    """Whoever knows another MAC is to take this one."""
    proof: bytes = b""
    """Answers a nonce: twelve octets."""

    def encode(self) -> bytes:
        """The frame to send."""
        flags = _ROUTER * self.router | _SOLICITED * self.solicited | _OVERRIDE * self.override
        proof = PROOF_MAGIC + self.proof if self.proof else b""
        options = _mac_option(_TARGET_MAC, self.target_mac) + _experiment(proof)
        return _frame(self, MessageType.ADVERTISEMENT, flags, options)


def parse(frame: bytes) -> NeighbourSolicitation | NeighbourAdvertisement:
    """Read a frame as received. Raises `FrameError` for one that RFC 4861 §7.1 says to discard, and for any other
    protocol or message."""
    if len(frame) < LEAST_OCTETS:
        raise FrameError(f"{len(frame)} octets are too few for Neighbour Discovery")
    ethertype, version, length, header, hops = _FIXED.unpack_from(frame, 12)
    sender, to = WireAddress(frame[22:38]), WireAddress(frame[38:54])
    kind, code, _, flags, target = _MESSAGE.unpack_from(frame, _MESSAGE_AT)
    if ethertype != ETHERTYPE_IPV6 or version >> 28 != 6 or header != ICMPV6:
        raise FrameError("not ICMPv6")
    if kind not in {MessageType.SOLICITATION, MessageType.ADVERTISEMENT} or code:
        raise FrameError(f"another message: type {kind}, code {code}")
    if hops != HOP_LIMIT:
        raise FrameError(f"a router may have passed this on: hop limit {hops}")
    if length < _MESSAGE.size or _MESSAGE_AT + length > len(frame):
        raise FrameError(f"a message of {length} octets in a frame of {len(frame)}")
    if checksum(frame[_ADDRESSES_AT : _MESSAGE_AT + length]):
        raise FrameError("wrong checksum")
    options = list(_options(frame[LEAST_OCTETS : _MESSAGE_AT + length]))
    if sender[0] == _GROUP or target[0] == _GROUP:
        raise FrameError("a group is nobody's address")
    addresses = Mac(frame[0:6]), Mac(frame[6:12]), sender, to, WireAddress(target)
    if kind == MessageType.SOLICITATION:
        sender_mac = _mac(options, _SOURCE_MAC)
        if not any(sender) and (sender_mac is not None or not to.startswith(SOLICITED_NODE_PREFIX)):
            raise FrameError("a probe has no sender, and goes to a solicited-node group")
        return NeighbourSolicitation(*addresses, sender_mac, _said(options, NONCE_MAGIC, NONCE_OCTETS))
    if flags & _SOLICITED and to[0] == _GROUP:
        raise FrameError("an answer to a group is no answer")
    return NeighbourAdvertisement(
        *addresses,
        _mac(options, _TARGET_MAC),
        router=bool(flags & _ROUTER),
        solicited=bool(flags & _SOLICITED),
        override=bool(flags & _OVERRIDE),
        proof=_said(options, PROOF_MAGIC, PROOF_OCTETS),
    )


def solicit(
    target: WireAddress, sender: WireAddress, mac: Mac, to: Mac | None = None, nonce: bytes = b""
) -> NeighbourSolicitation:
    """The question at which MAC ``target`` is, asked by ``sender`` at ``mac``: of its solicited-node group, or of one
    MAC alone (RFC 4861 §7.3.3)."""
    if to is not None:
        return NeighbourSolicitation(to, mac, sender, target, target, mac, nonce)
    group = solicited_node(target)
    return NeighbourSolicitation(group_mac(group), mac, sender, group, target, mac, nonce)


def probe(target: WireAddress, mac: Mac) -> NeighbourSolicitation:
    """The question whether anybody has ``target`` (RFC 4862 §5.4.2)."""
    group = solicited_node(target)
    return NeighbourSolicitation(group_mac(group), mac, NO_ADDRESS, group, target)


def answer_to(
    question: NeighbourSolicitation, mac: Mac, proof: bytes = b"", source: Mac | None = None
) -> NeighbourAdvertisement:
    """The answer that the asked-for address is at ``mac`` (RFC 4861 §7.2.4), by ``mac`` itself or by ``source`` in its
    place."""
    asker_mac = question.sender_mac or question.source
    probed = question.sender == NO_ADDRESS
    to = ALL_NODES if probed else question.sender
    return NeighbourAdvertisement(
        asker_mac,
        source or mac,
        question.target,
        to,
        question.target,
        mac,
        solicited=not probed,
        override=True,
        proof=proof,
    )


def unsolicited(address: WireAddress, mac: Mac) -> NeighbourAdvertisement:
    """The news to all nodes that ``address`` is at ``mac`` (RFC 4861 §7.2.6).

    It comes from the address itself, as Linux sends it: so a switch that learns who has which address learns it too.
    """
    return NeighbourAdvertisement(ALL_NODES_MAC, mac, address, ALL_NODES, address, mac, override=True)


def solicited_node(address: WireAddress) -> WireAddress:
    """The group to which questions for an address go (RFC 4291 §2.7.1)."""
    return WireAddress(SOLICITED_NODE_PREFIX + address[13:])


def group_mac(group: WireAddress) -> Mac:
    """The MAC to which packets for a group go (RFC 2464 §7)."""
    return Mac(b"\x33\x33" + group[12:])


def checksum(addresses_and_message: bytes) -> int:
    """The checksum of a message whose own is 0 (RFC 4443 §2.3), given with the IPv6 source and destination before it.

    It is 0 for a message that carries the right one.
    """
    return ipv6_checksum(ICMPV6, addresses_and_message)


def _frame(
    message: NeighbourSolicitation | NeighbourAdvertisement, kind: MessageType, flags: int, options: bytes
) -> bytes:
    length = _MESSAGE.size + len(options)
    addresses = message.sender + message.to
    unsummed = _MESSAGE.pack(kind, 0, 0, flags, message.target) + options
    total = checksum(addresses + unsummed)
    return b"".join(
        (
            message.destination,
            message.source,
            _FIXED.pack(ETHERTYPE_IPV6, _VERSION_6, length, ICMPV6, HOP_LIMIT),
            addresses,
            _MESSAGE.pack(kind, 0, total, flags, message.target),
            options,
        )
    )


def _options(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Each option's type and content."""
    at = 0
    while at < len(octets):
        size = 8 * octets[at + 1] if at + 1 < len(octets) else 0
        if not size or at + size > len(octets):
            raise FrameError("an option of length zero, or one that ends behind the message")
        yield octets[at], octets[at + 2 : at + size]
        at += size


def _mac(options: Iterable[tuple[int, bytes]], kind: int) -> Mac | None:
    """Of the first option of this type, as Linux reads them."""
    octets = next((content for found, content in options if found == kind), None)
    if octets is not None and len(octets) != 6:
        raise FrameError("a link-layer address that is none of Ethernet")
    return None if octets is None else Mac(octets)


def _said(options: Iterable[tuple[int, bytes]], magic: bytes, count: int) -> bytes:
    """What a speaker says behind this magic, whole or not at all."""
    ours = (content for kind, content in options if kind == _EXPERIMENT and content.startswith(magic))
    octets = next(ours, b"")[4 : 4 + count]
    return octets if len(octets) == count else b""


def _mac_option(kind: int, mac: Mac | None) -> bytes:
    return b"" if mac is None else bytes((kind, 1)) + mac


def _experiment(content: bytes) -> bytes:
    """The option of a speaker, filled up with zeros to a multiple of eight."""
    size = -(-(2 + len(content)) // 8)
    return (bytes((_EXPERIMENT, size)) + content).ljust(8 * size, b"\0") if content else b""


# ------------------------------------------------------------------------------------------------ as octets, to be sent


def question(target: WireAddress, sender: WireAddress, mac: Mac, to: Mac | None, nonce: bytes) -> bytes:
    """What asks one MAC, or the target's group (`solicit`)."""
    return solicit(target, sender, mac, to, nonce).encode()


def probe_question(target: WireAddress, mac: Mac) -> bytes:
    """What asks the target's group whether anybody has it (`probe`)."""
    return probe(target, mac).encode()


def unsolicited_advertisement(address: WireAddress, mac: Mac) -> bytes:
    """Updates every entry that there is (`unsolicited`)."""
    return unsolicited(address, mac).encode()
