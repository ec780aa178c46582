"""Services that get addresses of nodes: histories driven through the core, outcomes read from the API's table."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.objects import NodeName
from controller.nodeip.guards import ServiceProxy
from controller.nodeip.reasons import LeftOut
from tests.controller.world import World, assigned

POOL = "metallb.io/address-pool"
FROM = "metallb.io/ip-allocated-from-pool"
HTTP, HTTPS, SSH = [{"port": 80}], [{"port": 443}], [{"port": 22}]
DUAL: dict[str, Any] = {"clusterIPs": ["10.96.0.1", "fd00:96::1"], "ipFamilyPolicy": "RequireDualStack"}
PREFER: dict[str, Any] = {"clusterIPs": ["10.96.0.1", "fd00:96::1"], "ipFamilyPolicy": "PreferDualStack"}
LAN = "192.0.2.0/24"


def cluster(machines: int = 3, pools: dict[str, Any] | None = None, **node_pools: Any) -> World:
    """Nodes ``n1``, ``n2``, … with an address of each family."""
    world = World(pools or {})
    world.configure_nodes(**(node_pools or {"nodes": {}}))
    for number in range(1, machines + 1):
        world.machine(f"n{number}", internal=f"10.0.0.{number} 2001:db8::{number:x}")
    world.start()
    return world


def written(world: World) -> list[str]:
    """Who was written since the last call, each as often as it was."""
    return sorted(write.name for write in world.take_writes())


def pool_of(world: World, name: str) -> str | None:
    return world.view(name).metadata.annotations.get(FROM)


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


# ------------------------------------------------------------------------ between the kinds


def test_a_service_moves_between_the_kinds_in_one_write_each_time() -> None:
    world = cluster(2, {"lan": LAN}, nodes={"autoAssign": False})
    assigned(world, web={"ports": HTTP}, other={"ports": HTTP, "annotations": {POOL: "nodes"}})
    assert world.ip("web") == "192.0.2.0"
    world.delete("other")
    world.settle()
    written(world)
    world.put("web", annotations={POOL: "nodes"})
    world.settle()
    assert (world.ip("web"), pool_of(world, "web"), written(world)) == ("10.0.0.1,10.0.0.2", "nodes", ["web"])
    world.put("web", annotations={POOL: "lan"})
    world.settle()
    assert (world.ip("web"), pool_of(world, "web"), written(world)) == ("192.0.2.0", "lan", ["web"])


def test_what_a_service_leaves_is_given_to_nobody_until_the_api_shows_it_without() -> None:
    world = cluster(1, {"lan": "192.0.2.1/32"}, nodes={"autoAssign": False})
    assigned(world, web={"ports": HTTP}, next={"ports": HTTP}, third={"ports": HTTPS})
    world.put("web", annotations={POOL: "nodes"})
    world.decide()
    (write,) = world.pending
    assert world.ip("web") == "192.0.2.1"
    world.carry_out(write)
    world.settle()
    assert (world.ip("web"), world.ip("next")) == ("10.0.0.1", "192.0.2.1")
    world.put("web", annotations={POOL: "lan"})
    world.put("third", annotations={POOL: "nodes"}, ports=HTTP)
    world.settle()
    assert (world.ip("web"), world.ip("third")) == ("10.0.0.1", ""), "it keeps what works"
    world.delete("next")
    written(world)
    world.settle()
    assert (world.ip("web"), world.ip("third")) == ("192.0.2.1", "10.0.0.1")
    assert [write.name for write in world.take_writes()] == ["web", "third"]


def test_a_wish_for_a_pool_of_nodes_that_gives_nothing_costs_nobody_an_address() -> None:
    world = cluster(0, {"lan": LAN}, nodes={"autoAssign": False})
    assigned(world, web={"ports": HTTP})
    world.put("web", annotations={POOL: "nodes"})
    world.settle()
    assert (world.ip("web"), world.condition("web")[:2]) == ("192.0.2.0", ("True", "NoNode"))
    world.machine("n1", internal="10.0.0.1")
    world.settle()
    assert (world.ip("web"), pool_of(world, "web")) == ("10.0.0.1", "nodes")


def test_a_wish_that_is_taken_back_before_anybody_saw_the_move_moves_nobody() -> None:
    world = cluster(2, {"lan": LAN}, nodes={"autoAssign": False})
    assigned(world, web={"ports": HTTP}, other={"ports": HTTPS, "annotations": {POOL: "nodes"}})
    for name, wish, back in (("web", "nodes", None), ("other", "lan", "nodes")):
        before = world.ip(name)
        world.put(name, annotations={POOL: wish})
        world.decide()
        (write,) = world.pending
        world.pending.clear()
        world.controller.failed(write, 0.0, world.now)
        world.put(name, annotations={POOL: back})
        world.settle()
        assert world.ip(name) == before


def test_a_service_that_asks_for_its_pool_no_more_stays_also_where_its_condition_was_wiped() -> None:
    world = cluster(2, {"lan": LAN}, nodes={"autoAssign": False})
    assigned(world, web={"ports": HTTP, "annotations": {POOL: "nodes"}})
    world.put("web", annotations={POOL: None})
    world.settle()
    world.put("web", annotations={FROM: None}, status={"conditions": None})
    world.settle()
    assert (world.ip("web"), pool_of(world, "web")) == ("10.0.0.1,10.0.0.2", "nodes")


def test_where_the_nodes_give_nothing_any_more_the_other_pools_are_asked_in_the_same_write() -> None:
    world = cluster(1, {"lan": LAN}, **{"a-nodes": {}})
    assigned(world, web={"ports": HTTP})
    assert pool_of(world, "web") == "a-nodes"
    written(world)
    world.machine_goes("n1")
    world.settle()
    assert (world.ip("web"), written(world)) == ("192.0.2.0", ["web"])


def test_a_pool_of_nodes_that_is_made_anew_at_once_moves_nobody() -> None:
    world = cluster(2)
    assigned(world, web={"ports": HTTP}, secure={"ports": HTTPS})
    written(world)
    world.configure_nodes()
    world.decide()
    world.configure_nodes(nodes={})
    world.settle()
    assert (world.ip("web"), world.ip("secure"), written(world)) == (*["10.0.0.1,10.0.0.2"] * 2, [])
    world.configure_nodes()
    world.settle()
    assert (world.ip("web"), world.ip("secure")) == ("", "")


def test_an_address_that_a_pool_of_the_speakers_contains_is_not_shown() -> None:
    """They would answer for it on the LAN."""
    world = cluster(3)
    assigned(world, web={"ports": HTTP}, secure={"ports": HTTPS})
    world.configure(lan={"addresses": ["10.0.0.2-10.0.0.9"], "autoAssign": False})
    world.settle()
    assert world.ip("web") == world.ip("secure") == "10.0.0.1"
    assert world.condition("web")[2].endswith('from pool "nodes"; nodes left out: n2, n3 (AddressInPool)')
    world.configure()
    world.settle()
    assert world.ip("web") == world.ip("secure") == "10.0.0.1,10.0.0.2,10.0.0.3"


# ------------------------------------------------------------------------ refusals, as people see them


@pytest.mark.parametrize(
    ("pool", "machine", "ports", "proxy", "said"),
    [
        ({}, {"internal": "10.0.0.1"}, SSH, None, ("PortGuarded",
         'pool "nodes" cannot give 22/TCP: it is for SSH on every node; spec.allowPorts of the pool allows it')),
        ({}, {"internal": "10.0.0.1"}, [{"port": 30080}], None, ("PortGuarded",
         'pool "nodes" cannot give 30080/TCP: it is in the range of NodePorts (30000-32767) on every node; '
         "spec.allowPorts of the pool allows it")),
        ({}, {"internal": "10.0.0.1"}, HTTP, ServiceProxy.IPVS, ("ProxyIPVS",
         'pool "nodes" cannot give addresses of nodes, since kube-proxy is in IPVS mode and would bind them on every '
         "node; use the mode nftables or iptables")),
        ({}, {"internal": "10.0.0.1"}, HTTP, ServiceProxy.OTHER, ("ProxyUnknown",
         'pool "nodes" cannot give addresses of nodes, since what carries traffic for Services is not known to be '
         "kube-proxy in the mode nftables or iptables; spec.allowOtherProxies of the pool allows it")),
        ({"allowedCIDRs": ["203.0.113.0/24"]}, {"internal": "10.0.0.1"}, HTTP, None, ("AddressNotAllowed",
         'pool "nodes" has no node with an address that may be shown; nodes left out: n1 (AddressNotAllowed)')),
        ({}, {"internal": "2001:db8::1"}, HTTP, None, ("NoFamily",
         'pool "nodes" has no node with an IPv4 address; nodes left out: n1 (NoAddress)')),
        ({}, {"internal": "10.0.0.1", "ready": "False"}, HTTP, None, ("NoNode",
         'pool "nodes" has no node that may be shown; nodes left out: n1 (NotReady)')),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_in_condition_and_event(
    pool: dict[str, Any],
    machine: dict[str, Any],
    ports: list[dict[str, Any]],
    proxy: ServiceProxy | None,
    said: tuple[str, str],
) -> None:
    world = cluster(0, None, nodes=pool)
    world.machines.proxy = proxy or world.machines.proxy
    world.machine("n1", **machine)
    world.put("web", ports=ports)
    world.settle()
    assert world.condition("web") == ("False", *said)
    told = f'Failed to allocate IP for "default/web": {said[1].partition("; nodes left out")[0]}'
    assert world.take_events() == [("default/web", "AllocationFailed", told)]


def test_a_guarded_port_that_the_pool_allows_is_given() -> None:
    world = cluster(1, None, nodes={"allowPorts": [22]})
    assigned(world, git={"ports": SSH})
    assert world.ip("git") == "10.0.0.1"


def test_the_nodes_that_are_left_out_are_named_briefly() -> None:
    world = cluster(50)
    reasons = list(LeftOut)[:20]
    for number in range(2, 51):
        world.machines.absences[NodeName(f"n{number}")] = reasons[number % 20]
    world.tell_nodes()
    world.put("web", ports=HTTP)
    world.settle()
    _, _, left_out = world.condition("web")[2].partition("; nodes left out: ")
    assert len(left_out) < 500
    assert left_out.startswith("n20, n40 (BeingDeleted), n21, n41 (OutOfService), ")
    assert left_out.endswith(", and 33 more")


def test_an_address_of_a_node_is_never_left_with_the_mode_proxy() -> None:
    """kube-proxy would take nothing that is sent to it, and neither would the node."""
    world = cluster(2)
    assigned(world, web={"ports": HTTP})
    world.put("web", status={"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "Proxy"}, {"ip": "10.0.0.2"}]}})
    world.settle()
    assert [each.ip_mode for each in world.view("web").status.load_balancer.ingress] == ["VIP", "VIP"]


def test_who_sets_the_mode_proxy_again_and_again_is_named_and_not_fought() -> None:
    world = cluster(1)
    assigned(world, web={"ports": HTTP})
    written(world)
    for _ in range(10):
        world.put("web", status={"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "Proxy"}]}})
        world.rest()
    assert world.condition("web")[1] == "Contested"
    assert len(written(world)) <= 4


# ------------------------------------------------------------------------ restarts, contests, endings


def everything(nodes: int) -> World:
    world = cluster(nodes, {"lan": LAN}, nodes={"autoAssign": False})
    on_nodes = {"annotations": {POOL: "nodes"}}
    assigned(
        world,
        web={"ports": HTTP, **on_nodes, **DUAL},
        secure={"ports": HTTPS, **on_nodes},
        loser={"ports": HTTP, **on_nodes},
        guarded={"ports": SSH, **on_nodes},
        lan={},
    )
    return world


@pytest.mark.parametrize("nodes", [2, 50])
def test_a_restart_writes_nothing_and_says_nothing(nodes: int) -> None:
    world = everything(nodes)
    assert len(world.ip("web").split(",")) == 2 * nodes
    written(world), world.take_events()
    world.start()
    world.settle()
    assert (written(world), world.take_events()) == ([], [])


@pytest.mark.parametrize("falsified", [None, [{"ip": "10.6.6.6"}], [{"ip": "192.0.2.0"}], [{"hostname": "x"}]])
@pytest.mark.parametrize("what", [{}, {"annotations": {FROM: None}}])
def test_a_restart_puts_a_falsified_status_right_without_moving_anybody(falsified: Any, what: dict[str, Any]) -> None:
    world = everything(50)
    before = {name: world.ip(name) for name in ("web", "secure", "lan")}
    world.controller = World().controller  # it is killed, and sees nothing of what follows
    world.put("web", status={"loadBalancer": {"ingress": falsified}}, **what)
    world.start()
    world.settle()
    assert {name: world.ip(name) for name in before} == before
    assert pool_of(world, "web") == "nodes"


@pytest.mark.parametrize("away", [{"lan": "192.0.2.9-192.0.2.1"}, {}])
def test_a_pool_that_is_away_at_a_restart_costs_nobody_an_address_of_a_node(away: dict[str, Any]) -> None:
    """Nobody knows then what it contains; an address of a node is not of it."""
    world = everything(3)
    before = {name: world.ip(name) for name in ("web", "secure", "lan")}
    world.configure(**away)
    world.start()
    world.rest()
    assert {name: world.ip(name) for name in before} == before


@pytest.mark.parametrize("away", [{}, {"nodes": {"addresses": [{"type": "Label", "key": "no key"}]}}])
def test_an_address_that_only_a_label_names_is_shared_by_ports_whatever_becomes_of_node_and_pool(
    away: dict[str, Any],
) -> None:
    pool = {"addresses": [{"type": "Label", "key": "node-public-ip"}], "allowedCIDRs": ["203.0.113.0/24"]}
    world = World({})
    world.configure_nodes(nodes=pool)
    for number in (1, 2):
        world.machine(f"n{number}", internal=f"10.0.0.{number}", label=f"203.0.113.{number}")
    world.start()
    assigned(world, web={"ports": HTTP}, secure={"ports": HTTPS})
    world.machine("n1", internal="10.0.0.1", label="203.0.113.1", ready="False")
    world.settle()
    world.machine("n1", internal="10.0.0.1", label="203.0.113.1")
    world.settle()
    written(world)
    world.configure_nodes(**away)
    world.start()
    world.rest()
    world.configure_nodes(nodes=pool)
    world.settle()
    assert (world.ip("web"), world.ip("secure"), written(world)) == (*["203.0.113.1,203.0.113.2"] * 2, [])


def test_who_changes_the_terms_leaves_also_where_a_restart_forgot_what_the_pool_contained() -> None:
    key = {"annotations": {"metallb.io/allow-shared-ip": "key"}}
    world = cluster(1, {"lan": "192.0.2.1/32"}, nodes={"autoAssign": False})
    assigned(world, web={"ports": HTTP, **key}, secure={"ports": HTTPS, **key})
    assert world.ip("web") == world.ip("secure") == "192.0.2.1"
    world.configure(other="198.51.100.0/24")
    world.start()
    world.put("web", annotations={"metallb.io/allow-shared-ip": None})
    world.rest()
    assert (world.ip("web"), world.ip("secure")) == ("198.51.100.0", "192.0.2.1")


def test_a_node_that_died_while_no_controller_ran_is_taken_out_at_the_start() -> None:
    world = everything(3)
    world.machines.put("n2", internal="10.0.0.2 2001:db8::2", ready="False")
    written(world)
    world.start()
    world.settle()
    assert world.ip("secure") == "10.0.0.1,10.0.0.3"
    assert written(world) == ["secure", "web"]


def test_a_service_that_a_rival_contests_is_left_alone_and_keeps_its_ports() -> None:
    world = cluster(50)
    assigned(world, web={"ports": HTTP, **DUAL}, waits={"ports": HTTP})
    for _ in range(6):
        world.put("web", status={"loadBalancer": {"ingress": [{"ip": "10.6.6.6"}]}})
        world.rest()
    status, reason, message = world.condition("web")
    assert (status, reason) == ("False", "Contested")
    assert "2001:db8::32 stays reserved for it, but is not written again" in message
    assert (world.ip("web"), world.ip("waits")) == ("10.6.6.6", "")
    world.start()
    world.rest()
    assert (world.ip("web"), world.ip("waits")) == ("10.6.6.6", "")
    world.settle()
    assert len(world.ip("web").split(",")) == 100


def test_a_service_that_is_being_deleted_keeps_its_ports_until_it_is_gone() -> None:
    world = cluster(2)
    assigned(world, web={"ports": HTTP}, waits={"ports": HTTP})
    world.put("web", deletionTimestamp="2026-01-02T00:00:00Z")
    world.settle()
    assert (world.ip("web"), world.ip("waits")) == ("10.0.0.1,10.0.0.2", "")
    world.delete("web")
    world.settle()
    assert world.ip("waits") == "10.0.0.1,10.0.0.2"


@pytest.mark.parametrize("to", [{"type": "ClusterIP"}, {"type": "NodePort", "loadBalancerClass": None}])
def test_a_service_that_is_no_load_balancer_any_more_gives_all_back(to: dict[str, Any]) -> None:
    world = cluster(2)
    assigned(world, web={"ports": HTTP}, waits={"ports": HTTP})
    world.put("web", **to)
    world.settle()
    assert (world.ip("web"), world.ip("waits")) == ("", "10.0.0.1,10.0.0.2")
    assert pool_of(world, "web") is None
