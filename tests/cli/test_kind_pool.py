"""Which addresses a kind cluster's pool gets, on recorded networks and on made-up ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.kind_pool import Derived, NothingFree, PoolOfCluster, Surroundings, derive, manifest, pools_of
from cli.networks import AnswerError, Container, Network, Subnet, networks
from cluster.addresses import Address, Family, Range, parse_address, parse_range
from tests.cli.test_networks import recorded_containers, recorded_networks

NAMESPACE = "metallb-system"


def recorded(engine: str, network: str, pools: tuple[PoolOfCluster, ...] = ()) -> Surroundings:
    there = recorded_networks(engine)
    present = tuple(each for each in recorded_containers(engine).values() if network in each.networks)
    return Surroundings(there[network], tuple(each for each in there.values() if each.name != network), present, pools)


def node(*addresses: str, cluster: str = "kind", network: str = "kind") -> Container:
    parsed = tuple(parse_address(each) for each in addresses)
    return Container(f"{cluster}-control-plane", (network,), parsed, running=True, cluster=cluster, control_plane=True)


def subnet(cidr: str, leased: str | None = None, *reserved: str) -> Subnet:
    kept = tuple(parse_address(each) for each in reserved)
    return Subnet(parse_range(cidr), parse_range(leased) if leased else None, kept)


def around(network: Network | Subnet, *present: Container, pools: tuple[PoolOfCluster, ...] = ()) -> Surroundings:
    ours = network if isinstance(network, Network) else Network("kind", (network,))
    return Surroundings(ours, (), present, pools)


def pool(cluster: str, *ranges: str, name: str = "kind", namespace: str = NAMESPACE) -> PoolOfCluster:
    return PoolOfCluster(cluster, namespace, name, tuple(parse_range(each) for each in ranges))


def ranges(outcome: Derived | NothingFree) -> list[str]:
    assert isinstance(outcome, Derived), outcome.reason
    return [each.text for each in outcome.ranges]


def reason(outcome: Derived | NothingFree) -> str:
    assert isinstance(outcome, NothingFree), outcome
    assert "\n" not in outcome.reason
    return outcome.reason


# ------------------------------------------------------------------------ recorded networks


def test_kinds_network_of_docker_gives_both_families() -> None:
    outcome = derive(recorded("docker-20.10", "kind"), "kind", NAMESPACE)
    assert ranges(outcome) == [
        "172.18.255.205-172.18.255.254",
        "fc00:f853:ccd:e793:ffff:ffff:ffff:ff4e-fc00:f853:ccd:e793:ffff:ffff:ffff:ff7f",
    ]
    assert isinstance(outcome, Derived)
    assert outcome.remarks == ()


def test_kinds_network_of_podman_gives_both_families() -> None:
    outcome = derive(recorded("podman-4.3", "kind"), "kind", NAMESPACE)
    assert ranges(outcome) == [
        "10.89.0.205-10.89.0.254",
        "fc00:f853:ccd:e793:ffff:ffff:ffff:ff4e-fc00:f853:ccd:e793:ffff:ffff:ffff:ff7f",
    ]


def test_a_network_of_ipv6_alone() -> None:
    assert ranges(derive(recorded("podman-4.3", "six"), "six", NAMESPACE)) == [
        "fd77::ffff:ffff:ffff:ff4e-fd77::ffff:ffff:ffff:ff7f"
    ]


def test_the_same_of_a_docker_that_shows_more() -> None:
    """Docker since 28 names every gateway, and has networks of IPv6 alone."""
    engine = "moby-2.0.0-beta.24"
    assert ranges(derive(recorded(engine, "kind"), "kind", NAMESPACE)) == [
        "172.18.255.205-172.18.255.254",
        "fc00:f853:ccd:e793:ffff:ffff:ffff:ff4e-fc00:f853:ccd:e793:ffff:ffff:ffff:ff7f",
    ]
    assert ranges(derive(recorded(engine, "six"), "six", NAMESPACE)) == [
        "fd29::ffff:ffff:ffff:ff4e-fd29::ffff:ffff:ffff:ff7f"
    ]
    assert ranges(derive(recorded(engine, "custom"), "custom", NAMESPACE)) == ["10.20.255.200-10.20.255.249"]
    assert ranges(derive(recorded(engine, "dual"), "dual", NAMESPACE))[0] == "10.31.0.78-10.31.0.127"


def test_a_small_network_shares_what_is_left() -> None:
    """A /29 with a gateway and one node: five are free, and containers keep more than half of them."""
    outcome = derive(recorded("docker-20.10", "small"), "small", NAMESPACE)
    assert ranges(outcome) == ["10.9.8.5-10.9.8.6"]
    assert isinstance(outcome, Derived)
    assert outcome.remarks == (
        "10.9.8.0/29 is small: 2 addresses left for containers, and the one after may get one of 10.9.8.5-10.9.8.6",
    )


def test_outside_the_range_for_containers() -> None:
    """Below the gateway, which is the last address, and below a stopped container's own address."""
    assert ranges(derive(recorded("docker-20.10", "custom"), "custom", NAMESPACE)) == ["10.20.255.200-10.20.255.249"]
    assert ranges(derive(recorded("docker-20.10", "dual"), "dual", NAMESPACE)) == [
        "10.31.0.78-10.31.0.127",
        "fd12::ffff:ffff:ffff:ff4e-fd12::ffff:ffff:ffff:ff7f",
    ]


