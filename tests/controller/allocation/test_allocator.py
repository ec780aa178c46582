"""Which address, or why none: the rules as a table, and what must hold whatever is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Address, Family, Range, parse_address
from cluster.config import Config, is_buggy
from cluster.objects import PoolName
from cluster.sharing import Sharer
from controller.allocation.allocator import AddressRequest, allocate
from controller.allocation.ledger import Ledger
from controller.allocation.outcomes import Allocation, Reason, Refusal
from tests.controller.world import config_of

V4, V6 = Family.IPV4, Family.IPV6


def setting(pools: Mapping[str, Any], taken: Mapping[str, str] | None = None) -> tuple[Config, Ledger]:
    """A configuration and a ledger in which Services ("default/…") hold addresses."""
    config = config_of(pools)
    ledger = Ledger()
    ledger.set_pools(config.pools)
    for address, service in (taken or {}).items():
        ledger.take(parse_address(address), Sharer(service))
    return config, ledger


def request(
    *addresses: str,
    pool: str | None = None,
    families: tuple[tuple[Family, ...], ...] = ((V4,),),
    sharer: Sharer | None = None,
    **rest: Any,
) -> AddressRequest:
    return AddressRequest(
        sharer or Sharer("default/web"),
        families,
        pool=PoolName(pool) if pool else None,
        addresses=tuple(parse_address(text) for text in addresses),
        **rest,
    )


def given_to(pools: Mapping[str, Any], want: AddressRequest, taken: Mapping[str, str] | None = None) -> str:
    """ "pool: addresses", or the refusal's reason."""
    outcome = allocate(*setting(pools, taken), want)
    if isinstance(outcome, Refusal):
        return outcome.reason.value
    return f"{outcome.pool}: " + ",".join(address.text for address in outcome.addresses)


TWO = {"a": "10.0.0.1-10.0.0.2", "b": "10.0.1.0/30"}
ONLY_DEV = {"addresses": ["10.9.0.0/24"], "serviceAllocation": {"namespaces": ["dev"]}}
MIXED = {"v4": "10.0.0.1/32", "both": ["10.0.1.0/30", "2001:db8::10/126"]}


def spec(span: str, **rest: Any) -> dict[str, Any]:
    return {"addresses": [span], **rest}


def for_services(**allocation: Any) -> dict[str, Any]:
    return {"p": spec("10.0.0.0/30", serviceAllocation=allocation)}


MANUAL = {"p": spec("10.0.0.0/30", autoAssign=False)}
RANGES = {"p": ["10.0.9.0/31", "10.0.0.0/30"]}
LABELLED = [{"matchLabels": {"tier": "x"}}]
PRIORITIES = {
    name: spec(span, serviceAllocation={"priority": priority})
    for name, span, priority in (
        ("a", "10.0.0.0/30", 0),
        ("b", "10.0.1.0/30", 20),
        ("c", "10.0.2.0/30", 10),
        ("d", "10.0.3.0/30", -1),
    )
}
SPLIT = {"v4": "10.0.0.1/32", "v6": "2001:db8::/64"}
V6_V4_PREFERRED = ((V6, V4), (V6,), (V4,))
PREFERRED = ((V4, V6), (V4,), (V6,))
EMPTY = spec("10.8.0.0/30", serviceAllocation={})
LAST = spec("10.8.0.0/30", serviceAllocation={"priority": -5})
EQUAL = {name: spec(f"10.0.{n}.0/30", serviceAllocation={"priority": 7}) for n, name in enumerate("pq")}
RESERVED = {
    "v4": spec("10.0.0.0/30", serviceAllocation={"priority": 1}),
    "both": {"addresses": ["10.0.1.0/30", "2001:db8:1::/64"], "serviceAllocation": {"priority": 9}},
}
HALVES = {
    "v4": spec("10.0.0.0/30", serviceAllocation={"priority": 9}),
    "v6": spec("2001:db8::/64", serviceAllocation={"priority": 1}),
}
BOTH = "both: 10.0.1.0,2001:db8::10"


def without_buggy(span: str) -> dict[str, Any]:
    return {"p": spec(span, avoidBuggyIPs=True)}


