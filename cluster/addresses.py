"""Addresses and ranges of addresses as numbers: parsing, overlap, lookup.

An address is its family and one integer. A range is its first and its last address, both included. Everything here
costs the same for a /29 and for an IPv6 /64, since nothing walks over addresses. Texts are read as users write them in
an IPAddressPool or an annotation, and each refusal says what is wrong with the text.

An IPv4-mapped IPv6 address (``::ffff:192.0.2.1``, RFC 4291 §2.5.5.2) means the IPv4 address.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

from cluster.objects import AddressText

V = TypeVar("V")


class AddressError(ValueError):
    """A text that is no address or range that could be given to a Service. The message says why, without the text."""


class Family(IntEnum):
    IPV4 = 4
    IPV6 = 6

    @property
    def text(self) -> str:
        """The name in ``Service.spec.ipFamilies``."""
        return "IPv4" if self is Family.IPV4 else "IPv6"

    @property
    def bits(self) -> int:
        return 32 if self is Family.IPV4 else 128


def family_of(address: AddressText) -> Family:
    """Of an address in its canonical text form."""
    return Family.IPV6 if ":" in address else Family.IPV4


class Address(NamedTuple):
    """One IP address. Ordered by family, then by value."""

    family: Family
    value: int

    @property
    def text(self) -> AddressText:
        """The canonical text form (RFC 5952 for IPv6)."""
        return _text(self)


@lru_cache(maxsize=1024)
def _text(address: Address) -> AddressText:
    """Kept, since thousands of Services may show the addresses of the same nodes."""
    if address.family is Family.IPV4:
        return AddressText(str(ipaddress.IPv4Address(address.value)))
    return AddressText(str(ipaddress.IPv6Address(address.value)))


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """The addresses from ``first`` to ``last``, both included."""

    family: Family
    first: int
    last: int

    def __contains__(self, address: Address) -> bool:
        return address.family is self.family and self.first <= address.value <= self.last

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    @property
    def text(self) -> str:
        """``first-last``, as a pool's ``spec.addresses`` takes it."""
        return f"{Address(self.family, self.first).text}-{Address(self.family, self.last).text}"

    @property
    def short_text(self) -> str:
        """As people write it: one address, a CIDR where it is one, else ``first-last``."""
        first = Address(self.family, self.first).text
        if self.count == 1:
            return first
        length = self.count.bit_length() - 1
        return (
            f"{first}/{self.family.bits - length}"
            if self.count == 1 << length and not self.first % self.count
            else self.text
        )

    def overlaps(self, other: Range) -> bool:
        return self.family is other.family and self.first <= other.last and other.first <= self.last


_MAPPED_FIRST = 0xFFFF << 32
_MAPPED_LAST = _MAPPED_FIRST | 0xFFFF_FFFF


def _network(text: str, what: str) -> tuple[Range, str]:
    network = ipaddress.ip_network(text)
    family = Family(network.version)
    return Range(family, int(network.network_address), int(network.broadcast_address)), what


_UNUSABLE = (
    _network("0.0.0.0/8", '"this network", RFC 1122 §3.2.1.3'),
    _network("127.0.0.0/8", "loopback"),
    _network("224.0.0.0/4", "multicast"),
    _network("255.255.255.255/32", "the limited broadcast address"),
    _network("::/128", "the unspecified address"),
    _network("::1/128", "loopback"),
    _network("fe80::/10", "link-local addresses"),
    _network("ff00::/8", "multicast"),
)
"""Addresses that no Service can be reached under."""


@lru_cache(maxsize=4096)  # an object is looked at several times in a row
def parse_address(text: str) -> Address:
    """One address; spaces around it are allowed. Raises ``AddressError``."""
    stripped = text.strip()
    if "%" in stripped:
        raise AddressError("has a zone, which no Service address can have")
    try:
        parsed = ipaddress.ip_address(stripped)
    except ValueError as error:
        raise AddressError("is not an IP address") from error
    return _unmapped(Family(parsed.version), int(parsed))


def parse_range(text: str) -> Range:
    """One entry of a pool's ``spec.addresses``: ``192.0.2.0/24`` or ``192.0.2.10-192.0.2.20``.

    Spaces around the dash are allowed; host bits of a CIDR are masked. Raises ``AddressError`` for anything else, a
    bare address included, and for a range that contains an address that no Service can have.
    """
    parsed = parse_prefix(text) if "/" in text else _parse_span(text)
    for unusable, what in _UNUSABLE:
        if parsed.overlaps(unusable):
            raise AddressError(f"contains {unusable.short_text} ({what}), which no Service can have")
    return parsed


