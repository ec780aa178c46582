"""What this node answers for, link by link: one ledger, which all that answers and announces follows.

The protocol says what changed (`AnswerChange`), in texts. The ledger reads each address once and says, link by link,
what is answered for from now on and what no more (`LinkChange`). The responders and the gratuitous schedule carry that
out; neither keeps a list of its own of what is answered where, and neither compares anything again. A change costs what
it has addresses, whatever there is.

An address of a node that is *stood in for* is answered with that node's MAC. It is answered as any other, and nothing
is said of it unasked.

What is true of a link as a whole, that nothing is answered there (*suspended*) or nothing said unasked (*quiet*), is
kept of the link: ten thousand addresses are suspended at the cost of one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import AnswerChange
from speaker.wire.addresses import WireAddress

_NOWHERE: frozenset[LinkName] = frozenset()
_OWN: Mapping[LinkName, Mac] = MappingProxyType({})
"""No other node's MAC."""


@dataclass(slots=True)
class LinkChange:
    """What changed on one link."""

    gained: dict[WireAddress, Mac | None] = field(default_factory=dict)
    """What is answered for from now on, or with another MAC than before: that of the node that is stood in for, or
    ``None``, the link's own."""
    lost: list[WireAddress] = field(default_factory=list)


class Answering:
    """The ledger."""

    def __init__(self, families: Container[Family]) -> None:
        """Addresses of other families than these can neither be answered nor announced: nobody follows them."""
        self._families = families
        self._links_of: dict[WireAddress, frozenset[LinkName]] = {}
        self._macs_of: dict[WireAddress, Mapping[LinkName, Mac]] = {}
        """Of addresses of nodes that are stood in for."""
        self.suspended: frozenset[LinkName] = frozenset()
        """Links on which nothing is answered now, whatever is held there."""
        self.quiet: frozenset[LinkName] = frozenset()
        """Links on which nothing may be said unasked, the suspended ones among them."""

    def change(self, change: AnswerChange) -> Mapping[LinkName, LinkChange]:
        """Take over what changed; what follows from it for each link whose addresses are others now."""
        self.suspended = change.suspended
        self.quiet = change.quiet | change.suspended
        differences: dict[LinkName, LinkChange] = defaultdict(LinkChange)
        for text, now in change.links.items():
            address = WireAddress.of(text)
            before, macs_before = self._links_of.pop(address, _NOWHERE), self._macs_of.pop(address, _OWN)
            macs = change.macs.get(text, _OWN)
            if now:
                self._links_of[address] = now
                if macs:
                    self._macs_of[address] = macs
            if (before == now and macs_before == macs) or address.family not in self._families:
                continue
            for link in now:
                if link not in before or macs.get(link) != macs_before.get(link):
                    differences[link].gained[address] = macs.get(link)
            for link in before - now:
                differences[link].lost.append(address)
        return differences

    def on(self, link: LinkName) -> Iterator[tuple[WireAddress, Mac | None]]:
        """All that is answered for on a link, and with which MAC, as in `LinkChange.gained`, for a follower that begins
        now. Costs what there is."""
        for address, links in self._links_of.items():
            if link in links and address.family in self._families:
                yield address, self._macs_of.get(address, _OWN).get(link)

    def links_of(self, address: AddressText) -> frozenset[LinkName]:
        """Where an address is answered for, the suspended links among them."""
        return self._links_of.get(WireAddress.of(address), _NOWHERE)
