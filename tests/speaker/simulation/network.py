"""A simulated LAN in virtual time: who reaches whom, with loss, delay, reordering, duplication and cuts.

Hosts are names. Reachability is directed: ``cut`` one way, both ways, or everything of a host. Three losses in a row
on one directed pair count as a fault of the network (a short partition), since no protocol can tell it from one.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field


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
class Network:
    clock: Clock
    rng: random.Random
    weather: Weather = field(default_factory=Weather)
    multicast_blocked: set[tuple[str, str]] = field(default_factory=set)
    cuts: set[tuple[str, str]] = field(default_factory=set)
    unplugged: set[str] = field(default_factory=set)
    last_loss_fault: float = float("-inf")
    frames: int = 0
    _losses: dict[tuple[str, str], int] = field(default_factory=dict)

    def reaches(self, source: str, target: str) -> bool:
        return source not in self.unplugged and target not in self.unplugged and (source, target) not in self.cuts

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

    def send(self, source: str, target: str, deliver: Callable[[], None], multicast: bool = False) -> None:
        """One frame from one host to another. Its delivery is decided when it arrives: a cable pulled while it is
        under way loses it."""
        self.frames += 1
        if not self.reaches(source, target) or (multicast and (source, target) in self.multicast_blocked):
            return
        pair = (source, target)
        if self.weather.loss and self.rng.random() < self.weather.loss:
            self._losses[pair] = self._losses.get(pair, 0) + 1
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
