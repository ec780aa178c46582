"""Random schedules of a hundred nodes and more, each determined by its seed: few faults, since each costs minutes."""

from __future__ import annotations

import random

from tests.speaker.protocol.simulation.schedules import Schedule


class LargeSchedule(Schedule):
    usual_faults = 3

    def node_count(self, rng: random.Random) -> int:
        return rng.choice((60, 100, 150, 200))

    def most_bundles(self) -> int:
        """Now fewer and now more than nodes that may hold something at the usual pace."""
        return 100
