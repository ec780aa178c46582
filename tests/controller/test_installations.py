"""Two installations in one cluster, each with a class and pools of its own, over the same addresses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controller.world import World

DMZ = "berthlb.io/dmz"
RANGE = "10.41.0.1-10.41.0.4"


def install(pool: str = RANGE) -> tuple[World, World]:
    plain = World({"lan": pool})
    dmz = World({"dmz": pool}, DMZ, beside=plain)
    for each in (plain, dmz):
        each.start()
    return plain, dmz


def put(world: World, name: str, **parts: Any) -> None:
    world.put(name, **({"loadBalancerClass": DMZ} if name.startswith("dmz") else {}), **parts)


def give_at_the_same_moment(*worlds: World) -> None:
    """Each decides before it sees what the other one does."""
    for each in worlds:
        each.decide()
    for each in worlds:
        for change in list(each.pending):
            each.carry_out(change)
    assert worlds[0].ip("plain") == worlds[0].ip("dmz")


def rest(*worlds: World) -> None:
    """Until neither has anything to do."""
    for _ in range(20):
        before = [len(each.writes) for each in worlds]
        for each in worlds:
            each.rest()
        if before == [len(each.writes) for each in worlds]:
            return
    raise AssertionError("they never come to rest")


def test_what_another_installation_gave_is_not_given_out() -> None:
    plain, dmz = install("10.41.0.1/32")
    put(plain, "plain")
    rest(plain, dmz)
    put(plain, "dmz")
    rest(plain, dmz)
    assert (plain.ip("plain"), plain.ip("dmz")) == ("10.41.0.1", "")
    assert dmz.condition("dmz")[1] == "PoolExhausted"


@pytest.mark.parametrize("names", [("plain", "dmz"), ("dmz", "plain")])
def test_of_two_that_give_one_address_at_the_same_moment_the_newer_gives_way(names: tuple[str, str]) -> None:
    """They showed it for ever, and all conditions said that all was well."""
    plain, dmz = install()
    for name in names:
        put(plain, name)
    give_at_the_same_moment(plain, dmz)
    rest(plain, dmz)
    older, newer = names
    assert (plain.ip(older), plain.ip(newer)) == ("10.41.0.1", "10.41.0.2")
    cleared = [(key, said) for each in (plain, dmz) for key, reason, said in each.events_of("ClearAssignment")]
    assert [key for key, _ in cleared] == [f"default/{newer}"]
    assert cleared[0][1].endswith(f"10.41.0.1 belongs to default/{older}, which is older")
    for name in names:
        assert plain.condition(name)[:2] == ("True", "Assigned")


def test_where_the_newer_finds_no_other_it_waits_and_names_the_older() -> None:
    plain, dmz = install("10.41.0.1/32")
    put(plain, "plain")
    put(plain, "dmz")
    give_at_the_same_moment(plain, dmz)
    rest(plain, dmz)
    assert (plain.ip("plain"), plain.ip("dmz")) == ("10.41.0.1", "")
    assert "10.41.0.1 belongs to default/plain, which is older" in dmz.events_of("ClearAssignment")[0][2]


def test_one_that_gives_no_way_is_named_while_it_shows_the_address() -> None:
    """Its controller does not run, or is of another kind."""
    world = World({"lan": RANGE})
    world.start()
    world.put("ours")
    world.rest()
    world.put("theirs", loadBalancerClass="other.example/lb")
    world.put("theirs", status={"loadBalancer": {"ingress": [{"ip": "10.41.0.1"}]}})
    world.rest()
    assert world.ip("ours") == "10.41.0.1"
    message = (
        '10.41.0.1 from pool "lan", which it keeps although default/theirs, of the class "other.example/lb", '
        "shows 10.41.0.1 too"
    )
    assert world.condition("ours") == ("True", "AddressInUse", message)
    world.start()
    world.rest()
    assert world.condition("ours") == ("True", "AddressInUse", message)
    world.put("theirs", status={"loadBalancer": {"ingress": None}})
    world.rest()
    assert world.condition("ours")[:2] == ("True", "Assigned")


def test_what_another_kind_shows_before_ours_does_is_its_own() -> None:
    world = World({"lan": RANGE})
    world.start()
    world.put("theirs", loadBalancerClass="other.example/lb")
    world.put("ours")
    world.decide()
    world.put("theirs", status={"loadBalancer": {"ingress": [{"ip": "10.41.0.1"}]}})
    world.rest()
    assert (world.ip("ours"), world.ip("theirs")) == ("10.41.0.2", "10.41.0.1")


def test_a_status_falsified_in_one_installation_moves_nobody_in_the_other() -> None:
    """Its own controller puts it right; the other one knows by the condition that the address was not given."""
    plain, dmz = install()
    put(plain, "dmz")
    rest(plain, dmz)
    put(plain, "plain")
    rest(plain, dmz)
    for _ in range(10):
        put(plain, "dmz", status={"loadBalancer": {"ingress": [{"ip": plain.ip("plain")}]}})
        plain.rest()
        assert plain.ip("plain") == "10.41.0.2"
        plain.time += 1.1
        rest(dmz, plain)
        assert (plain.ip("plain"), plain.ip("dmz")) == ("10.41.0.2", "10.41.0.1")


def test_an_address_of_another_installations_pool_is_not_shared_by_ports() -> None:
    """No pool of ours contains it, and that alone makes it no node's."""
    plain = World({"lan": RANGE})
    dmz = World({"dmz": "10.42.0.1/32"}, DMZ, beside=plain)
    for each in (plain, dmz):
        each.start()
    put(plain, "dmz", ports=[{"port": 80}])
    put(plain, "plain", ports=[{"port": 443}])
    rest(plain, dmz)
    for _ in range(10):
        put(plain, "plain", status={"loadBalancer": {"ingress": [{"ip": "10.42.0.1"}]}})
        rest(plain, dmz)
        plain.time += 1.1
        rest(plain, dmz)
        assert (plain.ip("plain"), plain.ip("dmz")) == ("10.41.0.1", "10.42.0.1")


