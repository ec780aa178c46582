"""The public side of a lab: what its hosts see of each other through the gateway, and what the Nodes say about it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.addresses import Family
from cluster.resources import NODES
from lab.client import Lab
from lab.layout import Families
from lab.machines.hosts import socket_family
from lab.objects.manifests import api_of
from tests.lab.conftest import end, make
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("nat")]
OUTSIDE = {Family.IPV4: "192.0.2.2", Family.IPV6: "2001:db8::2"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = make(nodes=2, families=Families.DUAL, nat=True)
    yield made
    end(made)


def seen_from(lab: Lab, host: str, address: str, listener: str, port: int) -> str:
    """The address from which a host that connects is seen by the one that listens at a port of every address."""
    family = socket_family(address)
    with lab.open_socket(listener, family) as listening, lab.open_socket(host, family) as connecting:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("", port))
        listening.listen()
        connecting.settimeout(5.0)
        listening.settimeout(5.0)
        connecting.connect((address, port))
        accepted, (seen, *_) = listening.accept()
        accepted.close()
        return str(seen)


def test_from_outside_a_node_is_reached_at_its_public_address_and_sees_who_asks(lab: Lab) -> None:
    for node, public in (("node-1", "203.0.113.1"), ("node-2", "203.0.113.2")):
        assert seen_from(lab, "outside", public, node, 22) == OUTSIDE[Family.IPV4]


def test_outside_sees_a_node_at_its_public_address_and_other_hosts_at_the_gateway_s(lab: Lab) -> None:
    seen = {host: seen_from(lab, host, OUTSIDE[Family.IPV4], "outside", 8080) for host in ("node-2", "client", "cp")}
    assert seen == {"node-2": "203.0.113.2", "client": "192.0.2.1", "cp": "192.0.2.1"}


def test_hosts_of_the_lan_reach_a_node_at_its_public_address_too(lab: Lab) -> None:
    assert seen_from(lab, "node-2", "203.0.113.1", "node-1", 22) == "203.0.113.2"
    assert seen_from(lab, "client", "203.0.113.1", "node-1", 22) == "172.18.0.1"


def test_what_is_not_for_a_public_address_is_not_translated(lab: Lab) -> None:
    assert seen_from(lab, "outside", "172.18.0.11", "node-1", 22) == OUTSIDE[Family.IPV4]
    with lab.open_socket("outside", socket.AF_INET) as connecting:
        connecting.settimeout(5.0)
        with pytest.raises(OSError, match="unreachable"):
            connecting.connect(("203.0.113.3", 22))


def test_ipv6_is_routed(lab: Lab) -> None:
    assert seen_from(lab, "outside", "fd00:b1b::11", "node-1", 22) == OUTSIDE[Family.IPV6]
    assert seen_from(lab, "node-1", OUTSIDE[Family.IPV6], "outside", 8080) == "fd00:b1b::11"


def test_a_node_that_was_off_has_its_public_address_again(lab: Lab) -> None:
    lab.stop_node("node-2")
    lab.start_node("node-2")
    assert seen_from(lab, "outside", "203.0.113.2", "node-2", 22) == OUTSIDE[Family.IPV4]


def test_the_nodes_say_their_public_addresses_and_have_the_labels_of_the_tutorial(lab: Lab) -> None:
    def said() -> dict[str, Any]:
        node = api_of(lab).get(NODES, None, "node-2")
        return {**node.metadata.labels, **{each.address: each.type for each in node.status.addresses}}

    wanted = {
        "use-as-loadbalancer": "public",
        "node-public-ip": "203.0.113.2",
        "node-private-ip": "172.18.0.12",
        "203.0.113.2": "ExternalIP",
        "172.18.0.12": "InternalIP",
        "fd00:b1b::12": "InternalIP",
    }
    wait_until(lambda: wanted.items() <= said().items(), message=json.dumps(wanted))
