"""Random schedules of faults against the promises. A failure prints the seed and what happened. ``make schedules`` runs
thousands, and makes what fails small: ``python -m tests.speaker.protocol.simulation --again 'strange 417'``."""

from __future__ import annotations

import pytest

from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.schedules import Schedule
from tests.speaker.protocol.simulation.shrinking import Script
from tests.speaker.protocol.simulation.strange import StrangeSchedule

pytestmark = pytest.mark.slow

BATCH = 5
FOUND = {
    "families 137 steps=7 bundles=1 lags=1": "who named a stand-in that had just become able was taken for dead",
    "families 5669 steps=3,4,5,6,7 weather=1": "what had been claimed and released unheard was a claim for a moment",
    "strange 14152 steps=0,1,2,4,5 bundles=0,1 weather=1 lags=1 spread=1": "a peer of no link was named",
    "families 84119": "a stand-in that heard nobody waited for its whole minute",
    "usual 84231": "one that had taken another for dead answered beside its stand-in",
    "families 84242": "what a session had let go was answered after its next session had released it",
    "usual 85395": "a stand-in among idle speakers took itself for cut off",
    "families 91607": "one of two stand-ins went on answering for what the other had ended",
    "families 91658": "two that held parts of a bundle with the highest epoch claimed without end",
    "strange 94348": "who had not heard of a higher claim was asked for nothing, and taken for dead",
    "strange 94450": "a holder without a Plan yielded its name to another machine, and went on answering",
    "families 94625": "what a successor could not take was released, since it answered for the rest",
}
"""Schedules that found defects, and what those were."""


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


@pytest.mark.parametrize("script", FOUND)
def test_promises_hold_where_they_did_not(script: str) -> None:
    Script.parse(script).schedule().run()


@pytest.mark.parametrize("seed", range(3))
def test_promises_hold_for_many_nodes(seed: int) -> None:
    Schedule(seed, nodes=12, faults=4).run()


@pytest.mark.parametrize("kind", [Schedule, StrangeSchedule])
def test_a_schedule_is_determined_by_its_seed(kind: type[Schedule]) -> None:
    assert kind(11).run().trace == kind(11).run().trace