@pytest.mark.parametrize(
    ("rule", "pools", "want", "taken", "outcome"),
    [
        ("first pool by name, first address", TWO, request(), "", "a: 10.0.0.1"),
        ("first free", TWO, request(), "10.0.0.1", "a: 10.0.0.2"),
        ("next pool when full", TWO, request(), "10.0.0.1 10.0.0.2", "b: 10.0.1.0"),
        ("ranges in spec order", RANGES, request(), "", "p: 10.0.9.0"),
        ("then the second range", RANGES, request(), "10.0.9.0 10.0.9.1 10.0.0.0", "p: 10.0.0.1"),
        ("no pool at all", {}, request(), "", "NoPool"),
        ("autoAssign false", MANUAL, request(), "", "AutoAssignOff"),
        ("autoAssign false, pool asked for", MANUAL, request(pool="p"), "", "p: 10.0.0.0"),
        ("autoAssign false, address asked for", MANUAL, request("10.0.0.3"), "", "p: 10.0.0.3"),
        ("avoidBuggyIPs: no .0", without_buggy("10.0.0.0/23"), request(), "", "p: 10.0.0.1"),
        ("avoidBuggyIPs: no .255", without_buggy("10.0.0.255-10.0.1.1"), request(), "", "p: 10.0.1.1"),
        ("avoidBuggyIPs: nothing left", without_buggy("10.0.0.0/32"), request(), "", "WrongFamily"),
        ("avoidBuggyIPs: asked for", without_buggy("10.0.0.0/24"), request("10.0.0.255"), "", "AddressNotInPool"),
        ("pool asked for", TWO, request(pool="b"), "", "b: 10.0.1.0"),
        ("pool that is not there", TWO, request(pool="c"), "", "UnknownPool"),
        ("pool that cannot be read", TWO | {"c": "bad"}, request(pool="c"), "", "PoolUnreadable"),
        ("no fallback", TWO, request(pool="a"), "10.0.0.1 10.0.0.2", "PoolExhausted"),
        ("address asked for", TWO, request("10.0.1.3"), "", "b: 10.0.1.3"),
        ("address in use", TWO, request("10.0.1.3"), "10.0.1.3", "AddressInUse"),
        ("address in no pool", TWO, request("10.7.0.1"), "", "AddressNotInPool"),
        ("address of another pool", TWO, request("10.0.1.3", pool="a"), "", "AddressNotInPool"),
        ("address of the wrong family", TWO, request("2001:db8::1"), "", "InvalidRequest"),
        ("two of one family", TWO, request("10.0.0.1", "10.0.0.2"), "", "InvalidRequest"),
        ("reserved pools first", TWO | {"d": ONLY_DEV}, request(namespace="dev"), "", "d: 10.9.0.0"),
        ("reserved for others", TWO | {"d": ONLY_DEV}, request(namespace="prod"), "", "a: 10.0.0.1"),
        ("only reserved for others", {"d": ONLY_DEV}, request(namespace="prod"), "", "PoolNotForService"),
        ("reserved, address", {"d": ONLY_DEV}, request("10.9.0.5", namespace="prod"), "", "PoolNotForService"),
        ("reserved, pool", {"d": ONLY_DEV}, request(pool="d", namespace="prod"), "", "PoolNotForService"),
        ("lowest priority first", PRIORITIES, request(), "", "c: 10.0.2.0"),
        ("then higher ones", PRIORITIES, request(), "10.0.2.0-10.0.2.3", "b: 10.0.1.0"),
        ("then zero", PRIORITIES, request(), "10.0.1.0-10.0.2.3", "a: 10.0.0.0"),
        (
            "negative last",
            PRIORITIES,
            request(),
            "10.0.0.0-10.0.2.3",
            "d: 10.0.3.0",
        ),
        ("equal priorities by name", EQUAL, request(), "", "p: 10.0.0.0"),
        ("an empty serviceAllocation counts", TWO | {"z": EMPTY}, request(), "", "z: 10.8.0.0"),
        ("priority among those with one alone", TWO | {"z": LAST}, request(), "", "z: 10.8.0.0"),
        ("reserved before both families", MIXED | {"z": EMPTY}, request(families=PREFERRED), "", "z: 10.8.0.0"),
        ("both families before priority", RESERVED, request(families=PREFERRED), "", "both: 10.0.1.0,2001:db8:1::"),
        ("the primary family before priority", HALVES, request(families=PREFERRED), "", "v4: 10.0.0.0"),
        ("the other primary family", HALVES, request(families=V6_V4_PREFERRED), "", "v6: 2001:db8::"),
        ("both families of a named pool", MIXED, request(pool="both", families=PREFERRED), "", BOTH),
        ("one family of a named pool", MIXED, request(pool="v4", families=PREFERRED), "", "v4: 10.0.0.1"),
        (
            "namespace selector",
            for_services(namespaceSelectors=LABELLED),
            request(namespace_labels={"tier": "x"}),
            "",
            "p: 10.0.0.0",
        ),
        (
            "a namespace selector that matches none restricts explicit requests too",
            for_services(namespaceSelectors=LABELLED),
            request("10.0.0.1", namespace_labels={"tier": "y"}),
            "",
            "PoolNotForService",
        ),
        (
            "service selector",
            for_services(serviceSelectors=LABELLED),
            request(labels={"tier": "y"}),
            "",
            "PoolNotForService",
        ),
        ("no IPv6 anywhere", TWO, request(families=((V6,),)), "", "WrongFamily"),
        ("both from one pool", MIXED, request(families=((V4, V6),)), "", "both: 10.0.1.0,2001:db8::10"),
        ("in the Service's order", MIXED, request(families=((V6, V4),)), "", "both: 2001:db8::10,10.0.1.0"),
        ("never from two pools", SPLIT, request(families=((V4, V6),)), "", "WrongFamily"),
        ("preferred: the primary family alone", SPLIT, request(families=V6_V4_PREFERRED), "", "v6: 2001:db8::"),
        ("preferred: the secondary", {"p": "10.0.0.1/32"}, request(families=V6_V4_PREFERRED), "", "p: 10.0.0.1"),
        (
            "both asked for, in any order",
            MIXED,
            request("2001:db8::11", "10.0.1.2", families=((V4, V6),)),
            "",
            "both: 10.0.1.2,2001:db8::11",
        ),
        (
            "both asked for, from two pools",
            MIXED,
            request("2001:db8::11", "10.0.0.1", families=((V4, V6),)),
            "",
            "AddressNotInPool",
        ),
    ],
)
def test_the_rules(rule: str, pools: Mapping[str, Any], want: AddressRequest, taken: str, outcome: str) -> None:
    holders: dict[str, str] = {address.text: "default/other" for span in taken.split() for address in each_of(span)}
    assert given_to(pools, want, holders) == outcome, rule


