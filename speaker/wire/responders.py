"""The responders of all links: one for each link and family, made when a link appears, and fed with what changes.

A core without a socket. What is answered for is the ledger's (``answering``); a responder that is made later than the
ledger was filled begins with all that is answered for on its link.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.protocol.effects import LinkState
from speaker.wire.answering import Answering, LinkChange
from speaker.wire.resolution import Prove, Resolution, Responder, no_proof


class Responders:
    """See the module's docstring."""

    def __init__(self, resolutions: Mapping[Family, Resolution], answering: Answering, prove: Prove = no_proof) -> None:
        self._resolutions = resolutions
        self._answering = answering
        self._prove = prove
        self._links: dict[LinkName, Mapping[Family, Responder]] = {}

    def on(self, link: LinkName) -> Mapping[Family, Responder]:
        """The responders of a link, one for each family; ``KeyError`` if there is no such link."""
        return self._links[link]

    def set_links(self, links: Iterable[LinkState]) -> None:
        """The links as they are now, MACs included."""
        states = {state.name: state for state in links}
        own = frozenset(state.mac for state in states.values())
        for gone in self._links.keys() - states.keys():
            del self._links[gone]
        for name, state in states.items():
            if name not in self._links:
                self._links[name] = self._begin(state)
            for responder in self._links[name].values():
                responder.set_macs(state.mac, own)

    def follow(self, differences: Mapping[LinkName, LinkChange]) -> None:
        """Answer for what the ledger says from now on."""
        for link, difference in differences.items():
            if responders := self._links.get(link):
                for address, mac in difference.gained.items():
                    responders[address.family].hold(address, mac)
                for address in difference.lost:
                    responders[address.family].release(address)
        for link, responders in self._links.items():
            self._suspend(link, responders)

    def take_answered(self) -> dict[AddressText, int]:
        """Questions answered for each address since they were last told, over all links."""
        totals: dict[AddressText, int] = {}
        for responders in self._links.values():
            for responder in responders.values():
                for address, count in responder.take_answered():
                    text = address.text
                    totals[text] = totals.get(text, 0) + count
        return totals

    def _begin(self, state: LinkState) -> Mapping[Family, Responder]:
        made = {
            family: resolution.responder(state.name, state.mac, self._prove)
            for family, resolution in self._resolutions.items()
        }
        for address, mac in self._answering.on(state.name):
            made[address.family].hold(address, mac)
        self._suspend(state.name, made)
        return made

    def _suspend(self, link: LinkName, responders: Mapping[Family, Responder]) -> None:
        suspended = link in self._answering.suspended
        for responder in responders.values():
            responder.suspend(suspended)
