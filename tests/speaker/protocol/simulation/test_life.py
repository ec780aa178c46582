"""Which peers live: what is heard, what is answered, and what proves it."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.scenes import (
    assert_each_is_answered_by_one,
    decisions_of,
    held_by,
    numbered,
    owner_of,
    settled,
    with_storage,
)
from tests.speaker.protocol.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

SEEDS = range(3)


def block(world: World, node: str, ways: str = "in and out") -> None:
    """A firewall on the node drops datagrams; ARP passes."""
    others = set(world.nodes) - {node}
    if "in" in ways:
        world.network.firewalled |= {(other, node) for other in others}
    if "out" in ways:
        world.network.firewalled |= {(node, other) for other in others}
    world.fault(f"{node}'s firewall drops what goes {ways}")


@pytest.mark.parametrize("ways", ["in", "out", "in and out"])
@pytest.mark.parametrize("nodes", [2, 3])
def test_a_holder_behind_a_firewall_keeps_what_it_answers_for_and_is_named(nodes: int, ways: str) -> None:
    for seed in SEEDS:
        world = settled(seed, nodes, bundles=8)
        holder = owner_of(world)
        owners, changes = dict(world.answerers), len(world.owner_changes)
        block(world, holder, ways)
        world.run(12.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()
        named = {decision.fields["node"] for decision in decisions_of(world, "DatagramsBlocked")}
        assert (holder in named) or ways == "in", world.story()
        world.network.heal()
        world.fault("the firewall is gone")
        world.run(5.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()


def test_a_holder_behind_a_firewall_that_dies_is_replaced_as_soon_as_any() -> None:
    for seed in SEEDS:
        world = settled(seed, bundles=8)
        holder = owner_of(world)
        mine = held_by(world, holder)
        block(world, holder)
        world.run(10.0)
        world.power_cut(holder)
        world.run(0.6)
        assert all(world.owner(address) not in {None, holder} for address in mine), world.story()


def test_a_holder_of_addresses_on_two_networks_is_asked_on_each_for_one_that_belongs_there() -> None:
    for seed in SEEDS:
        world, storage = with_storage(seed)
        Invariants(world)
        world.set_bundles(bundle_of(f"b{i}", [f"10.{i % 2}.9.{i + 1}"], world.nodes) for i in range(12))
        world.start_all(spread=0.3)
        world.run(6.0)
        changes = len(storage.owner_changes) + len(world.owner_changes)
        node = owner_of(world, AddressText("10.1.9.2"), storage)
        others = set(world.nodes) - {node}
        storage.firewalled |= {(node, other) for other in others} | {(other, node) for other in others}
        world.fault(f"{node}'s firewall drops everything on storage")
        world.run(20.0)
        assert len(storage.owner_changes) + len(world.owner_changes) == changes, world.story()


def test_who_cannot_hear_takes_nobody_for_dead_that_has_released_something() -> None:
    """It goes on asking for addresses that the others held when it last heard them, of which some have moved."""
    for seed in SEEDS:
        world = settled(seed, bundles=9)
        deaf = owner_of(world)
        block(world, deaf, "in")
        world.run(2.0)
        others = [name for name in world.nodes if name != deaf]
        lowest = {min(held_by(world, name), default=numbered(0)) for name in others}
        kept = [bundle for bundle in world.plans[-1][1] if not lowest & set(bundle.addresses)]
        world.nodes[deaf].lag = 0.5
        world.set_bundles(kept)
        world.run(20.0)
        assert all(len(world.answerers[address]) == 1 for bundle in kept for address in bundle.addresses), world.story()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_speaker_that_starts_anew_is_known_at_once_by_who_cannot_send_on_another_network(elsewhere: bool) -> None:
    """Who cannot send takes nobody for dead there, so that a node's former session was believed to live elsewhere."""
    for seed in SEEDS:
        world, storage = with_storage(seed, 2)
        Invariants(world)
        world.set_bundles(bundle_of(f"b{i}", [f"10.{i % 2}.9.{i + 1}"], world.nodes) for i in range(8))
        world.start_all(spread=0.3)
        world.run(6.0)
        world.nodes["n1"].lan.refuses = True
        world.fault("n1's kernel takes nothing for its link to the LAN")
        world.run(1.0)
        world.network.partition({"n1"}, world.hosts())
        world.power_cut("n0")
        world.run(6.0)
        if elsewhere:
            world.join(world.twin("n0"), storage, "eth1")
            world.plug("n0-twin", storage)
        else:
            world.start("n0")
        world.run(6.0)
        assert_each_is_answered_by_one(world, storage)


def stop_groups(world: World, *targets: str) -> None:
    """What is said to the group arrives at the targets no more; what is said to one of them does."""
    world.network.multicast_blocked |= {(one, other) for one in world.nodes for other in targets if one != other}
    world.fault(f"what is said to the group does not reach {' '.join(targets)}")


def test_claims_travel_by_unicast_where_the_network_stops_forwarding_to_the_group() -> None:
    for seed in SEEDS:
        world = settled(seed, bundles=6)
        owners, changes = dict(world.answerers), len(world.owner_changes)
        stop_groups(world, *world.nodes)
        world.run(8.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()
        world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(12))
        world.run(1.0)
        assert all(world.owner(numbered(i)) is not None for i in range(12)), world.story()
        assert len(world.owner_changes) == changes + 6, world.story()
        holder = owner_of(world)
        mine = held_by(world, holder)
        world.power_cut(holder)
        world.run(0.7)
        assert all(world.owner(address) not in {None, holder} for address in mine), world.story()


def test_who_is_back_hears_the_others_although_nothing_said_to_the_group_reaches_it() -> None:
    """It hears nobody and so counts as deaf, and nobody spoke to it alone, since it was dead: for ever."""
    for seed in SEEDS:
        world = settled(seed, bundles=6)
        node = owner_of(world)
        stop_groups(world, node)
        world.run(4.0)
        world.renew_link(node, world.nodes[node].lan, 1.5)
        world.run(1.5)
        owners, changes = dict(world.answerers), len(world.owner_changes)
        world.run(15.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()
        assert node not in set().union(*owners.values())
