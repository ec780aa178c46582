"""What speakers say and ask, carried over the networks to all that hear it.

A datagram is a frame that firewalls may drop on its way to the speaker; ARP and Neighbour Discovery are none of theirs.
Either passes between two interfaces that speak its family. Of the two copies of a datagram between interfaces that
speak both, one is heard first, now the one and now the other; the second one is of no account. Who answers for an
address answers questions for it, with a proof where one is asked for. Frames of any kind are shown to speakers that
watch for them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import assert_never

from cluster.addresses import family_of
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import (
    AskAddress,
    AskRecord,
    Decision,
    Effect,
    Knock,
    NeighbourSeen,
    ProbeAddress,
    SendGratuitous,
    SendHeartbeat,
    SendUnicast,
    WatchFrames,
)
from speaker.protocol.protocol import Protocol
from tests.speaker.protocol.simulation.loop import Action
from tests.speaker.protocol.simulation.machines import SimulatedInterface, SimulatedNode, Stranger
from tests.speaker.protocol.simulation.network import SimulatedNetwork

LOSES = 0.8  # share of the datagrams for which a full queue has no room
ARP_OCTETS = 60
TELLS_S = 0.1  # between counts of these


Datagram = SendHeartbeat | SendUnicast | Knock


class Wire:
    """Between the machines of ``nodes``, and the ``strangers`` on the ``lan``."""

    def __init__(
        self, lan: SimulatedNetwork, rng: random.Random, nodes: dict[str, SimulatedNode], strangers: dict[str, Stranger]
    ) -> None:
        self._lan = lan
        self._clock = lan.clock
        self._rng = rng
        self._nodes = nodes
        self._strangers = strangers
        self._told_lost: dict[SimulatedInterface, float] = {}
        self.on_datagram: Callable[[str, bytes], None] | None = None
        self.on_question: Callable[[SimulatedNode, AskRecord], None] = lambda _node, _question: None
        """A speaker wants to win a record in the API."""
        self.decisions: list[tuple[float, str, Decision]] = []
        self.probes: list[tuple[float, str, ProbeAddress]] = []
        self.gratuitous: list[tuple[float, str, SendGratuitous]] = []

    def carry_out(self, node: SimulatedNode, effect: Effect) -> None:
        if isinstance(effect, Decision):
            self.decisions.append((self._clock.now, node.name, effect))
            return
        if isinstance(effect, SendGratuitous):
            self.gratuitous.append((self._clock.now, node.name, effect))
            for link in node.told.values():
                if link.present and not link.quiet:
                    own = [a for a in effect.addresses if a in link.answers and a not in link.lent]
                    self._send_gratuitous(node, link, own)
            return
        if isinstance(effect, AskRecord):
            self.on_question(node, effect)
            return
        interface = node.told.get(effect.link)
        if interface is None or not interface.present:
            return
        if isinstance(effect, Datagram):
            self._send(node, interface, effect)
        elif isinstance(effect, AskAddress):
            self._ask(node, interface, effect)
        elif isinstance(effect, ProbeAddress):
            self.probes.append((self._clock.now, node.name, effect))
            self._ask(node, interface, AskAddress(effect.link, effect.target), probes=True)
        elif isinstance(effect, WatchFrames):
            interface.watched = effect.wanted
        else:
            assert_never(effect)

    def _others(self, sender: SimulatedInterface) -> Iterable[tuple[SimulatedNode, SimulatedInterface]]:
        """Who else is on an interface's network: also another one of the same machine."""
        for other in self._nodes.values():
            for interface in other.on(sender.network):
                if interface is not sender:
                    yield other, interface

    @staticmethod
    def _tell(
        node: SimulatedNode, interface: SimulatedInterface, what: Callable[[LinkName], None], octets: int | None = None
    ) -> None:
        """Hand the speaker what arrived on an interface that it knows: of a datagram or frame, how many octets."""
        loop, link = node.loop, interface.known_as
        if node.running and loop is not None and link is not None and interface.present:
            loop.receive(lambda: what(link), (link, octets) if octets is not None else None)

    # ---------------------------------------------------------------------------------------------- datagrams

    def _send(self, node: SimulatedNode, interface: SimulatedInterface, effect: Datagram) -> None:
        if isinstance(effect, SendHeartbeat) and self.on_datagram is not None:
            self.on_datagram(node.name, effect.data)
        if interface.refuses is interface.sends:
            interface.sends = not interface.refuses
            self._clock.after(0.0, lambda: self._tell_sending(node, interface))
        if interface.refuses:
            return
        interface.said += isinstance(effect, SendHeartbeat)
        for other, theirs in self._others(interface):
            by = interface.families & theirs.families
            if not isinstance(effect, SendHeartbeat):
                by = by & {family_of(effect.to)} if theirs.mac == effect.mac else frozenset()
            if by:
                self._datagram(node, interface, other, theirs, effect, source=interface.heard_from(by))

    def _tell_sending(self, node: SimulatedNode, interface: SimulatedInterface) -> None:
        protocol, works = node.protocol, interface.sends
        if protocol is not None:
            self._tell(node, interface, lambda link: protocol.set_sending(link, works, self._clock.now))

    def _datagram(
        self,
        node: SimulatedNode,
        interface: SimulatedInterface,
        other: SimulatedNode,
        theirs: SimulatedInterface,
        effect: Datagram,
        *,
        source: AddressText,
    ) -> None:
        network, mac = interface.network, interface.mac
        multicast = isinstance(effect, SendHeartbeat)

        def deliver() -> None:
            self._show(other, theirs, mac)
            passes = network.passes(node.name, other.name)
            refused = (passes and not other.running) or other.name in network.rejecting
            if other.powered and refused and not isinstance(effect, SendHeartbeat):
                network.send(other.name, node.name, refuse(effect.to))
            if isinstance(effect, Knock):
                return
            data = effect.data
            if passes and not self._loses(other, theirs) and (protocol := other.protocol) is not None:
                self._tell(other, theirs, self._hearing(protocol, source, data, by_group=multicast), len(data))

        def refuse(to: AddressText) -> Action:
            def told() -> None:
                if (protocol := node.protocol) is not None:
                    self._tell(node, interface, lambda link: protocol.datagram_refused(link, to, self._clock.now))

            return told

        network.send(node.name, other.name, deliver, multicast)

    def _hearing(
        self, protocol: Protocol, source: AddressText, data: bytes, *, by_group: bool = True
    ) -> Callable[[LinkName], None]:
        def hear(link: LinkName) -> None:
            protocol.receive_datagram(link, source, data, self._clock.now, by_group=by_group)

        return hear

    def _loses(self, node: SimulatedNode, interface: SimulatedInterface) -> bool:
        """Whether the kernel has no room for a datagram; it counts that, and the speaker sees the count."""
        now = self._clock.now
        if now >= interface.loses_until or self._rng.random() >= LOSES:
            return False
        if now - self._told_lost.get(interface, float("-inf")) >= TELLS_S and (protocol := node.protocol) is not None:
            self._told_lost[interface] = now
            self._tell(node, interface, lambda link: protocol.frames_lost(link, self._clock.now))
        return True

    def inject(self, node: SimulatedNode, source: AddressText, data: bytes) -> None:
        """A datagram of somebody on the LAN whose speaker is none of ours."""
        protocol = node.protocol
        for interface in node.on(self._lan):
            if protocol is not None and node.name not in self._lan.unplugged:
                self._tell(node, interface, self._hearing(protocol, source, data), len(data))

    def _show(self, node: SimulatedNode, interface: SimulatedInterface, mac: Mac) -> None:
        """Show a speaker that watches for frames the sender of one."""
        if interface.watched and (protocol := node.protocol) is not None:
            self._tell(node, interface, lambda link: protocol.receive_frame(link, mac, self._clock.now), ARP_OCTETS)

    # ---------------------------------------------------------------------------------------------- ARP

    def see(self, node: SimulatedNode, interface: SimulatedInterface, seen: NeighbourSeen) -> None:
        """An ARP frame that passes the filter of the speaker's socket."""
        if (protocol := node.protocol) is not None:
            self._tell(node, interface, lambda _: protocol.receive_neighbour(seen, self._clock.now), ARP_OCTETS)

    def _ask(
        self, node: SimulatedNode, interface: SimulatedInterface, ask: AskAddress, *, probes: bool = False
    ) -> None:
        """``probes``: the question is asked by nobody, so that who answers it learns of no neighbour."""
        network, family = interface.network, family_of(ask.target)
        source = interface.asks_from(family)
        assert family in interface.known_families, f"{node.name} asks for {ask.target} by {interface.name}"

        def answered(mac: Mac, proof: bytes = b"") -> None:
            self._show(node, interface, mac)
            self.see(node, interface, NeighbourSeen(ask.link, ask.target, mac, source, True, proof))

        def stranger(host: Stranger) -> Action:
            mac = host.answers[ask.target]
            return lambda: network.send(host.name, node.name, lambda: answered(mac))

        def question(other: SimulatedNode, theirs: SimulatedInterface) -> Action:
            def deliver() -> None:
                self._show(other, theirs, interface.mac)
                if ask.target in theirs.answers:
                    self._tell(other, theirs, lambda link: answer(other, theirs, link), ARP_OCTETS)
                elif other.powered and ask.target in {theirs.address, theirs.link_local}:
                    network.send(other.name, node.name, lambda: answered(theirs.mac))

            return deliver

        def answer(other: SimulatedNode, theirs: SimulatedInterface, link: LinkName) -> None:
            if other.protocol is None or ask.target not in theirs.answers:
                return
            if not probes:
                other.protocol.receive_neighbour(
                    NeighbourSeen(link, source, interface.mac, ask.target, False), self._clock.now
                )
            mac = theirs.mac_for(ask.target)
            proof = other.protocol.prove(ask.nonce, mac, ask.target) if ask.nonce else b""
            network.send(other.name, node.name, lambda: answered(mac, proof))

        for host in self._strangers.values() if network is self._lan else ():
            if ask.target in host.answers:
                network.send(node.name, host.name, stranger(host))
        for other, theirs in self._others(interface):
            if ask.mac in (None, theirs.mac) and family in theirs.families:
                network.send(node.name, other.name, question(other, theirs))

    def _send_gratuitous(
        self, node: SimulatedNode, interface: SimulatedInterface, addresses: list[AddressText]
    ) -> None:
        if not addresses:
            return
        network, mac = interface.network, interface.mac
        for other, theirs in self._others(interface):
            shared = [address for address in addresses if address in theirs.answers]
            if shared or theirs.watched:

                def rival(
                    other: SimulatedNode = other,
                    theirs: SimulatedInterface = theirs,
                    shared: list[AddressText] = shared,
                ) -> None:
                    self._show(other, theirs, mac)
                    for address in shared:
                        if theirs.known_as is not None:
                            self.see(other, theirs, NeighbourSeen(theirs.known_as, address, mac, address, False))

                network.send(node.name, other.name, rival)

    def ask_from(self, stranger: Stranger, target: AddressText, heard: Callable[[str], None]) -> None:
        """A stranger asks everybody for an address: ``heard`` is called with who answers, whatever MAC it names."""
        network = self._lan
        family = family_of(target)
        source = stranger.source(family)
        if source is None:
            return

        def asked(other: SimulatedNode, theirs: SimulatedInterface) -> Action:
            def answer(link: LinkName) -> None:
                if other.protocol is not None and target in theirs.answers:
                    other.protocol.receive_neighbour(
                        NeighbourSeen(link, source, stranger.mac, target, False), self._clock.now
                    )
                    network.send(other.name, stranger.name, lambda: heard(other.name))

            def deliver() -> None:
                self._show(other, theirs, stranger.mac)
                if target in theirs.answers:
                    self._tell(other, theirs, answer, ARP_OCTETS)

            return deliver

        for other in self._nodes.values():
            for theirs in other.on(network):
                if family in theirs.families:
                    network.send(stranger.name, other.name, asked(other, theirs))
