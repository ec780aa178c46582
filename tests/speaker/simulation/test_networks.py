"""More than one network: what is heard tells on which way it was heard, and owning is per network."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cluster.objects import AddressText
from tests.speaker.simulation.invariants import Invariants
from tests.speaker.simulation.scenes import reports_of, settle, with_storage
from tests.speaker.simulation.world import bundle_of, rank

pytestmark = pytest.mark.slow

SEEDS = range(6)
ROUTED = AddressText("192.0.2.1")


def test_a_second_network_makes_nobody_suspicious() -> None:
    """What is said at the same time on two networks arrives in any order: the one does not make the other old."""
    for seed in SEEDS:
        world, _ = with_storage(seed)
        settle(world, 6)
        world.run(20.0)
        assert not reports_of(world, "PeerSuspected"), world.story()


def test_a_better_candidate_is_one_on_all_networks_of_the_address() -> None:
    """Who is on one of them only would leave the other to the former holder, who then takes the whole back."""
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
        assert not reports_of(world, "Released"), world.story()