def parse_prefix(text: str) -> Range:
    """A prefix such as ``192.0.2.0/24``, whatever it contains; host bits are masked. Raises ``AddressError``."""
    base_text, _, length_text = text.partition("/")
    try:
        base = ipaddress.ip_address(base_text.strip())
    except ValueError as error:
        raise AddressError("has no IP address before the slash") from error
    length_text = length_text.strip()
    if "%" in base_text or not (length_text.isascii() and length_text.isdigit()):
        raise AddressError("is not a CIDR like 192.0.2.0/24")
    bits = Family(base.version).bits
    length = int(length_text) if len(length_text) <= 3 else bits + 1
    if length > bits:
        raise AddressError(f"has a prefix longer than {bits} bits")
    host_mask = (1 << (bits - length)) - 1
    first = int(base) & ~host_mask
    return _unmapped_range(Family(base.version), first, first | host_mask)


def _parse_span(text: str) -> Range:
    first_text, dash, last_text = text.partition("-")
    if not dash:
        try:
            bare = parse_address(text)
        except AddressError:
            raise AddressError("is neither a CIDR like 192.0.2.0/24 nor a range like 192.0.2.1-192.0.2.9") from None
        raise AddressError(f'is a single address; write "{bare.text}/{bare.family.bits}"')
    ends = []
    for end, end_text in (("a start", first_text), ("an end", last_text)):
        try:
            ends.append(parse_address(end_text))
        except AddressError as error:
            raise AddressError(f'has {end} "{end_text.strip()}" that {error}') from error
    first, last = ends
    if first.family is not last.family:
        raise AddressError(f"starts with {first.family.text} and ends with {last.family.text}")
    if first.value > last.value:
        raise AddressError("starts after it ends")
    return Range(first.family, first.value, last.value)


def _unmapped(family: Family, value: int) -> Address:
    if family is Family.IPV6 and _MAPPED_FIRST <= value <= _MAPPED_LAST:
        return Address(Family.IPV4, value - _MAPPED_FIRST)
    return Address(family, value)


def _unmapped_range(family: Family, first: int, last: int) -> Range:
    if family is Family.IPV6 and first >= _MAPPED_FIRST and last <= _MAPPED_LAST:
        return Range(Family.IPV4, first - _MAPPED_FIRST, last - _MAPPED_FIRST)
    return Range(family, first, last)


class RangeMap(Generic[V]):
    """Disjoint ranges, each with a value: which one contains this address, which one overlaps this range."""

    __slots__ = ("_ranges", "_values")

    def __init__(self) -> None:
        self._ranges: list[Range] = []
        self._values: dict[Range, V] = {}

    def add(self, block: Range, value: V) -> None:
        """Add a range that overlaps none in the map (``overlapping`` tells); raises ``ValueError`` otherwise."""
        if self.overlapping(block) is not None:
            raise ValueError(f"{block.text} overlaps a range in the map")
        insort(self._ranges, block)
        self._values[block] = value

    def add_all(self, blocks: Iterable[tuple[Range, V]]) -> None:
        """As ``add`` for each, at the cost of sorting them."""
        values = [*self._values.items(), *blocks]
        ranges = sorted((block for block, _ in values), key=lambda each: (each.family, each.first))
        for one, next_ in pairwise(ranges):
            if one.overlaps(next_):
                raise ValueError(f"{next_.text} overlaps {one.text}")
        self._ranges, self._values = ranges, dict(values)

    def find(self, address: Address) -> tuple[Range, V] | None:
        """The range that contains the address, with its value."""
        return self.overlapping(Range(address.family, address.value, address.value))

    def overlapping(self, block: Range) -> tuple[Range, V] | None:
        """The last range that has an address in common with ``block``, with its value."""
        position = bisect_right(self._ranges, Range(block.family, block.last, 1 << 128)) - 1
        if position >= 0 and self._ranges[position].overlaps(block):
            found = self._ranges[position]
            return found, self._values[found]
        return None

    def within(self, block: Range) -> list[tuple[Range, V]]:
        """Every range that has an address in common with ``block``, in order, cut to it, with its value."""
        found = []
        position = max(bisect_right(self._ranges, Range(block.family, block.first, 1 << 128)) - 1, 0)
        for at in range(position, len(self._ranges)):
            each = self._ranges[at]
            if (each.family, each.first) > (block.family, block.last):
                break
            if each.overlaps(block):
                cut = Range(block.family, max(each.first, block.first), min(each.last, block.last))
                found.append((cut, self._values[each]))
        return found

    def gaps(self, block: Range) -> list[Range]:
        """The parts of ``block`` that no range in the map contains, in order."""
        found = []
        start = block.first
        for taken, _ in self.within(block):
            if taken.first > start:
                found.append(Range(block.family, start, taken.first - 1))
            start = taken.last + 1
        if start <= block.last:
            found.append(Range(block.family, start, block.last))
        return found
