"""Worlds in which everything is as it should be, to begin a test from, and questions about them."""

from __future__ import annotations

import random

from cluster.objects import AddressText
from speaker.protocol.effects import Decision
from speaker.protocol.protocol import Protocol
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.network import SimulatedNetwork
from tests.speaker.protocol.simulation.world import World, bundle_of

VIP = AddressText("10.0.9.1")


def numbered(i: int) -> AddressText:
    """The i-th address of the LAN's subnet for Services."""
    return AddressText(f"10.0.{9 + i // 250}.{1 + i % 250}")


def settle(world: World, bundles: int = 1, *, owners_stay: bool = True) -> World:
    """Start everybody, and wait until every address has its owner, until a moment that the seed chooses."""
    Invariants(world, owners_stay=owners_stay)
    world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(bundles))
    world.start_all(spread=0.3)
    world.run(5.0 + random.Random(world.seed).random())
    assert world.owner(VIP) is not None, world.story()
    return world


def settled(seed: int, nodes: int = 3, *, gateway: bool = True, client: bool = True, bundles: int = 1) -> World:
    return settle(World(seed, nodes, gateway=gateway, client=client), bundles)


def with_storage(seed: int, nodes: int = 3, *, gateway: bool = True) -> tuple[World, SimulatedNetwork]:
    """A world whose nodes are all on a second network, too; nobody has started yet."""
    world = World(seed, nodes, gateway=gateway)
    storage = world.add_network("storage", "10.1")
    for name in world.nodes:
        world.join(name, storage, "eth1")
    return world, storage


def seconds_until_answered(world: World, limit: float = 6.0, address: AddressText = VIP) -> float:
    """From now until somebody answers for the address on the LAN (0 if somebody does already)."""
    start = world.now
    while not world.answerers.get(address):
        assert world.now < start + limit, world.story()
        world.run(0.005)
    return world.now - start


def assert_each_is_answered_by_one(world: World, network: SimulatedNetwork | None = None) -> None:
    """Each address that serves and belongs on the network (the LAN), and each that was ever answered there."""
    place = network or world.network
    serving = (address for bundle in world.plans[-1][1] if bundle.serving for address in bundle.addresses)
    wanted = {address for address in serving if place in world.networks_of(address)} | place.answerers.keys()
    found = {address: place.answerers.get(address, frozenset()) for address in wanted}
    assert found, "no address serves"
    assert all(len(answerers) == 1 for answerers in found.values()), world.story()


def assert_nothing_moves(world: World, seconds: float) -> None:
    """No address has another owner in all that time."""
    changes = len(world.owner_changes)
    world.run(seconds)
    assert len(world.owner_changes) == changes, world.story()


def owner_of(world: World, address: AddressText = VIP, network: SimulatedNetwork | None = None) -> str:
    owner = world.owner(address, network)
    assert owner is not None, world.story()
    return owner


def protocol_of(world: World, node: str) -> Protocol:
    protocol = world.nodes[node].protocol
    assert protocol is not None
    return protocol


def held_by(world: World, node: str) -> set[AddressText]:
    """What a node answers for on the LAN."""
    return {address for address, answerers in world.answerers.items() if node in answerers}


def decisions_of(world: World, *reasons: str, since: float = 0.0) -> list[Decision]:
    return [decision for at, _, decision in world.decisions if at >= since and decision.reason in reasons]