def test_another_cluster_on_the_network_has_a_pool_of_its_own() -> None:
    """One after the other, each next to the last; a cluster that is stopped still has its pool."""
    first = derive(recorded("docker-20.10", "kind"), "kind", NAMESPACE)
    there: tuple[PoolOfCluster, ...] = (pool("kind", *ranges(first)),)
    second = derive(recorded("docker-20.10", "kind", there), "b", NAMESPACE)
    assert ranges(second)[0] == "172.18.255.155-172.18.255.204"
    assert len(ranges(second)) == 2
    there = (*there, pool("b", *ranges(second)))
    assert ranges(derive(recorded("docker-20.10", "kind", there), "kind", NAMESPACE)) == ranges(first)
    assert ranges(derive(recorded("docker-20.10", "kind", there), "b", NAMESPACE)) == ranges(second)


# ------------------------------------------------------------------------ what is taken


def test_a_pool_of_the_same_cluster_under_another_name_counts_too() -> None:
    """Two pools of one cluster may not overlap."""
    mine = pool("kind", "172.18.255.200-172.18.255.250", name="example")
    situation = around(subnet("172.18.0.0/16", None, "172.18.0.1"), node("172.18.0.2"), pools=(mine,))
    outcome = derive(situation, "kind", NAMESPACE)
    assert ranges(outcome) == ["172.18.255.150-172.18.255.199"]


def test_of_pools_that_overlap_the_one_of_the_first_name_stays() -> None:
    """Two that were derived at the same time: derived once more, they are apart."""
    both = "172.18.255.205-172.18.255.254"
    there = (pool("a", both), pool("b", both))
    network = subnet("172.18.0.0/16", None, "172.18.0.1")
    nodes = (node("172.18.0.2", cluster="a"), node("172.18.0.3", cluster="b"))
    stays = derive(around(network, *nodes, pools=there), "a", NAMESPACE)
    assert ranges(stays) == [both]
    assert isinstance(stays, Derived)
    assert stays.remarks == ("pool kind of cluster b overlaps this one, which stays: derive that cluster's again",)
    moves = derive(around(network, *nodes, pools=there), "b", NAMESPACE)
    assert ranges(moves) == ["172.18.255.155-172.18.255.204"]


def test_a_pool_that_somebody_chose_does_not_give_way() -> None:
    both = "172.18.255.205-172.18.255.254"
    there = (pool("a", both), pool("b", both, name="example"))
    situation = around(subnet("172.18.0.0/16"), node("172.18.0.2", cluster="a"), pools=there)
    assert ranges(derive(situation, "a", NAMESPACE)) == ["172.18.255.155-172.18.255.204"]


def test_a_container_that_came_to_an_address_of_the_pool_takes_that_one_only() -> None:
    network = subnet("10.0.0.0/24", None, "10.0.0.1")
    guest = Container("guest", ("kind",), (parse_address("10.0.0.230"),), running=True)
    mine = pool("kind", "10.0.0.205-10.0.0.254")
    outcome = derive(around(network, node("10.0.0.2"), guest, pools=(mine,)), "kind", NAMESPACE)
    assert ranges(outcome) == ["10.0.0.205-10.0.0.229", "10.0.0.231-10.0.0.254"]


