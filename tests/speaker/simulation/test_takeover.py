"""Taking over more than can be claimed within the rank delay: whoever is next in rank waits for who is busy."""

from __future__ import annotations

import pytest

from tests.speaker.simulation.loop import Work
from tests.speaker.simulation.scenes import held_by, owner_of, reports_of, settle
from tests.speaker.simulation.world import World

pytestmark = pytest.mark.slow

SLOW = Work(call_s=0.0005, change_s=0.0002)  # some 0.6 ms for each address that is claimed


@pytest.mark.parametrize("seed", range(3))
def test_each_address_of_a_dead_holder_is_claimed_once(seed: int) -> None:
    world = settle(World(seed, 3, work=SLOW), 1500, owners_stay=False)
    world.run(20.0)
    holder = owner_of(world)
    mine, since = held_by(world, holder), world.now
    world.power_cut(holder)
    world.run(10.0)
    claimed = [report.fields["address"] for report in reports_of(world, "Claimed", since=since)]
    assert sorted(claimed) == sorted(mine)
