"""What Services end up with, whether they ask, wait or are released: histories driven through the core, outcomes read
from the API's table."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.addresses import parse_address
from tests.controller.validity import assert_a_restart_changes_nothing
from tests.controller.world import KIND_POOL, World, assigned, sharing_one

POOL_ANNOTATION = "metallb.io/ip-allocated-from-pool"
ADDRESS_POOL = "metallb.io/address-pool"


@pytest.fixture
def world() -> World:
    world = World()
    world.start()
    return world


def test_no_more_is_decided_than_there_is_room_for_and_the_oldest_first() -> None:
    world = World(room=2)
    world.start()
    for name in ("e", "d", "c", "b", "a"):
        world.put(name)
    decided = []
    for _ in range(3):
        world.decide()
        decided.append([change.name for change in world.pending])
        for change in list(world.pending):
            world.carry_out(change)
    assert decided == [["e", "d"], ["c", "b"], ["a"]]


def test_a_service_that_waits_is_tried_also_where_there_was_no_room_when_an_address_became_free() -> None:
    world = World({"a": "10.0.0.1-10.0.0.2"}, room=1)
    world.start()
    assigned(world, first={}, second={}, third={}, fourth={})
    world.delete("first")
    world.delete("second")
    world.settle()
    assert {world.ip("third"), world.ip("fourth")} == {"10.0.0.1", "10.0.0.2"}


def test_a_service_gets_the_first_address_with_annotation_condition_and_event_in_one_write(world: World) -> None:
    world.put("web")
    world.settle()
    assert world.ip("web") == "172.18.255.200"
    assert world.view("web").metadata.annotations == {POOL_ANNOTATION: "kind"}
    assert world.condition("web") == ("True", "Assigned", '172.18.255.200 from pool "kind"')
    assert world.take_events() == [("default/web", "IPAllocated", 'Assigned IP ["172.18.255.200"]')]
    assert len(world.take_writes()) == 1


def test_services_are_served_oldest_first(world: World) -> None:
    for name in ("c", "a", "b"):
        world.put(name)
    world.settle()
    assert [world.ip(name) for name in ("c", "a", "b")] == ["172.18.255.200", "172.18.255.201", "172.18.255.202"]


def test_a_service_that_is_no_load_balancer_is_left_alone(world: World) -> None:
    world.put("internal", type="ClusterIP")
    world.put("elsewhere", type="ExternalName", clusterIP=None, clusterIPs=None)
    world.settle()
    assert not world.take_writes()


@pytest.mark.parametrize(("ours", "theirs"), [(None, "other"), ("mine", None), ("mine", "other")])
def test_a_service_of_another_class_is_left_alone(ours: str | None, theirs: str | None) -> None:
    world = World(load_balancer_class=ours)
    world.start()
    world.put("their", loadBalancerClass=theirs)
    world.put("our", loadBalancerClass=ours)
    world.settle()
    assert (world.ip("their"), world.ip("our")) == ("", "172.18.255.200")
    assert not world.view("their").status.conditions


def test_an_address_that_another_class_shows_is_not_given_twice(world: World) -> None:
    world.put("their", loadBalancerClass="other", status={"loadBalancer": {"ingress": [{"ip": "172.18.255.200"}]}})
    world.put("our")
    world.settle()
    assert world.ip("our") == "172.18.255.201"


# ------------------------------------------------------------------------ what Services ask for


@pytest.mark.parametrize(
    "request_",
    [
        {"annotations": {"metallb.io/loadBalancerIPs": "172.18.255.240"}},
        {"annotations": {"metallb.io/loadBalancerIPs": " 172.18.255.240 "}},
        {"annotations": {"metallb.universe.tf/loadBalancerIPs": "172.18.255.240"}},
        {"annotations": {"metallb.io/loadBalancerIPs": "::ffff:172.18.255.240"}},
        {"loadBalancerIP": "172.18.255.240"},
        {"annotations": {"metallb.universe.tf/loadBalancerIPs": "", "metallb.io/loadBalancerIPs": "172.18.255.240"}},
        {"annotations": {"metallb.universe.tf/loadBalancerIPs": "1.1.1.1", "metallb.io/loadBalancerIPs": ""}}
        | {"loadBalancerIP": "172.18.255.240"},
    ],
)
def test_an_address_can_be_asked_for_in_each_of_metallbs_ways(world: World, request_: dict[str, Any]) -> None:
    world.put("web", **request_)
    world.settle()
    assert world.ip("web") == "172.18.255.240"


@pytest.mark.parametrize("key", ["metallb.io/address-pool", "metallb.universe.tf/address-pool"])
def test_a_pool_can_be_asked_for_in_both_ways(world: World, key: str) -> None:
    world.configure(kind=KIND_POOL, other="10.0.0.0/24")
    world.put("web", annotations={key: "other"})
    world.settle()
    assert world.ip("web") == "10.0.0.0"


def test_the_new_pool_annotation_wins_and_a_deprecated_one_is_named(world: World) -> None:
    world.configure(kind=KIND_POOL, other="10.0.0.0/24")
    world.put("web", annotations={"metallb.io/address-pool": "kind", "metallb.universe.tf/address-pool": "other"})
    world.settle()
    assert world.ip("web") == "172.18.255.200"
    message = 'annotation "metallb.universe.tf/address-pool" is deprecated; use "metallb.io/address-pool"'
    assert ("default/web", "deprecatedAnnotation", message) in world.take_events()


@pytest.mark.parametrize(
    ("request_", "reason", "message"),
    [
        (
            {"annotations": {"metallb.io/loadBalancerIPs": "172.18.255.2000"}},
            "InvalidRequest",
            'annotation metallb.io/loadBalancerIPs: "172.18.255.2000" is not an IP address',
        ),
        (
            {"annotations": {"metallb.io/loadBalancerIPs": "172.18.255.210"}, "loadBalancerIP": "172.18.255.211"},
            "InvalidRequest",
            'the Service asks for "172.18.255.210" by the annotation metallb.io/loadBalancerIPs '
            'and for "172.18.255.211" by spec.loadBalancerIP; use one of them',
        ),
        ({"loadBalancerIP": "172.18.0.1"}, "AddressNotInPool", "172.18.0.1 is in no pool"),
        ({"annotations": {"metallb.io/address-pool": "none"}}, "UnknownPool", 'there is no pool "none"'),
        (
            {"ipFamilyPolicy": "RequireDualStack"},
            "InvalidRequest",
            "spec.ipFamilyPolicy is RequireDualStack, but the Service has only an IPv4 ClusterIP",
        ),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_words(
    world: World, request_: dict[str, Any], reason: str, message: str
) -> None:
    world.put("web", **request_)
    world.settle()
    assert world.ip("web") == ""
    assert world.condition("web") == ("False", reason, message)
    assert world.take_events() == [
        ("default/web", "AllocationFailed", f'Failed to allocate IP for "default/web": {message}')
    ]


@pytest.mark.parametrize(
    "wish",
    [
        {"annotations": {"metallb.io/loadBalancerIPs": "garbage"}},
        {"annotations": {"metallb.io/loadBalancerIPs": "172.18.255.250"}},  # taken
        {"annotations": {"metallb.io/address-pool": "none"}},
        {"loadBalancerIP": "10.9.9.9"},
    ],
)
def test_a_wish_that_cannot_be_met_does_not_cost_the_present_address(world: World, wish: dict[str, Any]) -> None:
    assigned(world, web={}, other={"loadBalancerIP": "172.18.255.250"})
    world.put("web", **wish)
    world.settle()
    assert world.ip("web") == "172.18.255.200"
    status, _, message = world.condition("web")
    assert status == "True"
    assert "what the Service asks for cannot be had" in message


def test_a_wish_is_met_as_soon_as_its_address_becomes_free(world: World) -> None:
    assigned(world, web={}, other={"loadBalancerIP": "172.18.255.250"})
    world.put("web", annotations={"metallb.io/loadBalancerIPs": "172.18.255.250"})
    world.settle()
    world.delete("other")
    world.settle()
    assert world.ip("web") == "172.18.255.250"


def test_a_service_moves_to_the_pool_that_it_asks_for(world: World) -> None:
    world.configure(kind=KIND_POOL, other="10.0.0.0/24")
    assigned(world, web={})
    world.put("web", annotations={"metallb.io/address-pool": "other"})
    world.settle()
    assert (world.ip("web"), world.view("web").metadata.annotations[POOL_ANNOTATION]) == ("10.0.0.0", "other")


def test_sharing_services_get_one_address() -> None:
    world = World()
    world.start()
    key = {"metallb.io/allow-shared-ip": "a key"}
    assigned(
        world,
        plain={},
        http={"annotations": key, "ports": [{"port": 80}]},
        https={"annotations": key, "ports": [{"port": 443}]},
        again={"annotations": key, "ports": [{"port": 80}]},
    )
    assert [world.ip(name) for name in ("http", "https", "again")] == [
        "172.18.255.201",
        "172.18.255.201",
        "172.18.255.202",
    ]


KEY, OTHER_KEY = {"metallb.io/allow-shared-ip": "key"}, {"metallb.io/allow-shared-ip": "other"}
HTTP, HTTPS = [{"port": 80}], [{"port": 443}]


def test_a_sole_user_changes_its_key_in_place() -> None:
    world = sharing_one(web={"annotations": KEY})
    world.put("web", annotations=OTHER_KEY)
    world.settle()
    assert world.ip("web") == "10.0.0.1"
    world.put("joins", annotations=OTHER_KEY, ports=HTTPS)
    world.settle()
    assert world.ip("joins") == "10.0.0.1"


@pytest.mark.parametrize(
    "change",
    [
        {"annotations": OTHER_KEY},
        {"annotations": {"metallb.io/allow-shared-ip": None}},
        {"externalTrafficPolicy": "Local", "selector": {"app": "two"}},
        {"ports": HTTPS},
    ],
)
@pytest.mark.parametrize("who", ["older", "younger"])
def test_who_changes_the_terms_leaves_and_who_kept_them_stays(world: World, change: dict[str, Any], who: str) -> None:
    ports = {"older": HTTP, "younger": HTTPS} if who == "older" else {"younger": HTTP, "older": HTTPS}
    assigned(world, **{name: {"annotations": KEY, "ports": ports[name]} for name in ("older", "younger")})
    world.put(who, **change)
    world.settle()
    stays = "younger" if who == "older" else "older"
    assert (world.ip(stays), world.ip(who)) == ("172.18.255.200", "172.18.255.201")


def test_who_changes_the_terms_leaves_also_while_the_pool_may_come_back() -> None:
    """Until then only those that still share keep what they have."""
    world = World({"a": "10.0.0.0/30"})
    world.start()
    world.put("web", annotations=KEY, ports=HTTP)
    world.put("secure", annotations=KEY, ports=HTTPS)
    world.settle()
    assert (world.ip("web"), world.ip("secure")) == ("10.0.0.0", "10.0.0.0")
    world.configure(b="10.0.1.0/30")
    world.put("web", annotations={"metallb.io/allow-shared-ip": None})
    world.rest()
    assert (world.ip("web"), world.ip("secure")) == ("10.0.1.0", "10.0.0.0")
    assert any(key == "default/web" and reason == "ClearAssignment" for key, reason, _ in world.take_events())


def test_of_those_that_share_with_one_that_is_being_deleted_and_changes_the_terms_the_others_move(world: World) -> None:
    assigned(world, web={"annotations": KEY, "ports": HTTP}, secure={"annotations": KEY, "ports": HTTPS})
    assert (world.ip("web"), world.ip("secure")) == ("172.18.255.200", "172.18.255.200")
    world.put("web", deletionTimestamp="2026-01-02T00:00:00Z", finalizers=["example/stays"])
    world.put("web", annotations={"metallb.io/allow-shared-ip": None})
    world.settle()
    assert (world.ip("web"), world.ip("secure")) == ("172.18.255.200", "172.18.255.201")


# ------------------------------------------------------------------------ who waits


@pytest.mark.parametrize(
    ("holder", "waiting", "change"),
    [
        ({}, {}, {"loadBalancerIP": "10.0.9.1"}),  # the holder moves by request
        ({}, {}, {"annotations": {"metallb.io/address-pool": "large"}}),
        ({}, {}, {"type": "NodePort"}),
        ({}, {}, {"type": "ClusterIP"}),
        ({"annotations": KEY, "ports": HTTP}, {"annotations": KEY, "ports": HTTP}, {"ports": HTTPS}),  # a port is free
        ({}, {"annotations": KEY, "ports": HTTPS}, {"annotations": KEY, "ports": HTTP}),
        ({"annotations": OTHER_KEY, "ports": HTTP}, {"annotations": KEY, "ports": HTTPS}, {"annotations": KEY}),
        (
            {"annotations": KEY, "ports": HTTP, "externalTrafficPolicy": "Local", "selector": {"app": "one"}},
            {"annotations": KEY, "ports": HTTPS},
            {"externalTrafficPolicy": "Cluster"},
        ),
        (
            {"annotations": KEY, "ports": HTTP, "externalTrafficPolicy": "Local", "selector": {"app": "one"}},
            {"annotations": KEY, "ports": HTTPS, "externalTrafficPolicy": "Local", "selector": {"app": "two"}},
            {"selector": {"app": "two"}},
        ),
    ],
)
def test_who_waits_is_tried_again_when_a_holder_makes_room(
    holder: dict[str, Any], waiting: dict[str, Any], change: dict[str, Any]
) -> None:
    world = World({"tiny": "10.0.0.1/32", "large": {"addresses": ["10.0.9.0/24"], "autoAssign": False}})
    world.start()
    assigned(world, holder=holder, waiting=waiting)
    assert world.ip("waiting") == ""
    world.put("holder", **change)
    world.settle()
    assert world.ip("waiting") == "10.0.0.1"


@pytest.mark.parametrize(
    "change", [{"annotations": {"metallb.io/address-pool": "large"}}, {"loadBalancerIP": "10.0.9.1"}]
)
def test_who_waits_is_tried_again_when_it_asks_for_something_else(change: dict[str, Any]) -> None:
    world = World({"tiny": "10.0.0.1/32", "large": {"addresses": ["10.0.9.1/32"], "autoAssign": False}})
    world.start()
    assigned(world, holder={}, waiting={})
    world.put("waiting", **change)
    world.settle()
    assert world.ip("waiting") == "10.0.9.1"


@pytest.mark.parametrize(
    "pools",
    [
        {"tiny": "10.0.0.1-10.0.0.2"},
        {"tiny": "10.0.0.1/32", "more": "10.0.0.2/32"},
        {
            "tiny": "10.0.0.1/32",
            "large": {"addresses": ["10.0.0.2/32"], "serviceAllocation": {"namespaces": ["default"]}},
        },
    ],
)
def test_who_waits_is_tried_again_when_the_pools_change(pools: dict[str, Any]) -> None:
    world = sharing_one(holder={}, waiting={})
    world.configure(**pools)
    world.settle()
    assert world.ip("waiting") == "10.0.0.2"


def test_who_has_waited_longest_comes_before_who_arrives_in_the_same_moment() -> None:
    """Also where room is made only in the middle of judging: by an older one whose move is confirmed just then."""
    world = World({"tiny": "10.0.0.1/32", "large": {"addresses": ["10.0.9.0/24"], "autoAssign": False}})
    world.start()
    assigned(world, oldest={}, waiting={})
    world.put("oldest", annotations={"metallb.io/address-pool": "large"})
    world.decide()
    (moving,) = world.pending
    world.carry_out(moving)
    world.put("young")
    world.settle()
    assert (world.ip("waiting"), world.ip("young")) == ("10.0.0.1", "")


def test_nobody_is_disturbed_while_nothing_changes() -> None:
    world = sharing_one(holder={}, waiting={})
    world.take_writes(), world.take_events()
    for _ in range(3):
        world.time += 3600.0
        world.decide()
        assert (world.pending, world.controller.next_deadline()) == ([], None)
    reasons = [reason for _, reason, _ in world.take_events()]
    assert reasons == ["AllocationFailed"] * 3, "a Service that waits is told once an hour, and that is all"


# ------------------------------------------------------------------------ release


def test_a_deleted_services_address_goes_to_the_one_that_waited_longest() -> None:
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    assigned(world, first={}, second={}, third={})
    assert world.condition("second")[1] == "PoolExhausted"
    world.delete("first")
    world.settle()
    assert (world.ip("second"), world.ip("third")) == ("10.0.0.1", "")


def test_a_service_that_is_being_deleted_keeps_its_address_until_it_is_gone() -> None:
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    assigned(world, first={}, second={})
    world.put("first", deletionTimestamp="2026-01-02T00:00:00Z")
    world.settle()
    world.start()
    world.settle()
    assert (world.ip("first"), world.ip("second")) == ("10.0.0.1", "")
    world.delete("first")
    world.settle()
    assert world.ip("second") == "10.0.0.1"


def test_the_falsified_status_of_a_service_that_is_being_deleted_takes_none_of_its_addresses_away() -> None:
    """What was not shown any more was given back, while the condition, which is the record, still said that it had it:
    another Service was given it, and a restart or another installation took it for two Services'."""
    world = World({"a": ["10.0.0.1/32", "2001:db8::1/128"]})
    world.start()
    dual = {"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["fd00:96::1", "10.96.0.1"]}
    assigned(world, web=dual)
    assert world.ip("web") == "2001:db8::1,10.0.0.1"
    world.put("web", deletionTimestamp="2026-01-02T00:00:00Z")
    for shown in ("10.0.0.1", "2001:db8::1", "192.0.2.1"):
        world.put("web", status={"loadBalancer": {"ingress": [{"ip": shown}]}})
        world.put("other", clusterIP="fd00:96::2", clusterIPs=["fd00:96::2"])
        world.settle()
        assert (world.ip("web"), world.ip("other")) == ("2001:db8::1,10.0.0.1", ""), shown
    assert_a_restart_changes_nothing(world)
    world.put("web", status={"loadBalancer": None, "conditions": None})
    world.settle()
    assert (world.ip("web"), world.ip("other")) == ("2001:db8::1,10.0.0.1", ""), "the record is gone with it"


def test_a_service_that_is_being_deleted_gets_no_address(world: World) -> None:
    world.put("web", deletionTimestamp="2026-01-02T00:00:00Z")
    world.settle()
    assert world.ip("web") == ""


def test_a_change_of_type_takes_back_address_annotation_and_condition() -> None:
    world = World({"tiny": "10.0.0.1/32"}, load_balancer_class="mine")
    world.start()
    assigned(world, first={"loadBalancerClass": "mine"}, second={"loadBalancerClass": "mine"})
    world.put("first", type="ClusterIP", loadBalancerClass=None)
    world.settle()
    assert world.view("first").metadata.annotations == {}
    assert world.view("first").status.conditions == ()
    assert (world.ip("first"), world.ip("second")) == ("", "10.0.0.1")


def test_a_change_of_type_while_no_controller_runs_is_found_at_the_start() -> None:
    world = World()
    world.start()
    assigned(world, web={})
    world.controller.started = False  # nobody listens
    world.put("web", type="NodePort")
    world.start()
    world.settle()
    assert world.view("web").metadata.annotations == {}


def test_a_service_deleted_and_made_again_is_another_one(world: World) -> None:
    assigned(world, web={}, other={})
    world.delete("web")
    world.put("web", loadBalancerIP="172.18.255.210")
    world.settle()
    assert world.ip("web") == "172.18.255.210"
    assert world.controller.ledger.having(parse_address("172.18.255.200")) == ()
