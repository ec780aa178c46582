"""The machines of the simulation: their interfaces, kernels and speakers, and strangers that only answer and ask.

A machine has a kernel, a speaker process and cables, which fail separately. A speaker announces on the interfaces that
are present: an interface that is renamed, made anew, moved into a bridge or without its address is another one for it,
or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.addresses import Family, family_of
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
    """Of IPv4, where that is spoken."""
    gateways: tuple[AddressText, ...] = ()
    """Of each family one, where that is spoken."""
    subnet: str = ""
    """Its own IPv4 address with prefix length."""
    subnet6: str = ""
    """Its own IPv6 address with prefix length, if it has more than a link-local one."""
    families: frozenset[Family] = frozenset()
    """Those that the kernel speaks there now: the network's, unless others are given."""
    usual: frozenset[Family] = frozenset()
    """And those that it speaks while nothing is broken."""
    present: bool = True
    """It is there, and has its address."""
    came_up_at: float = float("-inf")
    """When its cable was put back, or it appeared, for the last time."""
    more_at: float = float("-inf")
    """When it spoke a family more than before, for the last time."""
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
    known_families: frozenset[Family] = frozenset()
    """What the speaker knows of them."""
    answers: set[AddressText] = field(default_factory=set)
    lent: dict[AddressText, Mac] = field(default_factory=dict)
    """Of these, the ones that it answers for with another machine's MAC."""
    said: int = 0
    """Datagrams to the group."""

    def __post_init__(self) -> None:
        self.subnet = self.subnet or f"{self.address}/16"
        self.speak(self.network.families)

    def speak(self, families: frozenset[Family]) -> None:
        """From the beginning."""
        self.families = self.usual = families

    @property
    def listens_since(self) -> float:
        """When a speaker last began to listen there, before it claims anything new."""
        return max(self.came_up_at, self.more_at)

    @property
    def link_local(self) -> AddressText:
        return AddressText(f"fe80::{self.mac[3]:x}:{self.mac[4]:x}:{self.mac[5]:x}")

    def heard_from(self, by: frozenset[Family]) -> AddressText:
        """Where the datagram comes from that is heard first, of those that go out in these families: now in one, now in
        the other."""
        first = Family.IPV4 if self.said % 2 else Family.IPV6
        return self.asks_from(first if first in by else next(iter(by)))

    def mac_for(self, address: AddressText) -> Mac:
        """What an answer for the address names."""
        return self.lent.get(address, self.mac)

    def asks_from(self, family: Family) -> AddressText:
        return self.address if family is Family.IPV4 else self.link_local

    def move(self, name: str, index: int) -> None:
        """The address goes to another interface of the machine on the same network, such as a bridge over this one."""
        self.name, self.index = LinkName(name), index

    def learn(self) -> None:
        """The speaker knows it as it is. One with another number is another one for it."""
        if not self.present or self.index != self.known_index:
            self.watched, self.quiet, self.suspended, self.sends = False, False, False, True
        self.was_known = self.was_known or self.present
        self.known_families = self.families if self.present else frozenset()
        self.known_as = self.name if self.present else None
        self.known_index = self.index if self.present else 0

    def forget(self) -> None:
        """There is no speaker any more that knows it."""
        self.known_as, self.known_index, self.was_known = None, 0, False

    def state(self, host: str) -> LinkState:
        up = host not in self.network.unplugged
        v4, v6 = Family.IPV4 in self.families, Family.IPV6 in self.families
        prefixes = ((self.subnet,) if v4 else ()) + ((self.subnet6,) if v6 and self.subnet6 else ())
        gateways = tuple(each for each in self.gateways if family_of(each) in self.families)
        return LinkState(self.name, self.index, self.mac, up, prefixes, gateways, self.link_local if v6 else None)


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
    told_to_end: bool = False
    """Its speaker, which may go on for a while."""
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
    """What it answers questions for, with the MAC that it names: a gateway for itself, a proxy for others."""

    def source(self, family: Family) -> AddressText | None:
        """Its address of a family, if it has one."""
        return next((address for address in self.answers if family_of(address) is family), None)
