"""What Services end up with: histories driven through the core, outcomes read from the API's table."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.addresses import parse_address
from cluster.config import GRACE_S
from controller.changes import Moment, Write
from tests.controller.validity import assert_a_restart_changes_nothing
from tests.controller.world import KIND_POOL, World

POOL_ANNOTATION = "metallb.io/ip-allocated-from-pool"
ADDRESS_POOL = "metallb.io/address-pool"


@pytest.fixture
def world() -> World:
    world = World()
    world.start()
    return world


def assigned(world: World, **services: Any) -> None:
    """Create Services, each with its request, and let everything come to rest."""
    for name, parts in services.items():
        world.put(name, **parts)
        world.settle()


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


def test_whoever_waits_is_tried_also_where_there_was_no_room_when_an_address_became_free() -> None:
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


def sharing_one(**services: Any) -> World:
    """A pool of one address, and Services in the order in which they come."""
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    assigned(world, **services)
    return world


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
    assert reasons == ["AllocationFailed"] * 3, "who waits is told once an hour, and that is all"


# ------------------------------------------------------------------------ release


def test_a_deleted_services_address_goes_to_whoever_waited_longest() -> None:
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


# ------------------------------------------------------------------------ restarts, and others who write


def test_a_restart_writes_nothing_and_says_nothing(world: World) -> None:
    assigned(world, web={}, stuck={"loadBalancerIP": "10.9.9.9"}, other={})
    world.take_events(), world.take_writes()
    world.start()
    world.settle()
    assert (world.take_events(), world.take_writes()) == ([], [])


def test_a_service_does_not_get_back_what_it_is_just_leaving(world: World) -> None:
    """The API shows the address until the write that takes it away is made, and that one failed."""
    assigned(world, web={})
    world.configure(other={"addresses": ["10.0.0.1/32"], "autoAssign": False})
    world.wait(GRACE_S)
    (write,) = world.pending
    world.pending.clear()
    world.controller.failed(write, 0.0, Moment(world.time, 0.0))
    world.put("web", labels={"touched": "yes"})
    world.settle()
    assert world.ip("web") == ""


@pytest.mark.parametrize("falsified", [None, [{"ip": "10.6.6.6"}], [{"ip": "172.18.255.201"}], [{"hostname": "x"}]])
def test_a_status_emptied_or_falsified_is_put_right_without_moving_the_service(world: World, falsified: Any) -> None:
    assigned(world, web={}, other={})
    world.put("web", status={"loadBalancer": {"ingress": falsified}})
    world.settle()
    assert (world.ip("web"), world.ip("other")) == ("172.18.255.200", "172.18.255.201")


def test_conditions_of_others_are_left_alone(world: World) -> None:
    theirs = {
        "type": "Their",
        "status": "True",
        "reason": "R",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    world.put("web", status={"conditions": [theirs]})
    world.settle()
    assert [each.type for each in world.view("web").status.conditions] == ["Their", "berthlb.io/AddressAssigned"]
    world.put("web", type="ClusterIP")
    world.settle()
    assert world.services["default/web"]["status"]["conditions"] == [theirs]


def test_a_write_that_somebody_else_forestalled_is_judged_anew(world: World) -> None:
    world.put("web")
    world.decide()
    (write,) = world.pending
    world.put("web", loadBalancerIP="172.18.255.222")
    world.carry_out(write)
    world.settle()
    assert world.ip("web") == "172.18.255.222"


def test_whoever_is_always_faster_is_not_chased_without_a_pause(world: World) -> None:
    world.put("web")
    for _ in range(10):
        world.decide()
        for write in list(world.pending):
            world.put("web", annotations={"their": str(world.time)})
            world.carry_out(write)
    assert world.controller.next_deadline() is not None


def test_a_failed_write_is_repeated_later_and_later_and_holds_up_nobody_else(world: World) -> None:
    world.put("web")
    waits: list[float] = []
    for _ in range(8):
        world.decide()
        (write,) = world.pending
        world.pending.clear()
        world.controller.failed(write, 0.0, Moment(world.time, 0.0))
        assigned_meanwhile = f"other{len(waits)}"
        deadline = world.controller.next_deadline()
        assert deadline is not None
        waits.append(deadline - world.time)
        assert isinstance(write, Write)
        world.put(assigned_meanwhile)
        world.decide()
        for change in list(world.pending):
            world.carry_out(change)
        assert world.ip(assigned_meanwhile)
        world.time = deadline
    assert 0.25 <= waits[0] <= 0.375
    assert waits[3] > 2 * waits[0]
    assert max(waits) <= 22.5
    world.settle()
    assert world.ip("web") == "172.18.255.200"


def test_the_server_is_asked_again_no_sooner_than_it_says(world: World) -> None:
    world.put("web")
    world.decide()
    (write,) = world.pending
    world.controller.failed(write, 60.0, Moment(world.time, 0.0))
    deadline = world.controller.next_deadline()
    assert deadline is not None
    assert deadline >= world.time + 60.0


def test_a_service_that_left_the_watch_keeps_its_address_until_the_api_says_that_it_is_gone() -> None:
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    assigned(world, first={}, second={})
    world.delete("first")
    world.decide()
    (look,) = world.pending
    world.pending.clear()
    world.controller.failed(look, 0.0, Moment(world.time, 0.0))
    world.decide()
    assert (world.ip("second"), world.pending) == ("", [])
    world.settle()
    assert world.ip("second") == "10.0.0.1"


def test_a_late_word_that_the_former_service_is_gone_does_not_touch_its_namesake(world: World) -> None:
    assigned(world, web={})
    world.delete("web")
    world.decide()
    (look,) = world.pending
    world.put("web")
    world.settle()
    world.controller.answered(look, None)
    world.put("other")
    world.settle()
    assert world.ip("web") != world.ip("other")
    assert world.ip("web") != ""


def test_news_older_than_the_answer_to_a_write_is_not_believed(world: World) -> None:
    stale = world.put("web")
    world.settle()
    world.take_writes()
    world.controller.observe(stale)
    world.settle()
    assert world.take_writes() == []


# ------------------------------------------------------------------------ found by histories


def test_a_pool_that_comes_back_before_anybody_saw_the_move_moves_nobody() -> None:
    """The address that the Service left was its own still, and so did not count as free."""
    world = World({"a": "10.0.0.1-10.0.0.3"})
    world.start()
    assigned(world, web={})
    world.configure(b="10.0.1.0/24")
    world.wait(GRACE_S)
    (moving,) = world.pending
    world.put("web", annotations={"their": "note"})
    world.configure(a="10.0.0.1-10.0.0.3")
    world.carry_out(moving)
    world.settle()
    assert world.ip("web") == "10.0.0.1"


def test_what_a_service_never_showed_is_free_again_once_it_is_being_deleted() -> None:
    """Its write came too late; what it was to get stayed taken until its finalizers were gone."""
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    world.put("dying")
    world.decide()
    world.put("dying", deletionTimestamp="2026-01-02T00:00:00Z")
    world.put("web")
    world.settle()
    assert (world.ip("dying"), world.ip("web")) == ("", "10.0.0.1")


def test_reasons_that_do_not_pass_come_before_those_that_do() -> None:
    """Or who else came to hold the address would change the reason, with nobody to tell of it."""
    world = World({"a": "10.0.0.1/32", "b": "10.0.1.0/24"})
    world.start()
    wish = {"metallb.io/loadBalancerIPs": "10.0.0.1", "metallb.io/address-pool": "b"}
    assigned(world, web={"annotations": wish})
    before = world.condition("web")
    assigned(world, other={})
    world.start()
    world.settle()
    assert world.condition("web") == before
    assert before[2] == '10.0.0.1 belongs to pool "a", and the Service asks for pool "b"'


def test_after_a_start_who_waits_is_served_before_those_who_have_an_address_are_looked_at() -> None:
    """With ten thousand of them it took seconds, also for a Service that came in the meantime."""
    world = World()
    for name in [f"web-{number}" for number in range(20)]:
        world.put(name)
    world.start()
    world.settle()
    world.take_writes()
    world.put("waits")
    world.start()
    (first,) = world.controller.decide(world.now, services=1)
    assert isinstance(first, Write)
    assert first.name == "waits"
    assert world.controller.decide(world.now, services=5) == []
    world.put("comes-meanwhile")
    (second,) = world.controller.decide(world.now, services=1)
    assert isinstance(second, Write)
    assert second.name == "comes-meanwhile"
    assert world.controller.backlog == 15
