"""Cuts, and who else is there: what proves that a speaker hears, and what ends the waiting for it."""

from __future__ import annotations

import pytest

from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.prober import Prober
from tests.speaker.protocol.simulation.scenes import (
    VIP,
    assert_each_is_answered_by_one,
    decisions_of,
    held_by,
    owner_of,
    protocol_of,
    seconds_until_answered,
    settled,
)
from tests.speaker.protocol.simulation.world import World

pytestmark = pytest.mark.slow

SEEDS = range(tries(2, 5))


def sleep(world: World, *hosts: str) -> None:
    world.network.unplugged |= set(hosts)
    world.fault(f"{' and '.join(hosts)} sleep")


@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("company", ["gateway", "client"])
def test_a_holder_that_dies_together_with_all_other_company_is_replaced_within_five_seconds(
    nodes: int, company: str
) -> None:
    """A router that ran on its machine, or the only neighbour, which has just gone to sleep."""
    for seed in SEEDS:
        world = settled(seed, nodes, gateway=company == "gateway", client=True, bundles=4)
        world.run(3.0)
        holder = owner_of(world)
        sleep(world, "gateway", "client")
        for other in list(world.nodes)[2:]:
            if other != holder:
                world.power_cut(other)
        world.power_cut(holder)
        assert seconds_until_answered(world) < 5.0, world.story()
        assert owner_of(world) != holder


def test_who_stood_in_for_others_that_live_gives_way_within_an_interval() -> None:
    for seed in SEEDS:
        world = settled(seed, 2, bundles=6)
        holder = owner_of(world)
        other = next(name for name in world.nodes if name != holder)
        mine, theirs = held_by(world, holder), held_by(world, other)
        world.network.partition({holder}, {holder, other})
        sleep(world, "gateway", "client")
        world.run(6.0)
        assert held_by(world, holder) == held_by(world, other) == mine | theirs, world.story()
        world.network.unplugged.clear()
        world.network.heal()
        world.fault("healed")
        world.run(0.2)
        assert (held_by(world, holder), held_by(world, other)) == (mine, theirs), world.story()


def test_a_blocked_switch_port_is_noticed_as_fast_each_time_and_healing_leaves_few_answered_by_two() -> None:
    """Carrier stays. Neither side has heard the other: what was silence for both doubles D for neither."""
    doubled = []
    for seed in SEEDS:
        world = settled(seed, 3, bundles=6)
        prober = Prober(world, VIP)
        for _ in range(3):
            holder = owner_of(world)
            world.network.partition({holder}, world.hosts())
            world.fault(f"{holder}'s port is blocked")
            started = world.now
            while not world.answerers[VIP] - {holder}:
                world.run(0.005)
            assert world.now - started < 0.5, world.story()
            world.run(3.0)
            before = prober.doubled
            world.network.heal()
            world.fault("the port forwards again")
            world.run(4.0)
            doubled.append(prober.doubled - before)
            assert len(world.answerers[VIP]) == 1, world.story()
        for name in world.nodes:
            for peer in protocol_of(world, name).peers():
                assert not peer.claims or peer.detection_s < 2 * world.settings.detection_floor_s, world.story()
    assert max(doubled) <= 3, doubled


def test_who_cannot_send_is_not_taken_for_dead_and_takes_nobody_for_dead() -> None:
    """A full neighbour table refuses datagrams; ARP goes on."""
    for seed in SEEDS:
        world = settled(seed, 3, bundles=6)
        owners, changes = dict(world.answerers), len(world.owner_changes)
        for node in world.nodes.values():
            node.lan.refuses = True
            world.fault(f"{node.name}'s kernel takes no datagrams")
            world.run(4.0)
        world.run(15.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()
        assert {decision.fields["link"] for decision in decisions_of(world, "CannotSend")} == {"eth0"}
        assert len(decisions_of(world, "CannotSend")) == len(world.nodes)
        for node in world.nodes.values():
            node.lan.refuses, node.lan.came_up_at = False, world.now
            world.fault(f"{node.name}'s kernel takes datagrams")
            world.run(1.0)
        world.run(10.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()


def test_nodes_that_start_and_cannot_send_claim_nothing() -> None:
    for seed in SEEDS:
        world = settled(seed, 3, bundles=6)
        world.run(35.0)
        for name in world.nodes:
            world.kill(name)
        for node in world.nodes.values():
            node.lan.refuses = True
        decided = len(decisions_of(world, "Claimed"))
        for name in world.nodes:
            world.start(name)
        world.run(10.0)
        assert len(decisions_of(world, "Claimed")) == decided, world.story()
        for node in world.nodes.values():
            node.lan.refuses, node.lan.came_up_at = False, world.now
        world.fault("the kernels take datagrams again")
        world.run(4.0)
        assert_each_is_answered_by_one(world)


def test_who_loses_frames_for_want_of_room_takes_nobody_for_dead() -> None:
    for seed in SEEDS:
        world = settled(seed, 3, bundles=6)
        owners, changes = dict(world.answerers), len(world.owner_changes)
        for node in world.nodes.values():
            node.lan.loses_until = world.now + 1.5
            world.fault(f"{node.name}'s queue overflows")
            world.run(4.0)
        assert (world.answerers, len(world.owner_changes)) == (owners, changes), world.story()
        assert not decisions_of(world, "PeerDead"), world.story()
        assert len(decisions_of(world, "ReceiveOverflow")) == len(world.nodes), "each says so once"
