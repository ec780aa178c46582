"""Differences as they are told: a line as each begins and ends, a number for those beyond, and one metric."""

from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cluster.daemon.observing import MOST_TOLD, DifferencesCollector, tell
from cluster.differences import Difference, DifferenceNews


def differences(count: int) -> tuple[Difference, ...]:
    return tuple(Difference("Address", f"dev/s{number}", "10.0.0.1", "10.0.0.2", "it asks") for number in range(count))


@pytest.mark.parametrize("count", [1, MOST_TOLD, MOST_TOLD + 3])
def test_each_has_a_line_as_it_begins_and_as_it_ends(count: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = differences(count)
    tell(DifferenceNews(begun=found))
    tell(DifferenceNews(over=found))
    lines = [vars(each) for each in caplog.records]
    begun = [each for each in lines if each["message"] == "difference"]
    assert [each["about"] for each in begun] == [each.about for each in found[:MOST_TOLD]]
    assert {(each["levelname"], each["there"], each["decided"], each["why"]) for each in begun} == {
        ("WARNING", "10.0.0.1", "10.0.0.2", "it asks")
    }
    over = [each["about"] for each in lines if each["message"] == "difference over"]
    assert over == [each.about for each in found[:MOST_TOLD]]
    beyond = [each["lines"] for each in lines if each["message"] == "more differences"]
    assert beyond == [3, 3] * (count > MOST_TOLD)


def test_the_metric_counts_them_by_kind() -> None:
    registry = CollectorRegistry()
    registry.register(DifferencesCollector(lambda: {"Owner": 0, "Address": 2}))
    shown = generate_latest(registry).decode().splitlines()
    assert [line for line in shown if not line.startswith("#")] == [
        'berthlb_observe_differences{difference="Address"} 2.0',
        'berthlb_observe_differences{difference="Owner"} 0.0',
    ]