def each_of(span: str) -> list[Address]:
    first, _, last = span.partition("-")
    family, low = parse_address(first)
    return [Address(family, value) for value in range(low, parse_address(last or first).value + 1)]


def test_an_address_that_one_holds_already_is_not_in_ones_own_way() -> None:
    assert given_to(TWO, request("10.0.1.3"), {"10.0.1.3": "default/web"}) == "b: 10.0.1.3"


def test_a_refusal_says_pool_by_pool_why_not() -> None:
    pools = {
        "full": "10.0.0.1/32",
        "manual": {"addresses": ["10.0.1.0/24"], "autoAssign": False},
        "others": ONLY_DEV,
        "v6": "2001:db8::/64",
        "broken": "10.3.0.0/99",
    }
    outcome = allocate(*setting(pools, {"10.0.0.1": "x"}), request(namespace="prod"))
    assert isinstance(outcome, Refusal)
    assert outcome.reason is Reason.POOL_EXHAUSTED
    assert outcome.message == (
        'pool "full" has no free IPv4 address (1 of 1 in use); '
        'pool "v6" has no IPv4 addresses; '
        'pool "others" is not for namespace "prod" (serviceAllocation); '
        'pool "manual" gives addresses only to Services that ask for it (autoAssign is false); '
        'pool "broken" cannot be honoured as it is written; see its status'
    )
    assert {each.pool: each.reason for each in outcome.pools} == {
        "full": Reason.POOL_EXHAUSTED,
        "v6": Reason.WRONG_FAMILY,
        "others": Reason.POOL_NOT_FOR_SERVICE,
        "manual": Reason.AUTO_ASSIGN_OFF,
        "broken": Reason.POOL_UNREADABLE,
    }


WEB = Sharer("default/web", "key", "", (("TCP", 80),))
SECURE = Sharer("default/secure", "key", "", (("TCP", 443),))


