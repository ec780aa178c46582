"""The datagram that carries one message (``heartbeat``): authentication, and what is believed of what arrives.

Everything in it may come from anybody on the LAN. A datagram is believed when its keyed BLAKE2b tag fits one of our
keys and it belongs to our cluster; it counts once, by session and sequence (``replay``). What the tag cannot tell is
whether a whole session is a recording: therefore a session that was never heard before counts only when one of its
heartbeats names *our* present session (``identity``), which no recording from before our start can do.

Layout, big-endian: magic (3) and version (1), cluster (8, digest of the cluster's identity), session (8, random),
sequence (8), tag (16, over all of the rest), then one message as msgpack. A datagram that is said has at most 1,232
bytes, so that it is never fragmented. ``docs/protocol.md`` has all of it octet by octet.

The keys also make and judge the proofs in answers to questions with a nonce (``suspicion``, ``handing``).

Guarantees: ``parse`` raises nothing but ``HeartbeatError``, whatever it is given; what it returns is within bounds.
Not protected: who holds the key can say anything.
"""

from __future__ import annotations

import enum
import hmac
import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from cluster.objects import AddressText
from speaker.protocol.heartbeat import (
    FEATURES,
    HEARD_BYTES,
    KINDS,
    LONGEST_INTERVAL_MS,
    MAX_ASKS,
    MAX_CLAIM_LINKS,
    MAX_EPOCH,
    MAX_HEARD,
    MAX_KIND,
    MAX_LINK_NAME,
    MAX_LOST_LINKS,
    MAX_NAME,
    MAX_OFFERED,
    MAX_PARTS,
    MAX_PREFERENCE,
    MAX_PREFIXES,
    MAX_STOOD_IN,
    ClaimPart,
    ClaimStep,
    Heartbeat,
    Message,
    Offer,
    OnBehalf,
    StoodIn,
    pack_address,
)

MAGIC = b"BLB"
VERSION = b"1"
MAX_DATAGRAM = 1400  # what is taken
NONCE_OCTETS = 8
PROOF_OCTETS = 12
_HEADER = struct.Struct(">3s1s8sQQ16s")
_SIGNED = struct.Struct(">3s1s8sQQ")
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
