"""A simulated network in virtual time: who reaches whom, with loss, delay, reordering, duplication, cuts and firewalls.

Hosts are names. Reachability is directed: ``cut`` one way, both ways, or everything of a host. A firewall drops
datagrams alone: the frame arrives, and ARP passes. Three losses in a row on one directed pair count as a fault of the
network (a short partition), since no protocol can tell it from one.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.addresses import Family, family_of
from cluster.objects import AddressText


class Clock:
    """Events in order of time, then of being scheduled."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._order), action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def run_until(self, time: float) -> None:
        while self._events and self._events[0][0] <= time:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = time


@dataclass
class Weather:
    """What the network does to each frame."""

    loss: float = 0.0
    delay_s: tuple[float, float] = (0.0002, 0.001)
    duplicated: float = 0.0
    straggling: float = 0.0
    """Share of frames that come up to 60 ms late, behind their successors."""


@dataclass
class SimulatedNetwork:
    clock: Clock
    rng: random.Random
    name: str = "lan"
    prefix: str = "10.0"
    """The first two octets of its IPv4 subnet, which is a /16."""
    prefix6: str = ""
    """The first group of its IPv6 subnet, which is a /32; empty: hosts have link-local addresses alone."""
    families: frozenset[Family] = frozenset({Family.IPV4})
    """What hosts on it speak, unless their interfaces say otherwise."""
    shared: bool = True
    """Several machines may be on it; otherwise it is one machine's own, such as a bridge for its containers."""
    weather: Weather = field(default_factory=Weather)
    multicast_blocked: set[tuple[str, str]] = field(default_factory=set)
    cuts: set[tuple[str, str]] = field(default_factory=set)
    firewalled: set[tuple[str, str]] = field(default_factory=set)
    """Pairs between which datagrams are dropped, by the one's host or the other's."""
    rejecting: set[str] = field(default_factory=set)
    """Hosts whose firewall refuses datagrams to them, as a kernel without a speaker does (RFC 792). The speaker's own
    frames pass by it, unless they are dropped, too."""
    unplugged: set[str] = field(default_factory=set)
    last_loss_fault: float = float("-inf")
    twice_lost_at: float = float("-inf")
    """When two frames in a row between two hosts were lost for the last time."""
    frames: int = 0
    answerers: dict[AddressText, frozenset[str]] = field(default_factory=dict)
    """Which speakers answer here for each address that was ever answered."""
    named: dict[AddressText, dict[str, str]] = field(default_factory=dict)
    """Whose MAC each of them names: its own, or that of one for which it stands in."""
    owner_changes: list[tuple[float, AddressText, frozenset[str]]] = field(default_factory=list)
    """Whose MACs are named, each time that this changed."""
    _losses: dict[tuple[str, str], int] = field(default_factory=dict)

    def address(self, index: int) -> AddressText:
        """Of the host with this number."""
        return AddressText(f"{self.prefix}.{1 + index // 200}.{1 + index % 200}")

    def address6(self, index: int) -> AddressText | None:
        """Of the host with this number, if there is an IPv6 subnet."""
        return AddressText(f"{self.prefix6}::{1 + index:x}") if self.prefix6 else None

    def has(self, address: AddressText) -> bool:
        """Whether the address is on one of its subnets."""
        if family_of(address) is Family.IPV4:
            return address.startswith(f"{self.prefix}.")
        return bool(self.prefix6) and address.startswith(f"{self.prefix6}:")

    def reaches(self, source: str, target: str) -> bool:
        """Whether frames do."""
        return source not in self.unplugged and target not in self.unplugged and (source, target) not in self.cuts

    def passes(self, source: str, target: str) -> bool:
        """Whether datagrams pass the firewalls."""
        return (source, target) not in self.firewalled

    def mutual(self, one: str, other: str) -> bool:
        return self.reaches(one, other) and self.reaches(other, one)

    def cut(self, source: str, target: str) -> None:
        self.cuts.add((source, target))

    def partition(self, side: set[str], hosts: set[str]) -> None:
        for inside in side:
            for outside in hosts - side:
                self.cuts |= {(inside, outside), (outside, inside)}

    def heal(self) -> None:
        self.cuts.clear()
        self.multicast_blocked.clear()
        self.firewalled.clear()
        self.rejecting.clear()

    def send(self, source: str, target: str, deliver: Callable[[], None], multicast: bool = False) -> None:
        """One frame from one host to another. Its delivery is decided when it arrives: a cable pulled while it is
        under way loses it."""
        self.frames += 1
        if not self.reaches(source, target) or (multicast and (source, target) in self.multicast_blocked):
            return
        pair = (source, target)
        if self.weather.loss and self.rng.random() < self.weather.loss:
            self._losses[pair] = self._losses.get(pair, 0) + 1
            if self._losses[pair] >= 2:
                self.twice_lost_at = self.clock.now
            if self._losses[pair] >= 3:
                self.last_loss_fault = self.clock.now
            return
        self._losses[pair] = 0

        def arrive() -> None:
            if self.reaches(source, target):
                deliver()

        for _ in range(2 if self.rng.random() < self.weather.duplicated else 1):
            delay = self.rng.uniform(*self.weather.delay_s)
            if self.rng.random() < self.weather.straggling:
                delay += self.rng.uniform(0.0, 0.06)
            self.clock.after(delay, arrive)
