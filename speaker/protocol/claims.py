"""Claims: what a speaker says it holds, how claims compare, and how a claim set travels.

A claim is (address, epoch, node, preference, session); node and session are those of the speaker that says it. Claims
order by (epoch, preference, hash, name), so any two listeners agree on the higher one whatever their Plans say. Where
advertisements name interfaces for a node, its claims say these, too: they count on the segments of those alone.

A claim set is a log: version 0 is empty, each ``ClaimStep`` makes the next version. Steps are said three times. A
listener that misses one sees the version in the next heartbeat, asks for what came after the version that it has, and
gets the steps, or the whole set in parts when the log does not reach back that far. Each of these says what is claimed
when it is sent (``ClaimLog.as_of_now``): a listener judges each step by itself, and what was claimed and released long
ago would be a claim to it, until a later step is there. Work is proportional to what changed, never to what is held.
The digest guards against a mistake in this: a set that should be the same and is not is fetched whole.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from cluster.addresses import Family, family_of
from cluster.objects import AddressText, NodeName
from speaker.link import LinkName
from speaker.protocol.heartbeat import (
    FEATURES,
    LONGEST_SAID,
    ClaimLinks,
    ClaimPart,
    ClaimStep,
    WireClaim,
    pack_address,
    unpack_address,
)

MAX_CLAIMS = 20_000  # per peer
MAX_BUFFERED_STEPS = 1024
LOG_STEPS = 1024
_ROOM = LONGEST_SAID - 120  # bytes for claims in one datagram, beside header and message fields


class Claim(NamedTuple):
    epoch: int
    preference: int
    links: tuple[LinkName, ...] = ()
    """The links, by their names on the node that claims, on whose segments alone the claim counts; none: on all. It
    has no part in the order of claims, nor in the digest, so that earlier releases find the same."""


Said = TypeVar("Said", bound=ClaimStep | ClaimPart)
Changes = Mapping[AddressText, Claim | None]
"""Address -> its claim now, or ``None`` where it was released."""


@lru_cache(maxsize=1024)
def tie_break(node: NodeName) -> bytes:
    """The hash in the order of claims. Of the node alone: so that equal claims on several addresses of one bundle are
    won by the same node, and the bundle stays together."""
    return blake2b(node.encode(), digest_size=8).digest()


def outranks(claim: Claim, node: NodeName, other: Claim, other_node: NodeName) -> bool:
    """Whether ``claim`` by ``node`` beats ``other`` by ``other_node``. A total order: never both, and for two nodes
    always one."""
    if claim[:2] != other[:2]:
        return claim[:2] > other[:2]
    return (tie_break(node), node) > (tie_break(other_node), other_node)


def _fingerprint(address: AddressText, claim: Claim) -> int:
    data = b"%s %d %d" % (pack_address(address), claim.epoch, claim.preference)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def _wire(address: AddressText, claim: Claim | None) -> WireClaim:
    packed = pack_address(address)
    return WireClaim(packed, claim.epoch, claim.preference) if claim else WireClaim(packed, 0, 0)


class _Heard(NamedTuple):
    """Of an address: its claim, if there is one, and whether we know all that is needed to understand it."""

    claim: Claim | None
    understood: bool


_NOTHING = _Heard(None, understood=True)


def _unwire(message: ClaimStep | ClaimPart) -> dict[AddressText, _Heard]:
    strange = {place for place, must in message.marks if must & ~FEATURES}
    links = {place: tuple(map(LinkName, names)) for place, names in message.links}
    return {
        unpack_address(wire.address): _Heard(
            Claim(wire.epoch, wire.preference, links.get(place, ())) if wire.epoch else None, place not in strange
        )
        for place, wire in enumerate(message.claims)
    }


class _Piece(NamedTuple):
    """What one datagram says of claims."""

    claims: tuple[WireClaim, ...]
    links: ClaimLinks


def _cut(claims: Mapping[AddressText, Claim | None]) -> list[_Piece]:
    """Pieces that fit a datagram, at the most that msgpack may need for each claim."""
    pieces: list[_Piece] = []
    piece: list[WireClaim] = []
    links: list[tuple[int, tuple[LinkName, ...]]] = []
    room = _ROOM
    for address, claim in claims.items():
        wire, names = _wire(address, claim), claim.links if claim is not None else ()
        cost = 17 + len(wire.address) + (5 + sum(2 + len(name.encode()) for name in names) if names else 0)
        if cost > room:
            pieces.append(_Piece(tuple(piece), tuple(links)))
            piece, links, room = [], [], _ROOM
        if names:
            links.append((len(piece), names))
        piece.append(wire)
        room -= cost
    if piece:
        pieces.append(_Piece(tuple(piece), tuple(links)))
    return pieces


class ClaimLog:
    """One's own claims, and how they came to be."""

    def __init__(self) -> None:
        self.claims: dict[AddressText, Claim] = {}
        self.version = 0
        self.digest = 0
        self._uncommitted: dict[AddressText, None] = {}
        self._steps: deque[ClaimStep] = deque(maxlen=LOG_STEPS)
        self._whole: tuple[ClaimPart, ...] = ()

    @classmethod
    def of(cls, mirror: ClaimMirror) -> ClaimLog:
        """The log of another session, as it was heard: for who goes on with it."""
        log = cls()
        log.claims = dict(mirror.claims)
        log.version, log.digest = mirror.version, mirror.digest
        return log

    def put(self, address: AddressText, claim: Claim | None) -> None:
        """Claim (or, with ``None``, release) an address; said with the next ``commit``."""
        before = self.claims.pop(address, None)
        if before is not None:
            self.digest ^= _fingerprint(address, before)
        if claim is not None:
            self.claims[address] = claim
            self.digest ^= _fingerprint(address, claim)
        self._uncommitted[address] = None

    def commit(self) -> list[ClaimStep]:
        """The steps that say what changed since the last commit."""
        if not self._uncommitted:
            return []
        steps = []
        for piece in _cut({address: self.claims.get(address) for address in self._uncommitted}):
            self.version += 1
            steps.append(ClaimStep(self.version, piece.claims, links=piece.links))
        self._uncommitted.clear()
        self._steps.extend(steps)
        return steps

    def after(self, version: int) -> list[ClaimStep | ClaimPart]:
        """What a listener at ``version`` lacks: the later steps, or the whole set and the steps since it was cut."""
        oldest = self._steps[0].version if self._steps else self.version + 1
        if version >= 0 and oldest <= version + 1:
            return [step for step in self._steps if step.version > version]
        if not self._whole or self._whole[0].version < oldest - 1:
            pieces = _cut(self.claims) or [_Piece((), ())]
            self._whole = tuple(
                ClaimPart(max(self.version, 1), index, len(pieces), piece.claims, links=piece.links)
                for index, piece in enumerate(pieces)
            )
        cut_at = self._whole[0].version
        return [*self._whole, *(step for step in self._steps if step.version > cut_at)]

    def as_of_now(self, said: Said) -> Said:
        """The same step or part, with what is claimed now of the addresses in it. What has no room in it with the
        links that it is claimed for now is left to the later step that says these."""
        links = dict(said.links)
        same: dict[AddressText, Claim | None] = {}
        changed: dict[AddressText, Claim | None] = {}
        for place, wire in enumerate(said.claims):
            address = unpack_address(wire.address)
            claim = self.claims.get(address)
            if claim is None:
                (changed if wire.epoch else same)[address] = None
            else:
                is_same = claim == (wire.epoch, wire.preference, links.get(place, ()))
                (same if is_same else changed)[address] = claim
        if not changed:
            return said
        piece = _cut({**same, **changed})[0]
        return replace(said, claims=piece.claims, links=piece.links)


