"""IP addresses on the wire side: one type, which knows its family.

The protocol, the Plan and the channel write addresses as texts. Frames carry octets, and the filters in the kernel
compare numbers. `WireAddress` is the one form in which everything between these edges keeps an address:

1. A text that comes in with an effect, and an octet string that netlink or a frame brings, becomes a `WireAddress`.
2. The family follows from the length. Whatever differs between the families is looked up by it (``families``).
3. What goes back to the protocol or the watcher leaves as ``text``.

Texts are in canonical form (RFC 5952 for IPv6), as everywhere in the project; a text in another form comes back in the
canonical one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import NamedTuple

from cluster.addresses import Family
from cluster.objects import AddressText

_FAMILIES = {4: Family.IPV4, 16: Family.IPV6}


class WireAddress(bytes):
    """An IP address as frames carry it: four octets, or sixteen, in network order.

    It equals the octets that are cut out of a frame, and has their hash: a table whose keys are addresses is asked with
    a slice of the frame.
    """

    __slots__ = ()

    @classmethod
    def of(cls, text: AddressText) -> WireAddress:
        """The address of a text; ``ValueError`` if it is none."""
        if ":" in text:
            return cls(IPv6Address(text).packed)
        try:
            address = cls(map(int, text.split(".")))  # four times as fast as ipaddress: take-overs have thousands
        except ValueError:
            address = cls()
        if len(address) != 4:
            raise ValueError(f"{text!r} is not an IP address")
        return address

    @property
    def family(self) -> Family:
        return _FAMILIES[len(self)]

    @property
    def text(self) -> AddressText:
        if len(self) == 4:
            return AddressText("%d.%d.%d.%d" % tuple(self))  # noqa: UP031 -- three times as fast, and in a receive path
        return AddressText(str(IPv6Address(bytes(self))))

    @property
    def number(self) -> int:
        return int.from_bytes(self, "big")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"WireAddress({self.text})"


class OwnAddress(NamedTuple):
    """An address of an interface, and how many of its leading bits name the subnet."""

    address: WireAddress
    length: int

    @classmethod
    def of(cls, prefix: str) -> OwnAddress:
        """Read ``192.0.2.11/24``."""
        address, _, length = prefix.partition("/")
        return cls(WireAddress.of(AddressText(address)), int(length))

    @property
    def text(self) -> str:
        return f"{self.address.text}/{self.length}"

    def connects(self, other: WireAddress) -> bool:
        """Whether the other address is on the subnet of this one."""
        host_bits = 8 * len(self.address) - self.length
        return len(other) == len(self.address) and other.number >> host_bits == self.address.number >> host_bits


def own_of(prefixes: Iterable[str], family: Family) -> list[OwnAddress]:
    """Those of an interface's addresses that are of one family."""
    own = (OwnAddress.of(prefix) for prefix in prefixes)
    return [mine for mine in own if mine.address.family is family]


def nearest(own: Sequence[OwnAddress], to: WireAddress) -> WireAddress:
    """The own address from which to write to another: the one on its subnet, or else the interface's first."""
    return next((mine.address for mine in own if mine.connects(to)), own[0].address)
