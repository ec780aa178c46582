"""More than one network: what is heard tells on which way it was heard, and owning is per network."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cluster.addresses import Family
from cluster.objects import AddressText, NodeName
from speaker.link import LinkName
from speaker.plan import DRAINED_TIER, Bundle, Candidate
from tests.speaker.protocol.simulation.both_families import BOTH
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.network import SimulatedNetwork
from tests.speaker.protocol.simulation.scenes import (
    assert_each_is_answered_by_one,
    assert_nothing_moves,
    decisions_of,
    held_by,
    owner_of,
    seconds_until_answered,
    settle,
    with_storage,
)
from tests.speaker.protocol.simulation.world import World, bundle_of, rank

pytestmark = pytest.mark.slow

SEEDS = range(tries(2, 6))
ROUTED = AddressText("192.0.2.1")
ON_LAN, ON_STORAGE = AddressText("10.0.9.1"), AddressText("10.1.9.1")


def test_a_second_network_makes_nobody_suspicious() -> None:
    """What is said at the same time on two networks arrives in any order: the one does not make the other old."""
    for seed in SEEDS:
        world, _ = with_storage(seed)
        settle(world, 6)
        world.run(20.0)
        assert not decisions_of(world, "PeerSuspected"), world.story()


def test_a_better_candidate_is_one_on_all_networks_of_the_address() -> None:
    """A node on one of them only would leave the other to the former holder, which then takes the whole back."""
    for seed in SEEDS:
        world, storage = with_storage(seed)
        other = next(name for name in world.nodes if name != rank("b0", world.nodes)[0])
        del world.nodes[other].interfaces[0]
        Invariants(world)
        bundle = bundle_of("b0", [ROUTED], world.nodes)
        preferring = [replace(each, preference=int(each.node == other)) for each in bundle.candidates]
        preferring.sort(key=lambda each: -each.preference)
        world.set_bundles([bundle])
        world.start_all(spread=0.3)
        world.run(6.0)
        holder = world.owner(ROUTED)
        assert holder not in {None, other}, world.story()
        world.set_bundles([replace(bundle, candidates=tuple(preferring))])
        world.run(200.0)
        assert (world.owner(ROUTED), world.owner(ROUTED, storage)) == (holder, holder), world.story()
        assert not decisions_of(world, "Released", "Offered"), world.story()


@pytest.mark.parametrize(("nodes", "bundles"), [(2, 1), (2, 4), (4, 8)])
def test_each_side_of_a_cut_lan_answers_although_a_second_network_joins_them(nodes: int, bundles: int) -> None:
    """A claim that is heard on the second network is none on the LAN, whose silence it shows to be one."""
    for seed in SEEDS:
        world, storage = with_storage(seed, nodes)
        settle(world, bundles)
        holder = owner_of(world)
        changes = len(storage.owner_changes)
        world.network.partition({holder, "gateway"}, world.hosts())
        world.fault(f"{holder} is alone with the gateway")
        world.run(2.2)  # the client, who proves that the others hear, says something each second or so
        others = set(world.nodes) - {holder}
        for answerers in world.answerers.values():
            assert holder in answerers, world.story()
            assert len(answerers & others) == 1, world.story()
        world.run(10.0)
        world.network.heal()
        world.fault("healed")
        world.run(0.4)
        assert_each_is_answered_by_one(world)
        assert len(storage.owner_changes) == changes, world.story()


@pytest.mark.parametrize("apart", [False, True])
def test_a_holder_whose_cable_to_the_lan_is_out_is_replaced_although_it_lives_on_another_network(apart: bool) -> None:
    for seed in SEEDS:
        world, storage = with_storage(seed)
        settle(world, 6)
        if apart:
            storage.partition({"n0"}, set(world.nodes))
            world.fault("storage is cut")
            world.run(5.0)
        holder = owner_of(world)
        mine = held_by(world, holder)
        world.unplug(holder)
        world.run(0.6)
        assert all(world.owner(address) not in {None, holder} for address in mine), world.story()
        owners = dict(world.answerers)
        world.plug(holder)
        world.run(5.0)
        assert world.answerers == owners, world.story()


def test_who_is_not_on_the_lan_claims_nothing_of_it() -> None:
    for seed in SEEDS:
        world, storage = with_storage(seed)
        first = rank("b0000", world.nodes)[0]
        del world.nodes[first].interfaces[0]
        settle(world, 6)
        on_storage = bundle_of("s1", ["10.1.9.1"], world.nodes)
        world.set_bundles([*world.plans[-1][1], on_storage])
        world.run(1.0)
        assert world.owner("10.1.9.1", storage) is not None, world.story()
        claimed = {r.fields["address"] for _, name, r in world.decisions if name == first and r.reason == "Claimed"}
        assert claimed <= {"10.1.9.1"}, world.story()
        assert all(world.owner(address) not in {None, first} for address in world.answerers), world.story()


# ------------------------------------------------------------------------ interfaces named for some nodes

ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")


def naming(bundle: Bundle, **interfaces: tuple[LinkName, ...]) -> Bundle:
    """Advertisements name interfaces: for each node its own."""
    candidates = tuple(replace(each, interfaces=interfaces.get(each.node, ())) for each in bundle.candidates)
    return replace(bundle, candidates=candidates)


@pytest.mark.parametrize("address", [ROUTED, ON_LAN])
def test_each_network_has_its_answerer_where_advertisements_name_other_interfaces_for_other_nodes(
    address: AddressText,
) -> None:
    """Who held the address on the one network kept it from everybody on the other, where it did not answer."""
    for seed in SEEDS:
        world, storage = with_storage(seed)
        Invariants(world)
        bundle = naming(bundle_of("b0", [address], world.nodes), n0=(ETH0,), n1=(ETH1,), n2=(ETH1,))
        world.set_bundles([bundle])
        world.start_all(spread=0.3)
        world.run(8.0)
        assert world.owner(address) == "n0", world.story()
        on_storage = world.owner(address, storage)
        assert on_storage in {"n1", "n2"}, world.story()
        world.power_cut(str(on_storage))
        world.run(0.6)
        assert world.owner(address) == "n0", world.story()
        assert world.owner(address, storage) in {"n1", "n2"} - {on_storage}, world.story()


def test_a_holder_for_which_another_interface_is_named_leaves_the_former_network_to_others() -> None:
    for seed in SEEDS:
        world, storage = with_storage(seed)
        Invariants(world, owners_stay=False)
        bundle = bundle_of("b0", [ROUTED], world.nodes)
        world.set_bundles([bundle])
        world.start_all(spread=0.3)
        world.run(8.0)
        holder = owner_of(world, ROUTED)
        others = {name: (ETH0,) for name in world.nodes if name != holder}
        world.set_bundles([naming(bundle, **others, **{holder: (ETH1,)})])
        world.run(1.5)
        assert world.owner(ROUTED) in others, world.story()
        assert world.owner(ROUTED, storage) == holder, world.story()


def test_a_holder_that_only_answers_is_asked_also_where_this_node_may_not_answer() -> None:
    """A claim that is heard is not taken for a dead node's, whatever interfaces are named for who would take over."""
    for seed in SEEDS:
        world, _ = with_storage(seed)
        Invariants(world, owners_stay=False)
        bundle = bundle_of("b0", [ON_LAN], world.nodes)
        holder, *others = rank("b0", world.nodes)
        world.set_bundles([naming(bundle, **dict.fromkeys(others, (ETH1,)))])
        world.start_all(spread=0.3)
        world.run(8.0)
        assert world.owner(ON_LAN) == holder, world.story()
        world.nodes[holder].lan.refuses = True
        world.run(3.0)
        assert not decisions_of(world, "PeerDead"), world.story()
        world.set_bundles([bundle])
        world.run(3.0)
        assert world.owner(ON_LAN) == holder, world.story()


