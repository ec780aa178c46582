"""Ports that nodes need, addresses that are not a node's, and proxies."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.addresses import parse_address, parse_range
from cluster.objects import NodeName
from controller.nodeip.guards import (
    AddressGuard,
    ClusterRanges,
    PortKey,
    ServiceProxy,
    guarded_port,
    refused_proxy,
)
from controller.nodeip.nodes import read_node
from controller.nodeip.reasons import LeftOut, NodePoolRefusalReason
from tests.controller.nodeip.bodies import LABEL, node, pool_of


@pytest.mark.parametrize(
    "text",
    [
        "22/TCP", "53/TCP", "53/UDP", "68/UDP", "179/TCP", "2379/TCP", "2380/TCP", "4789/UDP", "6081/UDP", "6443/TCP",
        "7946/UDP", "7948/UDP", "8472/UDP", "9345/TCP", "10248/TCP", "10250/TCP", "10256/TCP", "10259/TCP",
        "30000/TCP", "31234/UDP", "32767/SCTP", "51820/UDP",
    ],
)  # fmt: skip
def test_a_port_that_nodes_need_is_guarded_unless_it_is_allowed(text: str) -> None:
    port, _, protocol = text.partition("/")
    key = PortKey(protocol, int(port))
    found = guarded_port([PortKey("TCP", 80), key], frozenset())
    assert found is not None
    assert found.key.text == text
    assert guarded_port([PortKey("TCP", 80), key], frozenset({int(port)})) is None


@pytest.mark.parametrize("key", [("TCP", 80), ("TCP", 443), ("UDP", 443), ("UDP", 22), ("TCP", 10247), ("TCP", 10260),
                                 ("TCP", 29999), ("TCP", 32768)])  # fmt: skip
def test_other_ports_are_free(key: tuple[str, int]) -> None:
    assert guarded_port([PortKey(*key)], frozenset()) is None


def test_the_range_of_node_ports_is_the_cluster_s() -> None:
    assert guarded_port([PortKey("TCP", 30000)], frozenset(), range(20000, 20100)) is None
    assert guarded_port([PortKey("TCP", 20099)], frozenset(), range(20000, 20100)) is not None


@pytest.mark.parametrize(
    ("proxy", "allow_other", "refused"),
    [
        (ServiceProxy.IPTABLES, False, None),
        (ServiceProxy.NFTABLES, False, None),
        (ServiceProxy.OTHER, False, NodePoolRefusalReason.PROXY_UNKNOWN),
        (ServiceProxy.OTHER, True, None),
        (ServiceProxy.IPVS, False, NodePoolRefusalReason.PROXY_IPVS),
        (ServiceProxy.IPVS, True, NodePoolRefusalReason.PROXY_IPVS),
    ],
)
def test_proxies(proxy: ServiceProxy, allow_other: bool, refused: NodePoolRefusalReason | None) -> None:
    assert refused_proxy(proxy, allow_other=allow_other) is refused


RANGES = ClusterRanges(services=(parse_range("10.96.0.0/12"),), pods=(parse_range("10.244.0.0/16"),))
OTHERS: dict[str, dict[str, Any]] = {
    "b": {"internal": "10.0.0.2", "external": "203.0.113.2"},
    "c": {"label": "203.0.113.3"},
}


@pytest.mark.parametrize(
    ("label", "refused"),
    [
        ("203.0.113.1", None),
        ("0.0.0.0", LeftOut.UNREACHABLE_ADDRESS),
        ("127.0.0.1", LeftOut.UNREACHABLE_ADDRESS),
        ("169.254.169.254", LeftOut.UNREACHABLE_ADDRESS),
        ("224.0.0.1", LeftOut.UNREACHABLE_ADDRESS),
        ("255.255.255.255", LeftOut.UNREACHABLE_ADDRESS),
        ("::", LeftOut.UNREACHABLE_ADDRESS),
        ("::1", LeftOut.UNREACHABLE_ADDRESS),
        ("::ffff:127.0.0.1", LeftOut.UNREACHABLE_ADDRESS),
        ("fe80::1", LeftOut.UNREACHABLE_ADDRESS),
        ("ff02::1", LeftOut.UNREACHABLE_ADDRESS),
        ("10.96.0.10", LeftOut.SERVICE_RANGE),
        ("10.244.3.4", LeftOut.POD_RANGE),
        ("10.0.0.2", LeftOut.ANOTHER_NODES),
        ("203.0.113.2", LeftOut.ANOTHER_NODES),
        ("203.0.113.3", LeftOut.ANOTHER_NODES),
        ("198.51.100.1", LeftOut.NOT_ALLOWED),
        ("2001:db8::1", LeftOut.NOT_ALLOWED),
    ],
)
def test_what_a_kubelet_writes_is_judged(label: str, refused: LeftOut | None) -> None:
    pool = pool_of(sources=(LABEL,), allowed=(parse_range("203.0.113.0/24"), parse_range("10.0.0.0/8")))
    nodes = [node("a", label=label), *(node(name, **fields) for name, fields in OTHERS.items())]
    guard = AddressGuard(pool, [read_node(each, pool.sources) for each in nodes], RANGES)
    assert guard.refuses(NodeName("a"), parse_address(label)) is refused


def test_a_label_takes_nothing_from_the_node_that_has_the_address() -> None:
    pool = pool_of(sources=(LABEL,))
    nodes = [node("a", label="203.0.113.2"), node("b", label="203.0.113.2", external="203.0.113.2")]
    guard = AddressGuard(pool, [read_node(each, pool.sources) for each in nodes], ClusterRanges())
    assert guard.refuses(NodeName("a"), parse_address("203.0.113.2")) is LeftOut.ANOTHER_NODES
    assert guard.refuses(NodeName("b"), parse_address("203.0.113.2")) is None


def test_an_address_that_two_nodes_have_is_neither_s() -> None:
    pool = pool_of()
    offers = [read_node(node(name, external="203.0.113.2"), pool.sources) for name in "ab"]
    guard = AddressGuard(pool, offers, ClusterRanges())
    assert {guard.refuses(each.name, parse_address("203.0.113.2")) for each in offers} == {LeftOut.ANOTHER_NODES}
