"""A link that is new is not a link that is known: it was renewed, renamed, made anew, or moved into a bridge."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from cluster.objects import AddressText
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.scenes import (
    VIP,
    assert_each_is_answered_by_one,
    assert_nothing_moves,
    decisions_of,
    held_by,
    owner_of,
    seconds_until_answered,
    settled,
)
from tests.speaker.protocol.simulation.world import LINK, World, bundle_of

pytestmark = pytest.mark.slow

SEEDS = range(tries(2, 5))
ROUTED = AddressText("192.0.2.1")

Renewal = Callable[[World, str], None]
RENEWALS: dict[str, Renewal] = {
    "address away for 50 ms": lambda world, node: world.renew_link(node, world.nodes[node].lan, 0.05),
    "address away for 2 s": lambda world, node: world.renew_link(node, world.nodes[node].lan, 2.0),
    "renamed": lambda world, node: world.rename_link(node, world.nodes[node].lan, "lan0"),
    "made anew": lambda world, node: world.renew_link(node, world.nodes[node].lan, 0.1, index=7),
    "moved into a bridge": lambda world, node: world.renew_link(node, world.nodes[node].lan, 0.1, "br0", 7),
}


def with_bridges(seed: int, nodes: int = 3, *, gateway: bool = True) -> World:
    """Each node has a bridge for its containers, too; nobody has started yet."""
    world = World(seed, nodes, gateway=gateway)
    for name in world.nodes:
        world.join(name, world.add_network(f"bridge of {name}", "172.17", shared=False), "br-7c1f")
    return world


@pytest.mark.parametrize("renewal", RENEWALS)
@pytest.mark.parametrize("nodes", [2, 3])
def test_who_renews_its_link_takes_nothing_from_anybody(renewal: str, nodes: int) -> None:
    for seed in SEEDS:
        world = settled(seed, nodes, bundles=8)
        holder = owner_of(world)
        other = next(name for name in world.nodes if name != holder)
        kept = {address: world.owner(address) for address in world.answerers if world.owner(address) != other}
        for _ in range(3):
            RENEWALS[renewal](world, other)
            world.run(6.0)
        assert {address: world.owner(address) for address in kept} == kept, world.story()
        assert_each_is_answered_by_one(world)


@pytest.mark.parametrize("renewal", [kind for kind in RENEWALS if kind != "address away for 2 s"])
def test_a_holder_whose_link_is_another_in_a_moment_keeps_what_it_holds(renewal: str) -> None:
    for seed in SEEDS:
        world = settled(seed, bundles=8)
        holder = owner_of(world)
        mine = held_by(world, holder)
        RENEWALS[renewal](world, holder)
        world.run(0.6)
        assert held_by(world, holder) == mine, world.story()
        assert_each_is_answered_by_one(world)
        assert_nothing_moves(world, 10.0)


@pytest.mark.parametrize("gateway", [True, False])
def test_without_its_lan_a_node_claims_nothing_on_a_network_of_its_own(gateway: bool) -> None:
    """An address that a router sends to the LAN belongs there, also for who is not on it for a while."""
    for seed in SEEDS:
        world = with_bridges(seed, gateway=gateway)
        Invariants(world)
        bundles = [bundle_of("b1", [VIP], world.nodes), bundle_of("b2", [ROUTED], world.nodes)]
        world.set_bundles(bundles)
        world.start_all(spread=0.3)
        world.run(6.0)
        owners = {world.owner(VIP), world.owner(ROUTED)}
        for node in [name for name in world.nodes if name not in owners]:
            claimed = len(decisions_of(world, "Claimed"))
            world.renew_link(node, world.nodes[node].lan, 2.0)
            world.run(6.0)
            assert len(decisions_of(world, "Claimed")) == claimed, world.story()
        holder = owner_of(world, ROUTED)
        world.renew_link(holder, world.nodes[holder].lan, 2.0, "br0", 9)
        assert seconds_until_answered(world, 0.6, ROUTED) < 0.6
        world.run(6.0)
        assert not any(answerers for network in world.networks[1:] for answerers in network.answerers.values())
        assert world.owner(ROUTED) not in {None, holder}, world.story()


def test_who_has_a_named_interface_no_more_leaves_the_address_to_who_has_it() -> None:
    """A claim that cannot be answered for kept everybody else from answering."""
    for seed in SEEDS:
        world = World(seed, 3)
        bundle = bundle_of("b1", [VIP], world.nodes)
        named = tuple(replace(candidate, interfaces=(LINK,)) for candidate in bundle.candidates)
        Invariants(world)
        world.set_bundles([replace(bundle, candidates=named)])
        world.start_all(spread=0.3)
        world.run(6.0)
        first = owner_of(world)
        world.rename_link(first, world.nodes[first].lan, "lan0")
        assert seconds_until_answered(world, 0.6) < 0.2
        second = owner_of(world)
        assert second != first
        world.renew_link(second, world.nodes[second].lan, 0.1, "br0", 9)
        world.run(0.6)
        assert world.owner(VIP) not in {None, first, second}, world.story()
        world.run(10.0)
        assert world.owner(VIP) not in {None, first, second}, world.story()


def test_interfaces_that_exchange_their_names_exchange_nothing_else() -> None:
    for seed in SEEDS:
        world = World(seed, 3)
        Invariants(world)
        storage = world.add_network("storage", "10.1")
        for name in world.nodes:
            world.join(name, storage, "eth1")
        world.set_bundles(bundle_of(f"b{i}", [f"10.{i % 2}.9.{i}"], world.nodes) for i in range(8))
        world.start_all(spread=0.3)
        world.run(6.0)
        changes, suspected = len(world.owner_changes), len(decisions_of(world, "PeerSuspected"))
        for node in world.nodes.values():
            lan, other = node.interfaces
            lan.name, other.name = other.name, lan.name
            world.rename_link(node.name, lan, lan.name)
            world.run(3.0)
        assert len(world.owner_changes) == changes, world.story()
        assert len(decisions_of(world, "PeerSuspected")) == suspected, world.story()
