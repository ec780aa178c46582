"""Which addresses are nodes'."""

from __future__ import annotations

from cluster.addresses import parse_address
from controller.allocation.node_addresses import AddressesOfNodes
from tests.controller.nodeip.bodies import node


def come(addresses: AddressesOfNodes, name: str, **fields: str) -> list[str]:
    return sorted(each.text for each in addresses.set_node(name, node(name, **fields)))


def test_what_a_node_names_is_a_nodes_wherever_it_names_it() -> None:
    addresses = AddressesOfNodes()
    assert come(addresses, "a", external="203.0.113.1 host.example", internal="10.0.0.1", label="203.0.113.9") == [
        "10.0.0.1",
        "203.0.113.1",
        "203.0.113.9",
    ]
    assert come(addresses, "b", annotation="2001:DB8::1, ::ffff:10.0.0.1,,x") == ["2001:db8::1"]
    assert parse_address("10.0.0.2") not in addresses


def test_it_is_until_the_last_node_does_not_name_it_any_more() -> None:
    addresses, shared = AddressesOfNodes(), parse_address("10.0.0.1")
    come(addresses, "a", internal="10.0.0.1")
    assert come(addresses, "b", label="10.0.0.1") == []
    addresses.set_node("a", None)
    assert shared in addresses
    assert come(addresses, "b", label="10.0.0.2") == ["10.0.0.2"]
    assert shared not in addresses
    assert addresses.set_node("never seen", None) == set()
