"""Random schedules on LANs of both families, each determined by its seed.

Everything that happens on strange networks happens here, too. Each network speaks IPv6 alone, both families, or on some
nodes the one and on some the other, with an IPv6 subnet or with link-local addresses alone. Services have addresses of
either family or of both, and advertisements name interfaces, for each node its own. A family is lost on an interface,
and is there again.
"""

from __future__ import annotations

import random

from msgspec.structs import replace

from cluster.addresses import Family, family_of
from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.plan import Bundle, Candidate
from tests.speaker.protocol.simulation.machines import SimulatedInterface, SimulatedNode
from tests.speaker.protocol.simulation.network import SimulatedNetwork
from tests.speaker.protocol.simulation.schedules import Fault
from tests.speaker.protocol.simulation.strange import StrangeSchedule
from tests.speaker.protocol.simulation.world import LINK, World

BOTH = frozenset(Family)
STORAGE = LinkName("eth1")
IPV4, IPV6 = frozenset({Family.IPV4}), frozenset({Family.IPV6})
SUBNETS6 = {"10.0.9": "fd10", "10.1.9": "fd11", "192.0.2": "2001:db8"}
"""IPv6's counterparts of where Services have their addresses: the LAN, the second network, and nowhere."""


class FamilySchedule(StrangeSchedule):
    def begin(self, seed: int) -> None:
        super().begin(seed)
        self.families = random.Random(seed * 4243 + 3)

    def draw_for(self, step: int) -> None:
        super().draw_for(step)
        self.families.seed(f"families {self.seed} {step}")

    def make_world(self, seed: int, count: int, *, gateway: bool, client: bool) -> World:
        world = super().make_world(seed, count, gateway=gateway, client=client)
        for number, network in enumerate(world.networks):
            self._give_families(world, network, f"fd1{number:x}")
        return world

    def _give_families(self, world: World, network: SimulatedNetwork, prefix6: str) -> None:
        rng = self.families
        has_subnet = rng.random() < 0.7
        kind = rng.random()
        world.speak(network, IPV6 if kind < 0.25 else BOTH, prefix6 if has_subnet else "")
        if kind > 0.6:
            for node in world.nodes.values():
                for interface in node.on(network):
                    interface.speak(rng.choice((IPV4, IPV6, BOTH, BOTH, BOTH)))

    def _bundle(self, i: int) -> Bundle:
        bundle = super()._bundle(i)
        kind = self.families.random()
        others = tuple(_in_ipv6(address) for address in bundle.addresses)
        if kind < 0.3:
            return bundle
        return replace(bundle, addresses=others if kind < 0.55 else (*bundle.addresses, *others))

    def _demand(self, candidate: Candidate) -> Candidate:
        """Advertisements name other interfaces for other nodes."""
        return replace(candidate, interfaces=self.families.choice(((LINK,), (LINK,), (STORAGE,), (LINK, STORAGE), ())))

    def _strange_faults(self) -> list[Fault]:
        faults, node = super()._strange_faults(), self.some_node()
        interface = self.families.choice(node.interfaces)
        if interface.present:
            faults.append(Fault("families", 8, lambda: self._change_families(node, interface)))
        return faults

    def _change_families(self, node: SimulatedNode, interface: SimulatedInterface) -> None:
        """IPv6 is switched off on an interface, or its last IPv4 address is gone; or the family is back."""
        rng = self.families
        if interface.families == BOTH:
            self.world.set_families(node.name, interface, rng.choice((IPV4, IPV6)))
        elif interface.families != interface.usual:
            self.world.set_families(node.name, interface, interface.usual)
        else:
            self.world.set_families(node.name, interface, BOTH)

    def heal(self) -> None:
        for node in self.world.nodes.values():
            for interface in node.interfaces:
                if interface.families != interface.usual:
                    self.world.set_families(node.name, interface, interface.usual)
        super().heal()


def _in_ipv6(address: AddressText) -> AddressText:
    if family_of(address) is Family.IPV6:
        return address
    subnet, _, host = address.rpartition(".")
    return AddressText(f"{SUBNETS6[subnet]}::9:{int(host):x}")
