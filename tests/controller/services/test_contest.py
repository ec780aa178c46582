"""Another controller that writes what we write: corrected twice, named at the third time, and not fought."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from cluster.config import GRACE_S
from cluster.objects import ManagedFields, ServiceOwners, decode
from cluster.resources import SERVICES
from controller.changes import Read
from controller.services.contest import AGAIN_S, CALM_S, FIRST_PAUSE_S, LAST_PAUSE_S, last_other_writer
from controller.services.pace import WORDS
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


def test_a_service_whose_deletion_begins_in_a_contest_keeps_what_its_condition_says(world: World) -> None:
    """A move that no condition says yet had given the address back, since the status does not show it either."""
    contested(world)
    world.configure(other="10.0.0.0/24")
    world.wait(2 * GRACE_S)
    world.pending.clear()
    world.controller.failed(Read(SERVICES, "default", "web", "uid-00001"), 0.0, world.now)
    world.configure(again={"addresses": [OURS]})
    world.put("another")
    world.put("web", deletionTimestamp="2026-01-02T00:00:00Z")
    world.settle()
    assert (world.ip("web"), world.ip("another")) == (OURS, "")


def test_an_address_that_the_service_cannot_share_any_more_is_taken_out_of_its_status_in_a_contest(
    world: World,
) -> None:
    """It was the Service's own until then, and so was not looked for among what belongs to another."""
    sharing = {"metallb.io/allow-shared-ip": "x"}
    world.put("web", annotations=sharing, ports=[{"port": 80}])
    world.settle()
    world.put("other", annotations=sharing, ports=[{"port": 81}])
    world.settle()
    assert (world.ip("web"), world.ip("other")) == (OURS, OURS)
    contested(world)
    world.put("web", labels={"touched": "yes"})
    contested(world)
    world.put("web", ports=[{"port": 81}])
    rewrite(world, [{"ip": OURS}])
    until = world.time + 1.5
    while world.time < until:
        world.rest()
        world.time += 0.1
    assert world.ip("other") == OURS
    assert world.ip("web") != OURS
    assert world.condition("web")[1] == "Contested"


def test_a_condition_does_not_keep_an_address_that_the_service_has_lost(world: World) -> None:
    """In a contest the condition is the record: after a restart the Service would have the address again."""
    contested(world)
    world.configure(other="10.0.0.0/24")
    world.wait(2 * GRACE_S)  # the pool does not come back
    world.rest()
    status, reason, message = world.condition("web")
    assert (status, reason) == ("False", "Contested")
    assert OURS not in message
    assert '"k3s"' in message
    assert world.ip("web") == "192.168.1.7"
    world.take_writes()
    world.start()
    world.rest()
    assert OURS not in world.condition("web")[2]
    assert world.take_writes() == []


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
    assert sum(world.controller.figures().refusals.values()) == 1
    assert {reason.value: count for reason, count in world.controller.figures().waiting.items()} == {"Contested": 1}
    world.take_writes()
    for number in range(20):
        rewrite(world, [{"ip": f"192.168.1.{number}"}])
    assert (world.take_writes(), world.take_events()) == ([], [])
    world.put("other")
    world.rest()
    assert world.ip("other") == "172.18.255.201", "the address stays reserved"


def test_who_takes_the_annotation_or_the_condition_away_is_no_rival(world: World) -> None:
    """``kubectl replace``, an operator, GitOps: they are put back at once, and then ever so often."""
    for _ in range(3 * WORDS.at_once):
        world.put("web", annotations={"metallb.io/ip-allocated-from-pool": None})
        world.put("web", status={"conditions": []})
        world.rest()
        assert world.ip("web") == OURS
    assert len(world.take_writes()) == WORDS.at_once
    assert (world.take_events(), world.controller.figures().waiting) == ([], {})
    world.time += WORDS.every_s
    world.rest()
    assert world.condition("web")[:2] == ("True", "Assigned")
    assert world.view("web").metadata.annotations == {"metallb.io/ip-allocated-from-pool": "kind"}


def test_an_old_annotation_that_somebody_keeps_is_let_alone(world: World) -> None:
    """It was taken out each time, and put back each time, with an Event."""
    for _ in range(20):
        world.put("web", annotations={"metallb.universe.tf/ip-allocated-from-pool": "former"})
        world.rest()
        world.put("web", annotations={"metallb.universe.tf/ip-allocated-from-pool": None})
        world.rest()
    assert world.take_writes() == []
    assert [reason for _, reason, _ in world.take_events()] == ["deprecatedAnnotation"]


def test_a_rival_that_writes_annotations_of_its_own_is_noticed(world: World) -> None:
    """Each of them was taken for a change of what the Service asks for."""
    for number in range(60):
        world.put("web", annotations={"k3s.example/synced": str(number)})
        rewrite(world)
    assert len(world.take_writes()) == 3
    assert world.condition("web")[1] == "Contested"
    assert len(world.take_events()) == 1


def test_a_rival_that_changes_what_the_service_asks_for_meets_a_bounded_answer(world: World) -> None:
    for number in range(60):
        world.put("web", labels={"synced": str(number)})
        rewrite(world)
        world.time += 1.0
    assert len(world.take_writes()) <= 2 + 2 * (1 + 60 / AGAIN_S)
    assert world.ip("web") == "192.168.1.7"


