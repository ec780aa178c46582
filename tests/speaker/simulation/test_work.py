"""Work that takes time: taking hundreds of addresses over must not look like a death."""

from __future__ import annotations

import pytest

from tests.speaker.simulation.invariants import Invariants
from tests.speaker.simulation.loop import Work
from tests.speaker.simulation.scenes import held_by, numbered, reports_of
from tests.speaker.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

SLOW = Work(call_s=0.0005, change_s=0.0002)  # many busy processes: an address that is taken costs 0.6 ms
MANY = 1000


def before_a_mass_take_over() -> World:
    """Two nodes have a thousand addresses. When one dies, all that it has is for the other to take, and the third one
    comes second everywhere."""
    world = World(3, 3, work=SLOW)
    Invariants(world, owners_stay=False)
    tiers = {"n2": 1}
    world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes, tiers) for i in range(MANY))
    world.start_all(spread=0.3)
    world.run(15.0)
    assert len(held_by(world, "n0") | held_by(world, "n1")) == MANY, world.story(30)
    return world


def test_a_mass_take_over_is_not_taken_for_a_death() -> None:
    """The taker has a quarter of a second of work, at least, during which it must speak, and be heard."""
    world = before_a_mass_take_over()
    orphans, since = held_by(world, "n0"), world.now
    world.power_cut("n0")
    world.run(8.0)
    assert {report.fields["node"] for report in reports_of(world, "PeerDead", since=since)} == {"n0"}
    assert not reports_of(world, "LoopLate", since=since), world.story(60)
    assert {report.fields["address"] for report in reports_of(world, "Claimed", since=since)} == orphans
    assert len(held_by(world, "n1")) == MANY, world.story(30)
