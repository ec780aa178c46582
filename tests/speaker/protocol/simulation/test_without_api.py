"""Nodes that do not reach the API server: take-overs need it not, and who starts there claims nothing until it has a
Plan."""

from __future__ import annotations

import pytest

from tests.speaker.protocol.simulation.scenes import (
    VIP,
    assert_each_is_answered_by_one,
    assert_nothing_moves,
    held_by,
    owner_of,
    protocol_of,
    seconds_until_answered,
    settled,
)
from tests.speaker.protocol.simulation.world import bundle_of

D_S = 0.35
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_moves_when_nobody_reaches_the_api_and_a_death_is_made_up_for_as_ever(seed: int) -> None:
    world = settled(seed, 4, bundles=4)
    world.lose_api(world.nodes)
    assert_nothing_moves(world, 3.0)
    world.power_cut(owner_of(world))
    assert seconds_until_answered(world) <= D_S + 0.3
    world.run(2.0)
    assert_each_is_answered_by_one(world)
    assert_nothing_moves(world, 3.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_changes_meanwhile_is_seen_when_the_api_is_back(seed: int) -> None:
    world = settled(seed)
    world.lose_api(["n0"])
    world.set_bundles([bundle_of("b0001", ["10.0.9.2"], ["n0"])])
    world.run(3.0)
    assert world.owner("10.0.9.2") is None, "who alone may hold it does not know of it"
    world.regain_api()
    world.run(2.0)
    assert world.owner("10.0.9.2") == "n0"
    assert not world.answerers.get(VIP)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_speaker_that_starts_without_the_api_claims_nothing_until_it_is_back(seed: int) -> None:
    world = settled(seed, 2)
    holder = owner_of(world)
    other = next(name for name in world.nodes if name != holder)
    world.power_cut(other)
    world.lose_api([other])
    world.run(1.0)
    world.start(other)
    world.power_cut(holder)
    world.run(5.0)
    assert not protocol_of(world, other).ready
    assert not held_by(world, other)
    world.regain_api()
    world.run(3.0)
    assert owner_of(world) == other
