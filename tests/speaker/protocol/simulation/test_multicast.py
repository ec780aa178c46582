"""LANs that do not forward what is said to the group: speakers find each other by their Leases, and by unicast."""

from __future__ import annotations

import pytest

from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.registry import Registry
from tests.speaker.protocol.simulation.scenes import (
    assert_each_is_answered_by_one,
    assert_nothing_moves,
    held_by,
    numbered,
    owner_of,
    seconds_until_answered,
)
from tests.speaker.protocol.simulation.test_life import stop_groups
from tests.speaker.protocol.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

SEEDS = range(tries(2, 6))


def without_groups(seed: int, nodes: int = 3, *, bundles: int = 6) -> tuple[World, Registry]:
    """Nobody has started yet."""
    world = World(seed, nodes)
    registry = Registry(world)
    stop_groups(world, *world.nodes)
    world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(bundles))
    return world, registry


def test_speakers_that_never_heard_each_other_agree_by_unicast() -> None:
    for seed in SEEDS:
        world, _ = without_groups(seed)
        Invariants(world)
        world.start_all(spread=0.3)
        world.run(6.0)
        assert_each_is_answered_by_one(world)
        assert_nothing_moves(world, 20.0)
        holder = owner_of(world)
        mine = held_by(world, holder)
        world.power_cut(holder)
        assert seconds_until_answered(world) < 0.6, world.story()
        world.run(0.3)
        assert all(world.owner(address) not in {None, holder} for address in mine), world.story()
        world.start(holder)
        world.run(5.0)
        assert_each_is_answered_by_one(world)


def test_who_starts_among_holders_takes_nothing_before_it_has_heard_them() -> None:
    for seed in SEEDS:
        world, _ = without_groups(seed)
        Invariants(world)
        for name in ("n0", "n1"):
            world.start(name)
        world.run(20.0)
        owners, changes = dict(world.answerers), len(world.owner_changes)
        world.start("n2")
        world.run(1.25)
        assert world.answerers == owners, world.story()
        world.run(8.0)
        assert_each_is_answered_by_one(world)
        assert len(world.owner_changes) <= changes + 2 * len(owners), "only what the start gives on may move"
