"""The examples' pools give Services what the programs gave them that their nodes and Services are labelled for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

from cluster.addresses import Family, parse_address
from cluster.config import load
from cluster.node_pools import NodeIPPool, NodePool
from cluster.objects import Node
from cluster.selectors import matches_any
from controller.nodeip.choice import NodeAddresses, NodePoolRefusal, NodeRequest, choose
from controller.nodeip.guards import PortKey, ServiceProxy
from tests.clients.other_controllers import ENABLE, POOL, node_ipam, service_lb
from tests.controller.nodeip.bodies import node_body, pool_of, read_all
from tests.controller.world import World
from tests.pages import ROOT, rows, section

READY = {"type": "Ready", "status": "True"}
Families = Sequence[str]


def documents(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "examples" / path).read_text()))


def pools_of(path: str) -> dict[str, NodePool]:
    """The pools of an example that are in force."""
    sources = [msgspec.convert(each, NodeIPPool) for each in documents(path) if each["kind"] == "NodeIPPool"]
    loaded = load([], [], None, sources)
    assert not loaded.problems
    return {str(name): pool for name, pool in loaded.config.node_pools.items()}


def pool_for(pools: Mapping[str, NodePool], labels: Mapping[str, str]) -> NodePool | None:
    """The one pool whose ``serviceAllocation`` is for a Service with these labels."""
    fit = [
        pool for pool in pools.values() if not pool.allocation or matches_any(pool.allocation.service_selectors, labels)
    ]
    assert len(fit) < 2
    return fit[0] if fit else None


def given(pool: NodePool, nodes: Sequence[dict[str, Any]], families: Families = ("IPv4",)) -> list[str]:
    """The addresses that the pool gives a Service on port 80; empty: it refuses."""
    of_pool = read_all(pool, *(msgspec.convert(each, Node) for each in nodes))
    wanted = tuple(family for text in families for family in Family if family.text == text)
    found = choose(
        of_pool, NodeRequest("u", (wanted,), (PortKey("TCP", 80),)), proxy=ServiceProxy.NFTABLES, listeners={}
    )
    if isinstance(found, NodePoolRefusal):
        return []
    assert isinstance(found, NodeAddresses)
    return [each.text for each in found.addresses]


def some_nodes(chance: random.Random, labels: Mapping[str, Sequence[str | None]]) -> list[dict[str, Any]]:
    """Up to eight Ready nodes with addresses of IPv4; each with some value of each label, or none (None)."""
    nodes = []
    for n in range(chance.randrange(1, 9)):
        own = {key: value for key, values in labels.items() if (value := chance.choice(values)) is not None}
        external = f"203.0.113.{n + 1}" if chance.random() < 0.5 else ""
        nodes.append(node_body(f"node-{n}", external=external, internal=f"10.0.0.{n + 1}", labels=own))
    return nodes


# ------------------------------------------------------------------------ k3s ServiceLB


def test_the_pools_for_k3s_give_what_service_lb_gives() -> None:
    pools = pools_of("node-ip/k3s-servicelb.yaml")
    for seed in range(300):
        nodes = some_nodes(
            random.Random(seed), {ENABLE: (None, "true", "true", "false"), POOL: (None, "pool1", "pool2")}
        )
        nodes[0]["metadata"]["labels"][ENABLE] = "true"  # the list is in use
        for labels in ({}, {POOL: "pool1"}):
            pool = pool_for(pools, labels)
            assert pool is not None
            assert sorted(given(pool, nodes)) == service_lb(nodes, labels, ["IPv4"]), seed


def test_where_no_node_is_enabled_service_lb_uses_all_as_a_pool_without_selectors_does() -> None:
    nodes = some_nodes(random.Random(1), {POOL: ("pool1", "pool2")})
    assert len(nodes) > 1
    assert sorted(given(pool_of(), nodes)) == service_lb(nodes, {POOL: "pool1"}, ["IPv4"])


def test_service_lb_chooses_the_source_for_both_families_together_and_so_hides_one() -> None:
    nodes = [node_body("a", external="203.0.113.1", internal="10.0.0.1 2001:db8::1")]
    both = ("IPv4", "IPv6")
    pool = pools_of("node-ip/k3s-servicelb.yaml")["enabled"]
    nodes[0]["metadata"]["labels"][ENABLE] = "true"
    assert service_lb(nodes, {}, both) == ["203.0.113.1"]
    assert given(pool, nodes, both) == ["203.0.113.1", "2001:db8::1"]


def test_a_service_of_service_lb_keeps_its_addresses_when_it_is_replaced() -> None:
    """Its status is written by the other program, and no condition says whose it is."""
    world = World({})
    spec = next(
        each["spec"] for each in documents("node-ip/k3s-servicelb.yaml") if each["metadata"]["name"] == "enabled"
    )
    nodes = [node_body(f"n{n}", internal=f"10.0.0.{n}", labels={ENABLE: "true"}) for n in range(1, 4)]
    shown = [{"ip": each, "ipMode": "VIP"} for each in service_lb(nodes, {}, ["IPv4"])]
    world.put("web", ports=[{"port": 80}], status={"loadBalancer": {"ingress": shown}})
    world.configure_nodes(enabled=spec)
    for n in range(1, 4):
        world.machine(f"n{n}", internal=f"10.0.0.{n}", labels={ENABLE: "true"})
    world.start()
    world.settle()
    assert world.ip("web") == "10.0.0.1,10.0.0.2,10.0.0.3"
    (write,) = world.take_writes()
    assert "loadBalancer" not in write.body["status"], "only the condition is new"


# ------------------------------------------------------------------------ Cilium's node IPAM


def test_the_pool_for_cilium_gives_what_node_ipam_gives() -> None:
    """``ingress-ready=true,tier in (edge,core)``, as the example's comment has it."""
    (pool,) = pools_of("node-ip/cilium-node-ipam.yaml").values()
    some_labels = {"ingress-ready": (None, "true", "true", "false"), "tier": (None, "edge", "core", "web")}
    for seed in range(300):
        chance = random.Random(seed)
        nodes = some_nodes(chance, some_labels)
        for each in nodes:
            if chance.random() < 0.2:
                each["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"] = ""
            if chance.random() < 0.2:
                each["spec"]["taints"] = [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]
        matching = [
            each
            for each in nodes
            if (labels := each["metadata"]["labels"]).get("ingress-ready") == "true"
            and labels.get("tier") in {"edge", "core"}
        ]
        assert sorted(given(pool, nodes)) == node_ipam(matching, ["IPv4"]), seed


