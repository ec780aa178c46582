"""What becomes of Services when pools, classes and prefixes change: outcomes read from the API's table."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controller.world import KIND_POOL, World, assigned, sharing_one

POOL_ANNOTATION = "metallb.io/ip-allocated-from-pool"
ADDRESS_POOL = "metallb.io/address-pool"


@pytest.fixture
def world() -> World:
    world = World()
    world.start()
    return world


# ------------------------------------------------------------------------ pools change


def test_a_shrunk_pools_services_move_to_another_pool_or_wait(world: World) -> None:
    world.configure(a="10.0.0.1/32", b="10.0.1.1/32")
    assigned(world, one={}, two={})
    world.take_events()
    world.configure(b="10.0.1.1/32", c="10.0.2.1/32")
    world.settle()
    assert (world.ip("one"), world.ip("two")) == ("10.0.2.1", "10.0.1.1")
    assert [event[1] for event in world.take_events()] == ["ClearAssignment", "IPAllocated"]
    world.configure(b="10.0.1.1/32")
    world.settle()
    assert world.ip("one") == ""
    assert world.condition("one") == (
        "False",
        "PoolExhausted",
        'pool "b" has no free IPv4 address (1 of 1 in use)',
    )
    assert [event[1] for event in world.take_events()] == ["ClearAssignment", "AllocationFailed"]
    world.configure(a="10.0.0.1/32", b="10.0.1.1/32")
    world.settle()
    assert world.ip("one") == "10.0.0.1"


def test_with_no_pool_left_the_service_says_so(world: World) -> None:
    assigned(world, web={})
    world.configure()
    world.settle()
    assert world.ip("web") == ""
    assert world.condition("web")[:2] == ("False", "NoPool")


@pytest.mark.parametrize(
    "pools",
    [
        {"renamed": KIND_POOL},
        {"low": "172.18.255.200-172.18.255.220", "high": "172.18.255.221-172.18.255.250"},
        {"kind": {"addresses": [KIND_POOL], "autoAssign": False}},
        {"kind": [KIND_POOL, "10.0.0.0/8"]},
    ],
)
def test_renaming_splitting_growing_or_closing_a_pool_moves_nobody(world: World, pools: dict[str, Any]) -> None:
    assigned(world, web={})
    world.configure(**pools)
    world.settle()
    assert world.ip("web") == "172.18.255.200"
    assert world.view("web").metadata.annotations[POOL_ANNOTATION] == next(
        name for name in sorted(pools, reverse=True) if name in {"renamed", "low", "kind"}
    )


def test_a_typing_error_in_a_pool_costs_nobody_his_address_not_even_over_a_restart(world: World) -> None:
    assigned(world, web={})
    world.take_writes()
    world.configure(kind="172.18.255.200-172.18.255.25O", other="10.0.0.0/24")
    world.settle()
    world.start()
    world.settle()
    assert world.ip("web") == "172.18.255.200"
    assert not world.take_writes()
    world.put("new")
    world.settle()
    assert world.ip("new") == "10.0.0.0"


def test_a_pool_that_leaves_the_service_out_gives_way_to_another(world: World) -> None:
    world.configure(a=KIND_POOL, b="10.0.0.0/24")
    assigned(world, web={})
    world.configure(a={"addresses": [KIND_POOL], "serviceAllocation": {"namespaces": ["dev"]}}, b="10.0.0.0/24")
    world.settle()
    assert world.ip("web") == "10.0.0.0"


def test_a_namespaces_labels_decide_as_they_change(world: World) -> None:
    selector = {"namespaceSelectors": [{"matchLabels": {"team": "blue"}}]}
    world.configure(a={"addresses": [KIND_POOL], "serviceAllocation": selector})
    world.put("web")
    world.settle()
    assert world.condition("web")[1] == "PoolNotForService"
    world.label_namespace("default", team="blue")
    world.settle()
    assert world.ip("web") == "172.18.255.200"


def test_a_successor_is_made_first_and_the_old_pool_deleted_then_and_nobody_moves(world: World) -> None:
    """Two pools with the same addresses cannot be in force together: the successor waits for its turn."""
    assigned(world, web={}, other={"loadBalancerIP": "172.18.255.250"})
    world.take_writes()
    world.configure(kind=KIND_POOL, successor=KIND_POOL)
    world.settle()
    assert not world.take_writes()
    world.start()  # and over a restart
    world.settle()
    assert not world.take_writes()
    world.configure(successor=KIND_POOL)
    world.settle()
    assert (world.ip("web"), world.ip("other")) == ("172.18.255.200", "172.18.255.250")
    assert world.view("web").metadata.annotations[POOL_ANNOTATION] == "successor"
    assert all("loadBalancer" not in write.body["status"] for write in world.take_writes())


# ------------------------------------------------------------------------ classes, and what is deprecated


def test_a_type_that_goes_and_comes_back_with_another_class_gives_the_address_free() -> None:
    world = sharing_one(web={}, waiting={})
    world.lagging = True  # nobody saw what it was in between
    world.put("web", type="ClusterIP")
    world.put("web", type="LoadBalancer", loadBalancerClass="their")
    world.settle()
    assert (world.ip("web"), world.ip("waiting")) == ("", "10.0.0.1")
    world.take_writes()
    world.put("web", status={"loadBalancer": {"ingress": [{"ip": "192.168.1.1"}]}})
    world.settle()
    assert world.take_writes() == []


def test_a_service_that_comes_back_to_our_class_is_served_again() -> None:
    world = sharing_one(web={"loadBalancerClass": "their"}, other={})
    world.put("web", type="NodePort", loadBalancerClass=None)
    world.settle()
    world.put("web", type="LoadBalancer")
    world.settle()
    assert world.condition("web")[1] == "PoolExhausted"
    world.delete("other")
    world.settle()
    assert world.ip("web") == "10.0.0.1"


def test_a_deprecated_annotation_is_told_once_whenever_it_comes_and_whatever_becomes_of_it(world: World) -> None:
    def told() -> list[str]:
        return [message for _, reason, message in world.take_events() if reason == "deprecatedAnnotation"]

    assigned(world, web={}, stuck={"annotations": {"metallb.universe.tf/address-pool": "none"}})
    assert told() == ['annotation "metallb.universe.tf/address-pool" is deprecated; use "metallb.io/address-pool"']
    world.put("web", annotations={"metallb.universe.tf/allow-shared-ip": "key"})
    world.settle()
    assert told() == [
        'annotation "metallb.universe.tf/allow-shared-ip" is deprecated; use "metallb.io/allow-shared-ip"'
    ]
    world.put("web", labels={"a": "b"})
    world.settle()
    world.start()
    world.settle()
    assert told() == []
