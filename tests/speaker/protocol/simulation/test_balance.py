"""Where addresses are in the long run: evenly, apart from their group, or at the node that had them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from math import ceil

import pytest
from msgspec.structs import replace

from cluster.objects import NodeName
from speaker.plan import Bundle
from speaker.protocol.settings import Settings
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.scenes import (
    VIP,
    assert_each_is_answered_by_one,
    assert_nothing_moves,
    decisions_of,
    held_by,
    numbered,
    owner_of,
)
from tests.speaker.protocol.simulation.test_moves import drained, not_ready, preferring, without
from tests.speaker.protocol.simulation.world import World, bundle_of

BALANCING = Settings(rebalance=True)
GAP_S = 10.0
HEALTH_S = 60.0
FAILBACK_S = 10.0
ACTS_S = 1.0
"""For a decision to act; two are promised, with what the API takes."""


def bundles_of(world: World, count: int) -> list[Bundle]:
    """Each of one address."""
    return [bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(count)]


def started(world: World, count: int, *, spread: float = 0.0) -> World:
    world.set_bundles(bundles_of(world, count))
    world.start_all(spread)
    world.run(5.0 + spread)
    return world


def loads(world: World) -> dict[str, int]:
    """Of the nodes that are there."""
    return {name: len(held_by(world, name)) for name, node in world.nodes.items() if node.works}


def assert_even(world: World) -> None:
    found = loads(world)
    assert_each_is_answered_by_one(world)
    assert max(found.values()) <= ceil(1.25 * sum(found.values()) / len(found)), (found, world.story(20))


# ------------------------------------------------------------------------ within a quarter of the fair share

SHAPES = [(seed, nodes, count) for seed, (nodes, count) in enumerate([(2, 7), (3, 12), (4, 17)])]


@pytest.mark.parametrize(("seed", "nodes", "count"), SHAPES)
def test_a_start_failovers_and_returns_leave_no_node_with_more_than_a_quarter_above_its_share(
    seed: int, nodes: int, count: int
) -> None:
    world = started(World(seed, nodes, settings=BALANCING), count, spread=3.0)
    world.run(40.0)
    assert_even(world)
    failing = list(world.nodes)[: nodes // 2]
    for node in failing:
        world.power_cut(node)
        world.run(3.0)
        assert_even(world)
    for node in failing:
        world.start(node)
    since = world.now
    world.run(HEALTH_S)
    assert not decisions_of(world, "Offered", since=since), "they may go again"
    world.run(GAP_S * (count + 2))
    assert_even(world)
    fair = count / nodes
    assert max(loads(world).values()) <= max(1.25 * fair, ceil(fair)), world.story(20)
    gifts = [(at, each.fields["why"]) for at, _, each in world.decisions if at >= since and each.reason == "Offered"]
    assert {why for _, why in gifts} <= {"balance"}
    assert all(later - at > GAP_S - ACTS_S for (at, _), (later, _) in itertools.pairwise(gifts)), "one at a time"
    assert_nothing_moves(world, 3 * GAP_S)


def test_without_being_asked_nobody_gives_anything_to_a_node_that_came_back() -> None:
    world = started(World(1, 3), 12)
    world.run(35.0)
    world.power_cut("n1")
    world.run(2.0)
    world.start("n1")
    assert_nothing_moves(world, 2 * HEALTH_S)
    assert loads(world)["n1"] == 0


def test_a_node_that_comes_and_goes_is_given_something_later_each_time() -> None:
    world = started(World(2, 2, settings=BALANCING), 12)
    world.run(35.0)
    for wait in (HEALTH_S, 2 * HEALTH_S):
        world.power_cut("n1")
        world.run(2.0)
        world.start("n1")
        world.run(wait)
        assert loads(world)["n1"] == 0, world.story()
        world.run(2 * GAP_S)
        assert loads(world)["n1"] > 0, world.story()


def test_plans_that_differ_for_ever_do_not_fight_over_the_balance() -> None:
    """Each of three nodes has another Plan, of other candidates, and they all even out what they hold."""
    world = World(3, 3, settings=BALANCING)
    bundles = bundles_of(world, 12)
    started(world, 12)
    world.run(35.0)
    for i, node in enumerate(world.nodes):
        world.nodes[node].lag = 0.0
        world.set_bundles([without(each, f"n{(i + int(each.id[1:])) % 3}") for each in bundles])
        world.run(0.2)
        world.nodes[node].lag = float("inf")
    world.power_cut("n0")
    world.run(3.0)
    world.nodes["n0"].lag = 0.0
    world.start("n0")
    world.run(HEALTH_S + 15 * GAP_S)
    assert_nothing_moves(world, 20 * GAP_S)


# ------------------------------------------------------------------------ back to the node that had them


def going_back(bundle: Bundle) -> Bundle:
    return replace(bundle, failback=True)


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_an_address_that_goes_back_is_at_the_first_candidate_that_is_able_once_that_is_healthy(seed: int) -> None:
    world = World(seed, 4)
    bundles = [going_back(each) for each in bundles_of(world, 8)]
    world.set_bundles(bundles)
    world.start_all(2.0)
    world.run(15.0)

    def at_home(*away: str) -> bool:
        homes = [next(each.node for each in bundle.candidates if each.node not in away) for bundle in bundles]
        return [world.owner(bundle.addresses[0]) for bundle in bundles] == homes

    assert at_home(), world.story()
    away = str(bundles[0].candidates[0].node)
    for wait in (FAILBACK_S, 2 * FAILBACK_S):
        world.power_cut(away)
        world.run(3.0)
        assert at_home(away), world.story()
        world.start(away)
        world.run(wait - 1.0)
        assert not held_by(world, away), world.story()
        since = world.now
        world.run(6.0)
        assert at_home(), world.story()
        assert {each.fields["why"] for each in decisions_of(world, "Offered", since=since)} == {"failback"}
    assert_nothing_moves(world, 60.0)


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_what_a_person_decides_about_an_address_that_goes_back_acts_at_once_each_time(seed: int) -> None:
    world = started(World(seed, 3), 1)
    plain = bundles_of(world, 1)[0]
    holder = owner_of(world)
    home, *_ = others = [str(each.node) for each in plain.candidates if each.node != holder]
    first = replace(plain, candidates=tuple(sorted(plain.candidates, key=lambda each: each.node != home)))
    world.set_bundles([first])
    world.run(5.0)
    assert owner_of(world) == holder, "the order alone moves nothing"
    world.set_bundles([going_back(first)])
    world.run(ACTS_S)
    assert owner_of(world) == home, world.story()
    for _ in range(3):
        for decided in (without(first, home), preferring(first, others[1]), drained(first, home)):
            world.set_bundles([going_back(decided)])
            world.run(ACTS_S)
            assert owner_of(world) != home, world.story()
            world.set_bundles([going_back(first)])
            world.run(ACTS_S)
            assert owner_of(world) == home, world.story()


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_a_node_whose_network_is_back_has_its_address_back_after_ten_seconds(seed: int) -> None:
    world = started(World(seed, 3), 0)
    bundle = going_back(bundle_of("b0000", [VIP], world.nodes))
    world.set_bundles([bundle])
    world.run(3.0)
    home = owner_of(world)
    world.set_bundles([replace(without(bundle, home), unfit=(NodeName(home),))])
    world.run(3.0)
    assert owner_of(world) != home
    world.set_bundles([bundle])
    world.run(FAILBACK_S - 1.0)
    assert owner_of(world) != home, world.story()
    world.run(3.0)
    assert owner_of(world) == home, world.story()


@pytest.mark.parametrize("seed", range(3))
def test_nodes_that_are_not_ready_move_nothing_that_goes_back(seed: int) -> None:
    """Each kubelet is heard again at another time, after the API server was away."""
    world = started(World(seed, 3), 0)
    bundle = going_back(bundle_of("b0000", [VIP], world.nodes))
    world.set_bundles([bundle])
    world.run(3.0)
    changes = len(world.owner_changes)
    for nodes in (["n0"], ["n0", "n1"], ["n0", "n1", "n2"], ["n1", "n2"], ["n2"], []):
        world.set_bundles([not_ready(bundle, *nodes)])
        world.run(2 * FAILBACK_S)
    assert len(world.owner_changes) == changes, world.story()


def test_plans_that_disagree_for_ever_about_the_order_do_not_fight() -> None:
    world = started(World(4, 2), 0)
    bundle = going_back(bundle_of("b0000", [VIP], world.nodes))
    reverse = replace(bundle, candidates=bundle.candidates[::-1])
    world.set_bundles([bundle])
    world.run(3.0)
    holder = owner_of(world)
    (other,) = {"n0", "n1"} - {holder}
    world.nodes[other].lag = float("inf")
    world.set_bundles([reverse])
    assert_nothing_moves(world, 60.0)


# ------------------------------------------------------------------------ apart from their group


def apart(bundles: Iterable[Bundle], group: str = "default/dns") -> list[Bundle]:
    return [replace(each, spread=(group,)) for each in bundles]


def homes(world: World, bundles: Iterable[Bundle]) -> list[str]:
    return [owner_of(world, each.addresses[0]) for each in bundles]


@pytest.mark.parametrize("seed", range(tries(3, 10)))
def test_two_of_a_group_are_on_two_nodes_from_the_start_and_after_every_failure(seed: int) -> None:
    world = World(seed, 3)
    bundles = apart(bundles_of(world, 2))
    world.set_bundles(bundles)
    world.start_all(3.0)
    world.run(8.0)
    for _ in range(3):
        assert len(set(homes(world, bundles))) == 2, world.story()
        failed = world.rng.choice(homes(world, bundles))
        world.power_cut(failed)
        world.run(3.0)
        assert len(set(homes(world, bundles))) == 2, world.story()
        world.start(failed)
        world.run(3.0)


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_of_more_members_than_nodes_each_node_has_its_share(seed: int) -> None:
    world = World(seed, 3)
    bundles = apart(bundles_of(world, 7))
    world.set_bundles(bundles)
    world.start_all(1.0)
    world.run(40.0)
    assert sorted(loads(world).values()) == [2, 2, 3], world.story()


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_two_that_a_failure_put_together_are_apart_again_once_a_node_is_healthy(seed: int) -> None:
    world = World(seed, 2)
    bundles = apart(bundles_of(world, 2))
    world.set_bundles(bundles)
    world.start_all()
    world.run(5.0)
    assert len(set(homes(world, bundles))) == 2, world.story()
    world.power_cut("n1")
    world.run(3.0)
    assert homes(world, bundles) == ["n0", "n0"]
    world.start("n1")
    world.run(HEALTH_S)
    assert homes(world, bundles) == ["n0", "n0"], world.story()
    since = world.now
    world.run(6.0)
    assert len(set(homes(world, bundles))) == 2, world.story()
    (offered,) = decisions_of(world, "Offered", since=since)
    assert offered.fields["why"] == "apart from its group"
    assert_nothing_moves(world, 3 * HEALTH_S)


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_two_that_a_person_puts_into_a_group_are_apart_at_once_whatever_is_preferred(seed: int) -> None:
    world = World(seed, 3)
    bundles = [preferring(each, "n1") for each in bundles_of(world, 2)]
    world.set_bundles(bundles)
    world.start_all()
    world.run(5.0)
    assert homes(world, bundles) == ["n1", "n1"]
    since = world.now
    world.set_bundles(apart(bundles))
    world.run(ACTS_S)
    assert len(set(homes(world, bundles))) == 2, world.story()
    assert "n1" in homes(world, bundles), "the preference counts for what it can"
    assert len(decisions_of(world, "Offered", since=since)) == 1
    assert_nothing_moves(world, 2 * HEALTH_S)
    world.set_bundles(bundles)
    world.run(2 * HEALTH_S)
    assert homes(world, bundles) == ["n1", "n1"], world.story()


def test_a_drain_keeps_a_group_apart() -> None:
    world = World(7, 3)
    bundles = apart(bundles_of(world, 2))
    started(world, 0)
    world.set_bundles(bundles)
    world.run(5.0)
    for node in homes(world, bundles):
        world.set_bundles([drained(each, node) for each in bundles])
        world.run(ACTS_S)
        assert len(set(homes(world, bundles))) == 2, world.story()
        assert node not in homes(world, bundles)
