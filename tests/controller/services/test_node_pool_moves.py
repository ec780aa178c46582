"""Services that move between pools of addresses and pools of nodes."""

from __future__ import annotations

from tests.controller.services.node_pools import (
    FROM,
    HTTP,
    HTTPS,
    LAN,
    POOL,
    cluster,
    pool_of,
    written,
)
from tests.controller.world import assigned

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
