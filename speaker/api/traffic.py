"""ARP traffic by address, added up from what the announcer tells each second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cluster.objects import AddressText
from speaker.channel import Stats


class Totals(NamedTuple):
    answered: Mapping[AddressText, int]
    """Requests that got a Reply."""
    gratuitous: Mapping[AddressText, int]
    """Gratuitous frames sent."""


class Traffic:
    """Totals for the addresses that are held; one that is held no more is forgotten."""

    def __init__(self) -> None:
        self._answered: dict[AddressText, int] = {}
        self._gratuitous: dict[AddressText, int] = {}

    def add(self, stats: Stats) -> None:
        for totals, lately in ((self._answered, stats.answered), (self._gratuitous, stats.gratuitous)):
            for address, count in lately.items():
                totals[address] = totals.get(address, 0) + count

    def forget(self, address: AddressText) -> None:
        self._answered.pop(address, None)
        self._gratuitous.pop(address, None)

    def totals(self) -> Totals:
        """As of now. From any thread."""
        return Totals(self._answered.copy(), self._gratuitous.copy())
