"""Services with addresses of nodes over restarts, contests and endings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controller.services.node_pools import (
    DUAL,
    FROM,
    HTTP,
    HTTPS,
    LAN,
    POOL,
    SSH,
    cluster,
    pool_of,
    written,
)
from tests.controller.world import World, assigned

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
