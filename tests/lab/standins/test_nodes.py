"""What the API is to say of a node that falls silent."""

from __future__ import annotations

import msgspec

from lab.layout import lay_out
from lab.standins.nodes import NodeState
from lab.standins.views import Pod


def a_node() -> NodeState:
    node = NodeState(lay_out(1).nodes[0], grace=5.0)
    node.connect()
    return node


def a_pod(name: str, address: str = "") -> Pod:
    body = {"metadata": {"name": name, "namespace": "dev", "uid": name}, "status": {"podIP": address}}
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


def test_pods_keep_their_address_and_never_share_one() -> None:
    node = a_node()
    assert node.address_for(a_pod("a")) == "10.244.1.2"
    assert node.address_for(a_pod("b", "10.244.1.2")) == "10.244.1.3", "somebody else has it already"
    assert node.address_for(a_pod("a")) == "10.244.1.2"
    node.forget("dev/a")
    assert node.address_for(a_pod("c", "10.244.1.9")) == "10.244.1.9", "as it had before the stand-ins started"
    assert node.address_for(a_pod("d")) == "10.244.1.2"
