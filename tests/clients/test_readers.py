"""Programs that follow a load balancer's addresses find all of them in what the controller writes, in both modes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import yaml

from cluster.addresses import Family, parse_address
from cluster.objects import Condition, Service
from cluster.record import ADDRESS_ASSIGNED, assigned_words
from controller.changes import Moment, service_patch
from controller.nodeip.choice import NodeAddresses, NodeRequest, choose
from controller.nodeip.guards import PortKey, ServiceProxy
from tests.clients.readers import (
    argo_cd_health,
    external_dns_node,
    external_dns_service,
    ingress_nginx_status,
    traefik_ingress_status,
)
from tests.controller.nodeip.bodies import node, node_body, pool_of, read_all
from tests.controller.world import merge
from tests.pages import ROOT

NOW = Moment(0.0, 0.0)
PAGE = ROOT / "docs/how-to/follow-addresses.md"


def new_service() -> dict[str, Any]:
    """As the API server has it before any controller saw it."""
    return {
        "metadata": {"name": "web", "namespace": "default", "resourceVersion": "1", "uid": "u"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}]},
        "status": {"loadBalancer": {}},
    }


def given(service: dict[str, Any], addresses: Sequence[str]) -> dict[str, Any]:
    """The object once the controller has written these addresses, with what the API server adds to each."""
    said = Condition(
        ADDRESS_ASSIGNED, "True", "Assigned", assigned_words([parse_address(each) for each in addresses], "pool")
    )
    patch = service_patch(msgspec.convert(service, Service), addresses, "pool", said, NOW)
    assert patch is not None
    written: dict[str, Any] = merge(service, patch[0])
    for each in written["status"]["loadBalancer"].get("ingress", ()):
        each.setdefault("ipMode", "VIP")
    return written


def of_nodes(*families: Family) -> list[str]:
    """What the core gives a Service on fifty nodes."""
    nodes = [node(f"node-{n}", external=f"203.0.113.{n} 2001:db8::{n:x}", internal=f"10.0.0.{n}") for n in range(1, 51)]
    want = NodeRequest("u", (families,), (PortKey("TCP", 80),))
    found = choose(read_all(pool_of(), *nodes), want, proxy=ServiceProxy.NFTABLES, listeners={})
    assert isinstance(found, NodeAddresses)
    return [each.text for each in found.addresses]


V4, V6 = Family.IPV4, Family.IPV6
ADDRESSES = {
    "layer 2": ["192.0.2.10"],
    "layer 2, dual stack": ["192.0.2.10", "2001:db8::10"],
    "layer 2, IPv6 first": ["2001:db8::10", "192.0.2.10"],
    "nodes": of_nodes(V4),
    "nodes, IPv6": of_nodes(V6),
    "nodes, dual stack": of_nodes(V4, V6),
}


@pytest.mark.parametrize("addresses", ADDRESSES.values(), ids=list(ADDRESSES))
def test_each_program_finds_every_address_and_nothing_else(addresses: list[str]) -> None:
    service = given(new_service(), addresses)
    assert argo_cd_health(service) == "Healthy"
    assert traefik_ingress_status(service, []) == [{"ip": each} for each in addresses]
    assert ingress_nginx_status(service) == [{"ip": each} for each in sorted(addresses)]
    assert external_dns_service(service) == {
        kind: of_family
        for kind, colon in (("A", False), ("AAAA", True))
        if (of_family := [each for each in addresses if (":" in each) is colon])
    }


def test_no_entry_has_a_host_name_which_would_be_a_cname_beside_addresses() -> None:
    for addresses in ADDRESSES.values():
        entries = given(new_service(), addresses)["status"]["loadBalancer"]["ingress"]
        assert all(each.keys() == {"ip", "ipMode"} for each in entries)
        assert "CNAME" not in external_dns_service(given(new_service(), addresses))


def test_a_node_that_leaves_is_gone_for_each_program_at_its_next_reading() -> None:
    before = given(new_service(), ADDRESSES["nodes"])
    left = ADDRESSES["nodes"][1:]
    after = given(before, left)
    shown = traefik_ingress_status(before, [])
    assert traefik_ingress_status(after, shown) == [{"ip": each} for each in left]
    assert ingress_nginx_status(after) == [{"ip": each} for each in sorted(left)]
    assert external_dns_service(after) == {"A": left}


def test_without_any_address_traefik_alone_goes_on_showing_the_last_ones() -> None:
    before = given(new_service(), ["203.0.113.10"])
    after = given(before, [])
    assert argo_cd_health(after) == argo_cd_health(new_service()) == "Progressing"
    assert ingress_nginx_status(after) == []
    assert external_dns_service(after) == {}
    assert traefik_ingress_status(after, traefik_ingress_status(before, [])) == [{"ip": "203.0.113.10"}]


def test_external_ips_hide_the_status_from_external_dns_and_stand_beside_it_in_ingress_nginx() -> None:
    service = given(new_service(), ["203.0.113.10"])
    service["spec"]["externalIPs"] = ["10.0.0.1"]
    assert external_dns_service(service) == {"A": ["10.0.0.1"]}
    assert ingress_nginx_status(service) == [{"ip": "10.0.0.1"}, {"ip": "203.0.113.10"}]
    assert traefik_ingress_status(service, []) == [{"ip": "203.0.113.10"}]


def test_external_dns_publishes_nodes_by_itself_that_the_controller_leaves_out() -> None:
    """Its source ``node`` decides for each node alone, and does not ask whether it is Ready."""
    dead = node_body("a", external="203.0.113.1", ready="Unknown")
    mixed = node_body("b", internal="10.0.0.2 fd00::2")
    both = node_body("c", external="203.0.113.3", internal="10.0.0.3 fd00::3")
    assert external_dns_node(dead, expose_internal_ipv6=False) == {"A": ["203.0.113.1"]}
    assert external_dns_node(mixed, expose_internal_ipv6=False) == {"A": ["10.0.0.2"], "AAAA": ["fd00::2"]}
    assert external_dns_node(both, expose_internal_ipv6=False) == {"A": ["203.0.113.3"]}
    assert external_dns_node(both, expose_internal_ipv6=True) == {"A": ["203.0.113.3"], "AAAA": ["fd00::3"]}
    both["spec"]["unschedulable"] = True
    assert external_dns_node(both, expose_internal_ipv6=True) == {}


def test_the_status_that_the_page_shows_is_what_the_controller_writes() -> None:
    block = next(each for each in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "ipMode" in each)
    shown = yaml.safe_load(block)
    addresses = [each["ip"] for each in shown["status"]["loadBalancer"]["ingress"]]
    assert len(addresses) > 2
    assert given(new_service(), addresses)["status"]["loadBalancer"] == shown["status"]["loadBalancer"]


def test_each_program_that_is_read_here_is_on_the_page() -> None:
    page = PAGE.read_text()
    for file in ("health_service.go", "kubernetes.go", "status.go", "source/service.go", "source/node.go"):
        assert file in page
