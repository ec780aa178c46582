"""Endpoints vanish and come back, as each speaker sees after its own lag: what becomes of the owners."""

from __future__ import annotations

import random

import pytest

from speaker.protocol.unserved import UNSERVED_S
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.network import Weather
from tests.speaker.protocol.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

SEEDS = range(30)
LONGEST_LAG_S = 5.0
BUNDLES = 4


def settled(seed: int, *, owners_stay: bool = True) -> tuple[World, random.Random]:
    rng = random.Random(seed * 104729)
    world = World(seed, rng.choice((2, 3, 4)), gateway=rng.random() < 0.7)
    world.network.weather = Weather(rng.choice((0.0, 0.01)), (0.0002, 0.002), 0.0, 0.0)
    Invariants(world, owners_stay=owners_stay)
    world.set_bundles(bundle_of(f"b{i}", [f"10.0.9.{i}", f"10.0.8.{i}"], world.nodes) for i in range(BUNDLES))
    world.start_all(spread=0.3)
    world.run(6.0)
    for node in world.nodes.values():
        node.lag = rng.uniform(0.0, LONGEST_LAG_S)
    world.run(LONGEST_LAG_S)
    return world, rng


def owners(world: World) -> dict[str, str | None]:
    return {address: world.owner(address) for bundle in world.plans[-1][1] for address in bundle.addresses}


@pytest.mark.parametrize("seed", SEEDS)
def test_owners_stay_when_endpoints_are_back_in_time(seed: int) -> None:
    """However often, of some bundles or of all, one after the other or at once."""
    world, rng = settled(seed)
    before, changes, decided = owners(world), len(world.owner_changes), len(world.decisions)
    assert None not in before.values()
    for _ in range(4):
        away = {f"b{i}" for i in range(BUNDLES) if rng.random() < 0.7}
        world.set_serving(lambda bundle, away=away: bundle.id not in away)  # type: ignore[misc]
        world.run(rng.choice((rng.uniform(0.02, 1.0), rng.uniform(1.0, UNSERVED_S - LONGEST_LAG_S - 1.0))))
        while away:
            away.discard(rng.choice(sorted(away)))
            world.set_serving(lambda bundle, away=away: bundle.id not in away)  # type: ignore[misc]
            world.run(rng.choice((0.02, 0.3)))
        world.run(rng.uniform(0.0, 8.0))
    world.run(2 * UNSERVED_S)
    assert owners(world) == before
    assert len(world.owner_changes) == changes
    made = [
        decision.reason for _, _, decision in world.decisions[decided:] if decision.reason in {"Claimed", "Released"}
    ]
    assert made == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_holder_that_dies_while_endpoints_are_away_is_replaced_and_nobody_else_moves(seed: int) -> None:
    world, rng = settled(seed)
    before = owners(world)
    world.set_serving(lambda _: False)
    world.run(LONGEST_LAG_S + rng.uniform(0.0, 20.0))
    if rng.random() < 0.5:
        world.api_frozen_at = world.now
    lost = rng.choice(sorted(world.nodes))
    rng.choice((world.power_cut, world.kill, world.unplug))(lost)
    world.run(3.0)
    after = owners(world)
    assert None not in after.values(), world.story()
    assert all(after[address] == owner for address, owner in before.items() if owner != lost), world.story()
    world.set_serving(lambda _: True)
    world.run(10.0)
    assert owners(world) == after


@pytest.mark.parametrize("seed", SEEDS)
def test_owners_let_go_of_what_has_not_served_for_long_and_one_claims_when_it_does(seed: int) -> None:
    world, rng = settled(seed, owners_stay=False)
    decided = len(world.decisions)
    world.set_serving(lambda _: False)
    world.run(UNSERVED_S + LONGEST_LAG_S + 1.5)
    assert set(owners(world).values()) == {None}
    released = [decision.fields["why"] for _, _, decision in world.decisions[decided:] if decision.reason == "Released"]
    assert released == ["no endpoint serves"] * len(owners(world))
    world.run(rng.uniform(0.0, 100.0))
    assert not any(world.answerers.values()), world.story()
    world.set_serving(lambda _: True)
    world.run(LONGEST_LAG_S + 0.5)
    now = owners(world)
    assert None not in now.values(), world.story()
    world.run(30.0)
    assert owners(world) == now