class ClaimMirror:
    """A peer's claim set as far as it was heard. A claim that cannot be understood without a feature that we lack is in
    the set, or what follows would not fit it, but is no claim to us."""

    def __init__(self) -> None:
        self.claims: dict[AddressText, Claim] = {}
        """Those that we understand."""
        self.strange: dict[AddressText, Claim] = {}
        """The others."""
        self.version = 0
        self._of_family: Counter[Family] = Counter()
        """How many there are of each family, understood or not."""
        self._digest = 0
        self._announced = 0
        self._buffered: dict[int, ClaimStep] = {}
        self._parts: dict[int, ClaimPart] = {}

    @property
    def in_step(self) -> bool:
        """Whether this is what the peer last said that it claims."""
        return self.version >= self._announced

    @property
    def digest(self) -> int:
        return self._digest

    @property
    def families(self) -> frozenset[Family]:
        """Those of the addresses that the peer claims."""
        return frozenset(family for family, count in self._of_family.items() if count)

    @property
    def waiting(self) -> int:
        """Messages that wait for others."""
        return len(self._buffered) + len(self._parts)

    @property
    def size(self) -> int:
        """Claims, understood or not."""
        return len(self.claims) + len(self.strange)

    def would_wait(self, message: ClaimStep | ClaimPart) -> bool:
        """Whether it is of no use before others are here."""
        if isinstance(message, ClaimPart):
            return message.total > 1
        return message.version != self.version + 1

    def clear(self) -> None:
        """Know nothing any more."""
        self.claims, self.strange, self.version, self._digest, self._announced = {}, {}, 0, 0, 0
        self._buffered, self._parts = {}, {}
        self._of_family.clear()

    def note(self, version: int, digest: int) -> None:
        """A heartbeat said that the set is at ``version`` with this digest."""
        self._announced = max(self._announced, version)
        if version == self.version and digest != self._digest:
            self.version = -1  # a step was misapplied, or the peer erred: fetch it whole

    def take_step(self, step: ClaimStep) -> Changes:
        """What changed by it. Steps that came early wait for their predecessors."""
        self._announced = max(self._announced, step.version)
        if step.version <= self.version or len(self._buffered) >= MAX_BUFFERED_STEPS:
            return {}
        self._buffered[step.version] = step
        return self._apply_buffered()

    def take_part(self, part: ClaimPart) -> Changes:
        """What changed by it: nothing until all parts of one version are here."""
        if part.version <= self.version:
            return {}
        have = next(iter(self._parts.values()), None)
        if have is None or (have.version, have.total) != (part.version, part.total):
            self._parts = {}
        self._parts[part.index] = part
        if len(self._parts) < part.total:
            return {}
        whole: dict[AddressText, _Heard] = {}
        for piece in self._parts.values():
            whole.update(_unwire(piece))
        self._parts = {}
        if len(whole) > MAX_CLAIMS:
            return {}
        gone = (self.claims.keys() | self.strange.keys()) - whole.keys()
        changes = dict(self._put({**dict.fromkeys(gone, _NOTHING), **whole}))
        self.version = part.version
        return {**changes, **self._apply_buffered()}

    def _apply_buffered(self) -> Changes:
        changes: dict[AddressText, Claim | None] = {}
        while self.version >= 0 and (step := self._buffered.pop(self.version + 1, None)):
            made = _unwire(step)
            if self.size + len(made) > MAX_CLAIMS:
                break
            changes.update(self._put(made))
            self.version = step.version
        if self._buffered:
            self._buffered = {version: step for version, step in self._buffered.items() if version > self.version}
        return changes

    def _put(self, heard: Mapping[AddressText, _Heard]) -> Changes:
        """What changed of what we understand."""
        changes: dict[AddressText, Claim | None] = {}
        for address, (claim, understood) in heard.items():
            before = self.claims.pop(address, None)
            there = before or self.strange.pop(address, None)
            if there is not None:
                self._digest ^= _fingerprint(address, there)
                self._of_family[family_of(address)] -= 1
            if claim is not None:
                (self.claims if understood else self.strange)[address] = claim
                self._of_family[family_of(address)] += 1
                self._digest ^= _fingerprint(address, claim)
            after = claim if understood else None
            if after != before:
                changes[address] = after
        return changes


__all__ = ["LOG_STEPS", "MAX_CLAIMS", "Changes", "Claim", "ClaimLog", "ClaimMirror", "outranks"]
