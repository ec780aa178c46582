"""What the announcer said last, and its traffic added up."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText
from speaker.api.statistics import Statistics
from speaker.channel import Stats

WEB, DB = AddressText("192.0.2.1"), AddressText("192.0.2.2")


def stats(
    loop_at: float, answered: dict[AddressText, int] | None = None, gratuitous: dict[AddressText, int] | None = None
) -> Stats:
    return Stats(loop_at, True, {}, answered or {}, gratuitous or {})


def test_traffic_adds_up_and_is_forgotten_with_its_address() -> None:
    statistics = Statistics(0.0)
    for count in (1, 2):
        statistics.add(stats(1.0, answered={WEB: count, DB: 1}, gratuitous={WEB: 10 * count}))
    before = statistics.totals()
    assert before == ({WEB: 3, DB: 2}, {WEB: 30})
    statistics.forget(WEB)
    assert statistics.totals() == ({DB: 2}, {})
    assert before == ({WEB: 3, DB: 2}, {WEB: 30}), "whoever was given them keeps them"
    statistics.add(stats(2.0, answered={WEB: 5}))
    assert statistics.totals() == ({DB: 2, WEB: 5}, {})


@pytest.mark.parametrize(
    ("steps", "now", "age"),
    [
        ([], 130.0, 30.0),
        ([("heard", 120.0)], 130.0, 10.0),
        ([("stats", 110.0)], 130.0, 20.0),
        ([("stats", 110.0), ("heard", 129.0)], 130.0, 20.0),
        ([("heard", 129.0), ("stats", 110.0), ("stats", 125.0)], 130.0, 5.0),
        ([("stats", 131.0)], 130.0, 0.0),
    ],
    ids=[
        "since it began",
        "since it was heard",
        "since its last pass",
        "what else it says is no pass",
        "the last pass counts",
        "never below nothing",
    ],
)
def test_the_age_of_the_announcers_loop(steps: list[tuple[str, float]], now: float, age: float) -> None:
    statistics = Statistics(100.0)
    for what, at in steps:
        if what == "heard":
            statistics.heard(at)
        else:
            statistics.add(stats(at))
    assert statistics.loop_age(now) == age
