"""The machines of the simulation: their interfaces, kernels and speakers, and strangers that only speak ARP.

A machine has a kernel, a speaker process and cables, which fail separately. A speaker announces on the interfaces that
are present: an interface that is renamed, made anew, moved into a bridge or without its address is another one for it,
or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import BundleId
from speaker.protocol.effects import LinkState
from speaker.protocol.protocol import Protocol
from tests.speaker.protocol.simulation.loop import Loop
from tests.speaker.protocol.simulation.network import SimulatedNetwork


@dataclass(eq=False)
class SimulatedInterface:
    """Of one machine, on one network."""

    network: SimulatedNetwork
    name: LinkName
    index: int
    mac: Mac
    address: AddressText
    gateway: AddressText | None = None
    subnet: str = ""
    """Its own address with prefix length."""
    present: bool = True
    """It is there, and has its address."""
    came_up_at: float = float("-inf")
    """When its cable was put back, or it appeared, for the last time."""
    life: int = 0
    """Counts how often it appeared: a speaker that has lost an interface knows nobody on it."""
    refuses: bool = False
    """The kernel takes no datagrams for it."""
    loses_until: float = float("-inf")
    """The kernel has no room for some of the datagrams that arrive."""
    known_as: LinkName | None = None
    known_index: int = 0
    """What the speaker knows it by, if it does."""
    sends: bool = True
    """Whether the speaker believes that the kernel takes datagrams for it."""
    quiet: bool = False
    """Nothing gratuitous may be sent."""
    was_known: bool = False
    """This session of the speaker has seen it."""
    suspended: bool = False
    """Nothing may be answered."""
    watched: bool = False
    """The speaker wants to hear of every frame."""
    answers: set[AddressText] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.subnet = self.subnet or f"{self.address}/16"

    def move(self, name: str, index: int) -> None:
        """The address goes to another interface of the machine on the same network, such as a bridge over this one."""
        self.name, self.index = LinkName(name), index

    def learn(self) -> None:
        """The speaker knows it as it is. One with another number is another one for it."""
        if not self.present or self.index != self.known_index:
            self.watched, self.quiet, self.suspended, self.sends = False, False, False, True
        self.was_known = self.was_known or self.present
        self.known_as = self.name if self.present else None
        self.known_index = self.index if self.present else 0

    def forget(self) -> None:
        """There is no speaker any more that knows it."""
        self.known_as, self.known_index, self.was_known = None, 0, False

    def state(self, host: str) -> LinkState:
        up = host not in self.network.unplugged
        gateways = () if self.gateway is None else (self.gateway,)
        return LinkState(self.name, self.index, self.mac, up, (self.subnet,), gateways)


@dataclass(eq=False)
class SimulatedNode:
    """A machine with a speaker, which may run, be paused, or be gone while the kernel lives."""

    name: str
    index: int
    known_as: NodeName
    """The name that its speaker goes by: another machine may have the same."""
    interfaces: list[SimulatedInterface] = field(default_factory=list)
    joined: int = 0
    """How many it has had."""
    powered: bool = True
    running: bool = False
    paused_until: float | None = None
    paused_at: float = float("-inf")
    """The last time."""
    protocol: Protocol | None = None
    loop: Loop | None = None
    ended_at: float = float("-inf")
    """When its speaker ended the last time."""
    sessions: int = 0
    lag: float = 0.0
    plan_seen: int = -1
    stopped: dict[BundleId, float] = field(default_factory=dict)
    """Bundles that serve no more, and when this session of its speaker saw that."""
    told: dict[LinkName, SimulatedInterface] = field(default_factory=dict)
    states: tuple[LinkState, ...] = ()
    """The interfaces that its speaker knows."""

    @property
    def lan(self) -> SimulatedInterface:
        """The first one: on the LAN, where it has one there."""
        return self.interfaces[0]

    @property
    def address(self) -> AddressText:
        return self.lan.address

    @property
    def mac(self) -> Mac:
        return self.lan.mac

    @property
    def works(self) -> bool:
        return self.powered and self.running and self.paused_until is None

    def on(self, network: SimulatedNetwork) -> Iterator[SimulatedInterface]:
        """Its interfaces there that are present."""
        return (each for each in self.interfaces if each.network is network and each.present)

    def learn_links(self) -> None:
        """The speaker knows the links as they are."""
        for interface in self.interfaces:
            interface.learn()
        self.told = {each.name: each for each in self.interfaces if each.present}
        self.states = self.link_states()

    def forget_links(self) -> None:
        for interface in self.interfaces:
            interface.forget()
        self.told, self.states = {}, ()

    def link_states(self) -> tuple[LinkState, ...]:
        return tuple(each.state(self.name) for each in self.interfaces if each.present)


@dataclass(eq=False)
class Stranger:
    """A host on the LAN that is no speaker."""

    name: str
    mac: Mac
    answers: dict[AddressText, Mac]
    """What it answers ARP questions for, with the MAC that it names: a gateway for itself, a proxy for others."""