def test_a_pool_of_a_network_that_was_made_anew_is_left() -> None:
    mine = pool("kind", "172.18.255.205-172.18.255.254")
    situation = around(subnet("172.20.0.0/16", None, "172.20.0.1"), node("172.20.0.2"), pools=(mine,))
    outcome = derive(situation, "kind", NAMESPACE)
    assert ranges(outcome) == ["172.20.255.205-172.20.255.254"]


def test_what_another_network_has_of_this_one_does_not_arrive_here() -> None:
    ours = Network("kind", (subnet("10.20.0.0/16", None, "10.20.0.1"),))
    inside = Network("inside", (subnet("10.20.128.0/17"),))
    beyond = Network("beyond", (subnet("10.0.0.0/8"),))
    elsewhere = Network("elsewhere", (subnet("192.168.0.0/16"),))
    situation = Surroundings(ours, (inside, beyond, elsewhere), (node("10.20.0.2"),), ())
    assert ranges(derive(situation, "kind", NAMESPACE)) == ["10.20.127.206-10.20.127.255"]
    twin = replace(situation, others=(Network("twin", ours.subnets),))
    assert "network twin" in reason(derive(twin, "kind", NAMESPACE))


def test_of_several_subnets_the_one_that_the_nodes_have() -> None:
    two = Network("kind", (subnet("10.30.0.0/24"), subnet("10.32.0.0/24")))
    assert ranges(derive(around(two, node("10.30.0.2")), "kind", NAMESPACE)) == ["10.30.0.205-10.30.0.254"]


def test_a_gap_is_taken_where_nothing_above_has_room() -> None:
    """Containers with addresses of their own near the end do not make the pool small."""
    high = Container("high", ("kind",), (parse_address("10.0.0.240"),), running=True)
    outcome = derive(around(subnet("10.0.0.0/24", None, "10.0.0.1"), node("10.0.0.2"), high), "kind", NAMESPACE)
    assert ranges(outcome) == ["10.0.0.190-10.0.0.239"]


# ------------------------------------------------------------------------ nothing to have


def test_a_full_network_says_who_has_it() -> None:
    nodes = [node(f"10.9.8.{last}") for last in (2, 3, 4)]
    other = node("10.9.8.5", cluster="b")
    situation = around(
        subnet("10.9.8.0/29", None, "10.9.8.1"), *nodes, other, pools=(pool("b", "10.9.8.6/32", name="x"),)
    )
    assert reason(derive(situation, "kind", NAMESPACE)) == (
        "nothing is free in 10.9.8.0/29, which has 8 addresses: the network's own address 1, the broadcast address 1,"
        " the gateway or reserved 1, containers 4, pool x of cluster b 1"
    )


def test_one_family_is_full_and_the_other_is_not() -> None:
    dual = Network("kind", (subnet("10.9.8.0/30", None, "10.9.8.1"), subnet("fd00::/64", None, "fd00::1")))
    outcome = derive(around(dual, node("10.9.8.2", "fd00::2")), "kind", NAMESPACE)
    assert ranges(outcome) == ["fd00::ffff:ffff:ffff:ff4e-fd00::ffff:ffff:ffff:ff7f"]
    assert isinstance(outcome, Derived)
    assert len(outcome.remarks) == 1
    assert outcome.remarks[0].startswith("nothing is free in 10.9.8.0/30")


def test_a_cluster_that_is_not_there() -> None:
    situation = around(subnet("10.0.0.0/24"), node("10.0.0.2", cluster="b"), node("10.0.0.3", cluster="a"))
    assert reason(derive(situation, "kind", NAMESPACE)) == (
        "cluster kind has no node on network kind; there are nodes of a, b"
    )


def test_a_network_without_addresses() -> None:
    assert reason(derive(around(Network("kind", ()), node()), "kind", NAMESPACE)) == "network kind has no subnet"


# ------------------------------------------------------------------------ in general


