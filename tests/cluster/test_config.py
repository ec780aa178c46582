"""Pools and advertisements into one Config: what is in force, what is not, and the words for it."""

from __future__ import annotations

import pytest

from cluster.addresses import Family, parse_address
from cluster.config import FAILBACK_ANNOTATION, Config, load, parse_advertisement, parse_pool
from cluster.objects import (
    IPAddressPool,
    IPAddressPoolSpec,
    L2Advertisement,
    L2AdvertisementSpec,
    LabelSelector,
    ObjectMeta,
    PoolName,
    PreferredNodeSelector,
    ServiceAllocation,
)
from cluster.parts import ConfigError

KIND_POOL = "172.18.255.200-172.18.255.250"


def pool(name: str, *addresses: str, created: str = "2026-01-01T00:00:00Z", **spec: object) -> IPAddressPool:
    return IPAddressPool(
        metadata=ObjectMeta(name=name, namespace="metallb-system", creation_timestamp=created, labels={"pool": name}),
        spec=IPAddressPoolSpec(addresses=addresses, **spec),  # type: ignore[arg-type]  # a table's free fields
    )


def advertisement(name: str, **spec: object) -> L2Advertisement:
    return L2Advertisement(
        metadata=ObjectMeta(name=name, namespace="metallb-system"),
        spec=L2AdvertisementSpec(**spec),  # type: ignore[arg-type]  # a table's free fields
    )


