"""What engines said, word for word, as plain values. ``recorded/`` has answers of the engines that its names tell.

Of the containers there is what is read, and what stands around it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.networks import AnswerError, Container, Network, containers, networks

RECORDED = Path(__file__).parent / "recorded"


def recorded_networks(engine: str) -> dict[str, Network]:
    answer = (RECORDED / f"{engine}-networks.json").read_bytes()
    return {each.name: each for each in networks(answer)}


def recorded_containers(engine: str) -> dict[str, Container]:
    answer = (RECORDED / f"{engine}-containers.json").read_bytes()
    return {each.name: each for each in containers(answer)}


def subnets(network: Network) -> list[tuple[str, str | None, list[str]]]:
    return [
        (each.text, each.leased.text if each.leased else None, [address.text for address in each.reserved])
        for each in network.subnets
    ]


def test_kinds_network_of_docker() -> None:
    kind = recorded_networks("docker-20.10")["kind"]
    assert subnets(kind) == [
        ("172.18.0.0/16", None, ["172.18.0.1"]),
        ("fc00:f853:ccd:e793::/64", None, ["fc00:f853:ccd:e793::1", "fc00:f853:ccd:e793::"]),
    ]
    assert {each.text for each in kind.attached} == {
        *(f"172.18.0.{last}" for last in (2, 3, 4)),
        *(f"fc00:f853:ccd:e793::{last}" for last in (2, 3, 4)),
    }


def test_kinds_network_of_podman() -> None:
    kind = recorded_networks("podman-4.3")["kind"]
    assert subnets(kind) == [
        ("fc00:f853:ccd:e793::/64", None, ["fc00:f853:ccd:e793::1"]),
        ("10.89.0.0/24", None, ["10.89.0.1"]),
    ]


def test_a_range_for_containers_and_what_is_set_aside() -> None:
    assert subnets(recorded_networks("docker-20.10")["custom"]) == [
        ("10.20.0.0/16", "10.20.4.0-10.20.7.255", ["10.20.255.254", "10.20.0.9"])
    ]
    assert subnets(recorded_networks("podman-4.3")["custom"]) == [
        ("10.20.0.0/16", "10.20.4.1-10.20.7.255", ["10.20.0.1"])
    ]


def test_a_gateway_that_is_not_named_is_the_first_of_what_containers_get() -> None:
    """The bridge of this network was seen to have 10.31.0.128."""
    assert "10.31.0.128" in subnets(recorded_networks("docker-20.10")["dual"])[0][2]


def test_a_network_without_subnets() -> None:
    assert recorded_networks("docker-20.10")["host"].subnets == ()


def test_a_node_and_who_it_belongs_to() -> None:
    node = recorded_containers("docker-20.10")["kind-control-plane"]
    assert (node.cluster, node.control_plane, node.running, node.networks) == ("kind", True, True, ("kind",))
    assert [each.text for each in node.addresses] == ["172.18.0.2", "fc00:f853:ccd:e793::2"]
    assert not recorded_containers("docker-20.10")["kind-worker"].control_plane
    created = recorded_containers("podman-4.3")["kind-control-plane"]
    assert (created.cluster, created.control_plane, created.running, created.networks) == (
        "kind",
        True,
        False,
        ("kind",),
    )


def test_a_stopped_container_keeps_the_address_of_its_configuration() -> None:
    """Its network does not list it."""
    printer = recorded_containers("docker-20.10")["printer"]
    assert not printer.running
    assert [each.text for each in printer.addresses] == ["10.20.255.250"]
    assert printer.addresses[0] not in recorded_networks("docker-20.10")["custom"].attached


def test_podman_5_lists_containers_with_the_network() -> None:
    """As its documentation has it; no such version was at hand."""
    interfaces = {"eth0": {"subnets": [{"ipnet": "10.89.0.7/24", "gateway": "10.89.0.1"}], "mac_address": "0a:00"}}
    said = {"name": "kind", "subnets": [], "containers": {"4f": {"name": "web", "interfaces": interfaces}}}
    assert [each.text for each in networks(json.dumps([said]).encode())[0].attached] == ["10.89.0.7"]


@pytest.mark.parametrize("more", [[{"Addr": "10.32.0.2", "PrefixLength": 24}], ["10.32.0.2"]])
def test_a_container_with_an_address_in_each_of_several_subnets(more: list[Any]) -> None:
    attachment = {"IPAddress": "10.30.0.2", "SecondaryIPAddresses": more}
    said = [{"Name": "web", "NetworkSettings": {"Networks": {"two": attachment}}}]
    assert [each.text for each in containers(json.dumps(said).encode())[0].addresses] == ["10.30.0.2", "10.32.0.2"]


def test_a_range_for_containers_that_leaves_nothing_is_none() -> None:
    said = {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "IPRange": "10.0.0.0/24"}]}}
    assert networks(json.dumps([said]).encode())[0].subnets[0].leased is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the engine's answer about its networks cannot be read"),
        (b"{}", "the engine's answer about its networks cannot be read"),
        (b'[{"Name": 1, "IPAM": {}}]', "the engine's answer about its networks cannot be read"),
        (
            b'[{"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/99"}]}}]',
            'the subnet "10.0.0.0/99", which is none',
        ),
        (b'[{"name": "x", "subnets": [{"subnet": "10.0.0.0/24", "gateway": "up"}]}]', 'an address "up" that is not'),
    ],
)
def test_what_is_no_answer_is_refused_in_one_line(answer: bytes, said: str) -> None:
    with pytest.raises(AnswerError) as refused:
        networks(answer)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