def test_a_node_that_goes_is_left_by_all_who_share_its_address_and_nobody_is_told_of_another() -> None:
    plain = World({})
    dmz = World({}, DMZ, beside=plain)
    for each in (plain, dmz):
        each.configure_nodes(nodes={})
        for number in (1, 2):
            each.machine(f"n{number}", internal=f"10.0.0.{number}")
        each.start()
    put(plain, "dmz", ports=[{"port": 80}])
    rest(plain, dmz)
    put(plain, "plain", ports=[{"port": 443}])
    rest(plain, dmz)
    assert plain.ip("plain") == plain.ip("dmz") == "10.0.0.1,10.0.0.2"
    for each in (plain, dmz):
        each.take_events(), each.take_writes()
        each.machine_goes("n1")
    rest(plain, dmz)
    assert plain.ip("plain") == plain.ip("dmz") == "10.0.0.2"
    for each in (plain, dmz):
        assert (each.take_events(), len(each.take_writes())) == ([], 1)


def test_what_another_installation_has_is_kept_for_it_while_its_status_is_falsified_or_emptied() -> None:
    plain, dmz = install("10.41.0.1-10.41.0.2")
    put(plain, "dmz")
    rest(plain, dmz)
    for ingress in (None, [{"ip": "10.6.6.6"}]):
        put(plain, "dmz", status={"loadBalancer": {"ingress": ingress}})
        put(plain, "one")
        put(plain, "two")
        plain.rest()
        assert {plain.ip("one"), plain.ip("two")} == {"10.41.0.2", ""}
        rest(dmz, plain)
        assert plain.ip("dmz") == "10.41.0.1"
        for name in ("one", "two"):
            plain.delete(name)


@pytest.mark.parametrize("first", [0, 1])
def test_both_restarted_with_a_duplicate_standing_agree_on_who_gives_way(first: int) -> None:
    both = install()
    plain = both[0]
    for name in ("plain", "dmz"):
        put(plain, name)
    give_at_the_same_moment(*both)
    for each in both:
        each.controller.started = False  # it dies before it has seen what the other one did
    for each in (both[first], both[1 - first]):
        each.start()
        each.rest()
    rest(*both)
    assert (plain.ip("plain"), plain.ip("dmz")) == ("10.41.0.1", "10.41.0.2")


@pytest.mark.parametrize("restarted", [False, True])
def test_the_newer_keeps_the_address_if_its_deletion_begins_before_it_has_given_way(restarted: bool) -> None:
    """It gets nothing else, so the older moves. Both gave way: one judged before the deletion, the other after it."""
    plain, dmz = install()
    put(plain, "plain")
    put(plain, "dmz")
    give_at_the_same_moment(plain, dmz)
    if restarted:
        dmz.start()
    put(plain, "dmz", deletionTimestamp="2026-01-02T00:00:00Z")
    rest(dmz, plain)
    assert (plain.ip("plain"), plain.ip("dmz")) == ("10.41.0.2", "10.41.0.1")


def test_two_that_are_being_deleted_both_keep_the_address_that_was_given_at_the_same_moment() -> None:
    plain, dmz = install()
    for name in ("plain", "dmz"):
        put(plain, name)
    give_at_the_same_moment(plain, dmz)
    for name in ("plain", "dmz"):
        put(plain, name, deletionTimestamp="2026-01-02T00:00:00Z")
    rest(plain, dmz)
    for each in (plain, dmz):
        each.start()
        rest(plain, dmz)
        assert (plain.ip("plain"), plain.ip("dmz")) == ("10.41.0.1", "10.41.0.1")
