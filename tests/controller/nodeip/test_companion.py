"""A Service's companion behind 1:1 NAT: what it is, whose it is, and that it follows its Service and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.resources import COMPANIONS
from controller.changes import Deletion, Read, Write
from controller.companions import LOOK_AGAIN_S, REPAIRS
from controller.nodeip.companion import COMPANION_OF, DELIVERED_CLASS, companion_name
from controller.nodeip.view import NodeView
from tests.controller.nodeip.companions_world import CompanionsWorld, service_body, shown

WEB, OTHER = "203.0.113.1", "203.0.113.2"
COMPANION = "web-berthlb-delivered"


def world_with(*addresses: str, **spec: Any) -> CompanionsWorld:
    world = CompanionsWorld()
    world.create(service_body("web", *(addresses or (WEB,)), **spec))
    world.rest()
    return world


def test_the_companion_shows_what_is_delivered_and_says_what_it_is() -> None:
    world = world_with()
    body = world.companion()
    assert body is not None
    assert shown(body) == "10.0.0.1"
    assert body["spec"] == {
        "type": "LoadBalancer",
        "loadBalancerClass": DELIVERED_CLASS,
        "allocateLoadBalancerNodePorts": False,
        "selector": {"app": "web"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
        "externalTrafficPolicy": "Cluster",
        "sessionAffinity": "None",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }
    meta, web = body["metadata"], world.services["default/web"]["metadata"]
    assert meta["labels"] == {COMPANION_OF: "web"}
    assert meta["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Service", "name": "web", "uid": web["uid"], "controller": True,
         "blockOwnerDeletion": False}
    ]  # fmt: skip
    assert "Made by BerthLB for the Service web" in meta["annotations"]["kubernetes.io/description"]
    (said,) = body["status"]["conditions"]
    assert (said["type"], said["status"]) == ("berthlb.io/Delivered", "True")
    assert "203.0.113.1 at 10.0.0.1" in said["message"]
    assert [note.reason for _, note in world.events] == ["CompanionMade"]


def test_addresses_are_in_the_families_order_and_what_is_delivered_as_it_is_is_left_out() -> None:
    world = CompanionsWorld()
    world.deliver_at(a=f"{WEB} 10.0.0.9 10.0.0.10", b="2001:db8::1 fd00::1", c=f"{OTHER} 10.0.0.2")
    world.create(service_body("web", "2001:db8::1", WEB, OTHER, "203.0.113.3"))
    world.rest()
    assert world.companion_ip() == "fd00::1,10.0.0.2,10.0.0.9,10.0.0.10"


def test_there_is_no_companion_where_nothing_is_delivered_elsewhere() -> None:
    assert world_with("203.0.113.3").companion() is None
    world = world_with(WEB)
    world.create(service_body("lan", WEB, pool="lan"))
    world.create(service_body("other-class", WEB, loadBalancerClass="example.com/lb"))
    world.rest()
    assert set(world.services) == {"default/web", f"default/{COMPANION}", "default/lan", "default/other-class"}


CHANGES: list[dict[str, Any]] = [
    {"selector": {"app": None, "name": "new"}},
    {
        "ports": [
            {"name": "a", "port": 81, "protocol": "UDP", "targetPort": "dns"},
            {"name": "b", "port": 82, "protocol": "TCP", "targetPort": 82, "appProtocol": "http"},
        ]
    },
    {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}},
    {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"},
    {"loadBalancerSourceRanges": ["192.0.2.0/24"]},
    {"publishNotReadyAddresses": True, "trafficDistribution": "PreferClose"},
    {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"},
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_companion_follows_its_service_there_and_back(change: dict[str, Any]) -> None:
    world = world_with()
    before = world.companion()
    world.edit("web", {"spec": change})
    world.rest()
    body = world.companion()
    assert body is not None
    spec = world.services["default/web"]["spec"]
    for key in change:
        assert body["spec"].get(key) == spec.get(key), key
    assert "nodePort" not in body["spec"]["ports"][0]
    original = service_body("web")["spec"]
    back = {key: original.get(key) for key in change} | ({"selector": {"name": None, "app": "web"}})
    world.edit("web", {"spec": back})
    world.rest()
    body = world.companion()
    assert body is not None
    assert before is not None
    assert body["spec"] == before["spec"]


def test_one_change_is_one_request_and_none_comes_after() -> None:
    world = world_with()
    world.requests.clear()
    world.deliver_at(a=f"{WEB} 10.0.0.7")
    world.rest()
    (write,) = world.requests
    assert isinstance(write, Write)
    assert write.resource is COMPANIONS
    assert (write.subresource, world.companion_ip()) == ("status", "10.0.0.7")
    world.wait(3600.0)
    assert len(world.requests) == 1


def test_what_there_is_no_room_for_stays_due() -> None:
    world = CompanionsWorld()
    for name in "abc":
        world.create(service_body(name, WEB, ports=[{"port": ord(name)}]))
    world.see()
    world.decide(requests=2)
    assert len(world.pending) == 2
    world.decide(services=0)
    assert len(world.pending) == 2
    deadline = world.controller.next_deadline()
    assert deadline is not None
    assert deadline < world.time
    world.decide()
    assert len(world.pending) == 3


def test_an_address_leaves_before_the_ports_change() -> None:
    """Else the companion would take the new port of an address that it must not have there."""
    world = world_with()
    world.create(service_body("private", "10.0.0.1", pool="plain", ports=[{"port": 81}]))
    world.requests.clear()
    world.edit("web", {"spec": {"ports": [{"port": 81}]}})
    world.deliver_at(a=f"{WEB} 10.0.0.1 10.0.0.2")
    world.rest()
    assert [each.subresource for each in world.requests if isinstance(each, Write)] == ["status", None, "status"]
    assert (world.companion_ip(), world.trouble()) == ("10.0.0.2", "DeliveredAddressInUse")


@pytest.mark.parametrize("name", ["a" * 45, "a" * 46, "b" * 63, "x-" * 31 + "x"])
def test_the_name_is_never_too_long(name: str) -> None:
    made = companion_name(name)
    assert len(made) <= 63
    assert made.endswith("-berthlb-delivered")
    assert companion_name(name[:-1] + "y") != made


def test_the_companion_of_a_long_name_is_found_again() -> None:
    world, name = CompanionsWorld(), "long-" * 12
    world.create(service_body(name + "x", WEB))
    world.rest()
    world.start()
    world.rest()
    assert f"default/{companion_name(name + 'x')}" in world.services
    world.delete(name + "x")
    world.rest()
    assert not world.services


# ------------------------------------------------------------------------ when it goes


def no_type(world: CompanionsWorld) -> None:
    world.edit("web", {"spec": {"type": "ClusterIP"}})


def no_delivery(world: CompanionsWorld) -> None:
    world.deliver_at()


def other_pool(world: CompanionsWorld) -> None:
    """As the controller writes it: one patch."""
    world.edit("web", {"metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": "lan"}}})


def other_class(world: CompanionsWorld) -> None:
    """Kubernetes lets a class change only together with the type; between two looks that is one change."""
    world.edit("web", {"spec": {"loadBalancerClass": "example.com/lb"}})


def no_address(world: CompanionsWorld) -> None:
    world.show("web")


def deleted(world: CompanionsWorld) -> None:
    world.delete("web")


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("collected", [False, True])
@pytest.mark.parametrize("end", [no_type, no_delivery, other_pool, other_class, no_address, deleted])
def test_the_companion_goes_with_what_it_is_for(end: Any, *, collected: bool, killed: bool) -> None:
    world = world_with()
    end(world)
    if collected:
        world.collect_garbage()
    if killed:
        world.start()
    world.rest()
    assert world.companion() is None


def test_a_new_service_of_the_name_gets_a_companion_of_its_own() -> None:
    world = world_with()
    world.delete("web")
    world.create(service_body("web", WEB))
    world.rest()
    body = world.companion()
    assert body is not None
    assert body["metadata"]["ownerReferences"][0]["uid"] == world.services["default/web"]["metadata"]["uid"]


def test_of_a_service_that_is_being_deleted_nothing_is_made_and_nothing_lost() -> None:
    """A foreground deletion takes the companion first."""
    world = world_with()
    world.edit("web", {"metadata": {"finalizers": ["example.com/wait"]}})
    world.delete("web")
    world.rest()
    assert world.companion_ip() == "10.0.0.1"
    world.delete(COMPANION)
    world.rest()
    assert world.companion() is None


def test_while_nothing_is_known_of_the_pool_the_companion_stays() -> None:
    """The definition is gone, the pool is unreadable, or a controller has just begun."""
    world = world_with()
    world.forget_pools()
    world.rest()
    world.start()
    world.rest()
    world.nodes = NodeView(known=False)
    world.rest()
    assert world.companion_ip() == "10.0.0.1"


@pytest.mark.parametrize("killed", [False, True])
def test_a_tool_that_takes_the_annotation_away_costs_no_companion(*, killed: bool) -> None:
    """``kubectl replace`` and GitOps do so at each turn; the controller puts it back."""
    world = world_with()
    said = {"type": "berthlb.io/AddressAssigned", "status": "True", "message": f'{WEB} from pool "nat"'}
    world.edit("web", {"status": {"conditions": [said]}})
    world.rest()
    world.requests.clear()
    world.edit("web", {"metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": None}}})
    if killed:
        world.start()
    world.rest()
    assert world.requests == []
    assert world.companion_ip() == "10.0.0.1"


def test_a_controller_of_another_class_leaves_it_alone() -> None:
    world = world_with()
    world.load_balancer_class = "example.com/b"
    world.start()
    world.requests.clear()
    world.wait(3600.0)
    world.delete("web")
    world.wait(3600.0)
    assert world.requests == []
    assert world.companion_ip() == "10.0.0.1"


# ------------------------------------------------------------------------ what others do to it


EDITS: list[dict[str, Any]] = [
    {"metadata": {"labels": None}},
    {"metadata": {"ownerReferences": None}},
    {"metadata": {"annotations": None}},
    {"metadata": {"labels": {COMPANION_OF: "someone-else"}}},
    {"spec": {"type": "ClusterIP"}},
    {"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}},
    {"spec": {"allocateLoadBalancerNodePorts": True}},
    {"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30001}]}},
    {"spec": {"ports": [{"port": 81}]}},
    {"spec": {"selector": {"app": "other", "more": "x"}}},
    {"status": {"loadBalancer": None}},
    {"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "192.0.2.1"}]}}},
    {"status": {"conditions": None}},
]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("killed", [False, True])
def test_an_edit_is_put_right(edit: dict[str, Any], *, killed: bool) -> None:
    world = world_with()
    before = world.companion()
    world.edit(COMPANION, edit)
    if killed:
        world.start()
    world.rest()
    after = world.companion()
    assert before is not None
    assert after is not None
    assert after["spec"] == before["spec"]
    assert shown(after) == "10.0.0.1"
    for part in ("labels", "annotations", "ownerReferences", "uid"):
        assert after["metadata"][part] == before["metadata"][part]
    assert after["status"]["conditions"][0]["message"] == before["status"]["conditions"][0]["message"]


@pytest.mark.parametrize("fight", ["delete", "edit", "status"])
def test_who_keeps_changing_it_is_named_and_not_fought_at_full_speed(fight: str) -> None:
    world = world_with()
    world.requests.clear()
    end = world.time + 3600.0
    while world.time < end:
        if fight == "delete" and world.companion():
            world.delete(COMPANION)
        elif fight == "edit" and world.companion():
            world.edit(COMPANION, {"spec": {"ports": [{"port": 81}]}})
        elif world.companion():
            world.show(COMPANION)
        world.rest(until=world.time + 1.0)
        world.time += 0.5
    writes = [each for each in world.requests if isinstance(each, Write)]
    each = 2 if fight == "delete" else 1  # it is made, and then shows its addresses
    assert len(writes) <= each * (REPAIRS.at_once + 3600 / REPAIRS.every_s)
    assert world.trouble() == "CompanionContested"
    assert [note.reason for _, note in world.events].count("CompanionContested") == 1
    world.wait(3600.0)
    assert (world.companion_ip(), world.trouble()) == ("10.0.0.1", None)


@pytest.mark.parametrize("type_", ["LoadBalancer", "ClusterIP"])
def test_somebody_s_own_service_of_the_name_is_left_alone(type_: str) -> None:
    world = CompanionsWorld()
    own = world.create(service_body(COMPANION, pool=None, type=type_))
    world.create(service_body("web", WEB))
    world.rest()
    world.start()
    world.wait(3600.0)
    assert world.companion() == own
    assert world.trouble() == "CompanionNameTaken"
    assert f"default/{COMPANION}" in world.troubles["default/web"].message
    assert [note.reason for _, note in world.events] == ["CompanionNameTaken"]
    assert len([each for each in world.requests if isinstance(each, Read)]) <= 3600 / LOOK_AGAIN_S + 2
    world.delete("web")
    world.wait(60.0)
    assert world.companion() == own
    world.create(service_body("web", WEB))
    world.delete(COMPANION)
    world.wait(2 * LOOK_AGAIN_S)
    assert (world.companion_ip(), world.trouble()) == ("10.0.0.1", None)


def test_what_the_api_refuses_is_told_and_tried_again() -> None:
    world = CompanionsWorld()
    world.forbidden = "exceeded quota: lb, requested: services.loadbalancers=1"
    world.create(service_body("web", WEB))
    world.wait(60.0)
    assert world.trouble() == "CompanionRefused"
    assert "exceeded quota" in world.troubles["default/web"].message
    assert len(world.requests) < 10
    world.forbidden = ""
    world.wait(60.0)
    assert (world.companion_ip(), world.trouble()) == ("10.0.0.1", None)


def test_a_service_without_selector_is_told_why_it_has_none() -> None:
    world = world_with(selector=None)
    assert (world.companion(), world.trouble()) == (None, "NoSelector")
    world.edit("web", {"spec": {"selector": {"app": "web"}}})
    world.rest()
    assert (world.companion_ip(), world.trouble()) == ("10.0.0.1", None)


def test_a_delivered_address_that_a_guard_refuses_is_named() -> None:
    world = CompanionsWorld()
    world.deliver_at(a=f"{WEB} 10.0.0.1", b=f"{OTHER} AddressNotAllowed")
    world.create(service_body("web", WEB, OTHER))
    world.rest()
    assert (world.companion_ip(), world.trouble()) == ("10.0.0.1", "DeliveredAddressForbidden")
    assert "203.0.113.2 (node b: AddressNotAllowed)" in world.troubles["default/web"].message


def test_a_service_that_shows_the_address_itself_keeps_its_port() -> None:
    world = world_with()
    world.create(service_body("private", "10.0.0.1", pool="plain", ports=[{"port": 443}]))
    world.rest()
    assert world.companion_ip() == "10.0.0.1"
    world.edit("private", {"spec": {"ports": [{"port": 443}, {"port": 80}]}})
    world.rest()
    assert (world.companion(), world.trouble()) == (None, "DeliveredAddressInUse")
    assert "default/private" in world.troubles["default/web"].message
    world.delete("private")
    world.wait(2 * LOOK_AGAIN_S)
    assert (world.companion_ip(), world.trouble()) == ("10.0.0.1", None)


def test_of_two_services_to_which_one_address_goes_the_older_one_has_it() -> None:
    world = CompanionsWorld()
    world.deliver_at(a=f"{WEB} 10.0.0.1", b=f"{OTHER} 10.0.0.1")
    world.create(service_body("web", WEB))
    world.create(service_body("newer", OTHER))
    world.rest()
    assert (world.companion_ip(), world.companion_ip("newer")) == ("10.0.0.1", None)
    assert world.trouble("newer") == "DeliveredAddressInUse"


def test_deletion_is_bound_to_what_was_judged() -> None:
    world = world_with()
    world.show("web")
    world.see()
    world.decide()
    (delete,) = world.pending
    assert isinstance(delete, Deletion)
    world.delete(COMPANION)
    own = world.create(service_body(COMPANION, pool=None, type="ClusterIP"))
    world.carry_out(delete)
    world.wait(60.0)
    assert world.companion() == own
