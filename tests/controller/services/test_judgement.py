"""What a Service has after its family policy, its request or its pool changed: nothing moves that need not."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.addresses import Family
from cluster.objects import PoolName
from tests.controller.world import World

DUAL = ["10.0.0.1-10.0.0.9", "2001:db8::1-2001:db8::9"]
V4, V6 = "10.96.0.1", "fd00:96::1"
BOTH = {"clusterIPs": [V4, V6], "ipFamilies": ["IPv4", "IPv6"]}
BOTH_V6_FIRST = {"clusterIP": V6, "clusterIPs": [V6, V4], "ipFamilies": ["IPv6", "IPv4"]}
ONLY_V6 = {"clusterIP": V6, "clusterIPs": [V6], "ipFamilies": ["IPv6"]}
ONLY_V4 = {"clusterIPs": [V4], "ipFamilies": ["IPv4"]}
SINGLE = {"ipFamilyPolicy": "SingleStack"}
PREFER = {"ipFamilyPolicy": "PreferDualStack"}
REQUIRE = {"ipFamilyPolicy": "RequireDualStack"}


def started(**pools: Any) -> World:
    world = World(pools)
    world.start()
    return world


def settled(world: World, name: str, **parts: Any) -> str:
    """Change a Service, let everything come to rest, and see that a restart would leave it so: its addresses."""
    world.put(name, **parts)
    world.settle()
    assert_restart_changes_nothing(world)
    return world.ip(name)


def assert_restart_changes_nothing(world: World) -> None:
    events, writes = list(world.events), list(world.writes)
    world.start()
    world.settle()
    assert (world.events, world.writes) == (events, writes)


@pytest.mark.parametrize("policy", [PREFER, REQUIRE])
@pytest.mark.parametrize(
    ("families", "addresses"), [(BOTH, "10.0.0.1,2001:db8::1"), (BOTH_V6_FIRST, "2001:db8::1,10.0.0.1")]
)
def test_both_families_in_the_services_order(policy: dict[str, str], families: dict[str, Any], addresses: str) -> None:
    assert settled(started(p=DUAL), "web", **policy, **families) == addresses


@pytest.mark.parametrize("policy", [PREFER, REQUIRE])
@pytest.mark.parametrize(
    ("before", "after", "addresses"),
    [
        (ONLY_V4, BOTH, ("10.0.0.2", "10.0.0.2,2001:db8::1")),
        (ONLY_V6, BOTH_V6_FIRST, ("2001:db8::2", "2001:db8::2,10.0.0.1")),
    ],
)
def test_a_change_of_policy_adds_the_missing_family_and_back_takes_it_away(
    policy: dict[str, str], before: dict[str, Any], after: dict[str, Any], addresses: tuple[str, str]
) -> None:
    """The address that stays is not the first free one any more, so that any new choice would show."""
    world = started(a=DUAL, b="10.1.0.0/24")
    settled(world, "first", **SINGLE, **before)
    assert settled(world, "web", **SINGLE, **before) == addresses[0]
    world.delete("first")
    world.settle()
    world.take_events()
    assert settled(world, "web", **policy, **after) == addresses[1]
    added = (set(addresses[1].split(",")) - {addresses[0]}).pop()
    assert world.take_events() == [("default/web", "IPAllocated", f'Assigned additional IP "{added}"')]
    assert settled(world, "web", **SINGLE, **before) == addresses[0]


def test_the_missing_family_comes_from_the_same_pool_or_not_at_all() -> None:
    world = started(a="10.0.0.0/24", b=["10.1.0.0/24", "2001:db8::/64"])
    assert settled(world, "web", **SINGLE, **ONLY_V4) == "10.0.0.0"
    world.take_events()
    assert settled(world, "web", **PREFER, **BOTH) == "10.0.0.0"
    why = 'pool "a" has no IPv6 addresses'
    assert world.condition("web") == ("True", "Assigned", f'10.0.0.0 from pool "a"; no IPv6 address: {why}')
    failed = ("default/web", "AdditionalAssignFailed", f"cannot assign additional IP in PreferDualStack: {why}")
    assert world.take_events() == [failed]


def test_the_second_family_is_added_the_moment_it_can_be_had() -> None:
    world = started(p=["10.0.0.0/24", "2001:db8::1/128"])
    assert settled(world, "holder", **SINGLE, **ONLY_V6) == "2001:db8::1"
    assert settled(world, "web", **PREFER, **BOTH) == "10.0.0.0"
    world.take_events()
    world.delete("holder")
    world.settle()
    assert world.ip("web") == "10.0.0.0,2001:db8::1"
    assert world.take_events() == [("default/web", "IPAllocated", 'Assigned additional IP "2001:db8::1"')]


def test_the_primary_family_is_added_in_front() -> None:
    world = started(p=["10.0.0.1/32", "2001:db8::/64"])
    assert settled(world, "holder", **SINGLE, **ONLY_V4) == "10.0.0.1"
    assert settled(world, "web", **PREFER, **BOTH) == "2001:db8::"
    world.delete("holder")
    world.settle()
    assert world.ip("web") == "10.0.0.1,2001:db8::"


def test_both_are_required_and_cannot_be_had_nothing_is_taken() -> None:
    world = started(v4="10.0.0.0/24", v6="2001:db8::/64")
    assert settled(world, "web", **REQUIRE, **BOTH) == ""
    message = 'pool "v4" has no IPv6 addresses; pool "v6" has no IPv4 addresses'
    assert world.condition("web") == ("False", "WrongFamily", message)
    assert world.controller.ledger.counts(PoolName("v4"), Family.IPV4) == (0, 256)


def test_a_service_that_comes_to_require_both_keeps_its_address_until_the_other_can_be_had() -> None:
    """To take it away would cost a working address; to move to another pool would renumber the family that stays."""
    world = started(a="10.0.0.0/24", b=["10.1.0.0/24", "2001:db8::/64"])
    settled(world, "web", **SINGLE, **ONLY_V4)
    assert settled(world, "web", **REQUIRE, **BOTH) == "10.0.0.0"
    status, reason, message = world.condition("web")
    assert (status, reason) == ("True", "WrongFamily")
    assert message.endswith('what the Service asks for cannot be had: pool "a" has no IPv6 addresses')
    world.configure(a=["10.0.0.0/24", "2001:db8:a::/64"], b=["10.1.0.0/24", "2001:db8::/64"])
    world.settle()
    assert world.ip("web") == "10.0.0.0,2001:db8:a::"
    assert world.condition("web")[1] == "Assigned"


@pytest.mark.parametrize(
    ("policy", "pools", "addresses"),
    [
        (PREFER, {"a": "10.0.0.0/24"}, "10.0.0.0"),
        (PREFER, {"a": ["10.0.0.0/24", "2001:db8:9::/64"]}, "10.0.0.0,2001:db8:9::"),
        (PREFER, {"a": "10.0.0.0/24", "b": ["10.1.0.0/24", "2001:db8:1::/64"]}, "10.0.0.0"),
        (REQUIRE, {"a": ["10.0.0.0/24", "2001:db8:9::/64"]}, "10.0.0.0,2001:db8:9::"),
        (REQUIRE, {"a": "10.0.0.0/24", "b": ["10.1.0.0/24", "2001:db8:1::/64"]}, "10.1.0.0,2001:db8:1::"),
        (REQUIRE, {"a": "10.0.0.0/24"}, ""),
    ],
)
def test_one_family_leaves_the_pool(policy: dict[str, str], pools: dict[str, Any], addresses: str) -> None:
    world = started(a=["10.0.0.0/24", "2001:db8::/64"])
    assert settled(world, "web", **policy, **BOTH) == "10.0.0.0,2001:db8::"
    world.take_events()
    world.configure(**pools)
    world.settle()
    assert world.ip("web") == addresses
    assert world.take_events()[0][1] == "ClearAssignment"
    assert_restart_changes_nothing(world)


def test_a_typing_error_costs_no_family_also_where_another_pool_has_come_to_contain_the_other() -> None:
    """After a restart nobody knows what the pool was; one address was taken for the other pool's, and the rest lost."""
    world = started(a=["10.0.0.0/24", "2001:db8::/64"])
    assert settled(world, "web", **PREFER, **BOTH) == "10.0.0.0,2001:db8::"
    world.configure(a="10.0.0.9-10.0.0.1", b="10.0.0.0/24")
    world.start()
    world.settle()
    assert world.ip("web") == "10.0.0.0,2001:db8::"
    assert_restart_changes_nothing(world)
    world.configure(a="2001:db8::/64", b="10.0.0.0/24")
    world.settle()
    assert world.ip("web") == "10.0.0.0"


