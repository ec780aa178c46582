"""LANs on which no datagram passes: the records in the API decide, and never do two answer for longer than it takes to
ask them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.registry import Registry
from tests.speaker.protocol.simulation.scenes import (
    VIP,
    assert_each_is_answered_by_one,
    assert_nothing_moves,
    decisions_of,
    held_by,
    numbered,
    owner_of,
)
from tests.speaker.protocol.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

SEEDS = range(tries(2, 5))
STALE_S = 55.0  # until a Lease is stale, which is 40 to 50 s, the answer of the API, and a turn
ASKED_S = 1.0  # in which a speaker that was away may answer beside another, until it has asked the record


def block(world: World) -> None:
    world.network.firewalled |= set(itertools.permutations(world.nodes, 2))
    world.fault("no datagram passes")


def blocked(seed: int, nodes: int = 3, *, bundles: int = 6) -> tuple[World, Registry]:
    """All have started where no datagram ever passed."""
    world = World(seed, nodes)
    registry = Registry(world)
    block(world)
    world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(bundles))
    for name in world.nodes:
        world.start(name)
        world.run(0.2 + world.rng.random())
    world.run(20.0)
    assert_each_is_answered_by_one(world)
    return world, registry


@contextmanager
def never_two(world: World, longest: float = 0.0) -> Iterator[None]:
    """Nobody answers beside another for longer than that while time passes."""
    since: dict[str, float] = {}

    def check() -> None:
        for address, answerers in world.answerers.items():
            if len(answerers) < 2:
                since.pop(address, None)
            else:
                begun = since.setdefault(address, world.now)
                assert world.now - begun <= longest, f"{address} by {answerers}\n{world.story()}"
        if checking:
            world.clock.after(0.01, check)

    checking = True
    check()
    try:
        yield
    finally:
        checking = False


def seconds_until_moved(world: World, holder: str, limit: float) -> float:
    start = world.now
    while world.owner(VIP) in {None, holder}:
        assert world.now < start + limit, world.story()
        world.run(0.05)
    return world.now - start


def test_who_never_heard_each_other_agree_by_the_record_and_a_dead_holder_is_replaced_when_its_lease_is_stale() -> None:
    for seed in SEEDS:
        world, _ = blocked(seed)
        assert decisions_of(world, "RecordDecides"), world.story()
        with never_two(world):
            assert_nothing_moves(world, 60.0)
            holder = owner_of(world)
            mine = held_by(world, holder)
            world.power_cut(holder)
            assert seconds_until_moved(world, holder, STALE_S) > 35.0, world.story()
            world.run(3.0)
            assert all(world.owner(address) not in {None, holder} for address in mine), world.story()


def test_who_comes_back_or_starts_takes_nothing_from_holders_that_it_cannot_hear() -> None:
    for seed in SEEDS:
        world, _ = blocked(seed)
        holder = owner_of(world)
        with never_two(world):
            world.power_cut(holder)
            seconds_until_moved(world, holder, STALE_S)
            world.run(3.0)
            owners = dict(world.answerers)
            world.start(holder)
            world.run(30.0)
            assert world.answerers == owners, world.story()


def test_a_holder_that_stood_still_for_a_minute_asks_the_record_before_it_goes_on() -> None:
    for seed in SEEDS:
        world, _ = blocked(seed)
        holder = owner_of(world)
        with never_two(world, ASKED_S):
            world.pause(holder, 70.0)
            assert seconds_until_moved(world, holder, STALE_S) < 60.0
            taker = owner_of(world)
            world.run(75.0)
            assert world.owner(VIP) == taker, world.story()
        assert_each_is_answered_by_one(world)


def test_without_the_api_server_holders_keep_what_they_hold_and_nobody_claims() -> None:
    for seed in SEEDS:
        world, registry = blocked(seed)
        holder = owner_of(world)
        with never_two(world):
            registry.away |= set(world.nodes)
            assert_nothing_moves(world, 120.0)
            registry.away.clear()
            assert_nothing_moves(world, 60.0)
            registry.away |= set(world.nodes)
            world.run(10.0)
            world.power_cut(holder)
            world.run(120.0)
            assert not held_by(world, holder)
            assert not world.answerers[VIP], "nobody can win its record"
            registry.away.clear()
            seconds_until_moved(world, holder, STALE_S)


def test_a_holder_that_alone_does_not_reach_the_api_server_gives_way_when_another_announces() -> None:
    for seed in SEEDS:
        world, registry = blocked(seed)
        holder = owner_of(world)
        registry.away.add(holder)
        with never_two(world, 5.0):
            while world.owner(VIP) == holder or world.owner(VIP) is None:
                assert world.now < 150.0, world.story()
                world.run(0.5)
            taker = owner_of(world)
            world.run(60.0)
            registry.away.clear()
            world.run(30.0)
            assert world.owner(VIP) == taker, world.story()


def test_when_datagrams_pass_again_nothing_moves_and_deaths_are_noticed_as_ever() -> None:
    for seed in SEEDS:
        world, _ = blocked(seed)
        with never_two(world):
            world.network.heal()
            world.fault("datagrams pass again")
            assert_nothing_moves(world, 10.0)
            holder = owner_of(world)
            world.power_cut(holder)
            assert seconds_until_moved(world, holder, 5.0) < 1.0, world.story()


def test_speakers_that_heard_each_other_before_replace_a_dead_holder_as_fast_as_ever() -> None:
    """It proves by ARP that it answers, until it does not; of those who claim then one wins each record."""
    for seed in SEEDS:
        world = World(seed, 3)
        registry = Registry(world)
        world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(6))
        world.start_all(spread=0.3)
        world.run(20.0)
        block(world)
        world.run(30.0)
        assert_each_is_answered_by_one(world)
        assert len(registry.records) == 6
        with never_two(world):
            holder = owner_of(world)
            world.power_cut(holder)
            assert seconds_until_moved(world, holder, 5.0) < 2.0, world.story()
            world.run(5.0)
            assert_each_is_answered_by_one(world)


def test_where_datagrams_pass_a_restart_a_death_and_a_return_are_decided_on_the_wire() -> None:
    """A Lease outlives its speaker, and that blocks nobody."""
    for seed in SEEDS:
        world = World(seed, 3)
        Registry(world)
        world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(6))
        world.start_all(spread=0.3)
        world.run(15.0)
        begun = world.now
        for end in (world.leave, world.kill, world.power_cut):
            holder = owner_of(world)
            end(holder)
            world.run(3.0)
            assert_each_is_answered_by_one(world)
            world.run(9.0)
            world.start(holder)
            world.run(6.0)
            assert_each_is_answered_by_one(world)
        assert not decisions_of(world, "RecordDecides", since=begun), world.story()
