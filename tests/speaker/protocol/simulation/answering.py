"""Who answers for what on each network: what a speaker wants, as far as its links and its process let it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.effects import AnswerChange
from tests.speaker.protocol.simulation.machines import SimulatedInterface, SimulatedNode
from tests.speaker.protocol.simulation.network import SimulatedNetwork


class Answering:
    """Of all machines; writes to their interfaces and networks, and notes each change."""

    def __init__(self, nodes: Mapping[str, SimulatedNode], note: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._note = note

    def follow(self, node: SimulatedNode, change: AnswerChange) -> None:
        """Answer for what is held now."""
        before = [interface.suspended for interface in node.told.values()]
        for link, interface in node.told.items():
            interface.quiet, interface.suspended = link in change.quiet, link in change.suspended
        if before != [interface.suspended for interface in node.told.values()]:
            self.look(node)
            return
        for link, interface in node.told.items():
            for address in sorted(change.links):
                answers = link in change.links[address] and not interface.suspended and node.works
                mac = change.macs.get(address, {}).get(link)
                self._answer(node, interface, address, mac or interface.mac if answers else None)

    def look(self, node: SimulatedNode) -> None:
        """Answer for all that is held on the links as they are now, by a speaker that may not run any more."""
        held = node.protocol.answered() if node.works and node.protocol is not None else {}
        named = node.protocol.named() if node.protocol is not None else {}
        for interface in node.interfaces:
            link = interface.known_as if interface.present else None
            for address in sorted(interface.answers | held.keys()):
                if link is None or link not in held.get(address, ()):
                    self._answer(node, interface, address, None)
                else:
                    self._answer(node, interface, address, named.get(address, {}).get(link, interface.mac))

    def _answer(
        self, node: SimulatedNode, interface: SimulatedInterface, address: AddressText, mac: Mac | None
    ) -> None:
        """Answer for an address from now on, naming a MAC, or do so no longer."""
        if mac is None and address not in interface.answers:
            return
        network = interface.network
        before, macs = network.answerers.get(address, frozenset()), network.named.setdefault(address, {})
        owners = frozenset(macs.values())
        if mac is None:
            interface.answers.discard(address)
            macs.pop(node.name, None)
        else:
            interface.answers.add(address)
            macs[node.name] = self._whose(mac)
        if mac is None or mac == interface.mac:
            interface.lent.pop(address, None)
        else:
            interface.lent[address] = mac
        after = network.answerers[address] = frozenset(macs)
        if (before, owners) == (after, frozenset(macs.values())):
            return
        if owners != frozenset(macs.values()):
            network.owner_changes.append((network.clock.now, address, frozenset(macs.values())))
        telling = (name if name == owner else f"{name} for {owner}" for name, owner in sorted(macs.items()))
        self._note(f"{address} answered{where(network)} by {', '.join(telling) or 'nobody'}")

    def _whose(self, mac: Mac) -> str:
        """The machine that has a MAC."""
        return next(node.name for node in self._nodes.values() if any(each.mac == mac for each in node.interfaces))


def where(network: SimulatedNetwork) -> str:
    """What is added to an entry of the trace that is not about the LAN."""
    return "" if network.name == "lan" else f" to {network.name}"
