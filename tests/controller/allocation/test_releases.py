"""Which Service had which address before: it gets it back while it is free, and no other is refused because of it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cluster.addresses import Family, parse_address
from cluster.objects import PoolName, RecentRelease
from controller.allocation.ledger import Ledger
from controller.allocation.releases import Releases
from tests.controller.world import World, config_of

POOL = PoolName("p")


def world_of(pools: dict[str, object] | None = None, remember_releases: int = 8) -> World:
    world = World(pools or {"p": "10.0.0.0/29"}, remember_releases=remember_releases)
    world.start()
    return world


def put(world: World, *names: str) -> list[str]:
    """Create Services, one after the other; their addresses."""
    for name in names:
        world.put(name)
        world.settle()
    return [world.ip(name) for name in names]


def delete(world: World, *names: str) -> None:
    for name in names:
        world.delete(name)
        world.settle()


def test_a_service_made_again_gets_its_address_back() -> None:
    world = world_of()
    put(world, "a", "b", "c")
    delete(world, "a", "b")
    assert put(world, "b", "a") == ["10.0.0.1", "10.0.0.0"]


def test_others_get_what_nobody_is_remembered_for_while_there_is_any() -> None:
    world = world_of({"p": "10.0.0.0/30"})
    put(world, "a", "b")
    delete(world, "a", "b")
    assert put(world, "c", "d") == ["10.0.0.2", "10.0.0.3"]
    assert put(world, "e") == ["10.0.0.0"]
    assert put(world, "a") == ["10.0.0.1"]


def test_nobody_waits_because_of_what_is_remembered() -> None:
    world = world_of({"p": "10.0.0.0/32"})
    put(world, "a", "waits")
    delete(world, "a")
    assert world.ip("waits") == "10.0.0.0"


def test_an_explicit_request_gets_what_is_remembered_for_another() -> None:
    world = world_of()
    put(world, "a")
    delete(world, "a")
    world.put("b", annotations={"metallb.io/loadBalancerIPs": "10.0.0.0"})
    world.settle()
    assert world.ip("b") == "10.0.0.0"
    assert put(world, "a") == ["10.0.0.1"]


def test_what_it_had_comes_before_the_order_of_pools_but_not_before_their_rules() -> None:
    pools: dict[str, object] = {"a": "10.0.0.0/32", "b": "10.0.1.0/29"}
    world = world_of(pools)
    put(world, "first", "second")
    delete(world, "second", "first")
    assert put(world, "second") == ["10.0.1.0"]
    delete(world, "second")
    world.configure(a="10.0.0.0/32", b={"addresses": ["10.0.1.0/29"], "autoAssign": False})
    assert put(world, "second") == ["10.0.0.0"]


def test_a_service_that_could_have_both_families_now_does_not_stay_with_one_for_the_sake_of_memory() -> None:
    world = world_of({"p": "10.0.0.0/29"})
    dual: dict[str, Any] = {
        "clusterIPs": ["10.96.0.1", "fd00::1"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "PreferDualStack",
    }
    world.put("web", **dual)
    world.settle()
    delete(world, "web")
    world.configure(p="10.0.0.0/29", q=["10.0.1.0/29", "2001:db8::/125"])
    world.put("web", **dual)
    world.settle()
    assert world.ip("web") == "10.0.1.0,2001:db8::"
    delete(world, "web")
    put(world, "other")
    world.put("web", **dual)
    world.settle()
    assert world.ip("web") == "10.0.1.0,2001:db8::"


def test_a_shared_address_is_gone_back_to() -> None:
    world = world_of()
    sharing = {"metallb.io/allow-shared-ip": "k"}
    put(world, "fill")
    world.put("tcp", annotations=sharing, ports=[{"port": 80}])
    world.put("udp", annotations=sharing, ports=[{"port": 80, "protocol": "UDP"}])
    world.settle()
    assert world.ip("tcp") == world.ip("udp") == "10.0.0.1"
    delete(world, "fill", "udp")
    world.put("udp", annotations=sharing, ports=[{"port": 80, "protocol": "UDP"}])
    world.settle()
    assert world.ip("udp") == "10.0.0.1"


def test_a_change_of_type_and_back_is_a_release_too() -> None:
    world = world_of()
    put(world, "a", "b")
    world.put("a", type="ClusterIP")
    world.settle()
    put(world, "c")
    world.put("a", type="LoadBalancer")
    world.settle()
    assert (world.ip("a"), world.ip("c")) == ("10.0.0.0", "10.0.0.2")


def test_a_service_of_another_class_is_not_remembered() -> None:
    world = world_of()
    ingress = {"loadBalancer": {"ingress": [{"ip": "10.0.0.0"}]}}
    world.put("foreign", loadBalancerClass="example.com/other", status=ingress)
    world.settle()
    delete(world, "foreign")
    assert put(world, "ours") == ["10.0.0.0"]


def test_the_latest_are_remembered_and_no_more_than_told() -> None:
    world = world_of({"p": "10.0.0.0/28"}, remember_releases=2)
    put(world, "a", "b", "c")
    delete(world, "a", "b", "c")
    assert [each.service for each in world.controller.releases.of(POOL)] == ["default/c", "default/b"]
    assert put(world, "new") == ["10.0.0.0"]
    assert put(world, "a") == ["10.0.0.3"]
    assert put(world, "c") == ["10.0.0.2"]


def test_with_none_to_remember_the_first_free_address_is_given() -> None:
    world = world_of(remember_releases=0)
    put(world, "a", "b")
    delete(world, "a")
    assert put(world, "c") == ["10.0.0.0"]


def test_it_survives_a_restart_and_is_forgotten_when_the_service_is_back() -> None:
    world = world_of()
    put(world, "a", "b", "c")
    delete(world, "a", "b")
    world.start()
    world.settle()
    assert put(world, "d", "b") == ["10.0.0.3", "10.0.0.1"]
    assert [each.service for each in world.recorded_releases()] == ["default/a"]
    assert world.recorded_releases()[0].time.startswith("2026-01-01T00:1")


def test_a_renamed_pool_takes_the_memory_along() -> None:
    world = world_of()
    put(world, "a", "b")
    delete(world, "a")
    world.configure(q="10.0.0.0/29")
    world.settle()
    assert put(world, "c", "a") == ["10.0.0.2", "10.0.0.0"]


def test_an_address_that_left_the_pool_is_not_gone_back_to() -> None:
    world = world_of()
    put(world, "a")
    delete(world, "a")
    world.configure(p="10.0.9.0/29")
    world.settle()
    assert put(world, "a") == ["10.0.9.0"]


def test_an_address_that_a_node_has_got_is_not_gone_back_to() -> None:
    world = world_of()
    put(world, "a")
    delete(world, "a")
    world.node("n1", "10.0.0.0")
    assert put(world, "a") == ["10.0.0.1"]


@pytest.mark.parametrize(
    "recorded",
    [
        RecentRelease("default/a", ("nonsense",), ""),
        RecentRelease("default/a", (), ""),
        RecentRelease("no-namespace", ("10.0.0.0",), ""),
        RecentRelease("default/a", ("192.0.2.1",), ""),
    ],
)
def test_what_cannot_be_read_in_a_status_is_left_out(recorded: RecentRelease) -> None:
    ledger = Ledger()
    config = config_of({"p": "10.0.0.0/29"})
    ledger.set_pools(config.pools)
    releases = Releases(ledger, 8)
    releases.restore([recorded], config.pool_of)
    assert releases.of(POOL) == []
    assert ledger.first_free(POOL, Family.IPV4) == parse_address("10.0.0.0")


def test_memory_and_ledger_agree_after_any_history() -> None:
    """When all is forgotten the pool gives out its addresses in order again."""
    rng = random.Random(5)
    world = world_of({"p": "10.0.0.0/28", "q": "10.0.1.0/28"}, remember_releases=3)
    for _ in range(300):
        name = f"s{rng.randrange(12)}"
        if f"default/{name}" in world.services:
            delete(world, name)
        else:
            put(world, name)
        if rng.random() < 0.05:
            world.start()
            world.settle()
    delete(world, *(key.partition("/")[2] for key in list(world.services)))
    for number in range(12):
        world.controller.releases.forget(f"default/s{number}")
    assert put(world, *(f"new{number}" for number in range(20))) == [
        *(f"10.0.0.{number}" for number in range(16)),
        *(f"10.0.1.{number}" for number in range(4)),
    ]
