"""Who claims, who keeps, who steps aside: several real speakers on a quiet LAN."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cluster.objects import AddressText, NodeName
from speaker.plan import Bundle, BundleId, Candidate
from tests.speaker.simulation.invariants import Invariants
from tests.speaker.simulation.world import World, bundle_of

A, B = "10.0.9.1", "10.0.9.2"


def world_of(bundles: Iterable[Bundle], nodes: int = 3, *, start: bool = True) -> World:
    world = World(1, nodes)
    Invariants(world, owners_stay=False)
    world.set_bundles(bundles)
    if start:
        world.start_all()
        world.run(4.0)
    return world


def preferring(id_: str, address: str, **preferences: int) -> Bundle:
    ranked = sorted(preferences, key=lambda node: (-preferences[node], node))
    candidates = tuple(Candidate(NodeName(node), 0, preferences[node]) for node in ranked)
    return Bundle(BundleId(id_), (AddressText(address),), (f"default/{id_}",), candidates)


def reasons(world: World, reason: str) -> list[str]:
    return [str(report.fields.get("why", "")) for _, _, report in world.reports if report.reason == reason]


def test_the_preferred_node_claims() -> None:
    world = world_of([preferring("b1", A, n0=1, n1=50, n2=2)])
    assert world.owner(A) == "n1"


def test_a_higher_preference_takes_back_after_a_minute_and_waits_longer_the_next_time() -> None:
    world = world_of([preferring("b1", A, n0=1, n1=50, n2=2)])
    for wait in (60.0, 120.0):
        world.power_cut("n1")
        world.run(2.0)
        assert world.owner(A) == "n2"
        world.start("n1")
        world.run(wait - 2.0)
        assert world.owner(A) == "n2"
        world.run(8.0)
        assert world.owner(A) == "n1"
    assert reasons(world, "Released") == ["preference", "preference"]


def test_a_later_tier_is_used_only_when_the_earlier_one_is_gone() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"], {"n0": 1, "n1": 0, "n2": 1})])
    assert world.owner(A) == "n1"
    world.power_cut("n1")
    world.run(1.0)
    assert world.owner(A) in {"n0", "n2"}


def test_becoming_less_suited_moves_nothing() -> None:
    """An API outage makes every node NotReady: opinions of the API end no claim."""
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    assert owner is not None
    world.set_bundles([bundle_of("b1", [A], ["n0", "n1", "n2"], {owner: 1})])
    world.run(100.0)
    assert world.owner(A) == owner


def test_a_holder_that_is_no_candidate_any_more_steps_aside_for_one_that_is() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    others = [name for name in world.nodes if name != owner]
    world.set_bundles([bundle_of("b1", [A], others)])
    world.run(2.0)
    assert world.owner(A) in others
    assert reasons(world, "Released") == ["no candidate any more"]


def test_a_holder_stays_while_nobody_else_is_a_candidate() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    world.set_bundles([bundle_of("b1", [A], [])])
    world.run(10.0)
    assert world.owner(A) == owner


def test_an_address_that_leaves_the_plan_is_released() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    world.set_bundles([])
    world.run(0.1)
    assert world.answerers[AddressText(A)] == frozenset()
    assert reasons(world, "Released") == ["left the Plan"]


def test_a_bundle_is_claimed_whole_and_by_one_node() -> None:
    world = world_of(bundle_of(f"b{i}", [f"10.0.9.{i}", f"10.0.8.{i}"], ["n0", "n1", "n2"]) for i in range(1, 10))
    for i in range(1, 10):
        assert world.owner(f"10.0.9.{i}") == world.owner(f"10.0.8.{i}") is not None


def test_bundles_that_are_joined_end_at_one_node() -> None:
    world = world_of([preferring("b1", A, n0=9, n1=0, n2=0), preferring("b2", B, n0=0, n1=9, n2=0)])
    assert (world.owner(A), world.owner(B)) == ("n0", "n1")
    world.set_bundles([bundle_of("b1", [A, B], ["n0", "n1", "n2"])])
    world.run(3.0)
    assert world.owner(A) == world.owner(B) is not None


def test_a_provisional_claim_moves_once_to_the_better_candidate_that_arrives() -> None:
    """At a cold start the first speaker there claims everything; who comes within two minutes gets its share."""
    world = world_of((bundle_of(f"b{i}", [f"10.0.9.{i}"], ["n0", "n1", "n2"]) for i in range(1, 31)), start=False)
    world.start("n0")
    world.run(5.0)
    assert all(world.owner(f"10.0.9.{i}") == "n0" for i in range(1, 31))
    world.start("n1")
    world.start("n2")
    world.run(10.0)
    loads = [sum(world.owner(f"10.0.9.{i}") == name for i in range(1, 31)) for name in world.nodes]
    assert sum(loads) == 30
    assert max(loads) <= 13  # 1.25 × its fair share
    changes = len(world.owner_changes)
    world.run(150.0)
    assert len(world.owner_changes) == changes


def test_what_is_claimed_later_stays_where_it_is() -> None:
    world = world_of([], nodes=2, start=False)
    world.start("n0")
    world.run(40.0)
    bundles = [bundle_of(f"b{i}", [f"10.0.9.{i}"], ["n0", "n1"]) for i in range(1, 9)]
    world.set_bundles(bundles)
    world.run(1.0)
    world.start("n1")
    world.run(100.0)
    assert all(world.owner(f"10.0.9.{i}") == "n0" for i in range(1, 9))


def test_new_addresses_go_to_the_least_loaded_of_equals() -> None:
    nodes = ["n0", "n1", "n2"]
    world = world_of([], start=False)
    world.start_all()
    world.run(3.0)
    bundles: list[Bundle] = []
    for i in range(1, 31):
        bundles.append(bundle_of(f"b{i:02}", [f"10.0.9.{i}"], nodes))
        world.set_bundles(bundles)
        world.run(0.2)
    loads = [sum(world.owner(f"10.0.9.{i}") == name for i in range(1, 31)) for name in nodes]
    assert sum(loads) == 30
    assert max(loads) <= 13


@pytest.mark.parametrize("count", [1000])
def test_a_thousand_addresses_are_taken_over_at_once(count: int) -> None:
    world = world_of(
        bundle_of(f"b{i:04}", [f"10.0.{9 + i // 250}.{i % 250 + 1}"], ["n0", "n1", "n2"]) for i in range(count)
    )
    assert sum(len(answerers) == 1 for answerers in world.answerers.values()) == count
    world.power_cut("n1")
    world.run(0.6)
    assert sum(len(answerers) == 1 for answerers in world.answerers.values()) == count, world.story(20)


def test_a_node_on_the_addresss_own_subnet_comes_first_and_another_serves_when_it_is_gone() -> None:
    for name in ("n0", "n1", "n2"):
        world = World(1, 3)
        for other in world.nodes.values():
            if other.name != name:
                other.subnet = "192.0.2.0/24"
        world.set_bundles([bundle_of("b1", [A], ["n0", "n1", "n2"])])
        world.start_all()
        world.run(4.0)
        assert world.owner(A) == name
        world.power_cut(name)
        world.run(2.0)
        assert world.owner(A) not in {None, name}


def test_who_has_no_plan_any_more_keeps_what_it_holds_and_claims_nothing() -> None:
    """The watcher of n0 is dead, and with it whoever could say what has changed since."""
    ours = bundle_of("b1", [A], ["n0", "n1"], {"n0": 0, "n1": 1})
    world = world_of([ours], nodes=2)
    assert world.owner(A) == "n0"
    world.lose_watcher("n0")
    world.set_bundles(
        [bundle_of("b1", [A], ["n0", "n1"], {"n0": 0, "n1": 1}), bundle_of("b2", [B], ["n1", "n0"], {"n0": 0, "n1": 1})]
    )
    world.run(3.0)
    assert (world.owner(A), world.owner(B)) == ("n0", "n1")
    world.power_cut("n1")
    world.run(5.0)
    assert (world.owner(A), world.owner(B)) == ("n0", None)
    world.restart_watcher("n0")
    world.run(3.0)
    assert (world.owner(A), world.owner(B)) == ("n0", "n0")


def test_nobody_waits_for_a_better_candidate_without_a_plan() -> None:
    world = world_of([], nodes=3)
    world.lose_watcher("n0")
    world.run(1.0)
    world.set_bundles([bundle_of("b1", [A], ["n0", "n1", "n2"], {"n0": 0, "n1": 1, "n2": 2})])
    world.run(0.05)
    assert world.owner(A) == "n1"
