"""Starts of a whole cluster at any pace and in any order, each determined by its seed.

Promised, when the start is over: nobody has more than 1.25 × its fair share of the addresses, each address has moved
once at most, and nothing moves any more.
"""

from __future__ import annotations

import random
from collections import Counter
from math import ceil

from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.scenes import assert_nothing_moves, numbered
from tests.speaker.protocol.simulation.world import World, bundle_of

OVER_S = 36.0  # after the last start: nobody has arrived for 30 s
LONGEST_GAP_S = 25.0  # between two starts: a speaker that comes later comes after the start
FAIR = 1.25


class StaggeredStart:
    def __init__(
        self, seed: int, *, nodes: int | None = None, addresses: int | None = None, spread: float | None = None
    ) -> None:
        rng = random.Random(seed * 3571)
        count = nodes if nodes is not None else rng.choice((2, 3, 4, 5, 5, 6, 8))
        self.world = World(seed, count)
        self.addresses = addresses if addresses is not None else rng.choice((7, 20, 60, 100))
        longest = spread if spread is not None else rng.choice((0.5, 5.0, 20.0, 60.0))
        self.starts = _without_long_gaps({name: rng.uniform(0.0, longest) for name in self.world.nodes})
        Invariants(self.world)

    def run(self, calm_s: float) -> World:
        """Let everybody start, and nothing happen for some seconds after the start."""
        world = self.world
        world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(self.addresses))
        for name, at in self.starts.items():
            world.clock.at(at, lambda name=name: world.start(name))  # type: ignore[misc]
        world.run(max(self.starts.values()) + OVER_S)
        self.check()
        assert_nothing_moves(world, calm_s)
        return world

    def check(self) -> None:
        world = self.world
        loads = {name: sum(who == {name} for who in world.answerers.values()) for name in world.nodes}
        assert sum(loads.values()) == self.addresses, world.story()
        most = ceil(FAIR * self.addresses / len(loads))
        assert max(loads.values()) <= most, f"{loads}: more than {most}, starts {self.starts}\n{world.story()}"
        claims = Counter(str(each.fields["address"]) for _, _, each in world.decisions if each.reason == "Claimed")
        assert max(claims.values()) <= 2, f"{claims.most_common(3)} moved more than once\n{world.story()}"


def _without_long_gaps(starts: dict[str, float]) -> dict[str, float]:
    """The same order, and the same moments as long as nobody comes too late for the start."""
    last, kept = min(starts.values()), {}
    for name in sorted(starts, key=lambda name: starts[name]):
        last = kept[name] = min(starts[name], last + LONGEST_GAP_S)
    return {name: kept[name] for name in starts}
