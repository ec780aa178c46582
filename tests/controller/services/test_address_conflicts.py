"""The condition of Services whose address somebody else on the LAN has, as the speakers say."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cluster.addresses import parse_address
from cluster.objects import ConfigurationState, Node, decode, find_condition
from cluster.taken import ADDRESS_CONFLICT, is_withheld
from controller.services.address_conflicts import AddressConflicts
from tests.controller.world import World

A, B = "172.18.255.200", "172.18.255.201"


def state(node: str, *conflicts: tuple[str, bool, str], **labels: str) -> ConfigurationState:
    said = [{"address": address, "withheld": withheld, "message": text} for address, withheld, text in conflicts]
    names = {"metallb.io/component-type": "speaker", "metallb.io/node-name": node, **labels}
    body: dict[str, Any] = {"metadata": {"name": f"speaker-{node}", "labels": names}}
    body["status"] = {"addressConflicts": said}
    return decode(msgspec.json.encode(body), ConfigurationState)


def node(name: str, ready: str = "True") -> Node:
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    return decode(msgspec.json.encode({"metadata": {"name": name}, "status": status}), Node)


@pytest.fixture
def world() -> World:
    world = World()
    world.start()
    for name in ("web", "mail"):
        world.put(name)
    world.settle()
    assert (world.ip("web"), world.ip("mail")) == (A, B)
    world.take_writes()
    return world


def said(world: World, name: str) -> tuple[str, str, str] | None:
    found = find_condition(world.view(name).status.conditions, ADDRESS_CONFLICT)
    return (found.status, found.reason, found.message) if found is not None else None


def test_the_condition_is_there_as_long_as_a_speaker_says_so_and_no_longer(world: World) -> None:
    world.controller.set_speaker_state(state("node-1", (A, True, "00:40:8c:cc:00:17 has it")))
    world.settle()
    assert said(world, "web") == ("True", "Withheld", "00:40:8c:cc:00:17 has it")
    assert is_withheld(world.view("web"))
    assert said(world, "mail") is None
    world.controller.set_speaker_state(state("node-1", (A, False, "it came back")))
    world.settle()
    assert said(world, "web") == ("True", "Rival", "it came back")
    assert not is_withheld(world.view("web"))
    world.controller.set_speaker_state(state("node-1"))
    world.settle()
    assert said(world, "web") is None
    assert world.condition("web")[0] == "True", "what it says of the assignment stays"
    assert {write.name for write in world.take_writes()} == {"web"}


def test_what_is_said_again_is_not_written_again(world: World) -> None:
    for _ in range(3):
        world.controller.set_speaker_state(state("node-1", (A, True, "taken")))
        world.settle()
    assert len(world.take_writes()) == 1


def test_a_service_that_gets_another_address_says_nothing_of_the_former(world: World) -> None:
    world.controller.set_speaker_state(state("node-1", (A, True, "taken")))
    world.settle()
    world.put("web", annotations={"metallb.io/loadBalancerIPs": "172.18.255.210"})
    world.settle()
    assert world.ip("web") == "172.18.255.210"
    assert said(world, "web") is None


def test_a_service_that_is_no_load_balancer_any_more_says_nothing(world: World) -> None:
    world.controller.set_speaker_state(state("node-1", (A, True, "taken")))
    world.settle()
    world.put("web", type="ClusterIP")
    world.settle()
    assert world.view("web").status.conditions == ()


def test_a_restarted_controller_goes_on_with_what_speakers_say(world: World) -> None:
    world.controller.set_speaker_state(state("node-1", (A, True, "taken")))
    world.settle()
    world.start()
    world.settle()
    assert said(world, "web") is None, "no speaker says so to this controller"
    world.controller.set_speaker_state(state("node-1", (A, True, "taken")))
    world.settle()
    assert said(world, "web") == ("True", "Withheld", "taken")


def test_a_dead_node_s_words_count_no_more_and_one_of_several_is_quoted() -> None:
    conflicts, address = AddressConflicts(), parse_address(A)
    for name in ("n1", "n2"):
        assert conflicts.set_node(name, node(name)) == set()
        assert conflicts.set_speaker_state(state(name, (A, True, f"by {name}"))) == {address}

    def quoted() -> str | None:
        found = conflicts.of([address])
        return found.message if found is not None else None

    assert quoted() == "by n1"
    assert conflicts.set_node("n1", node("n1", "Unknown")) == {address}
    assert quoted() == "by n2"
    assert conflicts.set_node("n2", node("n2", "Unknown")) == {address}
    assert quoted() == "by n1", "where no node is Ready it is the API server that knows nothing"
    assert conflicts.set_node("n2", node("n2")) == {address}
    assert conflicts.set_speaker_state(state("n2"), gone=True) == {address}
    assert quoted() is None
    assert conflicts.set_node("n1", None) == set()
    assert quoted() is None


def test_nonsense_is_not_read() -> None:
    conflicts = AddressConflicts()
    assert conflicts.set_speaker_state(state("n1", ("no address", True, "?"), (A, True, "taken"))) == {parse_address(A)}
    assert conflicts.set_speaker_state(state("", (A, True, "taken"))) == set()
    other = state("n2", (A, True, "taken"), **{"metallb.io/component-type": "controller"})
    assert conflicts.set_speaker_state(other) == set()


def test_in_whatever_order_speakers_and_nodes_are_heard_of_the_same_is_said() -> None:
    told: list[Callable[[AddressConflicts], object]] = [
        lambda c: c.set_node("n1", node("n1")),
        lambda c: c.set_node("n2", node("n2", "False")),
        lambda c: c.set_speaker_state(state("n1", (B, False, "b by n1"))),
        lambda c: c.set_speaker_state(state("n2", (A, True, "a by n2"), (B, False, "b by n2"))),
    ]
    for seed in range(24):
        conflicts = AddressConflicts()
        random.Random(seed).shuffle(told)
        for tell in told:
            tell(conflicts)
        assert conflicts.of([parse_address(A)]) is None
        found = conflicts.of([parse_address(A), parse_address(B)])
        assert found is not None
        assert found.message == "b by n1"
