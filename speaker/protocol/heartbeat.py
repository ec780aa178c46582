"""The datagram that speakers say to each other: codec, authentication, replay protection.

Everything in it may come from anybody on the LAN. A datagram is believed when its keyed BLAKE2b tag fits one of our
keys and it belongs to our cluster; it counts once, by session and sequence. What the tag cannot tell is whether a whole
session is a recording: therefore a session that was never heard before counts only when one of its heartbeats names
*our* present session (``identity``), which no recording from before our start can do.

Layout, big-endian: magic (3) and version (1), cluster (8, digest of the cluster's identity), session (8, random),
sequence (8), tag (16, over all of the rest), then one message as msgpack. A datagram that is said has at most 1,232
bytes, so that it is never fragmented. Five messages: ``Heartbeat``, for claims ``ClaimStep`` (what changed) and
``ClaimPart`` (a piece of the whole set), ``Offer``, and ``OnBehalf`` (a step or part of a session that the sender
stands in for). ``docs/protocol.md`` has all of it octet by octet.

**Growth.** A speaker of a later release may say more than this one knows, while an upgrade rolls through the cluster.
Elements behind those that are known, of a message or of a claim, are ignored, and so are unknown flags. A message of an
unknown kind is an ``Unknown``. What must not be ignored is marked with features (``must``): a message that needs one
that we lack is refused, and of a step or part, only the claims that need it. The version rises only when even a reader
that does so would be wrong.

Guarantees: ``parse`` raises nothing but ``HeartbeatError``, whatever it is given; what it returns is within bounds.
Not protected: who holds the key can say anything.
"""

from __future__ import annotations

import enum
import hmac
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from cluster.addresses import Family
from cluster.objects import AddressText

MAGIC = b"BLB"
VERSION = b"1"
FEATURES = 0
"""Those that this release knows, a bit each, of what may be needed to understand a message or a claim."""
TAKES_OFFERS = 1
"""A skill, as heartbeats say it: the sender understands an ``Offer``."""
STANDS_IN = 2
"""A skill: the sender stands in for sessions that restart, and counts the claims of those that are stood in for."""
SKILLS = TAKES_OFFERS | STANDS_IN
"""Those of this release."""
MAX_DATAGRAM = 1400  # what is taken
LONGEST_SAID = 1280 - 48  # every link that speaks IPv6 carries this (RFC 8200 §5), with the headers of IPv6 and UDP
MAX_NAME = 253  # bytes; RFC 1123 subdomain, the longest node name
MAX_LINK_NAME = 60  # octets, whatever the encoding: IFNAMSIZ is 16
MAX_CLAIM_LINKS = 8
"""Names in one claim."""
MAX_PREFIXES = 8
MAX_LOST_LINKS = 8
MAX_HEARD = 128
MAX_ASKS = 8
MAX_STOOD_IN = 16
"""Sessions that one speaker stands in for."""
STOOD_IN_OCTETS = 600
"""Of one heartbeat, for what it says of these."""
MAX_OFFERED = 60
"""Addresses in one message: as many as fit ``LONGEST_SAID``."""
MAX_PARTS = 600
"""Enough for 20,000 claims on IPv6 addresses."""
MAX_EPOCH = 1 << 32
"""An address that moves once a second gets there in a lifetime."""
MAX_PREFERENCE = 1 << 31
MAX_AGE_MS = 0x1FFF
RETURNED = 0x2000
BY_GROUP = 0x4000
SUSPECTED = 0x8000
LONGEST_INTERVAL_MS = 6_000
"""Three times that of a thousand speakers. A member that says more is wrong."""
NONCE_OCTETS = 8
PROOF_OCTETS = 12

_HEADER = struct.Struct(">3s1s8sQQ16s")
_SIGNED = struct.Struct(">3s1s8sQQ")
_HEARD = struct.Struct(">QH")
_UNSIGNED_64 = 1 << 64