def test_an_interface_on_the_network_of_a_named_one_is_no_other_place() -> None:
    """Whichever of a node's interfaces on one network others hear, its claim counts there."""
    for seed in SEEDS:
        world = World(seed, 3)
        Invariants(world)
        first = rank("b0", world.nodes)[0]
        world.join(first, world.network, "eth1")
        world.set_bundles([naming(bundle_of("b0", [ROUTED], world.nodes), **{first: (ETH1,)})])
        world.start_all(spread=0.3)
        world.run(40.0)
        assert_each_is_answered_by_one(world)
        assert_nothing_moves(world, 20.0)
        given = [each for each in decisions_of(world, "Claimed") if each.fields["why"] != "unowned"]
        assert len(given) <= 1, world.story()  # a claim of the start is given on once


def test_two_interfaces_on_one_network_make_nobody_suspicious() -> None:
    """Each heartbeat arrives at both. It counted on the one that was read first, and on the other nobody was heard."""
    for seed in SEEDS:
        world = World(seed, 3)
        Invariants(world)
        world.join("n0", world.network, "eth1")
        world.set_bundles(bundle_of(f"b{i}", [f"10.0.9.{i}"], world.nodes) for i in range(1, 7))
        world.start_all(spread=0.3)
        world.run(40.0)
        assert not decisions_of(world, "PeerSuspected", since=3.0), world.story()
        assert_each_is_answered_by_one(world)


