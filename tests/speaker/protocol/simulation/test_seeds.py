"""Random schedules of faults against the promises. A failure prints the seed and what happened; run that one again
with ``BERTHLB_SEEDS=417:418``, or ``BERTHLB_STRANGE=417:418``. ``BERTHLB_SEEDS=0:5000`` is for a night."""

from __future__ import annotations

import os

import pytest

from tests.speaker.protocol.simulation.schedules import Schedule
from tests.speaker.protocol.simulation.strange import StrangeSchedule

pytestmark = pytest.mark.slow

BATCH = 20


def batches(variable: str, default: str) -> list[tuple[int, int]]:
    first, last = (int(n) for n in os.environ.get(variable, default).split(":"))
    return [(start, min(start + BATCH, last)) for start in range(first, last, BATCH)]


@pytest.mark.parametrize(("first", "last"), batches("BERTHLB_SEEDS", "0:80"))
def test_promises_hold_under_random_faults(first: int, last: int) -> None:
    for seed in range(first, last):
        Schedule(seed).run()


@pytest.mark.parametrize(("first", "last"), batches("BERTHLB_STRANGE", "0:60"))
def test_promises_hold_under_random_faults_on_strange_networks(first: int, last: int) -> None:
    for seed in range(first, last):
        StrangeSchedule(seed).run()


@pytest.mark.parametrize("seed", range(3))
def test_promises_hold_for_many_nodes(seed: int) -> None:
    Schedule(seed, nodes=12, faults=4).run()


@pytest.mark.long
@pytest.mark.parametrize(("first", "last"), [(start, start + BATCH) for start in range(1000, 4000, BATCH)])
def test_promises_hold_under_thousands_of_schedules(first: int, last: int) -> None:
    for seed in range(first, last):
        Schedule(seed).run()


@pytest.mark.long
@pytest.mark.parametrize(("first", "last"), [(start, start + BATCH) for start in range(1000, 4000, BATCH)])
def test_promises_hold_under_thousands_of_strange_schedules(first: int, last: int) -> None:
    for seed in range(first, last):
        StrangeSchedule(seed).run()


@pytest.mark.parametrize("kind", [Schedule, StrangeSchedule])
def test_a_schedule_is_determined_by_its_seed(kind: type[Schedule]) -> None:
    assert kind(11).run().trace == kind(11).run().trace
