"""Taking over hundreds of addresses, which takes time: it looks neither like a death nor like nobody's doing it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.loop import Work
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.scenes import decisions_of, held_by, numbered, owner_of, settle
from tests.speaker.protocol.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

SLOW = Work(call_s=0.0005, change_s=0.0002)  # some 0.6 ms for each address that is claimed


@pytest.mark.parametrize("seed", range(tries(1, 3)))
def test_each_address_of_a_dead_holder_is_claimed_once(seed: int) -> None:
    world = settle(World(seed, 3, work=SLOW), 1500, owners_stay=False)
    world.run(20.0)
    holder = owner_of(world)
    mine, since = held_by(world, holder), world.now
    world.power_cut(holder)
    world.run(10.0)
    claimed = [decision.fields["address"] for decision in decisions_of(world, "Claimed", since=since)]
    assert sorted(claimed) == sorted(mine)


def test_who_takes_everything_over_is_not_taken_for_dead_and_who_comes_second_lets_it() -> None:
    """Two nodes have a thousand addresses. When one dies, all that it had is for the other to take: a quarter of a
    second of work, at least, during which it must speak, and be heard. The third comes second everywhere."""
    world = World(3, 3, work=SLOW)
    Invariants(world, owners_stay=False)
    world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes, {"n2": 1}) for i in range(1000))
    world.start_all(spread=0.3)
    world.run(15.0)
    everything, orphans, since = held_by(world, "n0") | held_by(world, "n1"), held_by(world, "n0"), world.now
    assert len(everything) == 1000, world.story(30)
    world.power_cut("n0")
    world.run(8.0)
    assert {decision.fields["node"] for decision in decisions_of(world, "PeerDead", since=since)} == {"n0"}
    assert not decisions_of(world, "LoopLate", since=since), world.story(60)
    claims = Counter(decision.fields["address"] for decision in decisions_of(world, "Claimed", since=since))
    assert claims == dict.fromkeys(orphans, 1)
    assert held_by(world, "n1") == everything, world.story(30)