# ------------------------------------------------------------------------ a bundle with addresses on both networks

ORDERS = [(ON_LAN, ON_STORAGE), (ON_STORAGE, ON_LAN)]


def of_both(seed: int, order: tuple[AddressText, ...], nodes: int = 3) -> tuple[World, SimulatedNetwork, Bundle]:
    """All hold what they are to hold."""
    world, storage = with_storage(seed, nodes)
    Invariants(world, owners_stay=False)
    bundle = bundle_of("b1", order, world.nodes)
    world.set_bundles([bundle])
    world.start_all(spread=0.3)
    world.run(8.0)
    assert world.owner(ON_LAN) == world.owner(ON_STORAGE, storage) == bundle.candidates[0].node, world.story()
    return world, storage, bundle


def preferring(bundle: Bundle, node: str, preference: int = 1) -> Bundle:
    candidates = [replace(each, preference=preference * (each.node == node)) for each in bundle.candidates]
    return replace(bundle, candidates=tuple(sorted(candidates, key=lambda each: -each.preference)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lost", [ON_LAN, ON_STORAGE])
def test_an_address_whose_network_its_holder_loses_is_taken_over_like_any_other(
    order: tuple[AddressText, ...], lost: AddressText
) -> None:
    for seed in SEEDS:
        world, storage, _ = of_both(seed, order)
        network = storage if lost == ON_STORAGE else world.network
        holder = owner_of(world, lost, network)
        world.unplug(holder, network)
        world.run(0.5)
        assert world.owner(lost, network) not in {None, holder}, world.story()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lacks", [ON_LAN, ON_STORAGE])
def test_a_better_candidate_is_one_on_the_networks_of_all_addresses(
    order: tuple[AddressText, ...], lacks: AddressText
) -> None:
    """The holder stepped aside for one that was on the first address's network only, and had to take all of it back."""
    world, storage, bundle = of_both(1, order)
    holder, other = bundle.candidates[0].node, bundle.candidates[1].node
    world.unplug(other, storage if lacks == ON_STORAGE else world.network)
    world.run(3.0)
    world.set_bundles([preferring(bundle, other)])
    world.run(200.0)
    assert not decisions_of(world, "Released", "Offered"), world.story()
    assert world.owner(ON_LAN) == world.owner(ON_STORAGE, storage) == holder, world.story()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lacks", [ON_LAN, ON_STORAGE])
def test_who_has_the_subnets_of_all_addresses_comes_first(order: tuple[AddressText, ...], lacks: AddressText) -> None:
    for seed in SEEDS:
        world, storage = with_storage(seed)
        first = rank("b1", world.nodes)[0]
        del world.nodes[first].interfaces[lacks == ON_STORAGE]
        Invariants(world)
        world.set_bundles([bundle_of("b1", order, world.nodes)])
        world.start_all(spread=0.3)
        world.run(8.0)
        assert world.owner(ON_LAN) == world.owner(ON_STORAGE, storage) != first, world.story()
        assert len(decisions_of(world, "Claimed")) == 2, world.story()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cut", [ON_LAN, ON_STORAGE])
def test_who_stands_in_on_one_network_gives_way_there_when_the_others_are_back(
    order: tuple[AddressText, ...], cut: AddressText
) -> None:
    """Whether nothing proves that it can hear is a matter of the network on which it claims."""
    for seed in SEEDS:
        world, storage, bundle = of_both(seed, order)
        network = storage if cut == ON_STORAGE else world.network
        holder, alone = bundle.candidates[0].node, bundle.candidates[1].node
        network.partition({alone}, world.hosts())
        world.fault(f"{alone} is alone on {network.name}")
        world.run(8.0)
        assert network.answerers[cut] == {holder, alone}, world.story()
        network.heal()
        world.fault("healed")
        world.run(3.0)
        assert world.owner(cut, network) == holder, world.story()


@pytest.mark.parametrize("first", [True, False])
def test_a_bundle_is_joined_also_where_its_holders_lack_one_of_its_networks(first: bool) -> None:
    """They have the networks of the other addresses, wherever in the bundle the one is that they lack."""
    own, theirs = AddressText("10.1.9.1"), AddressText("10.1.9.2")
    for seed in SEEDS:
        world, storage = with_storage(seed)
        Invariants(world, owners_stay=False)
        for name in ("n0", "n1"):
            del world.nodes[name].interfaces[0]
        one, other = bundle_of("b1", [theirs], world.nodes), bundle_of("b2", [own], world.nodes)
        world.set_bundles([preferring(one, "n1", 1), preferring(other, "n0", 2)])
        world.start_all(spread=0.3)
        world.run(8.0)
        assert (world.owner(own, storage), world.owner(theirs, storage)) == ("n0", "n1"), world.story()
        addresses = [ON_LAN, own, theirs] if first else [own, theirs, ON_LAN]
        candidates = (Candidate(NodeName("n0"), 0, 2), Candidate(NodeName("n1"), 0, 1))
        world.set_bundles([replace(bundle_of("b1", addresses, ()), candidates=candidates)])
        world.run(5.0)
        assert world.owner(own, storage) == world.owner(theirs, storage) == "n0", world.story()


# ------------------------------------------------------------------------ links that are lost, of nodes with several

LOSSES = {
    "carrier": lambda world, node: world.unplug(node),
    "gone": lambda world, node: world.lose_link(node, world.nodes[node].lan),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("nodes", [2, 3])
def test_a_link_that_a_holder_lost_is_said_on_its_other_links_and_nobody_waits_for_the_silence(
    loss: str, nodes: int
) -> None:
    for seed in SEEDS:
        world, _, _ = of_both(seed, (ON_LAN, ON_STORAGE), nodes)
        holder = owner_of(world, ON_LAN)
        LOSSES[loss](world, holder)
        assert seconds_until_answered(world, address=ON_LAN) < 0.1, world.story()
        world.run(3.0)
        assert_each_is_answered_by_one(world)


@pytest.mark.parametrize("network", ["LAN", "storage"])
@pytest.mark.parametrize("away_s", [0.0, 0.01, 0.04, 0.15, 0.6])
def test_a_link_that_is_lost_and_back_in_a_moment_has_one_holder(away_s: float, network: str) -> None:
    """The invariants watch for two all the while; here also at every step, since the last fault was just now."""
    for seed in SEEDS:
        world, storage, _ = of_both(seed, (ON_LAN, ON_STORAGE))
        place = storage if network == "storage" else world.network
        address = ON_STORAGE if network == "storage" else ON_LAN
        for _ in range(3):
            holder = owner_of(world, address, place)
            world.unplug(holder, place)
            world.run(away_s)
            world.plug(holder, place)
            for _ in range(300):
                world.run(0.005)
                assert len(place.answerers.get(address, ())) < 2, world.story()
            world.run(2.0)
            assert_each_is_answered_by_one(world, place)


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_a_part_is_not_taken_from_a_node_that_is_merely_suspected(seed: int) -> None:
    """Of an address of two networks one node holds the one part, and who is on the first network alone the other."""
    world, _ = with_storage(seed)
    del world.nodes["n1"].interfaces[1]
    Invariants(world)
    ranked = bundle_of("b0", [ROUTED], world.nodes, {"n1": 1, "n2": DRAINED_TIER})
    world.set_bundles([ranked])
    world.start_all(spread=0.3)
    world.run(5.0)
    world.network.partition({"n0"}, world.hosts())
    world.fault("n0's port is blocked")
    world.run(3.0)
    world.network.heal()
    world.fault("it forwards again")
    world.run(8.0)
    assert world.owner(ROUTED) == "n1", world.story()
    world.network.firewalled |= {("n1", other) for other in world.nodes}
    suspected = len(decisions_of(world, "PeerSuspected"))
    world.run(0.5)
    assert len(decisions_of(world, "PeerSuspected")) > suspected, world.story()
    world.network.firewalled.clear()
    world.run(3.0)
    assert world.owner(ROUTED) == "n1", world.story()


def test_who_holds_a_bundle_on_its_side_of_a_cut_does_not_take_it_back_from_the_other_for_ever() -> None:
    """Each of two holds the part on the LAN, where they do not hear each other. So each finds that it could hold the
    whole, and the other one the part on the storage network alone."""
    for seed in SEEDS:
        world, storage = with_storage(seed)
        del world.nodes["n2"].interfaces[0]
        Invariants(world)
        bundle = bundle_of("b0", [ON_LAN, ON_STORAGE], world.nodes)
        world.set_bundles([replace(bundle, candidates=tuple(c for c in bundle.candidates if c.node != "n2"))])
        world.start_all(spread=0.3)
        world.run(6.0)
        world.network.partition({"n0"}, world.hosts())
        world.fault("n0's port is blocked")
        world.run(8.0)
        changes = len(storage.owner_changes)
        world.run(10.0)
        assert len(storage.owner_changes) == changes, world.story()
        assert_each_is_answered_by_one(world, storage)


def test_where_an_address_does_not_belong_it_is_not_claimed_after_the_loss_of_the_link_to_its_subnet() -> None:
    """The node has no address of the subnet itself: it knows of it from what was said on the link that is lost."""
    for seed in SEEDS:
        world, storage = with_storage(seed)
        world.speak(world.network, BOTH)
        for name in ("n0", "n2"):
            world.nodes[name].lan.speak(frozenset({Family.IPV6}))
        del world.nodes["n1"].interfaces[1]
        Invariants(world)
        bundle = bundle_of("b0", [ON_LAN], world.nodes)
        world.set_bundles([replace(bundle, candidates=tuple(c for c in bundle.candidates if c.node != "n2"))])
        world.start_all(spread=0.3)
        world.run(6.0)
        assert world.owner(ON_LAN) == "n1", world.story()
        world.lose_link("n0", world.nodes["n0"].lan)
        world.run(5.0)
        assert not storage.answerers.get(ON_LAN), world.story()
        assert world.owner(ON_LAN) == "n1", world.story()
