"""Many speakers in virtual time: each a real ``Protocol`` that exchanges real, encoded datagrams.

The machines are on a LAN, with a gateway and a client that answer and ask ARP; ``join`` puts some on further networks.
The API is a history of Plans that each node sees with its own lag. ``Invariants`` watch all the while.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import islice

from msgspec.structs import replace

from cluster.addresses import Family, family_of
from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol.effects import AnswerChange, Decision, Effect, NeighbourSeen
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import Settings
from tests.speaker.protocol.simulation.answering import Answering, where
from tests.speaker.protocol.simulation.loop import BusyLoop, Loop, Work
from tests.speaker.protocol.simulation.machines import SimulatedInterface, SimulatedNode, Stranger
from tests.speaker.protocol.simulation.network import Clock, SimulatedNetwork
from tests.speaker.protocol.simulation.timeline import Entry, decided
from tests.speaker.protocol.simulation.wire import Wire

LINK = LinkName("eth0")
GATEWAY = AddressText("10.0.0.254")
CLIENT = AddressText("10.0.0.200")
GATEWAY6 = AddressText("fe80::fe")
CLIENT6 = AddressText("fe80::c8")
GATEWAY_MAC = Mac(bytes([2, 0, 0, 0, 0, 254]))
CLIENT_MAC = Mac(bytes([2, 0, 0, 0, 0, 200]))
CLUSTER = "11111111-2222-3333-4444-555555555555"
KEYS = (b"k" * 32,)
LOOK_S = 0.01  # between looks whether a speaker that is told to end has said all
LONGEST_END_S = 6.0  # then it ends anyway, as the announcer does
TWINS = 100  # numbers of machines that have another's name begin here


def rank(bundle: str, nodes: Iterable[str]) -> list[str]:
    return sorted(nodes, key=lambda node: blake2b(f"{bundle} {node}".encode(), digest_size=8).digest())


def bundle_of(id_: str, addresses: Iterable[str], nodes: Iterable[str], tiers: dict[str, int] | None = None) -> Bundle:
    ranked = sorted(rank(id_, nodes), key=lambda node: (tiers or {}).get(node, 0))
    return Bundle(
        BundleId(id_),
        tuple(AddressText(address) for address in addresses),
        (f"default/{id_}",),
        tuple(Candidate(NodeName(node), (tiers or {}).get(node, 0), 0) for node in ranked),
    )


class World:
    """``World(seed, 3)`` has three running speakers from time 0; ``run(seconds)`` lets time pass."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        *,
        gateway: bool = True,
        client: bool = True,
        settings: Settings | None = None,
        work: Work | None = None,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.network = SimulatedNetwork(self.clock, random.Random(seed + 1))
        """The LAN."""
        self.networks = [self.network]
        self.settings = settings or Settings()
        self.work = work
        """What the speakers' work takes: nothing, if this is ``None``."""
        self.nodes: dict[str, SimulatedNode] = {}
        self.strangers: dict[str, Stranger] = {}
        if gateway:
            self.strangers["gateway"] = Stranger("gateway", GATEWAY_MAC, {GATEWAY: GATEWAY_MAC})
        if client:
            self.strangers["client"] = Stranger("client", CLIENT_MAC, {CLIENT: CLIENT_MAC})
        self.has_gateway = gateway
        self.has_client = client
        self.has_met_hosts = False
        """Others were heard on the LAN, who answer no more: whoever hears nobody may be cut off from them, too."""
        for i in range(nodes):
            self._add(f"n{i}", i, f"n{i}")
        self.wire = Wire(self.network, random.Random(seed + 2), self.nodes, self.strangers)
        self._places: dict[AddressText, list[SimulatedNetwork]] = {}
        """Where each address belongs, as far as somebody asked."""
        self._answering = Answering(self.nodes, self.note)
        self.plans: list[tuple[float, tuple[Bundle, ...]]] = [(0.0, ())]
        self.quiet_plans: set[int] = set()
        self.api_frozen_at = float("inf")
        """From then on nothing changes in the API any more."""
        self.without_api: set[str] = set()
        """Nodes that do not reach the API server: they see no Plan, and a speaker that starts there has none."""
        self.last_fault = 0.0
        self.lying = False
        """A member of the cluster says what is not so."""
        self.resumed_at = float("-inf")
        """When a speaker last saw that a bundle serves again."""
        self.trace: list[Entry] = []
        self.answerers = self.network.answerers
        self.owner_changes = self.network.owner_changes
        self.decisions = self.wire.decisions
        self.gratuitous = self.wire.gratuitous

    def _add(self, name: str, index: int, known_as: str) -> SimulatedNode:
        node = self.nodes[name] = SimulatedNode(name, index, NodeName(known_as))
        self.join(name, self.network, LINK)
        return node

    def join(self, name: str, network: SimulatedNetwork, link: str) -> SimulatedInterface:
        """Put a machine on a network, by another interface."""
        node = self.nodes[name]
        number = node.joined
        node.joined += 1
        mac = Mac(bytes([2, 0, 0, number, 1 + node.index // 200, node.index % 200]))
        gateways = (GATEWAY, GATEWAY6) if network is self.network and self.has_gateway else ()
        interface = SimulatedInterface(network, LinkName(link), 2 + number, mac, network.address(node.index), gateways)
        address6 = network.address6(node.index)
        interface.subnet6 = f"{address6}/32" if address6 is not None else ""
        node.interfaces.append(interface)
        return interface

    def speak(self, network: SimulatedNetwork, families: frozenset[Family], prefix6: str = "") -> None:
        """From the beginning all machines on a network speak these families, and have addresses of this subnet."""
        network.families, network.prefix6 = families, prefix6
        self._places.clear()
        for node in self.nodes.values():
            for interface in node.on(network):
                address6 = network.address6(node.index)
                interface.subnet6 = f"{address6}/32" if address6 is not None else ""
                interface.speak(families)
        for name, address in (("gateway", GATEWAY6), ("client", CLIENT6)):
            if network is self.network and name in self.strangers:
                self.strangers[name].answers[address] = self.strangers[name].mac

    def add_network(self, name: str, prefix: str, *, shared: bool = True) -> SimulatedNetwork:
        """A further network, on which nobody is yet: no gateway and no client."""
        rng = random.Random(self.seed * 31 + len(self.networks))
        network = SimulatedNetwork(self.clock, rng, name, prefix, shared=shared)
        self.networks.append(network)
        self._places.clear()
        return network

    # ---------------------------------------------------------------------------------------------- telling

    def note(self, text: str) -> None:
        self.trace.append(Entry(self.clock.now, text))

    def fault(self, text: str) -> None:
        """Something that the promises' clocks start from."""
        self.last_fault = self.clock.now
        self.note(f"--- {text}")

    def story(self, last: int = 120) -> str:
        return "\n".join([f"seed {self.seed}, {len(self.nodes)} nodes", *map(str, self.trace[-last:])])

    @property
    def now(self) -> float:
        return self.clock.now

    def run(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now + seconds)

    def hosts(self) -> set[str]:
        """On the LAN."""
        return {*self.nodes, "gateway", "client"}

    def names(self) -> list[str]:
        """Of the cluster's nodes: each has one machine, or several for a while."""
        return list(dict.fromkeys(node.known_as for node in self.nodes.values()))

    # ---------------------------------------------------------------------------------------------- life of a node

    def start(self, name: str) -> None:
        """Start the node's speaker, as a new process."""
        node = self.nodes[name]
        node.powered = node.running = True
        node.told_to_end = False
        node.paused_until = None
        node.sessions += 1
        node.plan_seen = -1
        node.stopped.clear()
        now = self.clock.now
        session = self.rng.getrandbits(64)
        protocol = node.protocol = Protocol(node.known_as, session, self.settings, random.Random(session), now)
        node.loop = self._loop(node, protocol)
        self.fault(f"{name} starts, session {session:x}")
        node.forget_links()
        self._set_links(node)
        protocol.set_credentials(CLUSTER, KEYS, now)
        self._sync_plan(node)
        node.loop.settle()

    def _loop(self, node: SimulatedNode, protocol: Protocol) -> Loop:
        def works() -> bool:
            return node.works and node.protocol is protocol

        def carry_out(held: AnswerChange | None, effects: list[Effect]) -> None:
            if held is not None:
                self._answering.follow(node, held)
            for effect in effects:
                if isinstance(effect, Decision):
                    self.trace.append(decided(self.clock.now, node.name, effect))
                self.wire.carry_out(node, effect)

        if self.work is None:
            return Loop(protocol, self.clock, self.rng, works, carry_out)
        late_s = self.settings.detection_floor_s / 2
        return BusyLoop(protocol, self.clock, self.rng, works, carry_out, work=self.work, late_s=late_s)

    def start_all(self, spread: float = 0.0) -> None:
        for name in self.nodes:
            self.clock.after(self.rng.uniform(0.0, spread), lambda name=name: self._start_first(name))  # type: ignore[misc]
        self._client_asks()

    def _start_first(self, name: str) -> None:
        if self.nodes[name].sessions == 0:
            self.start(name)

    def power_cut(self, name: str) -> None:
        node = self.nodes[name]
        node.powered = False
        self._end(node)
        self.fault(f"{name} loses power")
        self._answering.look(node)

    def kill(self, name: str) -> None:
        """The speaker's process; the kernel lives."""
        node = self.nodes[name]
        self._end(node)
        self.fault(f"{name}'s speaker is killed")
        self._answering.look(node)

    def _end(self, node: SimulatedNode) -> None:
        node.running = node.told_to_end = False
        node.ended_at = self.clock.now
        node.protocol = node.loop = None
        node.forget_links()

    def pause(self, name: str, seconds: float) -> None:
        node = self.nodes[name]
        if node.protocol is None or node.paused_until is not None:
            return
        node.paused_at, node.paused_until = self.clock.now, self.clock.now + seconds
        self.fault(f"{name} pauses for {seconds:.3f} s")
        self._answering.look(node)
        self.clock.after(seconds, lambda protocol=node.protocol: self._resume(node, protocol))  # type: ignore[misc]

    def _resume(self, node: SimulatedNode, protocol: Protocol) -> None:
        if node.protocol is not protocol or node.loop is None:
            return
        node.paused_until = None
        self.fault(f"{node.name} resumes")
        for interface in node.interfaces:
            if interface.came_up_at > node.paused_at:
                interface.came_up_at = self.clock.now  # for the speaker, which learns of it now
        node.loop.resume(self.settings.detection_floor_s / 2, lambda: self._set_links(node))
        self._answering.look(node)
        self._sync_plan(node)
        node.loop.settle()

    def leave(self, name: str) -> None:
        """SIGTERM."""
        node = self.nodes[name]
        protocol = node.protocol
        if protocol is not None and node.loop is not None and node.works:
            self.fault(f"{name} is told to end")
            node.told_to_end = True
            protocol.end(self.clock.now)
            node.loop.settle()
            self.clock.after(LOOK_S, lambda: self._end_when_all_is_said(node, protocol, self.clock.now + LONGEST_END_S))

    def _end_when_all_is_said(self, node: SimulatedNode, protocol: Protocol, latest: float) -> None:
        if node.protocol is not protocol:
            return
        if protocol.ended or self.clock.now >= latest:
            self._end(node)
            self.fault(f"{node.name}'s speaker has ended")
            self._answering.look(node)
        else:
            self.clock.after(LOOK_S, lambda: self._end_when_all_is_said(node, protocol, latest))

    def restart(self, name: str, away: float = 1.0) -> None:
        """SIGTERM, and a new process some seconds after the end of the former one."""
        node = self.nodes[name]
        sessions = node.sessions
        self.leave(name)

        def again() -> None:
            if node.sessions != sessions or not node.powered:
                return
            if node.running:
                self.clock.after(LOOK_S, again)
            else:
                self.clock.at(node.ended_at + away, lambda: self.start(name) if node.sessions == sessions else None)

        again()

    def twin(self, name: str) -> str:
        """Start another machine with the node's name; returns what it is called here."""
        twin = f"{name}-twin"
        if twin not in self.nodes:
            self._add(twin, TWINS + self.nodes[name].index, self.nodes[name].known_as)
        self.start(twin)
        return twin

    def lose_watcher(self, name: str) -> None:
        """Nobody brings this node's speaker a Plan any more."""
        node = self.nodes[name]
        node.lag = float("inf")
        protocol = node.protocol
        self.fault(f"{name}'s watcher dies")
        if protocol is not None and node.loop is not None:
            node.loop.receive(lambda: protocol.plan_lost(self.clock.now))

    def restart_watcher(self, name: str) -> None:
        node = self.nodes[name]
        node.lag = 0.0
        node.plan_seen = -1
        self.fault(f"{name}'s watcher is back")
        self._see_plan(node)

    # ---------------------------------------------------------------------------------------------- links

    def unplug(self, name: str, network: SimulatedNetwork | None = None) -> None:
        network = network or self.network
        network.unplugged.add(name)
        self.fault(f"{name}'s cable{where(network)} is pulled")
        self._links(self.nodes[name])

    def plug(self, name: str, network: SimulatedNetwork | None = None) -> None:
        network = network or self.network
        network.unplugged.discard(name)
        for interface in self.nodes[name].interfaces:
            if interface.network is network:
                interface.came_up_at = self.clock.now
        self.fault(f"{name}'s cable{where(network)} is put back")
        self._links(self.nodes[name])

    def lose_link(self, name: str, interface: SimulatedInterface) -> None:
        """The interface loses its address, or is no more."""
        interface.present = False
        self.fault(f"{name} has no {interface.name} any more")
        self._links(self.nodes[name])

    def regain_link(self, name: str, interface: SimulatedInterface) -> None:
        """It is there again, perhaps as another one."""
        interface.present = True
        interface.life += 1
        interface.came_up_at = self.clock.now
        self.fault(f"{name} has {interface.name}, number {interface.index}")
        self._links(self.nodes[name])

    def renew_link(
        self, name: str, interface: SimulatedInterface, seconds: float, link: str = "", index: int = 0
    ) -> None:
        """The interface loses its address for a while, and has it back: perhaps under another name and index."""
        self.lose_link(name, interface)
        interface.move(link or interface.name, index or interface.index)
        self.clock.after(seconds, lambda: self.regain_link(name, interface))

    def set_families(self, name: str, interface: SimulatedInterface, families: frozenset[Family]) -> None:
        """The kernel speaks other families on an interface: IPv6 is switched off, or the last IPv4 address is gone."""
        if families - interface.families:
            interface.more_at = self.clock.now
        interface.families = families
        spoken = " and ".join(family.text for family in sorted(families))
        self.fault(f"{name} speaks {spoken} on {interface.name}")
        self._links(self.nodes[name])

    def rename_link(self, name: str, interface: SimulatedInterface, link: str) -> None:
        self.fault(f"{name}'s {interface.name} is called {link} now")
        interface.move(link, interface.index)
        self._links(self.nodes[name])

    def _links(self, node: SimulatedNode) -> None:
        if node.running and node.loop is not None:
            node.loop.receive(lambda: self._set_links(node))

    def _set_links(self, node: SimulatedNode) -> None:
        """Tell the speaker its links as they are. As the announcer does, where another interface has a name by now:
        first that the one is gone."""
        protocol, now = node.protocol, self.clock.now
        if protocol is None:
            return
        states, before = node.link_states(), node.states
        node.learn_links()
        indexes = {state.name: state.index for state in states}
        if any(indexes.get(state.name, state.index) != state.index for state in before):
            protocol.set_links(tuple(state for state in before if state.index in indexes.values()), now)
        protocol.set_links(states, now)
        self._answering.look(node)

    # ---------------------------------------------------------------------------------------------- the API

    def set_bundles(self, bundles: Iterable[Bundle], *, quiet: bool = False) -> None:
        """A new state of the API, which each node sees after its own lag. A ``quiet`` one is no fault: all promises go
        on as if nothing had happened."""
        if self.clock.now >= self.api_frozen_at:
            return
        self.plans.append((self.clock.now, tuple(bundles)))
        if quiet:
            self.quiet_plans.add(len(self.plans) - 1)
        idle = " ".join(bundle.id for bundle in self.plans[-1][1] if not bundle.serving)
        which = f", of which do not serve: {idle}" if idle else ""
        self._plan_event(len(self.plans) - 1, f"the API has {len(self.plans[-1][1])} bundles{which}")
        for node in self.nodes.values():
            if node.lag < float("inf"):
                self.clock.after(node.lag, lambda node=node: self._see_plan(node))  # type: ignore[misc]

    def lose_api(self, names: Iterable[str]) -> None:
        """These nodes do not reach the API server any more. That is no fault: nothing that is promised needs it."""
        self.without_api |= set(names)
        self.note(f"... without the API: {' '.join(sorted(self.without_api))}")

    def regain_api(self) -> None:
        """All reach it again, and see what they missed."""
        back, self.without_api = self.without_api, set()
        self.note("... all reach the API")
        for node in self.nodes.values():
            if node.name in back and node.lag < float("inf"):
                self.clock.after(node.lag, lambda node=node: self._see_plan(node))  # type: ignore[misc]

    def set_serving(self, serving: Callable[[Bundle], bool]) -> None:
        """Endpoints come and go, and nothing else changes. That is no fault where one holder has each such bundle."""
        before = self.plans[-1][1]
        after = [replace(bundle, serving=serving(bundle)) for bundle in before]
        touched = [bundle for bundle, now in zip(before, after, strict=True) if bundle != now]
        self.set_bundles(after, quiet=all(self.owner(a) is not None for bundle in touched for a in bundle.addresses))

    def _plan_event(self, plan: int, text: str) -> None:
        if plan in self.quiet_plans:
            self.note(f"... {text}")
        else:
            self.fault(text)

    def _see_plan(self, node: SimulatedNode) -> None:
        if node.works and node.loop is not None and self.clock.now - node.lag <= self.api_frozen_at:
            self._sync_plan(node)
            node.loop.settle()

    def _sync_plan(self, node: SimulatedNode) -> None:
        if node.name in self.without_api:
            return
        seen = max(i for i, (at, _) in enumerate(self.plans) if at <= max(self.clock.now - node.lag, 0.0) + 1e-9)
        if seen > node.plan_seen and node.protocol is not None:
            skipped = self.plans[max(node.plan_seen, 0)][1]
            served = {bundle.id for bundle in skipped if bundle.serving} if node.plan_seen >= 0 else set()
            loud = next((i for i in range(node.plan_seen + 1, seen + 1) if i not in self.quiet_plans), seen)
            node.plan_seen = seen
            self._plan_event(loud, f"{node.name} sees Plan {seen}")
            for bundle in self.plans[seen][1]:
                if bundle.serving:
                    node.stopped.pop(bundle.id, None)
                    if bundle.id not in served:
                        self.resumed_at = self.clock.now
                elif bundle.id in served:
                    node.stopped[bundle.id] = self.clock.now
            bundles = tuple(for_node(bundle, node.known_as) for bundle in self.plans[seen][1])
            node.protocol.set_plan(Plan(seen, node.known_as, bundles), self.clock.now)

    # ---------------------------------------------------------------------------------------------- who answers

    def _client_asks(self) -> None:
        """A client that looks for some address now and then."""
        if not self.has_client:
            return
        addresses = [address for bundle in self.plans[-1][1] for address in bundle.addresses]
        if addresses:
            self.wire.ask_from(self.strangers["client"], self.rng.choice(addresses), lambda _: None)
        self.clock.after(self.rng.uniform(0.3, 1.2), self._client_asks)

    def networks_of(self, address: AddressText) -> list[SimulatedNetwork]:
        """Where the address belongs: on its subnet, or on every network that several machines share."""
        places = self._places.get(address)
        if places is None:
            own = [network for network in self.networks if network.has(address)]
            places = self._places[address] = own or [network for network in self.networks if network.shared]
        return places

    def can_hold(self, name: str, network: SimulatedNetwork, bundle: Bundle, address: AddressText) -> bool:
        """Whether the node has an interface on the network that is one for the address, and hears some other node."""
        if network not in self.networks_of(address):
            return False
        node, family = self.nodes[name], family_of(address)
        able = [interface for interface in node.on(network) if family in interface.families]
        if not able:
            return False
        named = (each.interfaces for each in bundle.candidates if each.node == node.known_as)
        if not any(not each or interface.name in each for each in named for interface in able):
            return False
        spoken = frozenset[Family]().union(*(interface.families for interface in node.on(network)))
        others = (self.nodes[other] for other in self.names())
        sharing = (other for other in others if any(each.families & spoken for each in other.on(network)))
        return sum(1 for _ in islice(sharing, 2)) > 1

    def owner(self, address: str, network: SimulatedNetwork | None = None) -> str | None:
        """The one whose MAC is named, by whatever machine."""
        owners = set((network or self.network).named.get(AddressText(address), {}).values())
        return next(iter(owners)) if len(owners) == 1 else None

    def see(self, node: SimulatedNode, seen: NeighbourSeen) -> None:
        """An ARP frame on the LAN that concerns a node's speaker."""
        self.wire.see(node, node.lan, seen)

    def inject(self, name: str, source: AddressText, data: bytes) -> None:
        """A datagram of somebody on the LAN whose speaker is none of ours."""
        self.wire.inject(self.nodes[name], source, data)


def for_node(bundle: Bundle, node: NodeName) -> Bundle:
    """As in the Plan of one node: with the interfaces that are named for it."""
    named = next((candidate.interfaces for candidate in bundle.candidates if candidate.node == node), ())
    return replace(bundle, interfaces=named) if named else bundle
