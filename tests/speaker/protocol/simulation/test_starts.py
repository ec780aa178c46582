"""A cluster that starts at any pace and in any order: fair shares at the end of the start, and few moves until then."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from tests.speaker.protocol.simulation.starts import StaggeredStart

pytestmark = pytest.mark.slow


def seeds() -> Iterable[int]:
    first, last = (int(n) for n in os.environ.get("BERTHLB_STARTS", "0:3").split(":"))
    return range(first, last)


@pytest.mark.parametrize("seed", seeds())
def test_shares_are_fair_at_the_end_of_any_start(seed: int) -> None:
    StaggeredStart(seed).run(calm_s=10.0)


@pytest.mark.parametrize("seed", [140, 221, 232, 247])
def test_shares_are_fair_where_they_were_not(seed: int) -> None:
    """A round did not count what the one before it had just offered, or two who had most began at the same time."""
    StaggeredStart(seed).run(calm_s=10.0)


@pytest.mark.parametrize(("nodes", "addresses", "spread"), [(5, 60, 60.0), (10, 100, 0.0)])
def test_shares_are_fair_whether_nodes_start_one_after_the_other_or_at_once(
    nodes: int, addresses: int, spread: float
) -> None:
    StaggeredStart(1, nodes=nodes, addresses=addresses, spread=spread).run(calm_s=10.0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 250))
def test_shares_are_fair_at_the_end_of_many_starts(seed: int) -> None:
    StaggeredStart(seed).run(calm_s=90.0)