class Drop(enum.Enum):
    """Why a datagram was not believed. The value is the metric's label."""

    MALFORMED = "malformed"
    OTHER_VERSION = "other_version"
    """Of the datagram, as its header says."""
    UNKNOWN_KIND = "unknown_kind"
    """A message of a later release. It is ignored, and a sign of life."""
    UNKNOWN_FEATURE = "unknown_feature"
    """A message of a later release that says itself that we cannot understand it."""
    OTHER_CLUSTER = "other_cluster"
    WRONG_KEY = "wrong_key"
    OWN = "own"
    REPLAYED = "replayed"
    UNKNOWN_SESSION = "unknown_session"
    TABLE_FULL = "table_full"
    NONSENSE = "nonsense"
    """A message of a member, out of bounds."""


class HeartbeatError(Exception):
    """A datagram that is to be dropped: a stranger's or a broken peer's fault, never worth a retry."""

    def __init__(self, reason: Drop, detail: str = "", cluster: bytes = b"") -> None:
        """``cluster``: the digest in a datagram of another cluster."""
        super().__init__(detail or reason.value)
        self.reason = reason
        self.cluster = cluster


class Flag(enum.IntFlag):
    """What a speaker says of itself, on the link that the heartbeat goes out on."""

    ABLE = 1
    """It can claim here: synced, past its start-up wait, link up and not fenced, not leaving."""
    STARTING = 2
    """It has its Plan and will be able within its start-up wait."""
    LEAVING = 4
    """It has released everything and ends."""
    ANSWER = 8
    """Whoever hears this should answer at once: the sender has just started or has just been away."""
    MORE = 16
    """``heard`` did not fit whole; absence from it means nothing."""
    CUT_OFF = 32
    """Its link has just come up: it was as silent as it seemed."""
    YIELDS = 64
    """Another machine has its name, and it is the one that is silent."""
    RESTARTING = 128
    """It is told to end, and names its stand-in; with ``LEAVING``: it ends now, and that one stands in for it. Or it
    has started, and does not hold everything yet that its former session held."""


FAMILY_BITS: Mapping[Family, int] = MappingProxyType({Family.IPV4: 1, Family.IPV6: 2})
"""How a heartbeat says which families its link speaks."""


class StoodIn(Struct, frozen=True, array_like=True, gc=False):
    """A session that the sender stands in for on the link that the heartbeat goes out on."""

    session: int
    node: str
    version: int
    """Of its claim set, which the sender keeps for it."""
    digest: int
    """Over that."""
    link: str
    """As it was heard there: the name that its link has on its node."""
    mac: bytes
    """Of that: what answers for its addresses name."""
    families: int
    """Those that its kernel speaks there."""
    addresses: tuple[bytes, ...]
    """Where its kernel is reached there: one of each family at most, packed."""


class Heartbeat(Struct, frozen=True, array_like=True, tag=0, gc=False):
    """I am here, this is whom I hear, and this is the state of my claims."""

    node: str
    due_ms: int
    """When the next one is due at the latest, in milliseconds from this one."""
    flags: int
    link: str
    """The name that the sending link has on its node."""
    mac: bytes
    """Of the sending link: what the ARP frames of this speaker carry."""
    prefixes: tuple[str, ...]
    """Connected subnets of the sending link."""
    elsewhere: tuple[str, ...]
    """Connected subnets of the node's other links: addresses in these do not belong here."""
    heard: bytes
    """``Heard`` pairs of ten bytes each: ``pack_heard``, ``unpack_heard``."""
    version: int
    """Of the claim set."""
    digest: int
    """Over the claim set of that version."""
    asks: tuple[tuple[int, int], ...]
    """(session, version that I have of its claims): please say what came after."""
    must: int = 0
    """The features that are needed to understand this message."""
    families: int = FAMILY_BITS[Family.IPV4]
    """Those that the sender's kernel speaks on the sending link: ``pack_families``, ``unpack_families``. A release that
    does not say it answers for IPv4 alone."""
    skills: int = 0
    """What the sender understands of what others say only to those that do, a bit each."""
    lost: tuple[str, ...] = ()
    """Names of the sender's links that were up and are not any more: it answers nothing there."""
    stand_in: int = 0
    """While the sender restarts: the session that it wants to stand in for it."""
    stood_in: tuple[StoodIn, ...] = ()
    """The sessions that the sender stands in for here. One that is missing is stood in for by the sender no more."""


