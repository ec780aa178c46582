"""Why a pool of nodes gives a Service nothing, as people see it."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.objects import NodeName
from controller.nodeip.guards import ServiceProxy
from controller.nodeip.reasons import LeftOut
from tests.controller.services.node_pools import (
    HTTP,
    SSH,
    cluster,
    written,
)
from tests.controller.world import assigned

# ------------------------------------------------------------------------ refusals, as people see them


@pytest.mark.parametrize(
    ("pool", "machine", "ports", "proxy", "said"),
    [
        ({}, {"internal": "10.0.0.1"}, SSH, None, ("PortGuarded",
         'pool "nodes" cannot give 22/TCP: it is for SSH on every node; spec.allowPorts of the pool allows it')),
        ({}, {"internal": "10.0.0.1"}, [{"port": 30080}], None, ("PortGuarded",
         'pool "nodes" cannot give 30080/TCP: it is in the range of NodePorts (30000-32767) on every node; '
         "spec.allowPorts of the pool allows it")),
        ({}, {"internal": "10.0.0.1"}, HTTP, ServiceProxy.IPVS, ("ProxyIPVS",
         'pool "nodes" cannot give addresses of nodes, since kube-proxy is in IPVS mode and would bind them on every '
         "node; use the mode nftables or iptables")),
        ({}, {"internal": "10.0.0.1"}, HTTP, ServiceProxy.OTHER, ("ProxyUnknown",
         'pool "nodes" cannot give addresses of nodes, since what carries traffic for Services is not known to be '
         "kube-proxy in the mode nftables or iptables; spec.allowOtherProxies of the pool allows it")),
        ({"allowedCIDRs": ["203.0.113.0/24"]}, {"internal": "10.0.0.1"}, HTTP, None, ("AddressNotAllowed",
         'pool "nodes" has no node with an address that may be shown; nodes left out: n1 (AddressNotAllowed)')),
        ({}, {"internal": "2001:db8::1"}, HTTP, None, ("NoFamily",
         'pool "nodes" has no node with an IPv4 address; nodes left out: n1 (NoAddress)')),
        ({}, {"internal": "10.0.0.1", "ready": "False"}, HTTP, None, ("NoNode",
         'pool "nodes" has no node that may be shown; nodes left out: n1 (NotReady)')),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_in_condition_and_event(
    pool: dict[str, Any],
    machine: dict[str, Any],
    ports: list[dict[str, Any]],
    proxy: ServiceProxy | None,
    said: tuple[str, str],
) -> None:
    world = cluster(0, None, nodes=pool)
    world.machines.proxy = proxy or world.machines.proxy
    world.machine("n1", **machine)
    world.put("web", ports=ports)
    world.settle()
    assert world.condition("web") == ("False", *said)
    told = f'Failed to allocate IP for "default/web": {said[1].partition("; nodes left out")[0]}'
    assert world.take_events() == [("default/web", "AllocationFailed", told)]


def test_a_guarded_port_that_the_pool_allows_is_given() -> None:
    world = cluster(1, None, nodes={"allowPorts": [22]})
    assigned(world, git={"ports": SSH})
    assert world.ip("git") == "10.0.0.1"


def test_the_nodes_that_are_left_out_are_named_briefly() -> None:
    world = cluster(50)
    reasons = list(LeftOut)[:20]
    for number in range(2, 51):
        world.machines.absences[NodeName(f"n{number}")] = reasons[number % 20]
    world.tell_nodes()
    world.put("web", ports=HTTP)
    world.settle()
    _, _, left_out = world.condition("web")[2].partition("; nodes left out: ")
    assert len(left_out) < 500
    assert left_out.startswith("n20, n40 (BeingDeleted), n21, n41 (OutOfService), ")
    assert left_out.endswith(", and 33 more")


def test_an_address_of_a_node_is_never_left_with_the_mode_proxy() -> None:
    """kube-proxy would take nothing that is sent to it, and neither would the node."""
    world = cluster(2)
    assigned(world, web={"ports": HTTP})
    world.put("web", status={"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "Proxy"}, {"ip": "10.0.0.2"}]}})
    world.settle()
    assert [each.ip_mode for each in world.view("web").status.load_balancer.ingress] == ["VIP", "VIP"]


def test_who_sets_the_mode_proxy_again_and_again_is_named_and_not_fought() -> None:
    world = cluster(1)
    assigned(world, web={"ports": HTTP})
    written(world)
    for _ in range(10):
        world.put("web", status={"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "Proxy"}]}})
        world.rest()
    assert world.condition("web")[1] == "Contested"
    assert len(written(world)) <= 4
