"""Two machines with one node's name: one of them answers, and both say so."""

from __future__ import annotations

import pytest

from speaker.protocol.effects import Decision
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.scenes import (
    assert_each_is_answered_by_one,
    held_by,
    owner_of,
    settled,
    with_storage,
)
from tests.speaker.protocol.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

SEEDS = range(tries(2, 6))


def duplicates(world: World, machine: str) -> list[Decision]:
    return [decision for _, name, decision in world.decisions if name == machine and decision.reason == "DuplicateNode"]


def test_a_machine_that_starts_with_the_name_of_one_that_lives_stays_silent_and_both_say_so() -> None:
    for seed in SEEDS:
        world = settled(seed, bundles=6)
        owners, changes = dict(world.answerers), len(world.owner_changes)
        node = owner_of(world)
        twin = world.twin(node)
        world.run(60.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()
        (first, *_), (second, *_) = duplicates(world, node), duplicates(world, twin)
        assert (first.fields["yields"], second.fields["yields"]) == (0, 1)
        assert first.fields["address"] in {world.nodes[twin].lan.address, world.nodes[twin].lan.link_local}
        assert second.fields["mac"] == world.nodes[node].mac.hex(":")
        world.power_cut(twin)
        world.run(10.0)
        assert len(world.owner_changes) == changes, world.story()


def test_a_twin_takes_no_place_while_a_firewall_keeps_the_holders_heartbeats_from_everybody() -> None:
    """Its silence was told as its death: then a twin that holds nothing was believed, and two answered."""
    for seed in SEEDS:
        world = settled(seed, bundles=6)
        node = owner_of(world)
        mine = held_by(world, node)
        twin = world.twin(node)
        world.run(2.0)
        others = set(world.nodes) - {node, twin}
        world.network.firewalled |= {(node, other) for other in others} | {(other, node) for other in others}
        world.fault(f"{node}'s firewall drops everything but its twin's")
        world.run(20.0)
        assert all(world.owner(address) == node for address in mine), world.story()


def test_a_machine_that_takes_a_dead_ones_name_serves_and_the_other_is_silent_when_it_is_back() -> None:
    for seed in SEEDS:
        world = settled(seed, bundles=6)
        node = owner_of(world)
        world.power_cut(node)
        world.run(2.0)
        twin = world.twin(node)
        world.run(4.0)
        for other in set(world.nodes) - {node, twin}:
            world.power_cut(other)
        world.run(2.0)
        assert set(world.answerers.values()) == {frozenset({twin})}, world.story()
        world.start(node)
        world.run(10.0)
        assert set(world.answerers.values()) == {frozenset({twin})}, world.story()


def test_who_was_taken_for_dead_is_heard_again_when_the_machine_with_its_name_has_gone() -> None:
    for seed in SEEDS:
        world = settled(seed, bundles=6)
        node = owner_of(world)
        world.network.partition({node}, world.hosts())
        world.fault(f"{node} is cut off")
        world.run(1.0)
        twin = world.twin(node)
        world.network.partition({node}, world.hosts() | {twin})
        world.run(4.0)
        world.power_cut(twin)
        world.network.heal()
        world.fault("healed")
        world.run(4.0)
        assert_each_is_answered_by_one(world)


def test_of_two_that_answered_while_they_could_not_hear_each_other_one_is_left() -> None:
    for seed in SEEDS:
        for others in ({"n0"}, {"n0", "n1"}):
            world = settled(seed, 4, bundles=8)
            node = owner_of(world)
            side = {node, *others}
            world.network.partition(side, world.hosts())
            world.fault(f"cut: {' '.join(sorted(side))}")
            world.run(2.0)
            twin = world.twin(node)
            world.network.partition(side, world.hosts() | {twin})
            world.run(4.0)
            world.network.heal()
            world.fault("healed")
            world.run(6.0)
            assert_each_is_answered_by_one(world)


def test_who_gave_everything_up_for_its_twin_claims_it_when_all_others_have_gone() -> None:
    for seed in SEEDS:
        world = settled(seed, 2, bundles=6)
        node = owner_of(world)
        world.network.partition({node}, world.hosts())
        world.fault(f"{node} is cut off")
        world.run(1.0)
        twin = world.twin(node)
        world.network.partition({node}, world.hosts())
        world.run(4.0)
        world.network.heal()
        world.fault("healed")
        world.run(3.0)
        silent = next(name for name in (node, twin) if not held_by(world, name))
        for other in set(world.nodes) - {silent}:
            world.power_cut(other)
        world.run(8.0)
        assert set(world.answerers.values()) == {frozenset({silent})}, world.story()


def test_a_node_is_known_at_once_by_who_was_not_there_when_its_twin_went() -> None:
    """Its link was down meanwhile: what was heard on it before proves nothing about who lives."""
    for seed in SEEDS:
        world = settled(seed, 2, bundles=6)
        node = owner_of(world)
        world.power_cut(node)
        twin = world.twin(node)
        world.run(4.0)
        other = next(name for name in world.nodes if name not in {node, twin})
        world.unplug(other)
        world.run(1.0)
        world.power_cut(twin)
        world.run(5.0)
        world.plug(other)
        world.start(node)
        world.run(4.0)
        assert_each_is_answered_by_one(world)


def test_a_holder_that_hears_nobody_is_replaced_also_when_it_had_heard_a_twin_before() -> None:
    """It went on saying that it hears the session that waited to be known, and so counted as one that hears."""
    for seed in SEEDS:
        world = settled(seed, 4, bundles=8)
        holder = owner_of(world)
        mine = held_by(world, holder)
        twin = world.twin(next(name for name in world.nodes if name != holder))
        world.run(3.0)
        world.power_cut(twin)
        for host in world.hosts() - {holder}:
            world.network.cut(host, holder)
        world.fault(f"{holder} cannot hear")
        world.run(6.0)
        assert all(world.answerers[address] - {holder} for address in mine), world.story()
        other = next(name for name in world.nodes if name not in {holder, twin})
        left = held_by(world, other)
        world.power_cut(other)
        world.run(1.0)
        assert all(world.answerers[address] - {holder} for address in left | mine), world.story()


def test_what_a_twin_proves_is_not_proved_of_the_node_whose_name_it_has() -> None:
    """The twin answers for what the dead one held, with the key of the cluster: that kept the dead one alive."""
    for seed in SEEDS:
        world = settled(seed, bundles=6)
        node = owner_of(world)
        world.nodes[node].lan.refuses = True
        world.fault(f"{node}'s kernel takes nothing")
        world.run(1.0)
        world.twin(node)
        world.run(4.0)
        world.power_cut(node)
        world.run(6.0)
        assert_each_is_answered_by_one(world)


def test_who_cannot_send_takes_two_machines_with_one_name_for_one_another_no_more_than_anybody_does() -> None:
    """It declares nobody dead, so that silence had to tell it which of them is gone; but neither was silent."""
    for seed in SEEDS:
        world = settled(seed, bundles=6)
        node = owner_of(world)
        world.twin(node)
        world.run(3.0)
        owners, changes = dict(world.answerers), len(world.owner_changes)
        mute = next(name for name in world.names() if name != node)
        world.nodes[mute].lan.refuses = True
        world.fault(f"{mute}'s kernel takes no datagrams")
        world.run(10.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()


def test_a_node_is_told_the_claims_of_who_takes_it_for_a_machine_that_had_its_name() -> None:
    """The holder, cut off from the LAN, could not know for six seconds that the other machine was gone. It said nothing
    to the node, which claimed on the other network what it had not heard of."""
    for seed in SEEDS:
        world, storage = with_storage(seed, 2)
        Invariants(world)
        world.set_bundles(bundle_of(f"b{i}", [f"10.{i % 2}.9.{i + 1}"], ["n0", "n1"]) for i in range(8))
        world.clock.after(0.0, lambda world=world: world.start("n0"))  # type: ignore[misc]
        world.run(40.0)
        twin = world.twin("n1")
        world.run(3.0)
        changes = len(storage.owner_changes)
        world.network.partition({"n0"}, world.hosts())
        world.power_cut(twin)
        world.start("n1")
        world.run(4.0)
        assert len(storage.owner_changes) == changes, world.story()
