"""Random schedules of faults against the promises. A failure prints the seed and what happened. ``make schedules`` runs
thousands, and makes what fails small: ``python -m tests.speaker.protocol.simulation --again 'strange 417'``."""

from __future__ import annotations

import pytest

from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.schedules import Schedule
from tests.speaker.protocol.simulation.strange import StrangeSchedule

pytestmark = pytest.mark.slow

BATCH = 5


def batches(seeds: int) -> list[tuple[int, int]]:
    return [(start, min(start + BATCH, seeds)) for start in range(0, seeds, BATCH)]


@pytest.mark.parametrize(("first", "last"), batches(tries(20, 80)))
def test_promises_hold_under_random_faults(first: int, last: int) -> None:
    for seed in range(first, last):
        Schedule(seed).run()


@pytest.mark.parametrize(("first", "last"), batches(tries(20, 60)))
def test_promises_hold_under_random_faults_on_strange_networks(first: int, last: int) -> None:
    for seed in range(first, last):
        StrangeSchedule(seed).run()


@pytest.mark.parametrize("seed", range(3))
def test_promises_hold_for_many_nodes(seed: int) -> None:
    Schedule(seed, nodes=12, faults=4).run()


@pytest.mark.parametrize("kind", [Schedule, StrangeSchedule])
def test_a_schedule_is_determined_by_its_seed(kind: type[Schedule]) -> None:
    assert kind(11).run().trace == kind(11).run().trace
