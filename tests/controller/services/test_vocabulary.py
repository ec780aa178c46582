"""Annotations that mean nothing are answered with the one that was meant; each once, and not without end."""

from __future__ import annotations

import pytest

from controller.services.vocabulary import TOLD
from tests.controller.world import World

POOL, IPS, SHARE = "metallb.io/address-pool", "metallb.io/loadBalancerIPs", "metallb.io/allow-shared-ip"


@pytest.fixture
def world() -> World:
    world = World({"a": "10.0.0.0/29"})
    world.start()
    return world


def told(world: World) -> list[str]:
    return [message for _, reason, message in world.take_events() if reason == "unknownAnnotation"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("metallb.io/adress-pool", POOL),
        ("metallb.io/addresspool", POOL),
        ("metallb.io/address-pools", POOL),
        ("metallb.io/addressPool", POOL),
        ("metallb.io/ip-address-pool", POOL),
        ("metallb.io/pool", POOL),
        ("metallb.universe.tf/adress-pool", POOL),
        ("metallb.universe.tf/ip-pool", POOL),
        ("berthlb.io/address-pool", POOL),
        ("berthlb.io/loadBalancerIPs", IPS),
        ("metallb.io/loadbalancerips", IPS),
        ("metallb.io/loadBalancerIP", IPS),
        ("metallb.io/load-balancer-ips", IPS),
        ("metallb.universe.tf/LoadBalancerIPs", IPS),
        ("metallb.io/allow-shared-ips", SHARE),
        ("metallb.io/allowSharedIP", SHARE),
        ("metallb.io/allow-share-ip", SHARE),
        ("metalb.io/address-pool", POOL),
        ("metallb.univers.tf/loadBalancerIPs", IPS),
    ],
)
def test_a_misspelt_annotation_is_answered_with_the_one_that_was_meant(world: World, key: str, meant: str) -> None:
    world.put("web", annotations={key: "x"})
    world.settle()
    answer = f'annotation "{key}" has no effect; did you mean "{meant}"?'
    assert told(world) == [answer]
    assert world.condition("web") == ("True", "Assigned", f'10.0.0.0 from pool "a"; the {answer}')


@pytest.mark.parametrize("key", ["metallb.io/frobnicate", "berthlb.io/x", "metallb.universe.tf/"])
def test_where_nobody_knows_what_was_meant_those_that_there_are_are_named(world: World, key: str) -> None:
    world.put("web", annotations={key: "x"})
    world.settle()
    there = "there are address-pool, loadBalancerIPs, allow-shared-ip under metallb.io/"
    assert told(world) == [f'annotation "{key}" has no effect; {there}']


@pytest.mark.parametrize(
    "key",
    [
        POOL,
        SHARE,
        "metallb.io/ip-allocated-from-pool",
        "metallb.universe.tf/address-pool",
        "kube-vip.io/loadbalancerIPs",
        "lb.cilium.io/ips",
        "purelb.io/addresses",
        "metal.equinix.com/network",
        "metal.example.com/address-pool",
        "address-pool",
        "kubectl.kubernetes.io/last-applied-configuration",
    ],
)
def test_other_peoples_annotations_are_none_of_ours(world: World, key: str) -> None:
    world.put("web", annotations={key: "a"})
    world.settle()
    assert told(world) == []
    assert world.condition("web")[2] == '10.0.0.0 from pool "a"'


def test_a_service_that_waits_is_told_too_and_its_event_is_not_repeated(world: World) -> None:
    world.configure(tiny="10.0.0.0/32")
    world.put("first")
    world.put("web")
    world.settle()
    why = world.condition("web")[2]
    world.take_events()
    world.put("web", annotations={"metallb.io/adress-pool": "other"})
    world.settle()
    answer = 'annotation "metallb.io/adress-pool" has no effect; did you mean "metallb.io/address-pool"?'
    assert world.condition("web")[2] == f"{why}; the {answer}"
    assert [reason for _, reason, _ in world.take_events()] == ["unknownAnnotation"]
    world.take_writes()
    world.start()
    world.settle()
    assert (world.take_events(), world.take_writes()) == ([], [])
    world.put("web", annotations={"metallb.io/adress-pool": None})
    world.settle()
    assert world.condition("web")[2] == why
    assert world.take_events() == []


def test_what_is_said_has_an_end_where_somebody_goes_on_for_ever(world: World) -> None:
    world.put("web", annotations={f"metallb.io/{'x' * 200}{number}": "x" for number in range(300)})
    world.settle()
    assert len(told(world)) == TOLD
    said = world.condition("web")[2]
    assert len(said) <= 1000
    assert said.startswith('10.0.0.0 from pool "a"; the annotation "metallb.io/xxx')
    assert said.endswith("; so it is with 297 more")
    for number in range(100):
        world.put("web", annotations={f"metallb.io/other{number}": "x"})
        world.settle()
    assert told(world) == []


def test_a_long_reason_leaves_room_for_it(world: World) -> None:
    world.configure(**{f"pool-{number:03}": f"10.1.{number}.1/32" for number in range(60)})
    for number in range(60):
        world.put(f"s{number}")
    world.put("web")
    world.settle()
    world.put("web", annotations={"metallb.io/adress-pool": "x"})
    world.settle()
    said = world.condition("web")[2]
    assert len(said) <= 1000
    assert said.endswith('"metallb.io/adress-pool" has no effect; did you mean "metallb.io/address-pool"?')
