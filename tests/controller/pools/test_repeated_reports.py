"""What becomes of a report that fails, is forestalled or replaced."""

from __future__ import annotations

from typing import Any

import pytest

from controller.changes import Moment
from tests.controller.pools.api import Api


def test_a_failed_report_is_repeated_after_a_pause(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.reports.reload()
    api.ledger.set_pools(api.reports.in_force.config.pools)
    for change in api.reports.decide(api.ledger, api.releases, api.node_pools, Moment(api.time, api.time)):
        api.reports.failed(change, 0.0, Moment(api.time, api.time))
    assert api.turn() == 0
    deadline = api.reports.next_deadline()
    assert deadline is not None
    assert deadline >= api.time + 0.25
    api.settle()
    assert api.judgement("IPAddressPool", "p")[0] == "True"


def test_a_report_that_somebody_forestalled_is_made_on_the_newer_object(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.reports.reload()
    api.ledger.set_pools(api.reports.in_force.config.pools)
    now = Moment(api.time, api.time)
    changes = api.reports.decide(api.ledger, api.releases, api.node_pools, now)
    api.pool("p", "10.0.0.0/25")
    for change in changes:
        there = (change.resource.kind, change.name) in api.objects
        api.reports.superseded(change, api.view(change.resource.kind, change.name) if there else None, now)
    api.settle()
    assert api.judgement("IPAddressPool", "p")[0] == "True"
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 128


@pytest.mark.parametrize(
    "rival",
    [
        {"conditions": None},
        {"assignedIPv4": 7},
        {"recentReleases": [{"service": "a/b", "addresses": ["10.0.0.3"], "time": "2026-01-01T00:00:00Z"}]},
    ],
)
def test_what_somebody_else_keeps_replacing_is_written_ever_more_seldom(api: Api, rival: dict[str, Any]) -> None:
    """A second controller of another class in the same namespace, for instance, which remembers other releases."""
    api.pool("p", "10.0.0.0/30")
    api.settle()
    api.writes.clear()
    for _ in range(36_000):
        api.time += 0.1
        api.rewrite("IPAddressPool", "p", rival)
        api.turn()
    assert 10 <= len([each for each in api.writes if each.name == "p"]) <= 25, "in an hour"
    api.pool("p", "10.0.0.4/30")
    api.turn()
    assert api.judgement("IPAddressPool", "p") == ("True", "InForce", ""), "what is new is said at once"
