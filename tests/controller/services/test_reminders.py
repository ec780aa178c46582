"""A Service that waits is explained again as long as it waits: Events are forgotten after an hour."""

from __future__ import annotations

from itertools import pairwise

import pytest

from controller.services.reminders import AGAIN_S, FIRST_S
from tests.controller.world import World

FULL = 'Failed to allocate IP for "default/web": pool "tiny" has no free IPv4 address (1 of 1 in use)'
HOUR_S = 3600.0


@pytest.fixture
def world() -> World:
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    for name in ("holder", "web"):
        world.put(name)
        world.settle()
    assert ("default/web", "AllocationFailed", FULL) in world.take_events()
    world.take_writes()
    return world


def pass_time(world: World, seconds: float, step: float = 60.0) -> list[tuple[float, str]]:
    """Turns, and the Events that come of them: how late, and the message."""
    began, told = world.time, []
    while world.time < began + seconds:
        world.time += step
        world.rest()
        told += [(world.time - began, message) for _, _, message in world.take_events()]
    return told


def test_who_waits_is_told_why_once_an_hour_and_nothing_is_written(world: World) -> None:
    told = pass_time(world, 10 * HOUR_S)
    assert {message for _, message in told} == {FULL}
    times = [0.0, *(at for at, _ in told)]
    assert all(2400 <= after - before <= HOUR_S for before, after in pairwise(times))
    assert world.take_writes() == []


def test_it_is_told_the_reason_that_is_so_by_then(world: World) -> None:
    world.configure(tiny="10.0.0.1/32", other={"addresses": ["10.1.0.0/24"], "autoAssign": False})
    world.settle()
    (told,) = [message for _, _, message in world.take_events()]
    later = pass_time(world, HOUR_S)
    assert [message for _, message in later] == [told]
    assert "(autoAssign is false)" in told


def test_who_has_got_an_address_is_left_alone(world: World) -> None:
    world.delete("holder")
    world.settle()
    assert world.ip("web") == "10.0.0.1"
    world.take_events()
    assert pass_time(world, 3 * HOUR_S) == []


@pytest.mark.parametrize("end", ["deleted", "another type", "being deleted"])
def test_who_waits_no_more_is_forgotten(world: World, end: str) -> None:
    match end:
        case "deleted":
            world.delete("web")
        case "another type":
            world.put("web", type="ClusterIP")
        case _:
            world.put("web", deletionTimestamp="2026-01-02T00:00:00Z")
    world.settle()
    assert pass_time(world, 3 * HOUR_S) == []


def test_after_a_start_it_is_told_soon_and_the_start_itself_tells_nothing(world: World) -> None:
    world.start()
    world.rest()
    assert (world.take_events(), world.take_writes()) == ([], [])
    (first, _), *rest = pass_time(world, 2 * HOUR_S)
    assert first <= FIRST_S + 60
    assert len(rest) == 2


def test_an_address_asked_for_in_vain_beside_one_that_is_had_is_explained_too(world: World) -> None:
    world.put("holder", loadBalancerIP="10.9.9.9")
    world.settle()
    world.take_events()
    told = {message for _, message in pass_time(world, HOUR_S)}
    assert told == {FULL, 'Failed to allocate IP for "default/holder": 10.9.9.9 is in no pool'}


def test_many_who_wait_are_not_all_told_at_one_moment() -> None:
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    for number in range(200):
        world.put(f"s{number}")
    world.settle()
    world.take_events()
    times = [at for at, _ in pass_time(world, AGAIN_S, step=10.0)]
    assert len(times) == 199
    assert max(times.count(at) for at in times) < 20
