"""Which rules a node gets, and how it gets from some rules to others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from cluster.addresses import Family
from cluster.objects import Service
from cluster.slices import EndpointSlice
from lab.client import Lab
from lab.layout import Families, Host, lay_out
from lab.standins.rules import NODE_PORTS, REFUSED, SERVICES, Rules, join, rules_of, script
from tests.lab.conftest import end, make

NODE = lay_out(2).nodes[0]
DUAL = lay_out(2, families=Families.DUAL).nodes[0]
ADDRESS, ADDRESS_V6 = "172.18.255.200", "fd00:b1b::255:200"
V4, V6 = Family.IPV4, Family.IPV6


def a_service(name: str = "web", **spec: Any) -> Service:
    ports = [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]
    body = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.10"], "ports": ports, **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}, {"ip": ADDRESS_V6}]}},
    }
    body["spec"]["clusterIP"] = next(iter(body["spec"]["clusterIPs"]), "")
    return msgspec.convert(body, Service)


def a_slice(*endpoints: dict[str, Any], name: str = "web") -> EndpointSlice:
    labels = {"kubernetes.io/service-name": name}
    metadata = {"name": f"{name}-0", "namespace": "default", "labels": labels}
    body = {"metadata": metadata, "endpoints": endpoints, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]}
    if any(":" in address for endpoint in endpoints for address in endpoint["addresses"]):
        body["addressType"] = "IPv6"
    return msgspec.convert(body, EndpointSlice)


def an_endpoint(address: str, node: str = "node-1", **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": node, "conditions": conditions}


def targets(rules: Rules) -> set[str]:
    """Where the rules send packets to."""
    return {rule.rpartition(" ")[2] for chain in rules.chains.values() for rule in chain if " dnat ip" in rule}


def test_an_unknown_readiness_counts_as_ready() -> None:
    ready = an_endpoint("10.244.1.2", ready=True)
    unknown, not_ready = an_endpoint("10.244.1.3"), an_endpoint("10.244.1.4", ready=False)
    rules = rules_of(a_service(), [a_slice(ready, unknown, not_ready)], NODE)
    assert targets(rules) == {"10.244.1.2:8080", "10.244.1.3:8080"}


def test_endpoints_that_end_but_still_serve_are_the_last_resort() -> None:
    ending = an_endpoint("10.244.1.3", ready=False, serving=True, terminating=True)
    ready = an_endpoint("10.244.1.2", ready=True)
    assert targets(rules_of(a_service(), [a_slice(ending, ready)], NODE)) == {"10.244.1.2:8080"}
    assert targets(rules_of(a_service(), [a_slice(ending)], NODE)) == {"10.244.1.3:8080"}
    elsewhere = an_endpoint("10.244.2.2", "node-2", ready=True)
    assert targets(rules_of(a_service(), [a_slice(ending, elsewhere)], NODE)) == {"10.244.2.2:8080"}


def test_with_the_policy_local_an_ending_endpoint_of_the_node_serves_whatever_there_is_elsewhere() -> None:
    ending = an_endpoint("10.244.1.3", ready=False, serving=True, terminating=True)
    elsewhere = an_endpoint("10.244.2.2", "node-2", ready=True)
    rules = rules_of(a_service(externalTrafficPolicy="Local"), [a_slice(ending, elsewhere)], NODE)
    assert (REFUSED, V4, f"tcp . {ADDRESS} . 80") not in rules.elements
    (choice,) = rules.chains["external-default/web/IPv4/tcp/80"][1:]
    assert choice == ("numgen random mod 1 vmap { 0 : goto endpoint-default/web/IPv4/tcp/80/10.244.1.3/8080 }")


def test_without_endpoints_every_address_is_refused() -> None:
    rules = rules_of(a_service(), [], NODE)
    assert rules.chains == {}
    assert rules.elements[REFUSED, V4, f"tcp . {ADDRESS} . 80"] == "goto refuse"
    assert (SERVICES, V4, f"tcp . {ADDRESS} . 80") not in rules.elements


def test_local_without_a_local_endpoint_drops_from_outside_only() -> None:
    elsewhere = a_slice(an_endpoint("10.244.2.2", "node-2", ready=True))
    rules = rules_of(a_service(externalTrafficPolicy="Local"), [elsewhere], NODE)
    assert rules.elements[REFUSED, V4, f"tcp . {ADDRESS} . 80"] == "drop"
    assert rules.elements[SERVICES, V4, "tcp . 10.96.0.10 . 80"] == "goto service-default/web/IPv4/tcp/80"
    assert targets(rules) == {"10.244.2.2:8080"}


@pytest.mark.parametrize("spec", [{"type": "ExternalName"}, {"clusterIPs": ["None"]}, {"clusterIPs": []}])
def test_a_service_without_a_cluster_address_has_no_rules(spec: dict[str, Any]) -> None:
    rules = rules_of(a_service(**spec), [a_slice(an_endpoint("10.244.1.2", ready=True))], NODE)
    assert (rules.chains, rules.elements) == ({}, {})


def test_an_address_that_is_a_proxys_is_left_to_the_proxy() -> None:
    status = msgspec.convert(
        {"loadBalancer": {"ingress": [{"ip": ADDRESS, "ipMode": "Proxy"}]}}, type(a_service().status)
    )
    service = msgspec.structs.replace(a_service(), status=status)
    rules = rules_of(service, [a_slice(an_endpoint("10.244.1.2", ready=True))], NODE)
    assert (SERVICES, V4, f"tcp . {ADDRESS} . 80") not in rules.elements
    assert (NODE_PORTS, V4, "tcp . 30080") in rules.elements


def test_each_family_goes_to_endpoints_of_its_own() -> None:
    slices = [a_slice(an_endpoint("10.244.1.2", ready=True)), a_slice(an_endpoint("fd00:10:244:1::2", ready=True))]
    service = a_service(clusterIPs=["10.96.0.10", "fd00:10:96::10"])
    rules = rules_of(service, slices, DUAL)
    assert targets(rules) == {"10.244.1.2:8080", "[fd00:10:244:1::2]:8080"}
    assert rules.elements[SERVICES, V4, f"tcp . {ADDRESS} . 80"] == "goto external-default/web/IPv4/tcp/80"
    assert rules.elements[SERVICES, V6, f"tcp . {ADDRESS_V6} . 80"] == "goto external-default/web/IPv6/tcp/80"
    assert {family for kind, family, _ in rules.elements if kind == NODE_PORTS} == {V4, V6}
    only_v4 = rules_of(service, slices[:1], DUAL)
    assert only_v4.elements[REFUSED, V6, f"tcp . {ADDRESS_V6} . 80"] == "goto refuse"
    assert targets(only_v4) == {"10.244.1.2:8080"}
    single = rules_of(a_service(), slices, DUAL)
    assert {family for _, family, _ in single.elements} == {V4}, "a Service of one family has no other's address"


def test_of_two_services_with_one_address_the_first_has_it() -> None:
    slices = [a_slice(an_endpoint("10.244.1.2", ready=True))]
    both = [
        rules_of(a_service(name, clusterIPs=[ip]), slices, NODE)
        for name, ip in (("a", "10.96.0.1"), ("b", "10.96.0.2"))
    ]
    assert join(both).elements[SERVICES, V4, f"tcp . {ADDRESS} . 80"] == "goto external-default/a/IPv4/tcp/80"


def test_no_difference_says_nothing() -> None:
    rules = rules_of(a_service(), [a_slice(an_endpoint("10.244.1.2", ready=True))], NODE)
    assert script(rules, rules, NODE) == ""


# ------------------------------------------------------------------------ the kernel agrees


def some_rules(rng: random.Random, node: Host) -> Rules:
    """The rules of a few Services that may have anything."""
    parts = []
    for number in range(rng.randrange(5)):
        name = f"svc-{number}"
        slices = [
            a_slice(
                *(
                    an_endpoint(f"{network.format(n)}{rng.randrange(2, 5)}", f"node-{n}", ready=rng.random() < 0.8)
                    for n in range(1, 3)
                    for _ in range(rng.randrange(3))
                ),
                name=name,
            )
            for network in ("10.244.{}.", "fd00:10:244:{}::")
        ]
        addresses = [f"10.96.0.{number + 1}", f"fd00:10:96::{number + 1}"]
        service = a_service(
            name,
            clusterIPs=rng.choice([addresses, addresses[:1], addresses[1:]]),
            externalTrafficPolicy=rng.choice(["Cluster", "Local"]),
            sessionAffinity=rng.choice(["None", "ClientIP"]),
            type=rng.choice(["ClusterIP", "LoadBalancer"]),
            ports=[{"port": rng.choice([80, 81]), "nodePort": 30000 + number, "protocol": rng.choice(["TCP", "UDP"])}],
        )
        parts.append(rules_of(service, slices, node))
    return join(parts)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = make(nodes=1)
    yield made
    end(made)


@pytest.mark.lab
@pytest.mark.parametrize("seed", range(3))
def test_changing_rules_step_by_step_ends_where_writing_them_anew_does(lab: Lab, seed: int) -> None:
    """On a host without a proxy of its own, so that only these rules are there."""
    rng = random.Random(seed)
    installed: Rules | None = None
    for _ in range(12):
        wanted = some_rules(rng, DUAL)
        lab.run("client", ["nft", "-f", "-"], input=script(installed, wanted, DUAL), check=True)
        installed = wanted
    stepwise = listed(lab)
    assert installed is not None
    lab.run("client", ["nft", "-f", "-"], input=script(None, installed, DUAL), check=True)
    assert listed(lab) == stepwise


def listed(lab: Lab) -> list[str]:
    """The table as the kernel has it: chains and elements in the order of their names."""
    text = lab.run("client", ["nft", "list", "table", "inet", "lab-proxy"], check=True).output
    chains = sorted(text.split("\n\n"))
    return sorted(" ".join(chain.split()).replace("table inet lab-proxy { ", "").rstrip(" }") for chain in chains)
