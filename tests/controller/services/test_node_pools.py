"""Services that get addresses of nodes: histories driven through the core, outcomes read from the API's table."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controller.services.node_pools import (
    DUAL,
    HTTP,
    HTTPS,
    LAN,
    POOL,
    PREFER,
    SSH,
    cluster,
    pool_of,
    written,
)
from tests.controller.world import assigned

# ------------------------------------------------------------------------ the choice


def test_a_service_gets_the_addresses_of_all_nodes_in_one_write() -> None:
    world = cluster()
    world.put("web", ports=HTTP)
    world.settle()
    assert world.ip("web") == "10.0.0.1,10.0.0.2,10.0.0.3"
    assert pool_of(world, "web") == "nodes"
    assert world.condition("web") == ("True", "Assigned", '10.0.0.1, 10.0.0.2, 10.0.0.3 from pool "nodes"')
    assert world.take_events() == [("default/web", "IPAllocated", 'Assigned IP ["10.0.0.1" "10.0.0.2" "10.0.0.3"]')]
    assert written(world) == ["web"]


def test_both_families_stand_in_the_order_of_the_service() -> None:
    world = cluster(2)
    world.put("web", ports=HTTP, **DUAL | {"clusterIPs": ["fd00:96::1", "10.96.0.1"]})
    world.settle()
    assert world.ip("web") == "2001:db8::1,2001:db8::2,10.0.0.1,10.0.0.2"


@pytest.mark.parametrize(
    ("pools", "node_pools", "expected"),
    [
        ({"lan": LAN}, {"nodes": {}}, "lan"),  # by name
        ({"lan": LAN}, {"a-nodes": {}}, "a-nodes"),
        ({"lan": LAN}, {"nodes": {"serviceAllocation": {"namespaces": ["default"]}}}, "nodes"),
        ({"lan": LAN}, {"nodes": {"serviceAllocation": {"namespaces": ["dev"]}}}, "lan"),
        ({"lan": {"addresses": [LAN], "serviceAllocation": {"priority": 5}}}, {"a-nodes": {}}, "lan"),
        (
            {"lan": {"addresses": [LAN], "serviceAllocation": {"priority": 5}}},
            {"nodes": {"serviceAllocation": {"priority": 3}}},
            "nodes",
        ),
        (
            {"lan": {"addresses": [LAN], "serviceAllocation": {"priority": 3}}},
            {"a-nodes": {"serviceAllocation": {"priority": 5}}},
            "lan",
        ),
        ({"lan": {"addresses": [LAN], "autoAssign": False}}, {"nodes": {}}, "nodes"),
        ({"lan": LAN}, {"a-nodes": {"autoAssign": False}}, "lan"),
        ({"lan": LAN}, {"a-nodes": {"families": ["IPv6"]}}, "lan"),
    ],
)
def test_both_kinds_stand_in_one_order(pools: dict[str, Any], node_pools: dict[str, Any], expected: str) -> None:
    world = cluster(2, pools, **node_pools)
    world.put("web", ports=HTTP)
    world.settle()
    assert pool_of(world, "web") == expected


def test_a_pool_with_what_suits_best_comes_before_the_first_by_name() -> None:
    world = cluster(2, {"a": LAN}, nodes={})
    world.put("web", ports=HTTP, **PREFER)
    world.settle()
    assert (pool_of(world, "web"), world.ip("web")) == ("nodes", "10.0.0.1,10.0.0.2,2001:db8::1,2001:db8::2")


def test_a_named_pool_is_asked_alone() -> None:
    world = cluster(2, {"lan": LAN}, nodes={"autoAssign": False})
    assigned(world, web={"annotations": {POOL: "nodes"}, "ports": HTTP}, other={"ports": HTTP})
    assert (world.ip("web"), world.ip("other")) == ("10.0.0.1,10.0.0.2", "192.0.2.0")


def test_namespace_selectors_of_a_node_pool_follow_the_labels() -> None:
    world = cluster(1, None, nodes={"serviceAllocation": {"namespaceSelectors": [{"matchLabels": {"team": "blue"}}]}})
    world.put("web", ports=HTTP)
    world.settle()
    assert world.condition("web")[1] == "PoolNotForService"
    world.label_namespace("default", team="blue")
    world.settle()
    assert world.ip("web") == "10.0.0.1"
    world.label_namespace("default", team="red")
    world.settle()
    assert world.ip("web") == ""


@pytest.mark.parametrize(
    "asking",
    [
        {"loadBalancerIP": "10.0.0.1"},
        {"annotations": {"metallb.io/loadBalancerIPs": "10.0.0.1"}},
        {"annotations": {"metallb.io/loadBalancerIPs": "192.0.2.7", POOL: "nodes"}},
    ],
)
def test_a_service_that_asks_for_addresses_gets_none_of_nodes(asking: dict[str, Any]) -> None:
    world = cluster(1, {"lan": LAN}, nodes={})
    world.put("web", ports=HTTP, **asking)
    world.settle()
    status, reason, message = world.condition("web")
    assert (status, reason) == ("False", "InvalidRequest")
    assert 'which addresses of nodes it gets cannot be asked for; to have them from pool "nodes", ask for' in message


def test_a_service_that_comes_to_ask_for_an_address_of_a_node_keeps_what_it_has() -> None:
    world = cluster(2)
    assigned(world, web={"ports": HTTP})
    world.put("web", loadBalancerIP="10.0.0.1")
    world.settle()
    assert (world.ip("web"), world.condition("web")[1]) == ("10.0.0.1,10.0.0.2", "InvalidRequest")


# ------------------------------------------------------------------------ the status follows the nodes


def test_a_node_that_goes_and_comes_changes_who_shows_it_and_nobody_else() -> None:
    world = cluster(3, {"lan": LAN}, nodes={"autoAssign": False}, others={"autoAssign": False, "nodeSelectors": [
        {"matchLabels": {"edge": "yes"}}
    ]})  # fmt: skip
    world.machine("n9", internal="10.0.0.9", labels={"edge": "yes"})
    assigned(
        world,
        web={"ports": HTTP, "annotations": {POOL: "nodes"}},
        edge={"ports": HTTPS, "annotations": {POOL: "others"}},
        lan={},
    )
    written(world), world.take_events()
    world.machine("n2", internal="10.0.0.2", ready="False")
    world.settle()
    assert world.ip("web") == "10.0.0.1,10.0.0.3,10.0.0.9"
    assert written(world) == ["web"]
    assert world.condition("web")[2].endswith('from pool "nodes"; nodes left out: n2 (NotReady)')
    world.machine("n2", internal="10.0.0.2", ready="Unknown")
    world.settle()
    assert written(world) == []
    world.machine("n2", internal="10.0.0.2")
    world.settle()
    assert world.ip("web") == "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.9"
    assert written(world) == ["web"]
    assert world.take_events() == [], "the Node's own Events tell of it"
    world.machine_goes("n9")
    world.settle()
    assert (world.ip("web"), world.ip("edge")) == ("10.0.0.1,10.0.0.2,10.0.0.3", "")
    assert written(world) == ["edge", "web"]


def test_a_node_that_was_never_shown_is_no_reason_to_write() -> None:
    world = cluster(2)
    assigned(world, web={"ports": HTTP})
    written(world)
    world.machine("n3", internal="127.0.0.1")
    world.settle()
    world.machine("n3", internal="127.0.0.1", ready="False")
    world.settle()
    assert written(world) == []
    world.machine("n2", internal="10.0.0.2", ready="False")
    world.settle()
    assert world.condition("web")[2] == '10.0.0.1 from pool "nodes"; nodes left out: n2, n3 (NotReady)'


def test_local_services_follow_their_endpoints() -> None:
    world = cluster(3)
    world.machines.serves("default/web", "n1", "n3")
    world.tell_nodes()
    assigned(world, web={"ports": HTTP, "externalTrafficPolicy": "Local"}, any={"ports": HTTPS})
    assert (world.ip("web"), world.ip("any")) == ("10.0.0.1,10.0.0.3", "10.0.0.1,10.0.0.2,10.0.0.3")
    written(world)
    world.machines.serves("default/web", "n2")
    world.tell_nodes()
    world.settle()
    assert (world.ip("web"), written(world)) == ("10.0.0.2", ["web"])
    world.machines.serves("default/web")
    world.tell_nodes()
    world.settle()
    assert (world.ip("web"), world.condition("web")[1]) == ("", "NoNode")
    world.machines.serves("default/web", "n1")
    world.tell_nodes()
    world.settle()
    assert world.ip("web") == "10.0.0.1"


def test_a_service_that_waits_for_a_node_is_judged_when_one_comes() -> None:
    world = cluster(0)
    world.put("web", ports=HTTP)
    world.settle()
    assert world.condition("web") == ("False", "NoNode", 'pool "nodes" selects no node')
    world.machine("n1", internal="10.0.0.1")
    world.settle()
    assert world.ip("web") == "10.0.0.1"


def test_where_only_the_nodes_of_one_family_are_left_their_addresses_stay() -> None:
    world = cluster(1)
    world.machine("n2", internal="10.0.0.2")
    assigned(world, web={"ports": HTTP, **DUAL}, either={"ports": HTTPS, **PREFER})
    assert world.ip("web") == "10.0.0.1,10.0.0.2,2001:db8::1"
    world.machine("n1", internal="10.0.0.1 2001:db8::1", ready="False")
    world.settle()
    assert (world.ip("web"), world.condition("web")[:2]) == ("10.0.0.2", ("True", "NoFamily"))
    assert world.ip("either") == "10.0.0.2"
    assert "no IPv6 address: pool" in world.condition("either")[2]
    world.machine("n1", internal="10.0.0.1 2001:db8::1")
    world.settle()
    assert world.ip("web") == world.ip("either") == "10.0.0.1,10.0.0.2,2001:db8::1"
    assert world.is_content("default/web")


def test_nothing_is_decided_while_nothing_is_known_of_the_nodes() -> None:
    world = cluster(2, {"lan": LAN}, nodes={})
    assigned(world, web={"ports": HTTP, "annotations": {POOL: "nodes"}})
    written(world)
    world.machines.known = False
    world.start()
    world.put("new", ports=HTTPS, annotations={POOL: "nodes"})
    world.settle()
    assert (world.ip("web"), world.ip("new"), written(world)) == ("10.0.0.1,10.0.0.2", "", ["new"])
    world.machines.known = True
    world.tell_nodes()
    world.settle()
    assert (world.ip("new"), written(world)) == ("10.0.0.1,10.0.0.2", ["new"])


# ------------------------------------------------------------------------ ports


def test_two_services_show_one_node_if_their_ports_differ() -> None:
    world = cluster(2)
    assigned(world, web={"ports": HTTP}, secure={"ports": HTTPS}, dns={"ports": [{"port": 80, "protocol": "UDP"}]})
    assert {world.ip(name) for name in ("web", "secure", "dns")} == {"10.0.0.1,10.0.0.2"}


def test_of_two_that_want_one_port_the_first_keeps_it_and_the_other_has_it_when_it_comes_free() -> None:
    world = cluster(2)
    assigned(world, first={"ports": HTTP}, second={"ports": [*HTTP, *HTTPS]}, third={"ports": SSH})
    assert world.ip("first") == "10.0.0.1,10.0.0.2"
    assert world.condition("second") == (
        "False",
        "PortInUse",
        'pool "nodes" has no node with 80/TCP free; default/first has it; nodes left out: n1, n2 (PortInUse)',
    )
    written(world)
    world.put("first", ports=[{"port": 8080}])
    world.settle()
    assert world.ip("first") == world.ip("second") == "10.0.0.1,10.0.0.2"
    assert written(world) == ["second"]
    world.put("first", ports=HTTP)
    world.settle()
    assert (world.ip("first"), world.condition("first")[1]) == ("", "PortInUse")
    world.delete("second")
    world.settle()
    assert world.ip("first") == "10.0.0.1,10.0.0.2"


def test_a_service_has_the_nodes_on_which_its_ports_are_free_and_more_when_they_come_free() -> None:
    world = cluster(4, None, few={"maxNodes": 2}, nodes={"autoAssign": False})
    assigned(world, few={"ports": HTTP}, all={"ports": HTTP, "annotations": {POOL: "nodes"}})
    taken = set(world.ip("few").split(","))
    assert len(taken) == 2
    assert set(world.ip("all").split(",")) == {f"10.0.0.{n}" for n in range(1, 5)} - taken
    world.delete("few")
    world.settle()
    assert world.ip("all") == "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4"


def test_what_listens_on_a_node_leaves_it_out_for_that_port_alone() -> None:
    world = cluster(2)
    world.machines.listens("n1", 80)
    world.tell_nodes()
    assigned(world, web={"ports": HTTP}, secure={"ports": HTTPS})
    assert (world.ip("web"), world.ip("secure")) == ("10.0.0.2", "10.0.0.1,10.0.0.2")
    assert world.condition("web")[2].endswith("; nodes left out: n1 (PortInUse)")


def test_on_a_node_that_comes_back_the_older_has_its_port_again() -> None:
    world = cluster(2)
    assigned(world, older={"ports": HTTP}, younger={"ports": HTTP})
    for _ in range(3):
        world.machine("n1", internal="10.0.0.1", ready="False")
        world.settle()
        world.machine("n1", internal="10.0.0.1")
        world.settle()
        assert (world.ip("older"), world.ip("younger")) == ("10.0.0.1,10.0.0.2", "")


def test_a_service_of_another_class_that_shows_nodes_blocks_only_its_own_ports() -> None:
    world = cluster(2)
    rival = {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}}
    world.put("their", loadBalancerClass="other", ports=HTTP, status=rival)
    assigned(world, web={"ports": HTTPS}, blocked={"ports": HTTP})
    assert world.ip("web") == "10.0.0.1,10.0.0.2"
    assert world.condition("blocked")[1:] == (
        "PortInUse",
        'pool "nodes" has no node with 80/TCP free; default/their has it; nodes left out: n1, n2 (PortInUse)',
    )
    world.delete("their")
    world.settle()
    assert world.ip("blocked") == "10.0.0.1,10.0.0.2"


def test_another_class_that_comes_to_show_a_port_of_ours_is_named_to_whom_it_concerns() -> None:
    world = cluster(1)
    assigned(world, web={"ports": HTTP}, secure={"ports": HTTPS})
    written(world)
    world.put(
        "their", loadBalancerClass="other", ports=HTTP, status={"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}
    )
    world.settle()
    assert (world.ip("web"), world.condition("web")[1]) == ("10.0.0.1", "AddressInUse")
    assert written(world) == ["web"]
    world.put("secure", labels={"touched": "yes"})
    world.settle()
    assert world.is_content("default/secure")