def ranges(config: Config) -> dict[str, list[str]]:
    return {name: [block.text for block in each.ranges] for name, each in config.pools.items()}


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (pool("p"), "spec.addresses: is empty; give at least one CIDR or range"),
        (
            pool("p", KIND_POOL, "172.18.255.250-172.18.255.200"),
            'spec.addresses[1]: "172.18.255.250-172.18.255.200" starts after it ends',
        ),
        (
            pool("p", "10.0.0.0/24", "10.1.0.0/24", "10.0.0.128-10.0.1.1"),
            'spec.addresses[2]: "10.0.0.128-10.0.1.1" overlaps spec.addresses[0], "10.0.0.0/24"',
        ),
        (
            pool("p", KIND_POOL, service_allocation=ServiceAllocation(namespaces=("dev", "dev"))),
            'spec.serviceAllocation.namespaces[1]: repeats "dev"',
        ),
        (
            pool("p", KIND_POOL, service_allocation=ServiceAllocation(service_selectors=(LabelSelector(),) * 2)),
            "spec.serviceAllocation.serviceSelectors[1]: repeats the selector of [0]",
        ),
    ],
)
def test_a_pool_that_cannot_be_honoured_names_the_field_and_the_reason(broken: IPAddressPool, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_pool(broken)
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (advertisement("a", ip_address_pools=("x", "x")), "spec.ipAddressPools[1]"),
        (advertisement("a", interfaces=("eth0", "eth0")), "spec.interfaces[1]"),
        (
            advertisement("a", node_selectors=(LabelSelector(match_labels={"-": ""}),)),
            "spec.nodeSelectors[0].matchLabels[-]",
        ),
        (
            advertisement("a", preferred_node_selectors=(PreferredNodeSelector(0),)),
            "spec.preferredNodeSelectors[0].weight",
        ),
        (
            L2Advertisement(ObjectMeta(name="a", annotations={FAILBACK_ANNOTATION: "yes"}), L2AdvertisementSpec()),
            "metadata.annotations[berthlb.io/failback]",
        ),
    ],
)
def test_an_advertisement_that_cannot_be_honoured_names_the_field(broken: L2Advertisement, field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_advertisement(broken)
    assert refused.value.field == field


def test_one_bad_pool_leaves_the_others_and_its_own_last_good_version_in_force() -> None:
    before = load([pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")], [], None)
    after = load([pool("a", "10.0.0.9-10.0.0.1"), pool("b", "10.0.2.0/24")], [], before.config)
    assert ranges(after.config) == {"a": ["10.0.0.0-10.0.0.255"], "b": ["10.0.2.0-10.0.2.255"]}
    assert [problem.text for problem in after.problems] == [
        'IPAddressPool a: spec.addresses[0]: "10.0.0.9-10.0.0.1" starts after it ends'
    ]
    assert after.config.unreadable == frozenset()


def test_after_a_restart_a_bad_pool_is_named_as_unreadable() -> None:
    loaded = load([pool("a", "10.0.0.9-10.0.0.1"), pool("b", "10.0.1.0/24")], [], None)
    assert set(loaded.config.pools) == {"b"}
    assert loaded.config.unreadable == {"a"}


def test_a_deleted_pool_is_gone_even_while_another_is_broken() -> None:
    before = load([pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")], [], None)
    after = load([pool("b", "nonsense")], [], before.config)
    assert set(after.config.pools) == {"b"}


def test_of_two_new_overlapping_pools_the_older_is_in_force() -> None:
    young, old = pool("a", "10.0.0.0/24", created="2026-01-02T00:00:00Z"), pool("b", "10.0.0.128/25")
    loaded = load([young, old], [], None)
    assert set(loaded.config.pools) == {"b"}
    (problem,) = loaded.problems
    assert (problem.name, problem.field, problem.word) == ("a", "spec.addresses[0]", "Overlap")
    assert 'overlaps 10.0.0.128-10.0.0.255 of pool "b", which stays in force' in problem.reason


def test_of_two_overlapping_pools_of_one_age_the_lesser_name_is_in_force() -> None:
    assert set(load([pool("b", "10.0.0.0/24"), pool("a", "10.0.0.0/25")], [], None).config.pools) == {"a"}


def test_an_edit_never_takes_from_a_pool_in_force() -> None:
    """``a`` is older and sorts first, but ``b`` has the addresses already."""
    before = load([pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24", created="2026-01-02T00:00:00Z")], [], None)
    after = load(
        [pool("a", "10.0.0.0-10.0.1.10"), pool("b", "10.0.1.0/24", created="2026-01-02T00:00:00Z")], [], before.config
    )
    assert ranges(after.config) == {"a": ["10.0.0.0-10.0.0.255"], "b": ["10.0.1.0-10.0.1.255"]}
    assert [problem.name for problem in after.problems] == ["a"]


def test_a_refused_edit_keeps_its_old_addresses_from_an_older_pools_edit() -> None:
    """``old`` may not take what ``b`` gives up only in an edit that is refused."""
    before = load(
        [pool("b", "10.0.1.0/24"), pool("c", "10.0.2.0/24"), pool("old", "10.0.0.0/24", created="2025")], [], None
    )
    after = load(
        [pool("b", "10.0.2.0/25"), pool("c", "10.0.2.0/24"), pool("old", "10.0.0.0-10.0.1.255", created="2025")],
        [],
        before.config,
    )
    assert ranges(after.config) == ranges(before.config)
    assert {problem.name for problem in after.problems} == {"b", "old"}


def test_two_pools_may_swap_their_addresses_at_once() -> None:
    before = load([pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")], [], None)
    after = load([pool("a", "10.0.1.0/24"), pool("b", "10.0.0.0/24")], [], before.config)
    assert not after.problems
    assert ranges(after.config) == {"a": ["10.0.1.0-10.0.1.255"], "b": ["10.0.0.0-10.0.0.255"]}


def test_a_successor_created_beside_its_overlapping_predecessor_takes_over_when_that_is_deleted() -> None:
    before = load([pool("old", KIND_POOL)], [], None)
    both = load([pool("old", KIND_POOL), pool("new", KIND_POOL, created="2026-02-01T00:00:00Z")], [], before.config)
    assert set(both.config.pools) == {"old"}
    after = load([pool("new", KIND_POOL, created="2026-02-01T00:00:00Z")], [], both.config)
    assert set(after.config.pools) == {"new"}
    assert not after.problems


def test_the_order_of_the_objects_does_not_matter() -> None:
    pools = [pool("a", "10.0.0.0/24"), pool("b", "10.0.0.0/25"), pool("c", "10.0.1.0/24"), pool("d", "bad")]
    assert load(pools, [], None) == load(list(reversed(pools)), [], None)


def test_an_address_finds_its_pool() -> None:
    config = load([pool("a", "10.0.0.0/24"), pool("b", "2001:db8::/64", KIND_POOL)], [], None).config
    found = config.pool_of(parse_address("172.18.255.250"))
    assert found is not None
    assert found.name == "b"
    assert config.pool_of(parse_address("172.18.255.251")) is None


@pytest.mark.parametrize(
    ("span", "count"),
    [
        ("10.0.0.0/24", 254),
        ("10.0.0.0/32", 0),
        ("10.0.0.1-10.0.1.0", 254),
        ("10.0.0.0/22", 1016),
        ("2001:db8::/120", 256),
    ],
)
def test_buggy_addresses_are_left_out_of_the_size(span: str, count: int) -> None:
    parsed = parse_pool(pool("p", span, avoid_buggy_ips=True))
    assert parsed.size(Family.IPV4) + parsed.size(Family.IPV6) == count


def test_an_advertisement_announces_the_pools_named_or_selected() -> None:
    pools = [pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24"), pool("c", "10.0.2.0/24")]
    selectors = (LabelSelector(match_labels={"pool": "b"}),)
    config = load(
        pools,
        [
            advertisement("every"),
            advertisement("some", ip_address_pools=("a", "unknown"), ip_address_pool_selectors=selectors),
            advertisement("none", ip_address_pools=("unknown",)),
        ],
        None,
    ).config
    announced = {
        name: {one for one in "abc" if each.announces(PoolName(one))} for name, each in config.advertisements.items()
    }
    assert announced == {"every": {"a", "b", "c"}, "some": {"a", "b"}, "none": set()}


def test_a_bad_advertisement_keeps_its_last_good_version_with_the_pools_of_today() -> None:
    before = load([pool("a", "10.0.0.0/24")], [advertisement("x", ip_address_pools=("a", "b"))], None)
    broken = advertisement("x", ip_address_pools=("a", "a"))
    after = load([pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")], [broken], before.config)
    assert after.config.advertisements["x"].pools == frozenset({PoolName("a"), PoolName("b")})
    assert [problem.field for problem in after.problems] == ["spec.ipAddressPools[1]"]
