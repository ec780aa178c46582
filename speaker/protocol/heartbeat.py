"""What speakers say to each other: five messages, as msgpack, and how much each may have in it.

``Heartbeat``, for claims ``ClaimStep`` (what changed) and ``ClaimPart`` (a piece of the whole set), ``Offer``, and
``OnBehalf`` (a step or part of a session that the sender stands in for). Each travels in a datagram of its own
(``datagram``), and ``docs/protocol.md`` has all of them octet by octet.

**Growth.** A speaker of a later release may say more than this one knows, while an upgrade rolls through the cluster.
Elements behind those that are known, of a message or of a claim, are ignored, and so are unknown flags. A message of an
unknown kind is an ``Unknown``. What must not be ignored is marked with features (``must``): a message that needs one
that we lack is refused, and of a step or part, only the claims that need it. The datagram's version rises only when
even a reader that does so would be wrong.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from msgspec import Struct

from cluster.addresses import Family
from cluster.objects import AddressText

FEATURES = 0
"""Those that this release knows, a bit each, of what may be needed to understand a message or a claim."""
TAKES_OFFERS = 1
"""A skill, as heartbeats say it: the sender understands an ``Offer``."""
STANDS_IN = 2
"""A skill: the sender stands in for sessions that restart, and counts the claims of those that are stood in for."""
SKILLS = TAKES_OFFERS | STANDS_IN
"""Those of this release."""
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

_HEARD = struct.Struct(">QH")


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