def neighbours(victim_first: bool) -> World:
    """``web`` and a neighbour, each with an address."""
    world = World()
    world.start()
    for name in ("victim", "web") if victim_first else ("web", "victim"):
        world.put(name)
        world.settle()
    world.take_events(), world.take_writes()
    return world


@pytest.mark.parametrize("victim_first", [True, False])
def test_a_status_falsified_to_a_neighbours_address_never_stands(victim_first: bool) -> None:
    """From the third time on it was let alone, and two Services showed one address."""
    world = neighbours(victim_first)
    own, theirs = world.ip("web"), world.ip("victim")
    for _ in range(60):
        rewrite(world, [{"ip": theirs}])
        began = world.time
        while world.ip("web") == theirs:
            deadline = world.controller.next_deadline()
            assert deadline is not None
            world.time = deadline
            world.rest()
        assert world.time - began <= 1.1
        assert (world.ip("web"), world.ip("victim")) == (own, theirs)
        world.time += 0.1
    assert {write.key for write in world.take_writes()} == {"default/web"}
    assert world.condition("web")[:2] == ("True", "Contested")
    assert f"{own} stays reserved for it, and is written again each time" in world.condition("web")[2]
    reasons = [reason for _, reason, _ in world.take_events()]
    assert reasons == ["ClearAssignment", "ClearAssignment", "Contested"]
    world.settle()
    assert world.condition("web")[:2] == ("True", "Assigned")


@pytest.mark.parametrize("victim_first", [True, False])
@pytest.mark.parametrize("shown", ["theirs", None, "192.168.1.7"])
def test_after_a_restart_in_a_contest_everybody_has_what_he_had(victim_first: bool, shown: str | None) -> None:
    """With the duplicate, or nothing, or anything in the status; the ledger of before is gone."""
    world = neighbours(victim_first)
    own, theirs = world.ip("web"), world.ip("victim")
    rewrites = None if shown is None else [{"ip": theirs if shown == "theirs" else shown}]
    contested(world)
    world.put("web", status={"loadBalancer": {"ingress": rewrites}})
    world.start()
    world.put("new")
    world.rest()
    assert world.ip("victim") == theirs
    assert world.ip("new") not in {own, theirs}
    world.settle()
    assert (world.ip("web"), world.ip("victim")) == (own, theirs)


def test_after_a_restart_a_status_that_was_emptied_or_falsified_meanwhile_is_put_right() -> None:
    world = neighbours(victim_first=False)
    own, theirs = world.ip("web"), world.ip("victim")
    for ingress in (None, [{"ip": "172.18.255.222"}], [{"ip": theirs}]):
        world.put("web", status={"loadBalancer": {"ingress": ingress}})
        world.start()
        world.put("new")
        world.settle()
        assert (world.ip("web"), world.ip("victim")) == (own, theirs)
        world.delete("new")
    assert not [event for event in world.take_events() if event[1] == "IPAllocated" and event[0] != "default/new"]


def test_two_statuses_falsified_to_one_free_address_of_a_pool_do_not_both_show_it() -> None:
    world = neighbours(victim_first=True)
    for _ in range(6):
        for name in ("web", "victim"):
            world.put(name, status={"loadBalancer": {"ingress": [{"ip": "172.18.255.222"}]}})
        world.rest()
        world.time += 1.1
        world.rest()
        assert {world.ip("web"), world.ip("victim")} != {"172.18.255.222"}
    world.settle()
    assert (world.ip("victim"), world.ip("web")) == ("172.18.255.200", "172.18.255.201")


def test_one_address_of_a_node_in_every_status_is_nobodys_and_not_fought_over() -> None:
    """As k3s' ServiceLB writes it, whatever the class."""
    world = World()
    world.start()
    names = [f"web-{number}" for number in range(6)]
    for name in names:
        world.put(name, loadBalancerClass="k3s" if name == "web-0" else None)
    world.settle()
    world.take_writes()
    for _ in range(10):
        for name in names:
            world.put(name, status={"loadBalancer": {"ingress": THEIRS}})
        world.rest()
        world.time += 1.1
        world.rest()
    assert {world.ip(name) for name in names} == {"192.168.1.7"}
    assert len(world.take_writes()) == 3 * 5
    world.put("new")
    world.rest()
    assert world.ip("new") == "172.18.255.205", "what they had stays reserved"


def test_what_a_contested_service_shows_is_given_to_nobody() -> None:
    """A MetalLB that was left running with the same pools gives another address of theirs."""
    world = World({"a": "10.0.0.1-10.0.0.2"})
    world.start()
    world.put("web")
    world.settle()
    for _ in range(3):
        rewrite(world, [{"ip": "10.0.0.2"}])
    assert world.condition("web")[1] == "Contested"
    world.put("new")
    world.rest()
    assert (world.ip("web"), world.ip("new")) == ("10.0.0.2", "")
    world.start()
    world.rest()
    assert (world.ip("web"), world.ip("new")) == ("10.0.0.2", "")
    world.settle()
    assert (world.ip("web"), world.ip("new")) == ("10.0.0.1", "10.0.0.2")


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
    "change",
    [
        {"labels": {"a": "b"}},
        {"annotations": {"metallb.io/allow-shared-ip": "b"}},
        {"externalTrafficPolicy": "Local"},
    ],
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
