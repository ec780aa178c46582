"""What responders of every family have in common: the addresses that are held, and what is kept ready for each.

A room's responder adds what it makes of a frame. It looks up the address that a frame asks for in `_ready`, counts the
questions that it answers, and tells the kernel's filter and, where questions go to groups, the groups what is held.

**Standing in.** Answers say that an address is at the link's own MAC, or at that of another node whose speaker is away
for a moment. They leave from the link's own MAC all the same: a switch learns by the Ethernet source on which of its
ports a MAC is, and the other node's stays where it is. What that node itself says and asks of such an address is
neither answered nor a rival's (`DropReason.STOOD_IN_FOR`): its kernel would send to itself what it sent to the address.

**Proofs.** A speaker that wants to know whether it is really us who answers puts a nonce into its question. There is a
limit to how many proofs are made in a second; a question beyond it gets the answer alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from speaker.link import LinkName, Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.allowance import Allowance
from speaker.wire.ethernet import NO_MAC
from speaker.wire.groups import Groups
from speaker.wire.held_filter import HeldFilter
from speaker.wire.resolution import Prove

PROOFS_PER_S = 1000.0
"""Per link; fifty peers that each ask for one every 50 ms."""
PROOFS_AT_ONCE = 100


class Prepared:
    """A held address on one link: at which MAC it is, what of its answers is ready-made, and the questions answered
    since this was last told."""

    __slots__ = ("address", "answered", "is_own", "mac")

    def __init__(self, address: WireAddress) -> None:
        self.address = address
        self.answered = 0

    def set_mac(self, source: Mac, other: Mac | None) -> None:
        """Answer from ``source`` that the address is there, or that it is at ``other``."""
        self.is_own = other is None
        self.mac = source if other is None else other
        self.prepare(source)

    def prepare(self, source: Mac) -> None:
        """Make ready what is the same in all answers from this source."""
        raise NotImplementedError


P = TypeVar("P", bound=Prepared)


class HeldResponder(Generic[P]):
    """The addresses held on one link, the filter in the kernel ahead of them, and the groups that are asked."""

    def __init__(
        self, link: LinkName, mac: Mac, prove: Prove, held_filter: HeldFilter, prepared: Callable[[WireAddress], P]
    ) -> None:
        self.link = link
        self.filter = held_filter
        self.groups = Groups()
        """None, where questions go to everybody."""
        self._prove = prove
        self._proofs = Allowance(PROOFS_PER_S, PROOFS_AT_ONCE)
        self._mac = mac
        self._own_macs: frozenset[Mac] = frozenset((mac,))
        """Of all announced links: frames from these are our own."""
        self._no_askers = frozenset((NO_MAC, mac))
        self._prepared = prepared
        self._held: dict[bytes, P] = {}
        self._ready = self._held
        """What is answered: nothing, while that is suspended."""
        self._probed: set[bytes] = set()
        """Addresses that somebody may say now to have, in answer to a probe."""
        self._answered: list[P] = []
        """Those with questions answered that were not told yet."""

    def set_macs(self, mac: Mac, own: frozenset[Mac]) -> None:
        self._own_macs = own
        if mac != self._mac:
            self._mac = mac
            self._no_askers = frozenset((NO_MAC, mac))
            for prepared in self._held.values():
                prepared.set_mac(mac, None if prepared.is_own else prepared.mac)

    def suspend(self, suspended: bool) -> None:
        self._ready = {} if suspended else self._held

    def hold(self, address: WireAddress, mac: Mac | None = None) -> None:
        prepared = self._held.get(address)
        if prepared is None:
            prepared = self._held[address] = self._prepared(address)
            self.filter.hold(address)
        prepared.set_mac(self._mac, mac)

    def release(self, address: WireAddress) -> None:
        self._held.pop(address, None)
        self.filter.release(address)

    def _is_stood_in_for(self, address: bytes, mac: Mac) -> bool:
        """Whether ``mac`` is that of another node with which we answer for the address."""
        prepared = self._ready.get(address)
        return prepared is not None and not prepared.is_own and prepared.mac == mac

    def expect(self, address: WireAddress) -> None:
        self._probed.add(address)

    def expect_no_more(self, address: WireAddress) -> None:
        self._probed.discard(address)

    def take_answered(self) -> Iterator[tuple[WireAddress, int]]:
        answered, self._answered = self._answered, []
        for prepared in answered:
            yield prepared.address, prepared.answered
            prepared.answered = 0