class WireClaim(Struct, frozen=True, array_like=True, gc=False):
    """Epoch 0 says that the address is released."""

    address: bytes
    """Packed, four octets or sixteen."""
    epoch: int
    preference: int


Marks = tuple[tuple[int, int], ...]
"""(place in ``claims``, features that are needed to understand that claim), for those that need any."""
ClaimLinks = tuple[tuple[int, tuple[str, ...]], ...]
"""(place in ``claims``, names of the sender's links on whose segments alone that claim counts), for those that do not
count wherever the sender is. A release that does not know of this takes all claims to count everywhere."""


class ClaimStep(Struct, frozen=True, array_like=True, tag=1, gc=False):
    """What turned version - 1 of the sender's claim set into ``version``."""

    version: int
    claims: tuple[WireClaim, ...]
    marks: Marks = ()
    must: int = 0
    links: ClaimLinks = ()


class ClaimPart(Struct, frozen=True, array_like=True, tag=2, gc=False):
    """One part of the whole claim set at ``version``."""

    version: int
    index: int
    total: int
    claims: tuple[WireClaim, ...]
    marks: Marks = ()
    must: int = 0
    links: ClaimLinks = ()


class Offer(Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The sender holds these addresses, and names the receiver as its successor: please claim them."""

    to: int
    """Session of the successor."""
    addresses: tuple[bytes, ...]
    """Packed, four octets or sixteen."""
    must: int = 0


class OnBehalf(Struct, frozen=True, array_like=True, tag=4, gc=False):
    """What a session would say of its claims, by the one that stands in for it."""

    session: int
    said: ClaimStep | ClaimPart
    must: int = 0


Message = Heartbeat | ClaimStep | ClaimPart | Offer | OnBehalf
KINDS = (0, 1, 2, 3, 4)
MAX_KIND = 1 << 16


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a kind that this release does not know."""

    kind: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """A datagram that was believed."""

    session: int
    sequence: int
    message: Message | Unknown


Heard = tuple[int, int]
"""A peer's session, and how it is heard: the age of its last sign of life in milliseconds, at most ``MAX_AGE_MS``, plus
``SUSPECTED`` if it is, ``BY_GROUP`` if what it says to the group arrives, and ``RETURNED`` if it was taken for dead
until a moment ago. A bare pair, since a speaker reads thousands of these each second."""


def pack_heard(entries: Iterable[Heard]) -> bytes:
    return b"".join(_HEARD.pack(session, how) for session, how in entries)


def unpack_heard(packed: bytes) -> Iterator[Heard]:
    """``packed`` must have passed ``parse``."""
    return _HEARD.iter_unpack(packed)


HEARD_BYTES = _HEARD.size
_ALL_HOWS = tuple(struct.Struct(">" + "8xH" * count) for count in range(MAX_HEARD + 1))


def all_hows(packed: bytes) -> tuple[int, ...]:
    """How each is heard. ``packed`` must have passed ``parse``."""
    return _ALL_HOWS[len(packed) // HEARD_BYTES].unpack(packed)


def how_heard(packed: bytes, session: int) -> int | None:
    """How one session is heard, if it is among them. ``packed`` must have passed ``parse``."""
    wanted = session.to_bytes(8)
    at = packed.find(wanted)
    while at >= 0 and at % HEARD_BYTES:
        at = packed.find(wanted, at + 1)
    return int.from_bytes(packed[at + 8 : at + HEARD_BYTES]) if at >= 0 else None


def pack_families(families: frozenset[Family]) -> int:
    return sum(FAMILY_BITS[family] for family in families)


@lru_cache(maxsize=16)
def unpack_families(bits: int) -> frozenset[Family]:
    """Bits of families that we do not know are ignored."""
    return frozenset(family for family, bit in FAMILY_BITS.items() if bits & bit)


@lru_cache(maxsize=65536)
@lru_cache(maxsize=65536)
def pack_address(address: AddressText) -> bytes:
    return ipaddress.ip_address(address).packed


@lru_cache(maxsize=65536)
def unpack_address(packed: bytes) -> AddressText:
    return AddressText(str(ipaddress.ip_address(packed)))


class Authenticator:
    """Seals and opens datagrams for one cluster. The first key signs; each verifies."""

    def __init__(self, cluster: str, keys: tuple[bytes, ...]) -> None:
        self._cluster = blake2b(cluster.encode(), digest_size=8).digest()
        self._keys = tuple(key[: blake2b.MAX_KEY_SIZE] for key in keys)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

    def encode(self, session: int, sequence: int, message: Message) -> bytes:
        """The datagram. A message that would not fit ``LONGEST_SAID`` is a mistake of the caller."""
        payload = self._encoder.encode(message)
        signed = _SIGNED.pack(MAGIC, VERSION, self._cluster, session, sequence)
        return signed + _tag(self._keys[0], signed, payload) + payload

    def size(self, message: Message) -> int:
        """Bytes that ``encode`` would make of it."""
        return _HEADER.size + len(self._encoder.encode(message))

    def prove(self, nonce: bytes, mac: bytes, address: AddressText) -> bytes:
        """What only a member of the cluster can make of a question's nonce: it answers for the address, at this MAC."""
        return _proof(self._keys[0], self._cluster, nonce, mac, address)

    def proves(self, proof: bytes, nonce: bytes, mac: bytes, address: AddressText) -> bool:
        """Whether ``proof`` is what ``prove`` makes of the rest, with any of our keys."""
        return any(hmac.compare_digest(proof, _proof(key, self._cluster, nonce, mac, address)) for key in self._keys)

    def parse(self, data: bytes) -> Envelope:
        """Raises ``HeartbeatError`` and nothing else."""
        if not _HEADER.size < len(data) <= MAX_DATAGRAM:
            raise HeartbeatError(Drop.MALFORMED, f"{len(data)} bytes")
        magic, version, cluster, session, sequence, tag = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise HeartbeatError(Drop.MALFORMED, "not a heartbeat")
        if version != VERSION:
            raise HeartbeatError(Drop.OTHER_VERSION, f"version {version!r}")
        if cluster != self._cluster:
            raise HeartbeatError(Drop.OTHER_CLUSTER, cluster=cluster)
        signed, payload = data[: _SIGNED.size], data[_HEADER.size :]
        if not any(hmac.compare_digest(tag, _tag(key, signed, payload)) for key in self._keys):
            raise HeartbeatError(Drop.WRONG_KEY)
        try:
            message = self._decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            unknown = _unknown(payload)
            if unknown is None:
                raise HeartbeatError(Drop.MALFORMED, str(error)) from error
            return Envelope(session, sequence, unknown)
        _check(message)
        return Envelope(session, sequence, message)


def _unknown(payload: bytes) -> Unknown | None:
    """A message of a kind that is not ours, if it is one at all."""
    try:
        kind = msgspec.msgpack.decode(payload, type=tuple[Any, ...])[0]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, IndexError):
        return None
    return Unknown(kind) if isinstance(kind, int) and 0 <= kind < MAX_KIND and kind not in KINDS else None


def _proof(key: bytes, cluster: bytes, nonce: bytes, mac: bytes, address: AddressText) -> bytes:
    said = b"".join((b"answers", cluster, nonce, mac, pack_address(address)))
    return blake2b(said, key=key, digest_size=PROOF_OCTETS).digest()


def _tag(key: bytes, signed: bytes, payload: bytes) -> bytes:
    state = blake2b(signed, key=key, digest_size=16)
    state.update(payload)
    return state.digest()


def _check(message: Message) -> None:
    if isinstance(message, Heartbeat):
        fine = _is_fine_heartbeat(message)
    elif isinstance(message, Offer):
        fine = 0 <= message.to < _UNSIGNED_64 and 0 < len(message.addresses) <= MAX_OFFERED
        fine = fine and all(len(address) in (4, 16) for address in message.addresses)
    elif isinstance(message, OnBehalf):
        fine = 0 <= message.session < _UNSIGNED_64 and _are_fine_claims(message.said)
        _check_features(message.said.must)
    else:
        fine = _are_fine_claims(message)
    _check_features(message.must)
    if not fine:
        raise HeartbeatError(Drop.NONSENSE, "out of bounds")


def _check_features(must: int) -> None:
    if must & ~FEATURES:
        raise HeartbeatError(Drop.UNKNOWN_FEATURE, f"features {must:#x}")


def _is_fine_heartbeat(message: Heartbeat) -> bool:
    return (
        0 < len(message.node.encode()) <= MAX_NAME
        and 0 < message.due_ms <= LONGEST_INTERVAL_MS
        and 0 <= message.flags < 1 << 16
        and 0 < len(message.link) <= MAX_LINK_NAME
        and len(message.mac) == 6
        and len(message.prefixes) <= MAX_PREFIXES
        and len(message.elsewhere) <= MAX_PREFIXES
        and all(len(prefix) <= 64 for prefix in (*message.prefixes, *message.elsewhere))
        and len(message.heard) % HEARD_BYTES == 0
        and len(message.heard) <= MAX_HEARD * HEARD_BYTES
        and 0 <= message.version < _UNSIGNED_64
        and 0 <= message.digest < _UNSIGNED_64
        and len(message.asks) <= MAX_ASKS
        and 0 <= message.families < 1 << 16
        and 0 <= message.skills < 1 << 16
        and len(message.lost) <= MAX_LOST_LINKS
        and _are_link_names(message.lost)
        and 0 <= message.stand_in < _UNSIGNED_64
        and len(message.stood_in) <= MAX_STOOD_IN
        and all(map(_is_fine_stood_in, message.stood_in))
    )


def _is_fine_stood_in(entry: StoodIn) -> bool:
    return (
        0 <= entry.session < _UNSIGNED_64
        and 0 < len(entry.node.encode()) <= MAX_NAME
        and 0 < entry.version < _UNSIGNED_64
        and 0 <= entry.digest < _UNSIGNED_64
        and _are_link_names((entry.link,))
        and len(entry.mac) == 6
        and 0 <= entry.families < 1 << 16
        and 0 < len(entry.addresses) <= 2
        and all(len(address) in (4, 16) for address in entry.addresses)
    )


def _are_fine_claims(message: ClaimStep | ClaimPart) -> bool:
    return (
        0 < message.version < _UNSIGNED_64
        and all(
            len(claim.address) in (4, 16) and 0 <= claim.epoch < MAX_EPOCH and 0 <= claim.preference < MAX_PREFERENCE
            for claim in message.claims
        )
        and all(0 <= place < len(message.claims) and must >= 0 for place, must in message.marks)
        and all(
            0 <= place < len(message.claims) and 0 < len(names) <= MAX_CLAIM_LINKS and _are_link_names(names)
            for place, names in message.links
        )
        and (not isinstance(message, ClaimPart) or 0 <= message.index < message.total <= MAX_PARTS)
    )


def _are_link_names(names: tuple[str, ...]) -> bool:
    return all(0 < len(name) <= MAX_LINK_NAME for name in names)


class ReplayWindow:
    """Accepts each sequence of one session once, and lets the network reorder within the last 256 (RFC 4303 §3.4.3)."""

    WIDTH = 256

    __slots__ = ("_seen", "newest")

    def __init__(self) -> None:
        self.newest = -1
        self._seen = 0  # bit i: newest - i was accepted

    def accept(self, sequence: int) -> bool:
        ahead = sequence - self.newest
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & ((1 << self.WIDTH) - 1) if ahead < self.WIDTH else 1
            self.newest = sequence
            return True
        if -ahead >= self.WIDTH or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True
