"""Which host has which address."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from lab.layout import LayoutError, lay_out


def test_addresses_follow_from_names() -> None:
    found = {host.name: host.address for host in lay_out(2, clients=2).hosts}
    assert found == {
        "cp": "172.18.0.2",
        "gw": "172.18.0.1",
        "client": "172.18.0.3",
        "client2": "172.18.0.4",
        "node-1": "172.18.0.11",
        "node-2": "172.18.0.12",
    }


def test_the_tutorials_pool_is_free_on_the_default_lan() -> None:
    assert lay_out(3).pool_range == "172.18.255.200-172.18.255.250"


@pytest.mark.parametrize("lan", ["172.18.0.0/16", "192.168.7.0/24", "100.64.0.0/10"])
def test_no_host_has_an_address_of_the_pool_and_all_are_different(lan: str) -> None:
    layout = lay_out(100, clients=8, lan=lan)
    addresses = [ip_address(host.address) for host in layout.hosts]
    assert len(set(addresses)) == len({host.mac for host in layout.hosts}) == len(layout.hosts)
    assert all(address in ip_network(lan) for address in addresses)
    low, high = ip_address(layout.pool_first), ip_address(layout.pool_last)
    assert not any(int(low) <= int(address) <= int(high) for address in addresses)
    assert high in ip_network(lan)


def test_without_a_gateway_there_is_none() -> None:
    assert lay_out(1, gateway=False).gateway is None


@pytest.mark.parametrize("lan", ["172.18.0.0/25", "172.18.0.1/16", "10.0.0.0/8", "fd00::/64", "nonsense"])
def test_a_lan_that_cannot_be_is_refused(lan: str) -> None:
    with pytest.raises(LayoutError, match="--lan"):
        lay_out(3, lan=lan)


@pytest.mark.parametrize(("nodes", "clients"), [(0, 1), (101, 1), (1, 0), (1, 9)])
def test_too_many_or_too_few_hosts_are_refused(nodes: int, clients: int) -> None:
    with pytest.raises(LayoutError):
        lay_out(nodes, clients)
