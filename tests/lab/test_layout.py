"""Which host has which address."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cluster.addresses import Family
from lab.layout import Families, LayoutError, lay_out


def test_addresses_follow_from_names() -> None:
    v4, v6 = Family.IPV4, Family.IPV6
    both = {
        "cp": {v4: "172.18.0.2", v6: "fd00:b1b::2"},
        "gw": {v4: "172.18.0.1", v6: "fd00:b1b::1"},
        "client": {v4: "172.18.0.3", v6: "fd00:b1b::3"},
        "client2": {v4: "172.18.0.4", v6: "fd00:b1b::4"},
        "node-1": {v4: "172.18.0.11", v6: "fd00:b1b::11"},
        "node-2": {v4: "172.18.0.12", v6: "fd00:b1b::12"},
    }
    for families in Families:
        wanted = {name: {family: found[family] for family in families.each} for name, found in both.items()}
        layout = lay_out(2, clients=2, families=families)
        assert {host.name: host.addresses for host in layout.hosts} == wanted
        assert tuple(layout.networks) == layout.families == families.each
    assert {host.name: host.mac for host in lay_out(1, families=Families.IPV6).hosts}["node-1"] == "02:42:ac:12:00:0b"


def test_a_lab_s_primary_family_is_ipv4_where_it_speaks_it() -> None:
    assert [lay_out(1, families=each).control_plane.address for each in (Families.DUAL, Families.IPV6)] == [
        "172.18.0.2",
        "fd00:b1b::2",
    ]


def test_the_tutorials_pool_is_free_on_the_default_lan() -> None:
    assert lay_out(3).primary.pool_range == "172.18.255.200-172.18.255.250"


@pytest.mark.parametrize("lan", ["172.18.0.0/16", "192.168.7.0/24", "100.64.0.0/10"])
def test_no_host_has_an_address_of_the_pool_and_all_are_different(lan: str) -> None:
    layout = lay_out(100, clients=8, lan=lan, families=Families.DUAL)
    assert layout.networks[Family.IPV4].lan == lan
    assert len({host.mac for host in layout.hosts}) == len(layout.hosts)
    for family, network in layout.networks.items():
        addresses = [ip_address(host.addresses[family]) for host in layout.hosts]
        assert len(set(addresses)) == len(layout.hosts)
        assert all(address in ip_network(network.lan) for address in addresses)
        low, high = ip_address(network.pool_first), ip_address(network.pool_last)
        assert not any(int(low) <= int(address) <= int(high) for address in addresses)
        assert low in ip_network(network.lan)
        assert high in ip_network(network.lan)


def test_each_node_s_pods_have_a_network_of_their_own() -> None:
    layout = lay_out(100, families=Families.DUAL)
    for family, network in layout.networks.items():
        pods = [ip_network(node.pod_networks[family]) for node in layout.nodes]
        assert all(each.subnet_of(ip_network(network.pods)) for each in pods)  # type: ignore[arg-type]
        assert len(set(pods)) == len(pods)
        others = [ip_network(other) for other in (network.lan, network.services)]
        assert not any(each.overlaps(other) for each in pods for other in others)
    assert layout.nodes[99].pod_networks == {Family.IPV4: "10.244.100.0/24", Family.IPV6: "fd00:10:244:100::/64"}


def test_without_a_gateway_there_is_none() -> None:
    assert lay_out(1, gateway=False).gateway is None


@pytest.mark.parametrize("lan", ["172.18.0.0/25", "172.18.0.1/16", "10.0.0.0/8", "fd00::/64", "nonsense"])
def test_a_lan_that_cannot_be_is_refused(lan: str) -> None:
    with pytest.raises(LayoutError, match="--lan"):
        lay_out(3, lan=lan)


def test_an_ipv4_lan_is_refused_where_none_is_spoken() -> None:
    with pytest.raises(LayoutError, match=r"--lan: 192\.168\.7\.0/24 is IPv4, and --families ipv6 is not"):
        lay_out(3, lan="192.168.7.0/24", families=Families.IPV6)


@pytest.mark.parametrize(("nodes", "clients"), [(0, 1), (101, 1), (1, 0), (1, 9)])
def test_too_many_or_too_few_hosts_are_refused(nodes: int, clients: int) -> None:
    with pytest.raises(LayoutError):
        lay_out(nodes, clients)


@pytest.mark.parametrize("families", [Families.IPV4, Families.DUAL])
def test_behind_nat_each_node_has_a_public_address_and_another_host_is_outside(families: Families) -> None:
    layout = lay_out(100, families=families, nat=True)
    public = [node.public_addresses for node in layout.nodes]
    assert public[0] == {Family.IPV4: "203.0.113.1"}
    assert public[99] == {Family.IPV4: "203.0.113.100"}
    outside = layout.find("outside")
    assert outside is not None
    assert layout.gateway is not None
    assert tuple(outside.addresses) == tuple(layout.public_side) == families.each
    for family, network in layout.public_side.items():
        addresses = [ip_address(host[family]) for host in (layout.gateway.public_addresses, outside.addresses)]
        assert len(set(addresses)) == 2
        assert all(address in ip_network(network) for address in addresses)
        assert not any(address in ip_network(each.lan) for each in layout.networks.values() for address in addresses)
    assert len({host.mac for host in layout.hosts}) == len(layout.hosts)


def test_without_nat_no_host_is_outside() -> None:
    layout = lay_out(2)
    assert layout.find("outside") is None
    assert not layout.public_side
    assert not any(host.public_addresses for host in layout.hosts)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"gateway": False}, "--nat: the gateway translates"),
        ({"families": Families.IPV6}, "--nat: what is translated is IPv4, and --families ipv6 is not"),
        ({"lan": "192.0.2.0/24"}, "--lan: 192.0.2.0/24 overlaps 192.0.2.0/24, the network of the public side"),
        ({"lan": "203.0.113.0/24"}, "the network of the nodes' public addresses"),
    ],
)
def test_nat_that_cannot_be_is_refused(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        lay_out(2, nat=True, **wanted)
