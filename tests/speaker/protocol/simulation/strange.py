"""Random schedules on LANs as they also are, each determined by its seed.

Some nodes are on a second network too, or on it alone; some have a bridge of their own. Interfaces are renewed,
renamed, made anew and moved into bridges. Firewalls drop the heartbeats and let ARP pass, the network stops forwarding
what is said to the group, a switch blocks a port whose carrier stays, kernels refuse to send or lose what arrives,
proxies and forgers answer ARP in the name of the dead, another machine starts with a node's name, a member lies. Work
takes time, and some start while others are already at work.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace as replaced
from functools import partial

from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import DRAINED_TIER, Bundle, Candidate
from speaker.protocol.effects import NeighbourSeen
from speaker.protocol.settings import Settings
from tests.speaker.protocol.simulation.liar import Liar
from tests.speaker.protocol.simulation.loop import Work
from tests.speaker.protocol.simulation.machines import SimulatedInterface, SimulatedNode, Stranger
from tests.speaker.protocol.simulation.network import SimulatedNetwork, Weather
from tests.speaker.protocol.simulation.schedules import CALM_S, Fault, Schedule
from tests.speaker.protocol.simulation.world import CLIENT, LINK, World

TWIN_SILENCE_S = 6.0  # after which nobody yields to a twin that has gone any more
FORGED_S = 0.1  # between unasked replies in another's name
RIVAL_MAC = Mac(bytes([2, 0, 0, 0, 4, 2]))
RIVAL_S = 0.7  # between its frames
STORM = 500  # hosts
STORM_S = 0.2


class StrangeSchedule(Schedule):
    def begin(self, seed: int) -> None:
        super().begin(seed)
        self.strange = random.Random(seed * 6007 + 5)
        self.storage: SimulatedNetwork | None = None
        self.renewed = 0

    def draw_for(self, step: int) -> None:
        super().draw_for(step)
        self.strange.seed(f"strange {self.seed} {step}")

    def make_world(self, seed: int, count: int, *, gateway: bool, client: bool) -> World:
        rng = self.strange
        settings = Settings(take_back_s=5.0) if rng.random() < 0.3 else Settings()
        work = Work(call_s=rng.uniform(0.0, 0.001)) if rng.random() < 0.25 else None
        world = World(seed, count, gateway=gateway, client=client, settings=settings, work=work)
        if rng.random() < 0.5:
            self.storage = world.add_network("storage", "10.1")
            for name in world.nodes:
                if rng.random() < 0.8:
                    world.join(name, self.storage, "eth1")
            if count > 2 and rng.random() < 0.2:
                node = world.nodes[rng.choice(sorted(world.nodes))]
                if len(node.interfaces) > 1:
                    del node.interfaces[0]
        for name in world.nodes:
            if rng.random() < 0.2:
                own = world.add_network(f"bridge of {name}", "172.17", shared=False)
                world.join(name, own, "br-7c1f")
        for network in world.networks[1:]:
            network.weather = Weather(rng.choice((0.0, 0.0, 0.01)), (0.0002, 0.002))
        return world

    def start_takes(self) -> float:
        return super().start_takes() if self.strange.random() < 0.7 else 15.0

    def _bundle(self, i: int) -> Bundle:
        bundle = super()._bundle(i)
        rng = self.strange
        kind = rng.random()
        if kind < 0.2:
            bundle = replace(bundle, addresses=tuple(_on("192.0.2", address) for address in bundle.addresses))
        elif kind < 0.35 and self.storage is not None:
            bundle = replace(bundle, addresses=tuple(_on("10.1.9", address) for address in bundle.addresses))
        elif kind < 0.5:
            bundle = replace(bundle, candidates=tuple(self._demand(each) for each in bundle.candidates))
        return bundle

    def _demand(self, candidate: Candidate) -> Candidate:
        return replace(candidate, interfaces=(LINK,))

    def _faults(self) -> list[Fault]:
        usual = super()._faults()
        strange = self._strange_faults()
        return usual if self.rng.random() < 0.4 else strange

    # ---------------------------------------------------------------------------------------------- faults

    def _strange_faults(self) -> list[Fault]:
        world, rng = self.world, self.strange
        node = self.some_node()
        interface = rng.choice(node.interfaces)
        faults = [
            Fault("firewall", 2, lambda: self._firewall(node)),
            Fault("groups", 1, self._stop_forwarding_groups),
            Fault("port", 1, lambda: self._block_port(node)),
            Fault("heal", 1, self._heal_network),
            Fault("sleep", 1, self._let_strangers_sleep),
            Fault("answers", 1, lambda: self._answer_for(node)),
            Fault("rival", 1, lambda: self._meet_rival(node)),
            Fault("storm", 1, self._storm),
            Fault("candidates", 1, self._change_candidates),
            Fault("twin", 1, lambda: self._run_twin(node)),
            Fault("lie", 1, self._lie),
        ]
        if node.running:
            faults += [
                Fault("renew", 4, lambda: self._renew(node, interface)),
                Fault("refuse", 1, lambda: self._refuse(node, interface)),
                Fault("lose", 1, lambda: self._lose(node, interface)),
            ]
        if self.storage is not None and len(world.nodes) > 1:
            faults.append(Fault("storage", 3, lambda: self._break_storage(node)))
        return faults

    def _renew(self, node: SimulatedNode, interface: SimulatedInterface) -> None:
        """A DHCP renewal, a network restart, a rename, another interface in its place, or a bridge over it."""
        world, rng = self.world, self.strange
        if not interface.present:
            return
        self.renewed += 1
        seconds = rng.choice((0.05, rng.uniform(0.05, 2.0)))
        index = 100 + self.renewed
        kind = rng.randrange(4)
        if kind == 0:
            world.renew_link(node.name, interface, seconds)
        elif kind == 1:
            world.renew_link(node.name, interface, seconds, index=index)
        elif kind == 2:
            world.renew_link(node.name, interface, seconds, f"br{self.renewed}", index)
        else:
            world.rename_link(node.name, interface, f"lan{self.renewed}")

    def _firewall(self, node: SimulatedNode) -> None:
        """Datagrams are dropped: one way or both, of everybody or of one other."""
        world, rng = self.world, self.strange
        network = rng.choice(node.interfaces).network
        others = [name for name in sorted(world.nodes) if name != node.name]
        if rng.random() < 0.4:
            others = [rng.choice(others)]
        way = rng.randrange(3)
        if way != 0:
            network.firewalled |= {(other, node.name) for other in others}
        if way != 1:
            network.firewalled |= {(node.name, other) for other in others}
        if rng.random() < 0.3:
            network.rejecting.add(node.name)
        ways = ("out", "in", "in and out")[way]
        world.fault(f"{node.name}'s firewall drops what goes {ways}: {' '.join(others)} on {network.name}")

    def _stop_forwarding_groups(self) -> None:
        world, rng = self.world, self.strange
        names = sorted(world.nodes)
        pairs = [(one, other) for one in names for other in names if one != other]
        if rng.random() < 0.5:
            pairs = [pair for pair in pairs if rng.random() < 0.5]
        world.network.multicast_blocked.update(pairs)
        world.fault(f"what is said to the group does not pass: {len(pairs)} pairs")

    def _block_port(self, node: SimulatedNode) -> None:
        """The switch drops everything of a port, whose carrier stays."""
        self.world.network.partition({node.name}, self.world.hosts())
        self.world.fault(f"{node.name}'s port is blocked")

    def _let_strangers_sleep(self) -> None:
        world = self.world
        for name in ("gateway", "client"):
            if name in world.network.unplugged:
                world.network.unplugged.discard(name)
            elif self.strange.random() < 0.6:
                world.network.unplugged.add(name)
        world.fault(f"asleep: {' '.join(sorted({'gateway', 'client'} & world.network.unplugged))}")

    def _refuse(self, node: SimulatedNode, interface: SimulatedInterface) -> None:
        interface.refuses = not interface.refuses
        if not interface.refuses:
            interface.came_up_at = self.world.now  # it listens first, as on a link that came up
        self.world.fault(f"{node.name}'s kernel takes {'nothing' if interface.refuses else 'datagrams'} for its link")

    def _lose(self, node: SimulatedNode, interface: SimulatedInterface) -> None:
        seconds = self.strange.uniform(0.1, 2.0)
        interface.loses_until = self.world.now + seconds
        self.world.fault(f"{node.name}'s queue overflows for {seconds:.2f} s")
        self.world.clock.after(seconds, lambda: self.world.fault(f"{node.name}'s queue has room again"))

    def _answer_for(self, node: SimulatedNode) -> None:
        """A proxy answers ARP questions for a node's addresses with its MAC, or a forger does without being asked."""
        world, rng = self.world, self.strange
        interface = next(node.on(world.network), None)
        if interface is None:
            return
        addresses = sorted(interface.answers)
        if rng.random() < 0.5:
            named: dict[AddressText, Mac] = dict.fromkeys(addresses, interface.mac)
            world.strangers["proxy"] = Stranger("proxy", Mac(bytes([2, 0, 0, 0, 4, 1])), named)
        elif addresses:
            self._forge(interface.mac, addresses, world.now + rng.uniform(0.5, 4.0))
        if rng.random() < 0.7 and node.powered:
            world.power_cut(node.name)

    def _forge(self, mac: Mac, addresses: list[AddressText], until: float) -> None:
        world = self.world
        for node in world.nodes.values():
            for interface in node.on(world.network):
                if interface.mac != mac and interface.known_as is not None:
                    for address in addresses:
                        seen = NeighbourSeen(interface.known_as, address, mac, interface.address, True)
                        world.wire.see(node, interface, seen)
        if world.now < until:
            world.clock.after(FORGED_S, lambda: self._forge(mac, addresses, until))

    def _meet_rival(self, node: SimulatedNode) -> None:
        """A stranger uses an address that a node holds, and says so now and then."""
        world, rng = self.world, self.strange
        interface = next(node.on(world.network), None)
        addresses = sorted(interface.answers) if interface is not None else []
        if addresses:
            address = rng.choice(addresses)
            rival = world.strangers["rival"] = Stranger("rival", RIVAL_MAC, {address: RIVAL_MAC})
            world.has_met_hosts = True
            world.note(f"--- a stranger uses {address}")
            self._announce(rival, address, world.now + rng.uniform(0.5, 4.0))

    def _announce(self, rival: Stranger, address: AddressText, until: float) -> None:
        world = self.world
        self._show_all(NeighbourSeen(LINK, address, rival.mac, address, False))
        if world.now < until and world.strangers.get("rival") is rival:
            world.clock.after(RIVAL_S, lambda: self._announce(rival, address, until))
        elif world.strangers.get("rival") is rival:
            del world.strangers["rival"]

    def _storm(self) -> None:
        """Hundreds of hosts ask for each other."""
        world, rng = self.world, self.strange
        for i in range(STORM):
            mac = Mac(bytes([2, 0, 0, 1, i // 250, i % 250]))
            seen = NeighbourSeen(LINK, AddressText(f"10.0.{100 + i // 250}.{1 + i % 250}"), mac, CLIENT, False)
            world.clock.after(rng.uniform(0.0, STORM_S), partial(self._show_all, seen))
        world.has_met_hosts = True
        world.note(f"--- {STORM} hosts ask for each other")

    def _show_all(self, seen: NeighbourSeen) -> None:
        """An ARP frame that reaches every machine on the LAN whose cable is in."""
        world = self.world
        for node in world.nodes.values():
            for interface in node.on(world.network):
                if interface.known_as is not None and node.name not in world.network.unplugged:
                    world.wire.see(node, interface, replaced(seen, link=interface.known_as))

    def _run_twin(self, node: SimulatedNode) -> None:
        """Another machine starts with the node's name; or it goes away again."""
        world = self.world
        twins = [other for other in world.nodes.values() if other.name != other.known_as and other.running]
        if twins:
            world.power_cut(self.strange.choice(twins).name)
        elif node.name == node.known_as:
            world.twin(node.name)

    def _lie(self) -> None:
        world, rng = self.world, self.strange
        if world.lying or rng.random() < 0.5:
            return
        liar = Liar(world)
        addresses = [address for bundle in self.bundles for address in bundle.addresses]
        lies: list[Callable[[], None]] = [
            lambda: liar.claim(addresses),
            liar.claim_more_than_there_is,
            liar.send_parts_that_never_end,
        ]
        liar.lie(rng.uniform(0.5, 3.0), *rng.sample(lies, rng.randint(0, 2)), due_ms=rng.choice((100, 5000, 60_000)))
        world.run(5.0)  # what it said is forgotten only then

    def _break_storage(self, node: SimulatedNode) -> None:
        world, rng, storage = self.world, self.strange, self.storage
        if storage is None or not any(each.network is storage for each in node.interfaces):
            return
        if storage.cuts:
            storage.heal()
            world.fault("storage is whole again")
        elif node.name in storage.unplugged:
            world.plug(node.name, storage)
        elif rng.random() < 0.5:
            world.unplug(node.name, storage)
        else:
            storage.partition({name for name in sorted(world.nodes) if rng.random() < 0.5}, set(world.nodes))
            world.fault("storage is parted")

    def _change_candidates(self) -> None:
        """Some bundle prefers one of its candidates, and one may be drained."""
        if not self.bundles:
            return
        i = self.strange.randrange(len(self.bundles))
        preferred = NodeName(self.strange.choice(self.world.names()))
        drained = NodeName(self.strange.choice([*self.world.names(), ""]))
        candidates = [
            replace(each, preference=int(each.node == preferred), tier=DRAINED_TIER * (each.node == drained))
            for each in self.bundles[i].candidates
        ]
        candidates.sort(key=lambda each: (each.tier, -each.preference))
        self.bundles[i] = replace(self.bundles[i], candidates=tuple(candidates))
        self.publish()

    # ---------------------------------------------------------------------------------------------- the end

    def heal(self) -> None:
        world = self.world
        world.strangers.pop("proxy", None)
        world.strangers.pop("rival", None)
        world.network.unplugged -= {"gateway", "client"}
        for network in world.networks[1:]:
            network.heal()
            for name in sorted(network.unplugged):
                world.plug(name, network)
        for node in world.nodes.values():
            for interface in node.interfaces:
                if interface.refuses:
                    interface.refuses, interface.came_up_at = False, world.now
        twins = [node for node in world.nodes.values() if node.name != node.known_as]
        for twin in twins:
            if twin.powered:
                world.power_cut(twin.name)
        if twins:
            world.run(TWIN_SILENCE_S)
        super().heal()
        world.run(CALM_S / 2)


def _on(subnet: str, address: AddressText) -> AddressText:
    return AddressText(f"{subnet}.{address.rpartition('.')[2]}")


__all__ = ["LinkName", "StrangeSchedule"]
