"""Pools of node addresses into Config, and the examples for nodes and Services that are labelled for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from cluster.addresses import Family, parse_address
from cluster.config import Config, load
from cluster.node_pools import AddressSource, NodeIPPool, NodePool, parse_node_pool
from cluster.objects import IPAddressPool, PoolName
from cluster.parts import ConfigError
from cluster.selectors import matches_any

ROOT = Path(__file__).parents[2]
OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
LAN = {"addresses": ["192.0.2.0/24"]}


def node_pool(name: str, created: str = OLD, **spec: Any) -> NodeIPPool:
    """``spec`` as the API has it."""
    return msgspec.convert({"metadata": {"name": name, "creationTimestamp": created}, "spec": spec}, NodeIPPool)


def address_pool(name: str, created: str = OLD, **spec: Any) -> IPAddressPool:
    body = {"metadata": {"name": name, "creationTimestamp": created}, "spec": spec or LAN}
    return msgspec.convert(body, IPAddressPool)


def in_force(config: Config) -> tuple[set[str], set[str], set[str]]:
    """Of IPAddressPools, of NodeIPPools, and of no version of either."""
    return set(config.pools), set(config.node_pools), set(config.unreadable)


def test_what_is_left_out_has_the_defaults_of_the_definition() -> None:
    """The API server fills them in; an object from before a default was added has none."""
    definition = yaml.safe_load((ROOT / "crds/berthlb.io_nodeippools.yaml").read_text())
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    filled_in = {name: field["default"] for name, field in spec.items() if "default" in field}
    assert parse_node_pool(node_pool("a")) == parse_node_pool(node_pool("a", **filled_in))


def test_every_field_comes_into_the_pool() -> None:
    pool = parse_node_pool(
        node_pool(
            "a",
            nodeSelectors=[{"matchLabels": {"zone": "a"}}],
            families=["IPv6"],
            addresses=[{"type": "Annotation", "key": "example.com/public"}, {"type": "ExternalIP"}],
            mix=True,
            deliveredAddresses=[{"type": "InternalIP"}],
            allowedCIDRs=["2001:db8::/64", "203.0.113.7/24"],
            maxNodes=3,
            allowPorts=[22, 6443],
            allowOtherProxies=True,
            autoAssign=False,
            serviceAllocation={"priority": 7, "namespaces": ["prod"]},
        )
    )
    assert pool.allocation is not None
    assert (pool.allocation.priority, pool.allocation.namespaces) == (7, ("prod",))
    assert pool.sources == (AddressSource("Annotation", "example.com/public"), AddressSource("ExternalIP"))
    assert pool.delivered == (AddressSource("InternalIP"),)
    assert (pool.families, pool.mix, pool.max_nodes) == (frozenset({Family.IPV6}), True, 3)
    assert (pool.allow_ports, pool.allow_other_proxies, pool.auto_assign) == (frozenset({22, 6443}), True, False)
    assert (pool.selects({"zone": "a"}), pool.selects({})) == (True, False)
    for address, allowed in {
        "2001:db8::9": True,
        "203.0.113.9": True,
        "10.0.0.1": False,
        "2001:db8:1::": False,
    }.items():
        assert pool.allows(parse_address(address)) is allowed, address


def test_without_selectors_and_prefixes_every_node_and_address_will_do() -> None:
    pool = parse_node_pool(node_pool("a"))
    assert pool.selects({})
    assert pool.allows(parse_address("10.0.0.1"))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"families": []}, "spec.families: is empty; list IPv4, IPv6 or both"),
        ({"families": ["IPv4", "IPv4"]}, 'spec.families[1]: repeats "IPv4"'),
        ({"families": ["IPv5"]}, 'spec.families[0]: "IPv5" is neither IPv4 nor IPv6'),
        ({"addresses": []}, "spec.addresses: is empty; name at least one source"),
        (
            {"addresses": [{"type": "Hostname"}]},
            'spec.addresses[0].type: "Hostname" is none of Label, Annotation, ExternalIP, InternalIP',
        ),
        ({"addresses": [{"type": "Label"}]}, "spec.addresses[0].key: is missing with Label"),
        (
            {"deliveredAddresses": [{"type": "InternalIP", "key": "a"}]},
            "spec.deliveredAddresses[0].key: is not for InternalIP",
        ),
        ({"addresses": [{"type": "ExternalIP"}] * 2}, 'spec.addresses[1]: repeats "ExternalIP"'),
        (
            {"addresses": [{"type": "InternalIP"}], "deliveredAddresses": [{"type": "InternalIP"}]},
            "spec.deliveredAddresses: has the sources of spec.addresses; leave it out where there is no NAT",
        ),
        (
            {"deliveredAddresses": [{"type": "Label", "key": "node-private-ip"}]},
            "spec.allowedCIDRs: is empty; a kubelet can write Label node-private-ip, so say what it may hold",
        ),
        (
            {"allowedCIDRs": ["10.0.0.0/8", "10.0.0.1"]},
            'spec.allowedCIDRs[1]: "10.0.0.1" is not a CIDR like 192.0.2.0/24',
        ),
        ({"maxNodes": 0}, "spec.maxNodes: 0 is less than 1"),
        ({"allowPorts": [22, 65536]}, "spec.allowPorts[1]: 65536 is not a port"),
        ({"nodeSelectors": [{}, {}]}, "spec.nodeSelectors[1]: repeats the selector of [0]"),
        (
            {"serviceAllocation": {"namespaces": ["dev", "dev"]}},
            'spec.serviceAllocation.namespaces[1]: repeats "dev"',
        ),
    ],
)
def test_a_pool_that_cannot_be_honoured_names_the_field_and_the_reason(spec: Mapping[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_node_pool(node_pool("a", **spec))
    assert str(refused.value) == text
    (problem,) = load([], [], None, [node_pool("a", **spec)]).problems
    assert problem.text == f"NodeIPPool a: {text}"


def test_the_last_good_version_stays_in_force_and_after_a_restart_the_pool_is_unreadable() -> None:
    good, bad = node_pool("a", maxNodes=3), node_pool("a", maxNodes=0)
    before = load([], [], None, [good, node_pool("b")]).config
    after = load([], [], before, [bad, node_pool("b", mix=True)]).config
    assert after.node_pools[PoolName("a")].max_nodes == 3
    assert after.node_pools[PoolName("b")].mix
    assert in_force(load([], [], None, [bad, node_pool("b")]).config) == (set(), {"b"}, {"a"})
    assert in_force(load([], [], after, [node_pool("b")]).config) == (set(), {"b"}, set())


def test_pools_of_both_kinds_are_in_force_beside_each_other() -> None:
    loaded = load([address_pool("lan")], [], None, [node_pool("nodes")])
    assert in_force(loaded.config) == ({"lan"}, {"nodes"}, set())
    assert loaded.config.pool_names == {"lan", "nodes"}
    assert not loaded.problems


@pytest.mark.parametrize(
    ("pools", "nodes", "stays"),
    [
        ({"created": OLD}, {"created": NEW}, "IPAddressPool"),
        ({"created": NEW}, {"created": OLD}, "NodeIPPool"),
        ({"created": OLD}, {"created": OLD}, "IPAddressPool"),
        ({"created": OLD, "addresses": ["nonsense"]}, {"created": NEW}, "IPAddressPool"),
    ],
)
def test_of_two_kinds_with_one_name_the_older_has_it(pools: Any, nodes: Any, stays: str) -> None:
    loaded = load([address_pool("a", **pools)], [], None, [node_pool("a", **nodes)])
    (refused,) = {"IPAddressPool", "NodeIPPool"} - {stays}
    assert [each.kind for each in loaded.problems if each.word == "Overlap"] == [refused]
    given_up = {"IPAddressPool": loaded.config.pools, "NodeIPPool": loaded.config.node_pools}[refused]
    assert not given_up
    assert loaded.config.pool_names == {"a"}


@pytest.mark.parametrize("standing", ["IPAddressPool", "NodeIPPool"])
def test_a_name_stays_with_the_pool_in_force_until_that_is_deleted(standing: str) -> None:
    """Though the other one is older, and though the one in force cannot be honoured any more."""
    lan, nodes = [address_pool("a")], [node_pool("a")]
    if standing == "IPAddressPool":
        before = load(lan, [], None).config
        edited = [address_pool("a", NEW, addresses=["nonsense"])], nodes
    else:
        before = load([], [], None, nodes).config
        edited = lan, [node_pool("a", NEW, maxNodes=0)]
    both = load(edited[0], [], before, edited[1])
    assert both.config == before
    assert {(each.kind == standing, each.word) for each in both.problems} == {(True, "Invalid"), (False, "Overlap")}
    (refused,) = (each for each in both.problems if each.word == "Overlap")
    assert (refused.field, refused.name) == ("metadata.name", "a")
    assert (
        refused.reason
        == f'"a" is the name of {"an" if standing[0] == "I" else "a"} {standing} too, which stays in force'
    )
    after = load([], [], both.config, nodes) if standing == "IPAddressPool" else load(lan, [], both.config)
    assert after.config.pool_names == {"a"}
    assert (bool(after.config.pools), bool(after.config.node_pools)) == (
        standing == "NodeIPPool",
        standing != "NodeIPPool",
    )
    assert not after.problems


# ------------------------------------------------------------------------ examples


def documents(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "examples" / path).read_text()))


def example(path: str) -> dict[str, NodePool]:
    """The pools of an example, by name; all are in force."""
    sources = [msgspec.convert(each, NodeIPPool) for each in documents(path) if each["kind"] == "NodeIPPool"]
    loaded = load([], [], None, sources)
    assert not loaded.problems
    assert len(loaded.config.node_pools) == len(sources)
    return {str(name): pool for name, pool in loaded.config.node_pools.items()}


def for_service(pools: Mapping[str, NodePool], labels: Mapping[str, str]) -> list[str]:
    """The pools that are for a Service with these labels."""
    return [
        name
        for name, pool in pools.items()
        if pool.allocation is None or matches_any(pool.allocation.service_selectors, labels)
    ]


def test_the_example_for_several_clouds_fits_the_seeds_as_they_stand() -> None:
    pools = example("node-ip/multicloud.yaml")
    (service,) = documents("seeds/multicloud-service.yaml")
    assert for_service(pools, service["metadata"]["labels"]) == ["public"]
    labels = {each["metadata"]["name"]: each["metadata"]["labels"] for each in documents("seeds/multicloud-nodes.yaml")}
    selected = {name: [node for node in labels if pool.selects(labels[node])] for name, pool in pools.items()}
    assert selected == {"public": ["cloud-a-1", "cloud-b-1"], "platform": ["onprem-1"]}
    for name, pool in pools.items():
        for node in selected[name]:
            first = labels[node].get(pool.sources[0].key)
            assert first is not None, "every node has the first source, so none is left out"
            for source in (*pool.sources, *pool.delivered):
                assert source.key not in labels[node] or pool.allows(parse_address(labels[node][source.key]))


def test_the_example_for_k3s_selects_what_its_labels_say() -> None:
    pools = example("node-ip/k3s-servicelb.yaml")
    enabled, lbpool = "svccontroller.k3s.cattle.io/enablelb", "svccontroller.k3s.cattle.io/lbpool"
    assert for_service(pools, {}) == ["enabled"]
    assert for_service(pools, {lbpool: "pool1"}) == ["pool1"]
    assert for_service(pools, {lbpool: "pool2"}) == []
    nodes: tuple[dict[str, str], ...] = ({}, {enabled: "true"}, {enabled: "true", lbpool: "pool1"}, {lbpool: "pool1"})
    assert [pools["enabled"].selects(each) for each in nodes] == [False, True, True, False]
    assert [pools["pool1"].selects(each) for each in nodes] == [False, False, True, False]
    assert pools["enabled"].sources == (AddressSource("ExternalIP"), AddressSource("InternalIP"))


def test_the_example_for_cilium_selects_the_nodes_of_its_match_labels() -> None:
    pools = example("node-ip/cilium-node-ipam.yaml")
    (service,) = (each for each in documents("node-ip/cilium-node-ipam.yaml") if each["kind"] == "Service")
    (pool,) = pools.values()
    assert service["metadata"]["annotations"] == {"metallb.io/address-pool": pool.name}
    assert not pool.auto_assign, "other Services get nothing from it"
    assert pool.selects({"ingress-ready": "true", "tier": "edge"})
    for labels in ({"ingress-ready": "true"}, {"tier": "edge"}, {"ingress-ready": "true", "tier": "web"}):
        assert not pool.selects(labels)