def test_node_ipam_goes_on_showing_a_node_that_is_not_ready() -> None:
    labels = {"ingress-ready": "true", "tier": "edge"}
    nodes = [
        node_body("a", internal="10.0.0.1", labels=labels),
        node_body("b", internal="10.0.0.2", labels=labels, ready="Unknown"),
    ]
    (pool,) = pools_of("node-ip/cilium-node-ipam.yaml").values()
    assert node_ipam(nodes, ["IPv4"]) == ["10.0.0.1", "10.0.0.2"]
    assert given(pool, nodes) == ["10.0.0.1"]


# ------------------------------------------------------------------------ the webhook that reads labels


def seed_nodes() -> list[dict[str, Any]]:
    """As a kubelet completes them: each is Ready, and has its private address as InternalIP."""
    nodes = documents("seeds/multicloud-nodes.yaml")
    for n, each in enumerate(nodes):
        private = each["metadata"]["labels"].get("node-private-ip", f"10.9.0.{n}")
        each.setdefault("spec", {})
        each["status"] = {"addresses": [{"type": "InternalIP", "address": private}], "conditions": [READY]}
    return nodes


def test_the_page_says_what_the_seeds_get() -> None:
    (service,) = documents("seeds/multicloud-service.yaml")
    pools = pools_of("node-ip/multicloud.yaml")
    pool = pool_for(pools, service["metadata"]["labels"])
    assert pool is not None
    page = ROOT / "docs/how-to/move-to-node-ip.md"
    told = rows(section(page, "A webhook that reads node labels"))[-1]
    meta, addresses = service["metadata"], given(pool, seed_nodes())
    deliveries = read_all(pool, *(msgspec.convert(each, Node) for each in seed_nodes())).delivered
    delivered = [
        to.text for each in map(parse_address, addresses) if each in deliveries for to in deliveries[each].addresses
    ]
    assert told == [
        f"`{meta['namespace']}/{meta['name']}`",
        f"`{pool.name}`",
        ", ".join(addresses),
        ", ".join(delivered),
    ]


def test_the_pool_for_platform_nodes_gives_their_private_address() -> None:
    pool = pool_for(pools_of("node-ip/multicloud.yaml"), {"use-as-loadbalancer": "platform"})
    assert pool is not None
    assert given(pool, seed_nodes()) == ["192.168.1.21"]


def test_what_a_label_of_the_seeds_may_hold_is_limited() -> None:
    nodes = seed_nodes()
    nodes[1]["metadata"]["labels"]["node-public-ip"] = "192.0.2.66"  # its kubelet writes it
    pool = pools_of("node-ip/multicloud.yaml")["public"]
    assert given(pool, nodes) == ["203.0.113.10"]
    assert not pool.allows(parse_address("192.0.2.66"))
