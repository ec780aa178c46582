"""Random schedules of a hundred nodes and more, each determined by its seed: few faults, since each costs minutes."""

from __future__ import annotations

import random

from tests.speaker.protocol.simulation.schedules import WHOLE, Schedule, Without

FAULTS = 3


class LargeSchedule(Schedule):
    def __init__(
        self,
        seed: int,
        *,
        nodes: int | None = None,
        loss: float | None = None,
        faults: int = FAULTS,
        without: Without = WHOLE,
    ) -> None:
        super().__init__(seed, nodes=nodes, loss=loss, faults=faults, without=without)

    def node_count(self, rng: random.Random) -> int:
        return rng.choice((60, 100, 150, 200))

    def most_bundles(self) -> int:
        """Now fewer and now more than nodes that may hold something at the usual pace."""
        return 100