@st.composite
def _situations(draw: st.DrawFn) -> Surroundings:
    """Crowded networks of any size."""
    family = draw(st.sampled_from(Family))
    length = draw(st.integers(family.bits - 9, family.bits - 1))
    base = {Family.IPV4: 10 << 24, Family.IPV6: 0xFD << 120}[family]
    count = 1 << (family.bits - length)
    block = Range(family, base, base + count - 1)

    def addresses(most: int) -> list[Address]:
        return [Address(family, base + each) for each in draw(st.lists(st.integers(0, count - 1), max_size=most))]

    def part() -> Range:
        one, other = sorted((draw(st.integers(0, count - 1)), draw(st.integers(0, count - 1))))
        return Range(family, base + one, base + other)

    leased = part() if draw(st.booleans()) else None
    ours = Network("kind", (Subnet(block, leased, tuple(addresses(2))),))
    present = [
        Container(f"c{number}", ("kind",), tuple(addresses(3)), running=draw(st.booleans()), cluster=cluster)
        for number, cluster in enumerate(["a", "b", None])
    ]
    pools = [
        PoolOfCluster(cluster, NAMESPACE, name, (part(),))
        for cluster, name in draw(st.lists(st.sampled_from([("a", "kind"), ("a", "x"), ("b", "x")]), unique=True))
    ]
    others = (Network("other", (Subnet(part(), None, ()),)),) if draw(st.booleans()) else ()
    return Surroundings(ours, others, tuple(present), tuple(pools))


@given(_situations())
def test_nothing_that_somebody_has_is_ever_in_a_pool(situation: Surroundings) -> None:
    """And two clusters, one after the other, are apart, and stay as they are when they are derived again."""
    has = [situation.network.subnets[0].leased, *(each.subnets[0].block for each in situation.others)]
    addresses = {address for each in situation.containers for address in each.addresses}
    addresses |= set(situation.network.subnets[0].reserved)
    pools = situation.pools
    derived: dict[str, tuple[Range, ...]] = {}
    for cluster in ("a", "b", "a", "b"):
        outcome = derive(replace(situation, pools=pools), cluster, NAMESPACE)
        if isinstance(outcome, NothingFree):
            assert outcome.reason.startswith("nothing is free")
            continue
        foreign = [block for each in pools if (each.cluster, each.name) != (cluster, "kind") for block in each.ranges]
        for block in outcome.ranges:
            assert block.first >= situation.network.subnets[0].block.first
            assert block.last <= situation.network.subnets[0].block.last
            assert not any(address in block for address in addresses)
            assert not any(block.overlaps(each) for each in [*has, *foreign] if each is not None)
            parse_range(block.text)
        assert derived.get(cluster, outcome.ranges) == outcome.ranges
        derived[cluster] = outcome.ranges
        pools = (
            *(each for each in pools if (each.cluster, each.name) != (cluster, "kind")),
            PoolOfCluster(cluster, NAMESPACE, "kind", outcome.ranges),
        )


# ------------------------------------------------------------------------ pools, as a cluster says them


def test_the_pools_of_a_cluster_are_read_and_what_is_no_range_is_passed_by() -> None:
    items = [
        {"metadata": {"name": "kind", "namespace": "lb"}, "spec": {"addresses": ["10.0.0.0/30", "soon", "::1/128"]}},
        {"metadata": {"name": "empty", "namespace": "lb"}, "spec": {}},
    ]
    answer = json.dumps({"kind": "IPAddressPoolList", "metadata": {}, "items": items}).encode()
    assert pools_of("b", answer) == (pool("b", "10.0.0.0/30", namespace="lb"), pool("b", name="empty", namespace="lb"))


def test_what_is_no_list_of_pools_is_refused() -> None:
    with pytest.raises(AnswerError, match="the pools of cluster b cannot be read"):
        pools_of("b", b"upstream connect error")


def test_the_manifest_names_the_pool_in_its_advertisement() -> None:
    written, advertisement = manifest((parse_range("10.0.0.4/31"), parse_range("fd00::/126")), "lb")
    assert written["spec"] == {"addresses": ["10.0.0.4-10.0.0.5", "fd00::-fd00::3"]}
    assert advertisement["spec"] == {"ipAddressPools": [written["metadata"]["name"]]}
    assert {each["metadata"]["namespace"] for each in (written, advertisement)} == {"lb"}


def test_networks_need_no_name_to_be_told_apart() -> None:
    """Both forms in one answer are read one by one."""
    answer = b'[{"Name": "a", "IPAM": {"Config": null}}, {"name": "b", "subnets": null}]'
    assert [each.name for each in networks(answer)] == ["a", "b"]