def test_prefer_dual_stack_on_a_single_stack_cluster_with_a_dual_pool_comes_to_rest() -> None:
    world = started(p=DUAL)
    assert settled(world, "web", **PREFER, **ONLY_V4) == "10.0.0.1"
    assert len(world.take_writes()) == 1


def test_a_wish_for_both_that_cannot_be_met_leaves_what_there_is() -> None:
    world = started(p=DUAL)
    settled(world, "web", **SINGLE, **ONLY_V4)
    wish = {"metallb.io/loadBalancerIPs": "10.0.0.5,2001:db9::1"}
    assert settled(world, "web", **REQUIRE, **BOTH, annotations=wish) == "10.0.0.1,2001:db8::1"
    assert world.condition("web")[:2] == ("True", "AddressNotInPool")
    wish = {"metallb.io/loadBalancerIPs": "2001:db8::5, 10.0.0.5"}
    assert settled(world, "web", annotations=wish) == "10.0.0.5,2001:db8::5"


def test_a_request_gone_bad_is_told_in_metallbs_word_beside_an_address() -> None:
    world = started(p=DUAL)
    settled(world, "web")
    world.take_events()
    assert settled(world, "web", loadBalancerIP="10.0.0.300") == "10.0.0.1"
    message = 'invalid requested loadbalancer IPs: spec.loadBalancerIP: "10.0.0.300" is not an IP address'
    assert world.take_events() == [("default/web", "LoadBalancerFailed", message)]


