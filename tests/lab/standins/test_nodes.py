"""What the API is to say of a node that falls silent."""

from __future__ import annotations

import msgspec

from lab.layout import Families, lay_out
from lab.standins.nodes import NodeState, node_object, node_status, pod_status
from lab.standins.views import Pod


def a_node(families: Families = Families.IPV4) -> NodeState:
    node = NodeState(lay_out(1, families=families).nodes[0], grace=5.0)
    node.connect()
    return node


def a_pod(name: str, *addresses: str) -> Pod:
    status = {"podIPs": [{"ip": address} for address in addresses]}
    body = {"metadata": {"name": name, "namespace": "dev", "uid": name}, "status": status}
    return msgspec.convert(body, Pod)


def test_a_silent_node_is_lost_after_the_grace_period_and_not_before() -> None:
    node = a_node()
    node.disconnect(100.0, power=True)
    assert (node.heard(104.9), node.deadline(104.9)) == ("silent", 105.0)
    assert (node.heard(105.0), node.deadline(105.0)) == ("lost", None)
    node.connect()
    assert node.heard(200.0) == "connected"


def test_silence_counts_from_its_beginning() -> None:
    """The power cut of a node whose cable was pulled before begins no new grace period."""
    node = a_node()
    node.disconnect(100.0, power=True)
    node.disconnect(104.0, power=False)
    assert node.heard(105.0) == "lost"


def test_a_power_cut_ends_the_workloads_and_a_pulled_cable_does_not() -> None:
    node = a_node()
    node.running = {"dev/web-1"}
    node.disconnect(1.0, power=True)
    assert node.running == {"dev/web-1"}
    node.disconnect(2.0, power=False)
    assert node.running == set()


def test_pods_keep_their_addresses_and_never_share_one() -> None:
    node = a_node()
    assert node.addresses_for(a_pod("a")) == ("10.244.1.2",)
    assert node.addresses_for(a_pod("b", "10.244.1.2")) == ("10.244.1.3",), "somebody else has it already"
    assert node.addresses_for(a_pod("a")) == ("10.244.1.2",)
    node.forget("dev/a")
    assert node.addresses_for(a_pod("c", "10.244.1.9")) == ("10.244.1.9",), "as it had before the stand-ins started"
    assert node.addresses_for(a_pod("d")) == ("10.244.1.2",)


def test_a_pod_has_an_address_of_each_family() -> None:
    node = a_node(Families.DUAL)
    assert node.addresses_for(a_pod("a")) == ("10.244.1.2", "fd00:10:244:1::2")
    assert node.addresses_for(a_pod("b", "10.244.1.2", "fd00:10:244:1::7")) == ("10.244.1.3", "fd00:10:244:1::7")
    assert a_node(Families.IPV6).addresses_for(a_pod("a")) == ("fd00:10:244:1::2",)


def test_a_node_says_its_addresses_and_networks_primary_family_first() -> None:
    host = a_node(Families.DUAL).host
    assert node_object(host)["spec"] == {
        "podCIDR": "10.244.1.0/24",
        "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"],
    }
    addresses = node_status(host, "now", ready=True)["status"]["addresses"]
    assert [each["address"] for each in addresses] == ["172.18.0.11", "fd00:b1b::11", "node-1"]
    status = pod_status(a_pod("a"), host, ("10.244.1.2", "fd00:10:244:1::2"), "now", ready=True)["status"]
    assert (status["podIP"], status["podIPs"]) == ("10.244.1.2", [{"ip": "10.244.1.2"}, {"ip": "fd00:10:244:1::2"}])
    assert (status["hostIP"], len(status["hostIPs"])) == ("172.18.0.11", 2)
