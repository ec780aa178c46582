"""Another controller that writes what we write: corrected twice, named at the third time, and not fought."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from cluster.objects import ManagedFields, ServiceOwners, decode
from controller.contest import CALM_S, FIRST_PAUSE_S, LAST_PAUSE_S, last_other_writer
from tests.controller.world import World

THEIRS = [{"ip": "192.168.1.7"}]
OURS = "172.18.255.200"


def owned_by(manager: str, time: str = "2026-01-02T00:00:00Z", fields: Any = None) -> dict[str, Any]:
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:loadBalancer": {"f:ingress": {}}}} if fields is None else fields,
        "subresource": "status",
    }


@pytest.fixture
def world() -> World:
    world = World()
    world.start()
    world.put("web")
    world.settle()
    world.take_events(), world.take_writes()
    return world


def rewrite(world: World, ingress: Any = THEIRS, manager: str = "k3s") -> None:
    """The other controller writes; then we have our say, as long as nothing but time would make us go on."""
    world.services["default/web"]["metadata"]["managedFields"] = [
        owned_by("berthlb-controller", "2026-01-03T00:00:00Z"),
        owned_by(manager),
    ]
    world.put("web", status={"loadBalancer": {"ingress": ingress}})
    world.rest()


def contested(world: World, times: int = 3) -> World:
    for _ in range(times):
        rewrite(world)
    return world


def test_a_person_who_edits_a_status_once_or_twice_is_corrected(world: World) -> None:
    contested(world, 2)
    assert world.ip("web") == OURS
    assert world.condition("web")[1] == "Assigned"


def test_the_third_time_the_other_is_named_and_not_fought(world: World) -> None:
    contested(world)
    assert world.ip("web") == "192.168.1.7"
    message = (
        '"k3s" keeps replacing what is written to the Service\'s status; 172.18.255.200 stays reserved for it, but is '
        "not written again until the Service is changed or the other stops. Remove one of the two, or give the Service "
        "a loadBalancerClass"
    )
    assert world.condition("web") == ("False", "Contested", message)
    assert world.take_events()[-1] == ("default/web", "Contested", message)
    assert world.controller.refusals.total() == 1
    assert {reason.value: count for reason, count in world.controller.figures().waiting.items()} == {"Contested": 1}
    world.take_writes()
    for number in range(20):
        rewrite(world, [{"ip": f"192.168.1.{number}"}])
    assert (world.take_writes(), world.take_events()) == ([], [])
    world.put("other")
    world.rest()
    assert world.ip("other") == "172.18.255.201", "the address stays reserved"


def test_one_that_undoes_the_condition_or_the_annotation_is_not_fought_either(world: World) -> None:
    for _ in range(20):
        world.put("web", annotations={"metallb.io/ip-allocated-from-pool": None})
        world.put("web", status={"conditions": []})
        world.rest()
    assert len(world.take_writes()) == 3


def test_after_a_pause_that_doubles_it_is_tried_once_more(world: World) -> None:
    contested(world)
    pauses = []
    for _ in range(8):
        world.take_writes()
        deadline = world.controller.next_deadline()
        assert deadline is not None
        pauses.append(deadline - world.time)
        world.time = deadline
        world.rest()
        assert world.ip("web") == OURS
        rewrite(world)
        assert world.ip("web") == "192.168.1.7"
        assert len(world.take_writes()) == 2, "one try, and one word about it"
    assert pauses[0] == pytest.approx(FIRST_PAUSE_S, abs=1)
    assert pauses[1] == pytest.approx(2 * FIRST_PAUSE_S, abs=1)
    assert pauses[-1] == pytest.approx(LAST_PAUSE_S, abs=1)


def test_the_pause_is_counted_from_the_others_last_write(world: World) -> None:
    contested(world)
    world.time += FIRST_PAUSE_S - 1
    rewrite(world, [{"ip": "192.168.1.8"}])
    world.time += FIRST_PAUSE_S - 1
    world.rest()
    assert world.ip("web") == "192.168.1.8"
    world.time += 2
    world.rest()
    assert world.ip("web") == OURS


def test_once_the_other_is_gone_all_is_as_before(world: World) -> None:
    contested(world)
    world.time += FIRST_PAUSE_S + 1
    world.rest()
    assert world.condition("web")[:2] == ("True", "Assigned")
    world.time += CALM_S + 1
    contested(world, 2)
    assert world.ip("web") == OURS


@pytest.mark.parametrize(
    "change", [{"labels": {"a": "b"}}, {"annotations": {"a": "b"}}, {"externalTrafficPolicy": "Local"}]
)
def test_a_change_of_the_service_ends_the_pause(world: World, change: dict[str, Any]) -> None:
    contested(world)
    world.put("web", **change)
    world.rest()
    assert world.ip("web") == OURS


def test_a_restart_does_not_begin_the_fight_anew(world: World) -> None:
    contested(world)
    world.take_writes(), world.take_events()
    world.start()
    world.rest()
    for number in range(5):
        rewrite(world, [{"ip": f"192.168.1.{number}"}])
    assert (world.take_writes(), world.take_events()) == ([], [])
    world.time += FIRST_PAUSE_S + 1
    world.rest()
    assert world.ip("web") == OURS


def test_a_write_of_ours_whose_answer_was_lost_is_not_taken_for_anothers(world: World) -> None:
    for number in range(10):
        world.put("web", loadBalancerIP=f"172.18.255.21{number}")
        world.decide()
        (write,) = world.pending
        world.carry_out(write, tell=False)
        world.controller.failed(write, 0.0, world.now)
        world.rest()
    world.settle()
    assert world.condition("web")[1] == "Assigned"


def test_a_change_of_type_and_back_is_no_rewriting(world: World) -> None:
    for _ in range(5):
        world.put("web", type="ClusterIP")
        world.rest()
        world.put("web", type="LoadBalancer")
        world.rest()
    assert world.ip("web") == OURS


def test_a_contested_service_that_goes_leaves_nothing_behind(world: World) -> None:
    contested(world)
    world.delete("web")
    world.rest()
    assert world.controller.next_deadline() is None
    world.put("other")
    world.rest()
    assert world.ip("other") == OURS


def test_where_the_api_names_nobody_it_is_said_so(world: World) -> None:
    contested(world, 2)
    world.services["default/web"]["metadata"]["managedFields"] = []
    world.put("web", status={"loadBalancer": {"ingress": THEIRS}})
    world.rest()
    assert world.condition("web")[2].startswith("something that the API does not name keeps replacing")


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ([], None),
        ([owned_by("us")], None),
        ([owned_by("us"), owned_by("old", "2026-01-01T00:00:00Z"), owned_by("new", "2026-01-02T00:00:00Z")], "new"),
        ([owned_by("kubectl", "2026-01-09T00:00:00Z", {"f:spec": {}}), owned_by("k3s")], "k3s"),
        ([owned_by("emptier", "2026-01-09T00:00:00Z", {"f:status": {}}), owned_by("us")], "emptier"),
        ([owned_by("emptier", "2026-01-09T00:00:00Z", {"f:status": {}}), owned_by("writer")], "writer"),
        ([owned_by("", "2026-01-09T00:00:00Z")], None),
    ],
)
def test_who_wrote_the_status(entries: list[Any], name: str | None) -> None:
    random.Random(1).shuffle(entries)
    body = {"metadata": {"name": "web", "managedFields": entries}}
    view = decode(msgspec.json.encode(body), ServiceOwners)
    assert all(isinstance(each, ManagedFields) for each in view.metadata.managed_fields)
    assert last_other_writer(view.metadata.managed_fields, "us") == name
