"""Which Service has an address that statuses show, and when one that is left is free: histories through the core."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.changes import Write
from tests.controller.validity import assert_no_address_is_shown_twice, ours
from tests.controller.world import World, assigned

ADDRESS_POOL = "metallb.io/address-pool"


def show(world: World, name: str, *addresses: str) -> None:
    """Somebody writes these addresses into the Service's status."""
    world.put(name, status={"loadBalancer": {"ingress": [{"ip": each} for each in addresses]}})


def test_existing_addresses_are_restored_before_any_is_given() -> None:
    """The older Service waits; the younger one's address must not be given to it."""
    world = World({"a": "10.0.0.1/32"})
    world.put("older")
    world.put("younger", status={"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}})
    world.start()
    world.settle()
    assert (world.ip("older"), world.ip("younger")) == ("", "10.0.0.1")


def test_a_service_whose_address_left_its_pool_takes_none_that_waits_to_be_restored() -> None:
    world = World({"a": "10.0.0.1-10.0.0.2"})
    world.put("moved", status={"loadBalancer": {"ingress": [{"ip": "10.7.0.1"}]}})
    world.put("stays", status={"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}})
    world.start()
    world.settle()
    assert (world.ip("moved"), world.ip("stays")) == ("10.0.0.2", "10.0.0.1")


def test_of_two_services_with_one_address_the_older_keeps_it() -> None:
    world = World({"a": "10.0.0.1-10.0.0.2"})
    show(world, "older", "10.0.0.1")
    show(world, "younger", "10.0.0.1")
    world.start()
    world.settle()
    assert (world.ip("older"), world.ip("younger")) == ("10.0.0.1", "10.0.0.2")
    why = "10.0.0.1 belongs to default/older, which is older"
    said = f'current IP for "default/younger" not allowed by config, will attempt for new IP assignment: {why}'
    assert ("default/younger", "ClearAssignment", said) in world.take_events()


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_two_services_of_one_second_the_first_by_name_counts_as_older(order: tuple[str, str]) -> None:
    """In whichever order they are seen, and whatever their uids; speakers have the same (``test_planner_bundles``)."""
    world = World({"pool": "10.0.0.1-10.0.0.2"})
    for name in order:
        world.put(name)
    for name, uid in (("a", "uid-00002"), ("b", "uid-00001")):
        metadata = world.services[f"default/{name}"]["metadata"]
        metadata |= {"uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}
    for name in order:
        show(world, name, "10.0.0.1")
    world.start()
    world.settle()
    assert (world.ip("a"), world.ip("b")) == ("10.0.0.1", "10.0.0.2")


def test_services_of_one_second_get_their_addresses_in_the_order_of_their_names() -> None:
    """So two clusters that are made from the same files have the same addresses."""
    for numbers in ([3, 1, 2, 0], [0, 1, 2, 3], [2, 0, 3, 1]):
        world = World({"pool": "10.0.0.0/29"})
        for number in numbers:
            world.put(f"s{number}")
            world.services[f"default/s{number}"]["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        world.start()
        world.settle()
        assert [world.ip(f"s{number}") for number in range(4)] == [f"10.0.0.{number}" for number in range(4)]


def test_a_duplicate_that_comes_later_is_cleared_at_once_and_the_newer_service_loses() -> None:
    world = World()
    world.start()
    for name in ("older", "newer"):
        world.put(name)
        world.settle()
    show(world, "newer", "172.18.255.200")
    began = world.time
    world.settle()
    assert world.time - began < 1.0
    assert (world.ip("older"), world.ip("newer")) == ("172.18.255.200", "172.18.255.201")


def waiting_and_served() -> World:
    """An older Service waits, since a newer one has the only address."""
    world = World({"a": "10.0.0.1/32"})
    world.put("older", annotations={ADDRESS_POOL: "b"})
    world.put("newer")
    world.start()
    world.settle()
    world.put("older", annotations={ADDRESS_POOL: None})
    world.settle()
    assert (world.ip("older"), world.ip("newer")) == ("", "10.0.0.1")
    world.take_events()
    return world


def test_a_service_that_waits_takes_no_address_from_its_holder_by_what_it_shows() -> None:
    """Be it older, and be its status filled by a leader of before or by anybody else."""
    world = waiting_and_served()
    show(world, "older", "10.0.0.1")
    began = world.time
    world.settle()
    assert world.time - began < 1.0
    assert (world.ip("older"), world.ip("newer")) == ("", "10.0.0.1")
    events = [event for event in world.take_events() if event[0] == "default/older"]
    assert [reason for _, reason, _ in events] == ["ClearAssignment"]
    assert "10.0.0.1 belongs to default/newer, which had it before" in events[0][2]
    show(world, "older", "10.0.0.1")
    world.start()
    world.settle()
    assert (world.ip("older"), world.ip("newer")) == ("", "10.0.0.1")


def test_an_address_that_is_just_being_written_belongs_to_whom_it_was_given() -> None:
    world = World({"a": "10.0.0.1/32"})
    world.start()
    world.put("older", annotations={ADDRESS_POOL: "b"})
    world.settle()
    world.put("newer")
    world.decide()
    (write,) = world.pending
    show(world, "older", "10.0.0.1")
    world.put("older", annotations={ADDRESS_POOL: None})
    world.decide()
    world.carry_out(write)
    world.settle()
    assert (world.ip("older"), world.ip("newer")) == ("", "10.0.0.1")


@pytest.mark.parametrize(
    "wish", [{ADDRESS_POOL: "none"}, {ADDRESS_POOL: "b"}, {"metallb.io/loadBalancerIPs": "10.0.9.9"}]
)
@pytest.mark.parametrize("when", ["before the start", "after it"])
def test_a_service_that_waits_is_not_believed_what_it_does_not_ask_for(wish: dict[str, str], when: str) -> None:
    """Its status was filled by somebody; the rules would not have let it have that."""
    world = World({"a": "10.0.0.1-10.0.0.9", "b": {"addresses": ["10.0.1.1/32"], "autoAssign": False}})
    world.start()
    world.put("holder", loadBalancerIP="10.0.1.1")
    world.put("web", annotations=wish)
    world.settle()
    show(world, "web", "10.0.0.5")
    if when == "before the start":
        world.start()
    world.put("new", loadBalancerIP="10.0.0.5")
    world.settle()
    assert (world.ip("web"), world.ip("new")) == ("", "10.0.0.5")


def test_a_service_that_waits_and_shows_a_free_address_keeps_it() -> None:
    """As it would after a restart: the status is the database."""
    world = World({"a": "10.0.0.1-10.0.0.9"})
    world.start()
    world.put("web", annotations={ADDRESS_POOL: "b"})
    world.settle()
    show(world, "web", "10.0.0.5")
    world.put("web", annotations={ADDRESS_POOL: None})
    world.settle()
    assert world.ip("web") == "10.0.0.5"


def test_the_former_address_is_given_to_nobody_before_the_api_shows_the_service_without_it() -> None:
    world = World({"a": "10.0.0.1-10.0.0.2"})
    world.start()
    world.put("web")
    world.settle()
    world.put("web", loadBalancerIP="10.0.0.2")
    world.decide()
    (moving,) = world.pending
    world.put("new")
    world.decide()
    (refused,) = (change for change in world.pending if change is not moving)
    assert isinstance(refused, Write)
    assert "loadBalancer" not in refused.body["status"]
    world.settle()
    assert (world.ip("web"), world.ip("new")) == ("10.0.0.2", "10.0.0.1")


def test_an_address_that_another_class_shows_is_not_given_out_when_its_holder_leaves() -> None:
    """Two showed it, of which one moved; the other's claim had been turned down, and nobody looked at it again."""
    world = World({"a": "10.0.0.1/32", "b": {"addresses": ["10.0.1.0/24"], "autoAssign": False}})
    world.put("web")
    show(world, "web", "10.0.0.1")
    world.put("waiting")
    world.start()
    world.settle()
    world.put("theirs", loadBalancerClass="their")
    show(world, "theirs", "10.0.0.1")
    world.put("web", annotations={"metallb.io/address-pool": "b"})
    world.settle()
    assert (world.ip("web"), world.ip("waiting")) == ("10.0.1.0", "")
    world.delete("theirs")
    world.settle()
    assert world.ip("waiting") == "10.0.0.1"


DYING = {"deletionTimestamp": "2026-01-02T00:00:00Z"}


@pytest.mark.parametrize("ingress", [None, [{"ip": "10.0.0.2"}], [{"ip": "10.0.0.9"}], [{"ip": "10.6.6.6"}]])
def test_a_service_that_is_being_deleted_shows_what_it_has_and_nobody_elses(ingress: Any) -> None:
    world = World({"a": "10.0.0.1-10.0.0.9"})
    world.start()
    for name in ("web", "other"):
        world.put(name)
        world.settle()
    world.put("web", **DYING)
    world.put("web", status={"loadBalancer": {"ingress": ingress}})
    world.settle()
    assert (world.ip("web"), world.ip("other")) == ("10.0.0.1", "10.0.0.2")
    world.start()
    world.put("web", status={"loadBalancer": {"ingress": ingress}})
    world.start()
    world.settle()
    assert (world.ip("web"), world.ip("other")) == ("10.0.0.1", "10.0.0.2")


def test_a_duplicate_of_a_service_that_is_being_deleted_is_taken_out_of_its_status() -> None:
    world = World({"a": "10.0.0.1/32"})
    for name, parts in (("web", {}), ("dying", DYING)):
        world.put(name, **parts)
        show(world, name, "10.0.0.1")
    world.start()
    world.settle()
    assert (world.ip("web"), world.ip("dying")) == ("10.0.0.1", "")


def test_a_newer_service_that_is_not_ours_and_had_the_address_is_not_called_older() -> None:
    world = World({"a": "10.0.0.1/32"})
    world.put("our", annotations={ADDRESS_POOL: "b"})
    world.put("their", loadBalancerClass="their")
    show(world, "their", "10.0.0.1")
    world.start()
    world.settle()
    world.take_events()
    show(world, "our", "10.0.0.1")
    world.settle()
    [cleared] = [said for _, reason, said in world.take_events() if reason == "ClearAssignment"]
    assert cleared.endswith("10.0.0.1 belongs to default/their, which had it before")


# ------------------------------------------------------------------------ the first that showed it

SHOWN = st.lists(st.sampled_from(["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.9"]), max_size=1)


@settings(max_examples=150)
@given(
    births=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 999)), min_size=2, max_size=5, unique_by=lambda b: b[1]
    ),
    before=st.lists(SHOWN, min_size=5, max_size=5),
    after=st.lists(st.tuples(st.integers(0, 4), SHOWN), max_size=6),
    room=st.integers(1, 5),
)
def test_whatever_statuses_show_before_and_after_the_start_no_two_keep_one_address(
    births: list[tuple[int, int]], before: list[list[str]], after: list[tuple[int, list[str]]], room: int
) -> None:
    """And the oldest of those who showed it first has it."""
    world = World({"a": f"10.0.0.0-10.0.0.{room - 1}"})
    names = "uvwxy"[: len(births)]
    for name, (second, uid) in zip(names, births, strict=True):
        world.put(name)
        metadata = world.services[f"default/{name}"]["metadata"]
        metadata |= {"uid": f"uid-{uid:03}", "creationTimestamp": f"2026-01-01T00:00:0{second}Z"}
    ages = {name: (second, name) for name, (second, _) in zip(names, births, strict=True)}
    for name, shown_before in zip(names, before, strict=False):
        show(world, name, *shown_before)
    world.start()
    claimed = {address for (address,) in (each for each in before[: len(names)] if each)}
    keepers = {
        address: min((n for n, each in zip(names, before, strict=False) if each == [address]), key=lambda n: ages[n])
        for address in claimed
    }
    world.settle()
    for address, name in keepers.items():
        if address != "10.0.0.9" and int(address[-1]) < room:
            assert world.ip(name) == address
    for index, shown_after in after:
        if index < len(names):
            show(world, names[index], *shown_after)
    world.settle()
    assert_no_address_is_shown_twice(ours(world))
    assert {world.ip(name) for name in names} <= {f"10.0.0.{each}" for each in range(room)} | {""}
    world.take_writes()
    world.start()
    world.settle()
    assert world.take_writes() == []


def two_that_share_one() -> World:
    """``older`` and ``younger`` share 10.0.0.1, and there are others."""
    world = World({"a": "10.0.0.1-10.0.0.9"})
    world.start()
    sharing = {"metallb.io/allow-shared-ip": "x"}
    assigned(
        world,
        older={"annotations": sharing, "ports": [{"port": 80}]},
        younger={"annotations": sharing, "ports": [{"port": 81}]},
    )
    assert (world.ip("older"), world.ip("younger")) == ("10.0.0.1", "10.0.0.1")
    return world


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("dying", ["older", "younger"])
def test_a_service_that_is_being_deleted_stays_whatever_becomes_of_its_terms(dying: str, restarted: bool) -> None:
    world = two_that_share_one()
    world.put(dying, **DYING)
    world.put(dying, annotations={"metallb.io/allow-shared-ip": "y"})
    world.settle()
    if restarted:
        world.start()
    world.put({"older": "younger", "younger": "older"}[dying], ports=[{"port": 90}])
    world.settle()
    assert (world.ip(dying), len({world.ip("older"), world.ip("younger")})) == ("10.0.0.1", 2)


# ------------------------------------------------------------------------ being deleted, and given to another meanwhile


@pytest.mark.parametrize("decided", [False, True])
def test_a_service_whose_deletion_begins_before_a_start_has_moved_it_stays(decided: bool) -> None:
    """The controller that starts finds it on terms on which it could not share, and lets it leave; no write says so
    yet."""
    world = two_that_share_one()
    world.put("younger", ports=[{"port": 80}])
    world.start()
    if decided:
        world.decide()
        world.pending.clear()
    world.put("younger", **DYING)
    if decided:
        world.start()
    world.settle()
    assert (world.ip("older"), world.ip("younger")) == ("10.0.0.2", "10.0.0.1")
    world.start()
    world.settle()
    assert (world.ip("older"), world.ip("younger")) == ("10.0.0.2", "10.0.0.1")


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("falsified", [None, "younger", "older"])
def test_services_that_are_being_deleted_stay_although_they_cannot_share_any_more(
    falsified: str | None, restarted: bool
) -> None:
    world = two_that_share_one()
    for name in ("older", "younger"):
        world.put(name, **DYING)
    if restarted:
        world.controller.started = False
    if falsified is not None:
        world.put(falsified, status={"loadBalancer": {"ingress": None}})
    world.put("younger", ports=[{"port": 80}])
    if restarted:
        world.start()
    world.settle()
    assert (world.ip("older"), world.ip("younger")) == ("10.0.0.1", "10.0.0.1")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_service_that_is_being_deleted_stays_also_where_its_status_was_emptied_and_its_terms_were_broken(
    restarted: bool,
) -> None:
    world = two_that_share_one()
    world.controller.started = not restarted
    world.put("younger", ports=[{"port": 80}], status={"loadBalancer": {"ingress": None}}, **DYING)
    if restarted:
        world.start()
    world.settle()
    assert (world.ip("older"), world.ip("younger")) == ("10.0.0.2", "10.0.0.1")