def test_a_service_without_a_cluster_ip_waits_and_keeps_what_it_has() -> None:
    world = started(p=DUAL)
    nothing = {"clusterIP": "", "clusterIPs": None}
    assert settled(world, "new", **nothing) == ""
    assert world.condition("new")[1] == "NoClusterIP"
    settled(world, "web")
    assert settled(world, "web", **nothing) == "10.0.0.1"


def test_of_two_addresses_of_one_family_in_a_status_one_stays() -> None:
    world = World({"p": DUAL})
    world.put("web", status={"loadBalancer": {"ingress": [{"ip": "10.0.0.3"}, {"ip": "10.0.0.2"}]}})
    world.start()
    world.settle()
    assert world.ip("web") == "10.0.0.3"


# ------------------------------------------------------------------------ one address asked for, and both families

FIXED = {"loadBalancerIP": "10.0.0.5"}


@pytest.mark.parametrize("policy", [PREFER, REQUIRE])
@pytest.mark.parametrize(
    ("asked", "families", "addresses"),
    [
        (FIXED, BOTH, "10.0.0.5,2001:db8::1"),
        (FIXED, BOTH_V6_FIRST, "2001:db8::1,10.0.0.5"),
        ({"loadBalancerIP": "2001:db8::5"}, BOTH, "10.0.0.1,2001:db8::5"),
        ({"annotations": {"metallb.io/loadBalancerIPs": "10.0.0.5"}}, BOTH, "10.0.0.5,2001:db8::1"),
    ],
)
def test_who_asks_for_one_address_gets_it_and_one_of_the_other_family(
    policy: dict[str, str], asked: dict[str, Any], families: dict[str, Any], addresses: str
) -> None:
    world = started(other=["10.1.0.0/24", "2001:db8:1::/64"], p=DUAL)
    assert settled(world, "web", **policy, **families, **asked) == addresses
    assert world.condition("web")[1] == "Assigned"


def test_another_address_asked_for_leaves_the_one_of_the_other_family() -> None:
    world = started(p=DUAL)
    for name in ("one", "two"):
        settled(world, name, **PREFER, **BOTH)
    world.delete("one")
    assert settled(world, "two", **PREFER, **BOTH, **FIXED) == "10.0.0.5,2001:db8::2"
    assert settled(world, "two", loadBalancerIP="10.0.0.6") == "10.0.0.6,2001:db8::2"
    assert settled(world, "two", loadBalancerIP=None) == "10.0.0.6,2001:db8::2"


def test_the_address_asked_for_comes_alone_where_its_pool_has_no_other_family() -> None:
    world = started(a="10.0.0.0/24", b=["10.1.0.0/24", "2001:db8::/64"])
    assert settled(world, "prefers", **PREFER, **BOTH, **FIXED) == "10.0.0.5"
    assert world.condition("prefers")[2].endswith('; no IPv6 address: pool "a" has no IPv6 addresses')
    assert settled(world, "requires", **REQUIRE, **BOTH, loadBalancerIP="10.0.0.6") == ""
    assert world.condition("requires") == ("False", "WrongFamily", 'pool "a" has no IPv6 addresses')
    world.configure(a=["10.0.0.0/24", "2001:db8:a::/64"])
    world.settle()
    assert (world.ip("prefers"), world.ip("requires")) == ("10.0.0.5,2001:db8:a::1", "10.0.0.6,2001:db8:a::")


@pytest.mark.parametrize(
    ("asked", "families"),
    [
        ({"annotations": {"metallb.io/loadBalancerIPs": "10.0.0.5,10.0.0.6"}}, {**PREFER, **BOTH}),
        ({"loadBalancerIP": "2001:db8::5"}, {**SINGLE, **ONLY_V4}),
    ],
)
def test_addresses_that_the_service_cannot_have_together_are_refused(
    asked: dict[str, Any], families: dict[str, Any]
) -> None:
    world = started(p=DUAL)
    assert settled(world, "web", **families, **asked) == ""
    assert world.condition("web")[1] == "InvalidRequest"
