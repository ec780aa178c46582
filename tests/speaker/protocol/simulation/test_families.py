"""Both families: which node holds an address of which, and what moves when a kernel speaks one no more."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.plan import Bundle
from tests.speaker.protocol.simulation.both_families import BOTH, IPV4, IPV6, FamilySchedule
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.scenes import (
    assert_each_is_answered_by_one,
    assert_nothing_moves,
    decisions_of,
    owner_of,
    protocol_of,
    seconds_until_answered,
    with_storage,
)
from tests.speaker.protocol.simulation.test_seeds import batches
from tests.speaker.protocol.simulation.world import World, bundle_of, rank

pytestmark = pytest.mark.slow

SEEDS = range(tries(2, 4))
A, A6 = AddressText("10.0.9.1"), AddressText("fd10::9:1")
"""Of one dual-stack Service."""


def world_of(seed: int, *families: frozenset[Family], nodes: int = 3, start: bool = True) -> World:
    """On each node the kernel speaks the next of these families, on the last ones the last of them."""
    world = World(seed, nodes)
    world.speak(world.network, BOTH, "fd10")
    for number, node in enumerate(world.nodes.values()):
        node.lan.speak(families[min(number, len(families) - 1)])
    Invariants(world, owners_stay=False)
    if start:
        world.start_all(spread=0.3)
    return world


def in_order(world: World, id_: str, *addresses: AddressText) -> Bundle:
    """n0 ranks first, n1 second, and so on."""
    bundle = bundle_of(id_, addresses, ())
    by_name = {each.node: each for each in bundle_of(id_, addresses, world.nodes).candidates}
    return replace(bundle, candidates=tuple(by_name[node] for node in sorted(by_name)))


@pytest.mark.parametrize("families", [IPV6, BOTH])
def test_addresses_move_with_a_dead_node_in_each_family(families: frozenset[Family]) -> None:
    for seed in SEEDS:
        world = world_of(seed, families)
        addresses = (A6,) if families == IPV6 else (A, A6)
        world.set_bundles([bundle_of("b0", addresses, world.nodes)])
        world.run(6.0)
        first = owner_of(world, A6)
        world.power_cut(first)
        assert max(seconds_until_answered(world, 0.6, each) for each in addresses) < 0.6
        assert {world.owner(each) for each in addresses} == {owner_of(world, A6)} != {first}, world.story()


def test_an_ipv6_network_with_link_local_addresses_alone_is_one() -> None:
    for seed in SEEDS:
        world = world_of(seed, IPV6)
        for node in world.nodes.values():
            node.lan.subnet6 = ""
        world.set_bundles(bundle_of(f"b{i}", [f"2001:db8::{i:x}"], world.nodes) for i in range(1, 13))
        world.run(6.0)
        assert_each_is_answered_by_one(world)
        assert len(set(world.answerers.values())) == 3, world.story()
        assert not decisions_of(world, "PeerSuspected"), world.story()


def test_a_link_with_a_link_local_address_alone_is_known_again_when_nobody_else_is_there() -> None:
    """Where the last peer has died, only what is remembered says on which link speakers were."""
    for seed in SEEDS:
        world = World(seed, 2)
        world.speak(world.network, IPV6, "fd10")
        for node in world.nodes.values():
            node.lan.subnet6 = ""
        Invariants(world, owners_stay=False)
        world.set_bundles([bundle_of("b0", [A6], world.nodes)])
        world.start_all(spread=0.3)
        world.run(6.0)
        dead = owner_of(world, A6)
        (left,) = set(world.nodes) - {dead}
        world.lose_link(left, world.nodes[left].lan)
        world.power_cut(dead)
        world.nodes[left].lan.index += 100
        world.regain_link(left, world.nodes[left].lan)
        assert seconds_until_answered(world, 5.0, A6) < 4.0, world.story()


@pytest.mark.parametrize("lost", [Family.IPV4, Family.IPV6])
def test_addresses_of_a_family_that_the_kernel_speaks_no_more_move_and_the_others_stay(lost: Family) -> None:
    for seed in SEEDS:
        world = world_of(seed, BOTH)
        bundles = [bundle_of(f"four{i}", [f"10.0.9.{i}"], world.nodes) for i in range(1, 7)]
        bundles += [bundle_of(f"six{i}", [f"fd10::9:{i}"], world.nodes) for i in range(1, 7)]
        world.set_bundles(bundles)
        world.run(6.0)
        holder = owner_of(world, A if lost is Family.IPV4 else A6)
        before = {address: world.owner(address) for address in world.answerers}
        world.set_families(holder, world.nodes[holder].lan, BOTH - {lost})
        world.run(0.3)
        for address, owner in before.items():
            moves = owner == holder and (":" in address) is (lost is Family.IPV6)
            assert (world.owner(address) != owner) is moves, world.story()
        assert_each_is_answered_by_one(world)
        world.set_families(holder, world.nodes[holder].lan, BOTH)
        assert_nothing_moves(world, 10.0)


@pytest.mark.parametrize("lost", [Family.IPV4, Family.IPV6])
def test_what_was_lost_with_a_family_is_claimed_no_more_when_the_family_is_back(lost: Family) -> None:
    """A claim that nobody noticed would count again when its successor dies, without a word to clients."""
    address = A if lost is Family.IPV4 else A6
    for seed in SEEDS:
        world = world_of(seed, BOTH)
        world.set_bundles([bundle_of("b0", [address], world.nodes)])
        world.run(6.0)
        first = owner_of(world, address)
        world.set_families(first, world.nodes[first].lan, BOTH - {lost})
        world.run(1.0)
        assert address not in protocol_of(world, first).claims(), world.story()
        world.set_families(first, world.nodes[first].lan, BOTH)
        world.run(3.0)
        assert address not in protocol_of(world, first).claims(), world.story()


def test_a_bundle_of_both_families_moves_as_one_and_is_answered_for_all_the_time_in_the_other() -> None:
    for seed in SEEDS:
        world = world_of(seed, BOTH)
        world.set_bundles([bundle_of("b0", [A, A6], world.nodes)])
        world.run(6.0)
        first = owner_of(world, A6)
        world.set_families(first, world.nodes[first].lan, IPV4)
        assert seconds_until_answered(world, 0.3, A6) < 0.1
        changes = len(world.owner_changes)
        world.run(3.0)
        assert world.owner(A) == world.owner(A6) != first, world.story()
        assert all(answerers for _, _, answerers in world.owner_changes[changes:]), world.story()


@pytest.mark.parametrize("first", [IPV4, IPV6])
def test_nobody_waits_for_a_candidate_that_does_not_speak_the_family(first: frozenset[Family]) -> None:
    """Its turn would take 100 ms, and another 400 where nobody held the address before. To ask takes 50."""
    address = A6 if first == IPV4 else A
    for seed in SEEDS:
        world = world_of(seed, first, BOTH)
        world.run(6.0)
        world.set_bundles([in_order(world, "b0", address)])
        assert seconds_until_answered(world, 0.6, address) < 0.1
        assert owner_of(world, address) == "n1", world.story()


def test_nobody_steps_aside_for_a_candidate_that_does_not_speak_the_families() -> None:
    for seed in SEEDS:
        world = world_of(seed, IPV4, BOTH)
        bundle = in_order(world, "b0", A, A6)
        preferring = [replace(each, preference=int(each.node == "n0")) for each in bundle.candidates]
        world.set_bundles([replace(bundle, candidates=tuple(preferring))])
        world.run(200.0)
        assert (world.owner(A), world.owner(A6)) == ("n1", "n1"), world.story()
        world.set_bundles([replace(bundle, candidates=bundle.candidates[:1])])
        world.run(10.0)
        assert (world.owner(A), world.owner(A6)) == ("n1", "n1"), world.story()
        assert not decisions_of(world, "Released", "Offered"), world.story()


def restarted(world: World, *addresses: AddressText) -> str:
    """The holder of the addresses restarts, and is away for a second. Its name."""
    world.set_bundles([in_order(world, "b0", *addresses)])
    world.run(40.0)
    holder = owner_of(world, addresses[0])
    world.restart(holder, 1.0)
    return holder


def stand_ins(world: World) -> set[str]:
    """The nodes that have stood in for others."""
    return {node for _, node, decision in world.decisions if decision.reason == "StandsIn"}


@pytest.mark.parametrize(("address", "other"), [(A, IPV6), (A6, IPV4)])
def test_who_restarts_is_stood_in_for_by_one_that_speaks_its_addresses_families(
    address: AddressText, other: frozenset[Family]
) -> None:
    for seed in SEEDS:
        world = world_of(seed, BOTH, other, other, BOTH, nodes=4)
        holder = restarted(world, address)
        changes = len(world.owner_changes)
        world.run(5.0)
        assert stand_ins(world) == {"n3" if holder == "n0" else "n0"}, world.story()
        assert all(answerers == {holder} for _, _, answerers in world.owner_changes[changes:]), world.story()
        assert_each_is_answered_by_one(world)


def test_a_link_of_its_own_family_keeps_nobody_from_standing_in_elsewhere() -> None:
    """The storage network speaks IPv6 on the holder alone, where none of its addresses is answered."""
    for seed in SEEDS:
        world, storage = with_storage(seed)
        world.speak(world.network, BOTH, "fd10")
        world.speak(storage, IPV4)
        Invariants(world, owners_stay=False)
        world.start_all(spread=0.3)
        world.set_bundles([bundle_of("b0", [A, A6], world.nodes)])
        world.run(40.0)
        holder = owner_of(world, A)
        world.set_families(holder, world.nodes[holder].interfaces[1], BOTH)
        world.run(3.0)
        changes = len(world.owner_changes)
        world.restart(holder, 1.0)
        world.run(5.0)
        assert stand_ins(world), world.story()
        assert all(answerers == {holder} for _, _, answerers in world.owner_changes[changes:]), world.story()


def test_who_restarts_releases_at_once_what_nobody_could_stand_in_for() -> None:
    for seed in SEEDS:
        world = world_of(seed, BOTH, IPV4, IPV6)
        assert restarted(world, A, A6) == "n0"
        world.run(0.5)
        assert (world.owner(A), world.owner(A6)) == ("n1", "n2"), world.story()
        assert not decisions_of(world, "StandsIn"), world.story()


@pytest.mark.parametrize("lost", [Family.IPV4, Family.IPV6])
def test_a_stand_in_whose_kernel_speaks_a_family_no_more_is_none(lost: Family) -> None:
    for seed in SEEDS:
        world = world_of(seed, BOTH)
        restarted(world, A, A6)
        world.run(0.5)
        (by,) = stand_ins(world)
        world.set_families(by, world.nodes[by].lan, BOTH - {lost})
        address = A if lost is Family.IPV4 else A6
        assert seconds_until_answered(world, 0.6, address) < 0.35, world.story()
        world.run(3.0)
        assert_each_is_answered_by_one(world)


def test_a_bundle_of_both_families_goes_to_a_node_that_speaks_both() -> None:
    for seed in SEEDS:
        world = world_of(seed, IPV4, IPV6, BOTH, nodes=4)
        world.run(6.0)
        world.set_bundles([in_order(world, "b0", A, A6)])
        world.run(2.0)
        assert (world.owner(A), world.owner(A6)) == ("n2", "n2"), world.story()
        assert len(decisions_of(world, "Claimed")) == 2, world.story()


def test_where_nobody_speaks_both_families_each_address_is_held_by_one_that_speaks_its() -> None:
    """It is one bundle nevertheless, and goes to one node as soon as one speaks both."""
    for seed in SEEDS:
        world = world_of(seed, IPV4, IPV6, IPV4, IPV6, nodes=4)
        world.set_bundles([in_order(world, "b0", A, A6)])
        world.run(6.0)
        assert (world.owner(A), world.owner(A6)) == ("n0", "n1"), world.story()
        assert_nothing_moves(world, 60.0)
        world.set_families("n3", world.nodes["n3"].lan, BOTH)
        world.run(4.0)
        assert (world.owner(A), world.owner(A6)) == ("n3", "n3"), world.story()
        assert_nothing_moves(world, 60.0)


def test_an_address_of_a_family_that_nobody_speaks_is_held_by_nobody_and_nothing_spins() -> None:
    world = world_of(1, IPV4)
    world.set_bundles([bundle_of("b0", [A, A6], world.nodes)])
    world.run(6.0)
    assert (world.owner(A), world.owner(A6)) != (None, None)
    frames = world.network.frames
    world.run(20.0)
    assert A6 not in world.answerers
    assert len(decisions_of(world, "Claimed")) == 1, world.story()
    assert world.network.frames - frames < 20 * 60, "more than heartbeats and questions to neighbours"


def test_a_family_is_spoken_where_any_interface_on_the_network_speaks_it() -> None:
    """One interface has IPv4 alone, another one on the same network both: the node holds a bundle of both there."""
    for seed in SEEDS:
        world = world_of(seed, BOTH, start=False)
        first = rank("b0", world.nodes)[0]
        world.nodes[first].lan.speak(IPV4)
        world.join(first, world.network, "eth1").speak(BOTH)
        world.start_all(spread=0.3)
        world.run(12.0)
        world.set_bundles([bundle_of("b0", [A, A6], world.nodes)])
        world.run(3.0)
        assert (world.owner(A), world.owner(A6)) == (first, first), world.story()
        assert_nothing_moves(world, 20.0)


# ------------------------------------------------------------------------ several networks and subnets

ON_LAN, ON_STORAGE = (A, A6), (AddressText("10.1.9.1"), AddressText("fd11::9:1"))


def test_each_address_is_answered_for_on_the_network_of_its_subnet_alone() -> None:
    """Both networks speak both families. A holder that is cut off on one of them keeps what it holds on the other."""
    for seed in SEEDS:
        world, storage = with_storage(seed)
        world.speak(world.network, BOTH, "fd10")
        world.speak(storage, BOTH, "fd11")
        Invariants(world)
        world.set_bundles(bundle_of(f"b{a}", [a], world.nodes) for a in (*ON_LAN, *ON_STORAGE))
        world.start_all(spread=0.3)
        world.run(6.0)
        for network, addresses in ((world.network, ON_LAN), (storage, ON_STORAGE)):
            assert {a for a, who in network.answerers.items() if who} == set(addresses), world.story()
        holder = owner_of(world, A6)
        kept = {a: owner_of(world, a, storage) for a in ON_STORAGE}
        world.unplug(holder)
        world.run(0.6)
        assert world.owner(A6) not in {None, holder}, world.story()
        assert {a: world.owner(a, storage) for a in ON_STORAGE} == kept, world.story()


@pytest.mark.parametrize(("own", "routed"), [("10.5.9.{}", "192.0.2.{}"), ("fd15::9:{}", "2001:db8::{}")])
def test_addresses_go_to_the_nodes_of_their_subnet_and_those_of_no_subnet_to_all(own: str, routed: str) -> None:
    """Two of four nodes have another subnet on the same network, in each family."""
    for seed in SEEDS:
        world = World(seed, 4)
        world.speak(world.network, BOTH, "fd10")
        for name in ("n2", "n3"):
            lan = world.nodes[name].lan
            lan.subnet, lan.subnet6 = lan.subnet.replace("10.0.", "10.5."), lan.subnet6.replace("fd10", "fd15")
        Invariants(world)
        world.start_all(spread=0.3)
        world.run(6.0)
        bundles = [bundle_of(f"own{i}", [own.format(i)], world.nodes) for i in range(1, 7)]
        bundles += [bundle_of(f"routed{i}", [routed.format(i)], world.nodes) for i in range(1, 17)]
        world.set_bundles(bundles)
        world.run(3.0)
        assert {world.owner(own.format(i)) for i in range(1, 7)} == {"n2", "n3"}, world.story()
        assert {world.owner(routed.format(i)) for i in range(1, 17)} == set(world.nodes), world.story()


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_no_subnet_has_a_holder_on_each_network_that_does_not_hear_the_other(address: str) -> None:
    """Nodes on different subnets: two of them on one network, two on another, and a router between."""
    for seed in SEEDS:
        world, storage = with_storage(seed, 4)
        world.speak(world.network, BOTH, "fd10")
        world.speak(storage, BOTH, "fd11")
        for i, node in enumerate(world.nodes.values()):
            del node.interfaces[int(i < 2)]
        Invariants(world)
        world.set_bundles([bundle_of("b0", [address], world.nodes)])
        world.start_all(spread=0.3)
        world.run(6.0)
        assert world.owner(address) in {"n0", "n1"}, world.story()
        assert world.owner(address, storage) in {"n2", "n3"}, world.story()


@pytest.mark.parametrize(("first", "last"), batches(tries(10, 60)))
def test_promises_hold_under_random_faults_on_networks_of_both_families(first: int, last: int) -> None:
    for seed in range(first, last):
        FamilySchedule(seed).run()
