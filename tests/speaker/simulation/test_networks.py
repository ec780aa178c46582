"""More than one network: what is heard tells on which way it was heard, and owning is per network."""

from __future__ import annotations

import pytest

from tests.speaker.simulation.scenes import reports_of, settle, with_storage

pytestmark = pytest.mark.slow

SEEDS = range(6)


def test_a_second_network_makes_nobody_suspicious() -> None:
    """What is said at the same time on two networks arrives in any order: the one does not make the other old."""
    for seed in SEEDS:
        world, _ = with_storage(seed)
        settle(world, 6)
        world.run(20.0)
        assert not reports_of(world, "PeerSuspected"), world.story()
