"""Many speakers in virtual time: each a real ``Protocol`` that exchanges real, encoded datagrams.

Each node has a kernel, a speaker process and a cable, which fail separately; the API is a history of Plans that each
node sees with its own lag; a gateway and a client answer and ask ARP. ``Invariants`` watch all the while.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from speaker.effects import (
    Announce,
    ArpSeen,
    AskAddress,
    Effect,
    LinkState,
    Mac,
    Report,
    SendHeartbeat,
    SendUnicast,
    WatchFrames,
)
from speaker.plan import Bundle, BundleId, Candidate, LinkName, Plan
from speaker.protocol import Protocol, Settings
from tests.speaker.simulation.network import Clock, Network

LINK = LinkName("eth0")
GATEWAY = AddressText("10.0.0.254")
CLIENT = AddressText("10.0.0.200")
GATEWAY_MAC = Mac(bytes([2, 0, 0, 0, 0, 254]))
CLIENT_MAC = Mac(bytes([2, 0, 0, 0, 0, 200]))
CLUSTER = "11111111-2222-3333-4444-555555555555"
KEYS = (b"k" * 32,)


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


@dataclass
class Node:
    """A machine. Its speaker may run, be paused, or be gone while the kernel lives."""

    name: str
    index: int
    powered: bool = True
    running: bool = False
    paused_until: float | None = None
    protocol: Protocol | None = None
    sessions: int = 0
    lag: float = 0.0
    plan_seen: int = -1
    stopped: dict[BundleId, float] = field(default_factory=dict)
    """Bundles that serve no more, and when this session of its speaker saw that."""
    answers: frozenset[AddressText] = frozenset()
    missed: list[Callable[[], None]] = field(default_factory=list)
    timer: int = 0
    plugged_at: float = float("-inf")
    subnet: str = "10.0.0.0/16"
    """That it says it is connected to."""

    @property
    def address(self) -> AddressText:
        return AddressText(f"10.0.{1 + self.index // 200}.{1 + self.index % 200}")

    @property
    def mac(self) -> Mac:
        return Mac(bytes([2, 0, 0, 0, 1, self.index]))

    @property
    def works(self) -> bool:
        return self.powered and self.running and self.paused_until is None


class World:
    """``World(seed, 3)`` has three running speakers from time 0; ``run(seconds)`` lets time pass."""

    def __init__(
        self, seed: int, nodes: int, *, gateway: bool = True, client: bool = True, settings: Settings | None = None
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.network = Network(self.clock, random.Random(seed + 1))
        self.settings = settings or Settings()
        self.nodes = {f"n{i}": Node(f"n{i}", i) for i in range(nodes)}
        self.has_gateway = gateway
        self.has_client = client
        self.plans: list[tuple[float, tuple[Bundle, ...]]] = [(0.0, ())]
        self.quiet_plans: set[int] = set()
        self.api_frozen_at = float("inf")
        self.last_fault = 0.0
        self.resumed_at = float("-inf")
        """When a speaker last saw that a bundle serves again."""
        self.trace: list[str] = []
        self.client_cache: dict[AddressText, str] = {}
        self.owner_changes: list[tuple[float, AddressText, frozenset[str]]] = []
        self.answerers: dict[AddressText, frozenset[str]] = {}
        self.reports: list[tuple[float, str, Report]] = []
        self.announced: list[tuple[float, str, Announce]] = []
        self.on_datagram: Callable[[str, bytes], None] | None = None
        self.observe: Callable[[], None] | None = None

    # ---------------------------------------------------------------------------------------------- telling

    def note(self, text: str) -> None:
        self.trace.append(f"{self.clock.now:9.4f}  {text}")

    def fault(self, text: str) -> None:
        """Something that the promises' clocks start from."""
        self.last_fault = self.clock.now
        self.note(f"--- {text}")

    def story(self, last: int = 120) -> str:
        return "\n".join([f"seed {self.seed}, {len(self.nodes)} nodes", *self.trace[-last:]])

    @property
    def now(self) -> float:
        return self.clock.now

    def run(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now + seconds)

    def hosts(self) -> set[str]:
        return {*self.nodes, "gateway", "client"}

    # ---------------------------------------------------------------------------------------------- life of a node

    def start(self, name: str) -> None:
        """Start the node's speaker, as a new process."""
        node = self.nodes[name]
        node.powered = node.running = True
        node.paused_until = None
        node.sessions += 1
        node.plan_seen = -1
        node.stopped.clear()
        node.missed.clear()
        now = self.clock.now
        session = self.rng.getrandbits(64)
        node.protocol = Protocol(NodeName(name), session, self.settings, random.Random(session), now)
        self.fault(f"{name} starts, session {session:x}")
        node.protocol.set_links((self._link_state(node),), now)
        node.protocol.set_credentials(CLUSTER, KEYS, now)
        self._sync_plan(node)
        self._after(node)

    def start_all(self, spread: float = 0.0) -> None:
        for name in self.nodes:
            self.clock.after(self.rng.uniform(0.0, spread), lambda name=name: self.start(name))  # type: ignore[misc]
        self._client_asks()

    def power_cut(self, name: str) -> None:
        node = self.nodes[name]
        node.powered = node.running = False
        node.protocol = None
        self.fault(f"{name} loses power")
        self._answering(node)

    def kill(self, name: str) -> None:
        """The speaker's process; the kernel lives."""
        node = self.nodes[name]
        node.running = False
        node.protocol = None
        self.fault(f"{name}'s speaker is killed")
        self._answering(node)

    def pause(self, name: str, seconds: float) -> None:
        node = self.nodes[name]
        if node.protocol is None or node.paused_until is not None:
            return
        node.paused_until = self.clock.now + seconds
        self.fault(f"{name} pauses for {seconds:.3f} s")
        self._answering(node)
        self.clock.after(seconds, lambda protocol=node.protocol: self._resume(node, protocol))  # type: ignore[misc]

    def _resume(self, node: Node, protocol: Protocol) -> None:
        if node.protocol is not protocol:
            return
        node.paused_until = None
        self.fault(f"{node.name} resumes")
        deadline = protocol.next_deadline()
        late = self.clock.now - deadline if deadline is not None else 0.0
        if late >= self.settings.detection_floor_s / 2:
            node.missed.clear()  # what sockets queued; netlink's messages still count
            protocol.loop_late(late, self.clock.now)
            protocol.set_links((self._link_state(node),), self.clock.now)
        missed, node.missed = node.missed, []
        for action in missed:
            action()
        self._sync_plan(node)
        self._after(node)

    def unplug(self, name: str) -> None:
        self.network.unplugged.add(name)
        self.fault(f"{name}'s cable is pulled")
        self._links(name)

    def plug(self, name: str) -> None:
        self.network.unplugged.discard(name)
        self.nodes[name].plugged_at = self.clock.now
        self.fault(f"{name}'s cable is put back")
        self._links(name)

    def leave(self, name: str) -> None:
        """SIGTERM."""
        protocol = self.nodes[name].protocol
        if protocol is not None and self.nodes[name].works:
            self.fault(f"{name} is told to end")
            protocol.release_all(self.clock.now)
            self._after(self.nodes[name])
            self.clock.after(0.3, lambda: self.kill(name) if self.nodes[name].protocol is protocol else None)

    def lose_watcher(self, name: str) -> None:
        """Nobody brings this node's speaker a Plan any more."""
        node = self.nodes[name]
        node.lag = float("inf")

        def tell() -> None:
            if node.protocol is not None:
                node.protocol.plan_lost(self.clock.now)

        self.fault(f"{name}'s watcher dies")
        self._input(node, tell)

    def restart_watcher(self, name: str) -> None:
        node = self.nodes[name]
        node.lag = 0.0
        node.plan_seen = -1
        self.fault(f"{name}'s watcher is back")
        self._see_plan(node)

    def _links(self, name: str) -> None:
        node = self.nodes[name]

        def tell() -> None:
            if node.protocol is not None:
                node.protocol.set_links((self._link_state(node),), self.clock.now)

        self._input(node, tell)

    def _link_state(self, node: Node) -> LinkState:
        return LinkState(
            LINK,
            2,
            node.mac,
            node.name not in self.network.unplugged,
            (node.subnet,),
            GATEWAY if self.has_gateway else None,
        )

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
        self._plan_event(len(self.plans) - 1, f"the API has {len(self.plans[-1][1])} bundles; not serving: {idle}")
        for node in self.nodes.values():
            if node.lag < float("inf"):
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

    def _see_plan(self, node: Node) -> None:
        if node.works and self.clock.now - node.lag <= self.api_frozen_at:
            self._sync_plan(node)
            self._after(node)

    def _sync_plan(self, node: Node) -> None:
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
            node.protocol.set_plan(Plan(seen, NodeName(node.name), self.plans[seen][1]), self.clock.now)

    # ---------------------------------------------------------------------------------------------- driving a node

    def _input(self, node: Node, action: Callable[[], None]) -> None:
        """Something for the speaker's loop: it waits while the process is paused."""
        if not node.running or node.protocol is None:
            return
        if node.paused_until is not None:
            node.missed.append(action)
            return
        action()
        self._after(node)

    def _after(self, node: Node) -> None:
        """Carry out what the protocol wants, and call it again when it says."""
        protocol = node.protocol
        if protocol is None:
            return
        protocol.take_held()
        for effect in protocol.take_effects():
            self._carry_out(node, effect)
        self._answering(node)
        deadline = protocol.next_deadline()
        node.timer += 1
        if deadline is not None:
            lateness = self.rng.uniform(0.0, 0.001)
            self.clock.at(max(deadline, self.clock.now) + lateness, lambda timer=node.timer: self._tick(node, timer))  # type: ignore[misc]

    def _tick(self, node: Node, timer: int) -> None:
        if node.timer == timer and node.works and node.protocol is not None:
            node.protocol.handle_timer(self.clock.now)
            self._after(node)

    def _carry_out(self, node: Node, effect: Effect) -> None:
        if isinstance(effect, SendHeartbeat):
            if self.on_datagram is not None:
                self.on_datagram(node.name, effect.data)
            for other in self.nodes.values():
                if other is not node:
                    self._datagram(node, other, effect.data, multicast=True)
        elif isinstance(effect, SendUnicast):
            for other in self.nodes.values():
                if other.mac == effect.mac:
                    self._datagram(node, other, effect.data, multicast=False)
        elif isinstance(effect, AskAddress):
            self._ask(node, effect)
        elif isinstance(effect, Announce):
            self.announced.append((self.clock.now, node.name, effect))
            self._announce(node, effect)
        elif isinstance(effect, WatchFrames):
            pass
        else:
            fields = " ".join(f"{key}={value}" for key, value in effect.fields.items())
            self.note(f"{node.name} {effect.reason} {fields}")
            self.reports.append((self.clock.now, node.name, effect))

    def _datagram(self, node: Node, other: Node, data: bytes, *, multicast: bool) -> None:
        source = node.address

        def deliver() -> None:
            if other.powered and not other.running and not multicast:
                self.network.send(other.name, node.name, lambda: self._refuse(node, other.address))
            self._input(other, receive)

        def receive() -> None:
            if other.protocol is not None:
                other.protocol.receive_datagram(LINK, source, data, self.clock.now, by_group=multicast)

        self.network.send(node.name, other.name, deliver, multicast)

    def _refuse(self, node: Node, by: AddressText) -> None:
        def tell() -> None:
            if node.protocol is not None:
                node.protocol.datagram_refused(LINK, by, self.clock.now)

        self._input(node, tell)

    def inject(self, name: str, source: AddressText, data: bytes) -> None:
        """A datagram of somebody on the LAN who is no speaker."""
        node = self.nodes[name]

        def receive() -> None:
            if node.protocol is not None:
                node.protocol.receive_datagram(LINK, source, data, self.clock.now)

        if name not in self.network.unplugged:
            self._input(node, receive)

    # ---------------------------------------------------------------------------------------------- ARP

    def see(self, node: Node, seen: ArpSeen) -> None:
        def tell() -> None:
            if node.protocol is not None:
                node.protocol.receive_arp(seen, self.clock.now)

        self._input(node, tell)

    def _ask(self, node: Node, ask: AskAddress) -> None:
        def reply(sender_mac: Mac) -> Callable[[], None]:
            return lambda: self.see(node, ArpSeen(LINK, ask.target, sender_mac, node.address, True))

        def question(other: Node) -> Callable[[], None]:
            def deliver() -> None:
                if ask.target in other.answers:
                    self.see(other, ArpSeen(LINK, node.address, node.mac, ask.target, False))
                    self.network.send(other.name, node.name, reply(other.mac))

            return deliver

        def answer(host: str, mac: Mac) -> Callable[[], None]:
            return lambda: self.network.send(host, node.name, reply(mac))

        if self.has_gateway and ask.target == GATEWAY:
            self.network.send(node.name, "gateway", answer("gateway", GATEWAY_MAC))
        if self.has_client and ask.target == CLIENT:
            self.network.send(node.name, "client", answer("client", CLIENT_MAC))
        for other in self.nodes.values():
            if other is not node and ask.mac in (None, other.mac):
                self.network.send(node.name, other.name, question(other))

    def _announce(self, node: Node, announce: Announce) -> None:
        addresses = announce.addresses
        mac = node.mac
        if self.has_client:

            def learn() -> None:
                self.client_cache.update(dict.fromkeys(addresses, node.name))

            self.network.send(node.name, "client", learn)
        for other in self.nodes.values():
            shared = [address for address in addresses if address in other.answers]
            if other is not node and shared:

                def rival(other: Node = other, shared: list[AddressText] = shared) -> None:
                    for address in shared:
                        self.see(other, ArpSeen(LINK, address, mac, address, False))

                self.network.send(node.name, other.name, rival)

    def _client_asks(self) -> None:
        """A client that looks for some address now and then."""
        if not self.has_client:
            return
        addresses = [address for bundle in self.plans[-1][1] for address in bundle.addresses]
        if addresses:
            target = self.rng.choice(addresses)
            for node in self.nodes.values():

                def asked(node: Node = node) -> None:
                    if target in node.answers:
                        self.see(node, ArpSeen(LINK, CLIENT, CLIENT_MAC, target, False))
                        self.network.send(node.name, "client", lambda: self.client_cache.__setitem__(target, node.name))

                self.network.send("client", node.name, asked)
        self.clock.after(self.rng.uniform(0.3, 1.2), self._client_asks)

    # ---------------------------------------------------------------------------------------------- who answers

    def _answering(self, node: Node) -> None:
        now: frozenset[AddressText] = frozenset()
        if node.works and node.protocol is not None:
            held = node.protocol.held().links
            if len(held) == len(node.answers) and held.keys() == node.answers:
                return
            now = frozenset(held)
        for address in node.answers ^ now:
            before = self.answerers.get(address, frozenset())
            after = before | {node.name} if address in now else before - {node.name}
            self.answerers[address] = after
            self.owner_changes.append((self.clock.now, address, after))
            self.note(f"{address} answered by {'+'.join(sorted(after)) or 'nobody'}")
        if node.answers != now:
            node.answers = now
            if self.observe is not None:
                self.observe()

    def owner(self, address: str) -> str | None:
        answerers = self.answerers.get(AddressText(address), frozenset())
        return next(iter(answerers)) if len(answerers) == 1 else None