@pytest.mark.parametrize(
    ("present", "asking", "outcome"),
    [
        (SECURE, WEB, "p: 10.0.0.0"),
        (Sharer("default/other"), WEB, "p: 10.0.0.1"),
        (SECURE, Sharer("default/web"), "p: 10.0.0.1"),
        (Sharer("default/other", "another key", "", (("TCP", 443),)), WEB, "p: 10.0.0.1"),
        (Sharer("default/other", "key", "app=other", (("TCP", 443),)), WEB, "p: 10.0.0.1"),
        (Sharer("default/other", "key", "", (("TCP", 80),)), WEB, "p: 10.0.0.1"),
        (Sharer("default/other", "key", "", (("UDP", 80),)), WEB, "p: 10.0.0.0"),
    ],
)
def test_only_services_that_agree_share_an_address(present: Sharer, asking: Sharer, outcome: str) -> None:
    config, ledger = setting({"p": "10.0.0.0/30"})
    ledger.take(parse_address("10.0.0.0"), present)
    result = allocate(config, ledger, request(sharer=asking))
    assert isinstance(result, Allocation)
    assert f"{result.pool}: {result.addresses[0].text}" == outcome


def test_a_pool_of_a_whole_ipv6_prefix_is_as_quick_to_give_as_any() -> None:
    config, ledger = setting({"p": "2001:db8::/32"})
    for expected in ("2001:db8::", "2001:db8::1"):
        outcome = allocate(config, ledger, request(families=((V6,),)))
        assert isinstance(outcome, Allocation)
        assert outcome.addresses[0].text == expected
        ledger.take(outcome.addresses[0], Sharer(f"default/{expected}"))
    assert ledger.counts(PoolName("p"), V6) == (2, 2**96 - 2)


BASE = parse_address("10.0.0.0").value
POOLS = st.lists(
    st.tuples(st.integers(0, 600), st.integers(0, 20), st.booleans()),
    min_size=1,
    max_size=4,
    unique_by=lambda each: each[0],
)
STEPS = st.lists(st.tuples(st.sampled_from(["take", "ask", "leave", "pools"]), st.integers(0, 700)), max_size=60)


@given(POOLS, POOLS, STEPS)
def test_no_address_twice_none_outside_its_pool_and_the_first_free_one(
    first_pools: list[tuple[int, int, bool]], later_pools: list[tuple[int, int, bool]], steps: list[tuple[str, int]]
) -> None:
    def pools_of(described: list[tuple[int, int, bool]]) -> Config:
        return config_of(
            {
                f"p{number}": {
                    "addresses": [Range(V4, BASE + at, BASE + at + extent).text],
                    "avoidBuggyIPs": avoid,
                }
                for number, (at, extent, avoid) in enumerate(described)
            }
        )

    config, other = pools_of(first_pools), pools_of(later_pools)
    ledger = Ledger()
    ledger.set_pools(config.pools)
    held: dict[str, Address] = {}
    for number, (step, argument) in enumerate(steps):
        service = f"default/s{number}"
        if step == "pools":
            config, other = other, config
            ledger.set_pools(config.pools)
        elif step == "leave" and held:
            leaving = sorted(held)[argument % len(held)]
            ledger.give_back(held.pop(leaving), leaving)
        elif step in {"take", "ask"}:
            asked: tuple[Address, ...] = (Address(V4, BASE + argument),) if step == "ask" else ()
            outcome = allocate(config, ledger, AddressRequest(Sharer(service), ((V4,),), addresses=asked))
            usable = [
                address
                for pool in config.pools.values()
                for block in pool.ranges
                for address in (Address(V4, value) for value in range(block.first, block.last + 1))
                if not (pool.avoid_buggy_ips and is_buggy(address)) and address not in held.values()
            ]
            if isinstance(outcome, Refusal):
                assert not usable if step == "take" else asked[0] not in usable
            else:
                (address,) = outcome.addresses
                assert address == (asked[0] if asked else usable[0])
                assert address in config.pools[outcome.pool]
                ledger.take(address, Sharer(service))
                held[service] = address
        for name, pool in config.pools.items():
            assigned, available = ledger.counts(name, V4)
            assert assigned == sum(address in pool for address in held.values())
            assert assigned + available == pool.size(V4)
