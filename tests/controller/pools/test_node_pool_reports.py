"""What the controller says on pools of nodes."""

from __future__ import annotations

from typing import Any

from cluster.objects import NodeName
from controller.changes import Moment
from controller.nodeip.cluster import NodePools
from tests.controller.nodeip.bodies import node
from tests.controller.pools.api import Api

# ------------------------------------------------------------------------ pools of nodes


NODES = {"selectedNodes": 0, "usableNodes": 0, "assignedServices": 0}


def counters(api: Api, name: str) -> dict[str, int]:
    return {field: api.status("NodeIPPool", name)[field] for field in NODES}


def tell_of_node(api: Api, name: str, **fields: Any) -> None:
    now = Moment(api.time, api.time)
    api.node_pools.set_node(NodeName(name), node(name, since="1970-01-01T00:00:00Z", **fields), now)


def test_a_pool_of_nodes_says_what_it_selects_and_who_gives_nothing(api: Api) -> None:
    api.node_pool("nodes", nodeSelectors=[{"matchLabels": {"edge": "yes"}}])
    api.settle()
    assert api.judgement("NodeIPPool", "nodes") == ("True", "InForce", "")
    assert api.condition("NodeIPPool", "nodes", "NodesMatch")[:2] == ("Unknown", "NotRead")
    api.node_pools.everything_read(Moment(api.time, api.time))
    api.settle()
    assert api.condition("NodeIPPool", "nodes", "NodesMatch") == (
        *("False", "NoMatchingNode"),
        "spec.nodeSelectors match no node: no Service gets an address",
    )
    tell_of_node(api, "a", internal="10.0.0.1", labels={"edge": "yes"})
    tell_of_node(api, "b", internal="10.0.0.2")
    api.settle()
    assert api.condition("NodeIPPool", "nodes", "NodesMatch") == ("True", "Found", "")
    assert counters(api, "nodes") == {"selectedNodes": 1, "usableNodes": 1, "assignedServices": 0}
    tell_of_node(api, "b", internal="10.0.0.2", labels={"edge": "yes"}, ready="False")
    api.settle()
    assert api.condition("NodeIPPool", "nodes", "NodesMatch") == (
        *("True", "Found"),
        '1 of 2 nodes give no address: "b" (NotReady)',
    )
    assert counters(api, "nodes") == {"selectedNodes": 2, "usableNodes": 1, "assignedServices": 0}


def test_a_controller_that_begins_writes_nothing_about_a_pool_of_nodes(api: Api) -> None:
    api.node_pool("nodes")
    tell_of_node(api, "a", internal="10.0.0.1")
    api.node_pools.everything_read(Moment(api.time, api.time))
    api.settle()
    assert counters(api, "nodes")["usableNodes"] == 1
    api.writes.clear()
    api.node_pools = NodePools()
    api.start()
    api.settle()
    tell_of_node(api, "a", internal="10.0.0.1")
    api.node_pools.everything_read(Moment(api.time, api.time))
    api.settle()
    assert [each for each in api.writes if each.resource.kind == "NodeIPPool"] == []


def test_a_hundred_changes_of_nodes_are_few_writes(api: Api) -> None:
    api.node_pool("nodes")
    api.node_pools.everything_read(Moment(api.time, api.time))
    api.settle()
    api.writes.clear()
    for number in range(100):
        tell_of_node(
            api, f"n{number}", internal=f"10.0.{number >> 8}.{number & 255}", ready="True" if number % 3 else "False"
        )
        api.turn()
        api.time += 0.001
    api.settle()
    assert len(api.writes) <= 4
    assert counters(api, "nodes")["selectedNodes"] == 100


def test_a_pool_of_nodes_that_cannot_be_in_force_says_why(api: Api) -> None:
    api.pool("both", "10.0.0.0/24")
    api.node_pool("both")
    api.node_pool("bad", families=["IPv5"])
    api.settle()
    assert api.judgement("NodeIPPool", "both")[:2] == ("False", "Overlap")
    assert api.judgement("IPAddressPool", "both")[0] == "True"
    assert api.judgement("NodeIPPool", "bad") == (
        *("False", "Invalid"),
        'spec.families[0]: "IPv5" is neither IPv4 nor IPv6',
    )
    assert api.condition("NodeIPPool", "bad", "NodesMatch")[:2] == ("Unknown", "NotInForce")
    assert counters(api, "bad") == NODES
    assert "NodeIPPool bad: spec.families[0]" in api.status("ConfigurationState", "controller")["errorSummary"]
