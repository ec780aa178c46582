"""A pool that is deleted and made again: nobody moves, unless it takes too long."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.config import GRACE_S
from tests.controller.world import World

LAN = "10.30.0.0/24"


@pytest.fixture
def world() -> World:
    """Services with holes between their addresses, so that any new choice would show."""
    world = World({"lan": LAN}, remember_releases=4)
    world.start()
    for name in ("r0", "r1", "r2", "r3"):
        world.put(name)
        world.settle()
    world.put("pinned", loadBalancerIP="10.30.0.100")
    world.settle()
    for name in ("r0", "r2"):
        world.delete(name)
        world.settle()
    assert world.ip("r1") == "10.30.0.1"
    world.take_events()
    world.take_writes()
    return world


def addresses(world: World) -> dict[str, str]:
    return {key: world.ip(key.rpartition("/")[2]) for key in world.services}


@pytest.mark.parametrize("away", [0.0, 0.05, GRACE_S - 1])
@pytest.mark.parametrize("meanwhile", ["nothing", "restarted", "without annotations"])
def test_a_pool_that_comes_back_in_time_moves_nobody(world: World, away: float, meanwhile: str) -> None:
    before = addresses(world)
    world.configure()
    world.rest()
    if meanwhile == "without annotations":
        for name in ("r1", "r3", "pinned"):
            world.put(name, annotations={"metallb.io/ip-allocated-from-pool": None})
    if meanwhile == "restarted":
        world.start()
    world.wait(away)
    world.rest()
    assert addresses(world) == before
    world.configure(lan=LAN)
    world.settle()
    assert addresses(world) == before
    assert world.take_events() == []
    assert meanwhile == "without annotations" or world.take_writes() == []


def test_who_was_deleted_before_is_still_remembered(world: World) -> None:
    world.configure()
    world.wait(1.0)
    world.configure(lan=LAN)
    world.put("new")
    world.settle()
    world.put("r2")
    world.settle()
    assert (world.ip("new"), world.ip("r2")) == ("10.30.0.4", "10.30.0.2")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_pool_that_stays_away_is_given_up(world: World, restarted: bool) -> None:  # a parameter
    world.configure(other="10.31.0.0/24")
    if restarted:
        world.start()
    world.wait(GRACE_S)
    world.settle()
    assert addresses(world) == {"default/r1": "10.31.0.0", "default/r3": "10.31.0.1", "default/pinned": ""}
    assert world.condition("pinned") == ("False", "AddressNotInPool", "10.30.0.100 is in no pool")


def test_meanwhile_it_gives_out_nothing_and_others_take_over_what_they_contain(world: World) -> None:
    world.configure(half="10.30.0.0/25", spare="10.32.0.0/24")
    world.put("new", annotations={"metallb.io/address-pool": "lan"})
    world.put("any")
    world.rest()
    assert addresses(world) == {
        "default/r1": "10.30.0.1",
        "default/r3": "10.30.0.3",
        "default/pinned": "10.30.0.100",
        "default/new": "",
        "default/any": "10.30.0.4",
    }
    assert world.view("r1").metadata.annotations["metallb.io/ip-allocated-from-pool"] == "half"
    assert world.condition("new")[1] == "UnknownPool"
    world.configure(half="10.30.0.0/25", spare="10.32.0.0/24", lan="10.30.0.128/25")
    world.settle()
    assert world.ip("new") == "10.30.0.128"


@pytest.mark.parametrize("spec", ["10.30.0.3/32", {"addresses": [LAN], "serviceAllocation": {"namespaces": ["dev"]}}])
def test_what_comes_back_is_what_counts(world: World, spec: Any) -> None:
    world.configure()
    world.wait(0.05)
    world.configure(lan=spec, other={"addresses": ["10.31.0.0/24"]})
    world.settle()
    assert world.ip("r1") == "10.31.0.0"


def test_a_pool_that_comes_and_goes_all_the_time_moves_nobody(world: World) -> None:
    before = addresses(world)
    for _ in range(20):
        world.configure()
        world.wait(GRACE_S / 2)
        world.configure(lan=LAN)
        world.wait(1.0)
    world.settle()
    assert addresses(world) == before
    assert (world.take_events(), world.take_writes()) == ([], [])
