"""When the announcer is sent the Plan and its changes: by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cluster.config import GRACE_S
from cluster.objects import IPAddressPool, IPAddressPoolSpec, L2Advertisement, ObjectMeta
from speaker.api.configuration import ConfigReader
from speaker.api.feed import AT_ONCE, SPACING_S, PlanFeed
from speaker.api.planner import Planner
from speaker.channel import WholePlan
from speaker.parts import BUNDLES_PER_PART
from speaker.plan import PlanChange
from tests.speaker.api.objects import OWN, THREE, a_pool, a_service, a_slice


class Side:
    """A planner with one Service, and what it is sent of it."""

    def __init__(self, services: int = 1) -> None:
        self.planner = Planner(OWN)
        self.configuration = ConfigReader()
        self.feed = PlanFeed(self.planner, self.configuration)
        self.now = 1000.0
        self.reads = True
        self._number = 0
        self.configuration.set_pool("metallb-system/lan", a_pool("lan", "10.0.0.0/16"))
        self.configuration.set_advertisement("metallb-system/all", L2Advertisement(ObjectMeta(name="all")))
        for node in THREE:
            self.planner.set_node(node.key, node)
        for number in range(services):
            self.add(f"s{number}")

    def add(self, name: str) -> None:
        """A Service, with an address of its own."""
        self._number += 1
        address = f"10.0.{self._number // 250}.{self._number % 250 + 1}"
        self.planner.set_service(f"default/{name}", a_service(name, address))
        self.planner.set_slice(f"default/{name}-abc", a_slice(name))

    def take(self, *, synced: bool = True) -> Sequence[WholePlan | PlanChange] | None:
        return self.feed.take(self.now, synced=synced, reads=self.reads)

    def deadline(self) -> float | None:
        return self.feed.next_deadline(reads=self.reads)


@pytest.fixture
def side() -> Side:
    """After the first Plan."""
    side = Side()
    assert side.take()
    return side


def test_no_plan_before_every_cache_is_synced_and_then_one_whole_plan() -> None:
    side = Side()
    assert side.take(synced=False) is None
    assert side.deadline() is None
    assert side.feed.rest_until(reads=True) is None
    sent = side.take()
    assert sent is not None
    (plan,) = sent
    assert isinstance(plan, WholePlan)
    assert [bundle.services for bundle in plan.plan.bundles] == [("default/s0",)]
    assert side.take() is None


def test_the_first_plan_waits_for_no_reader() -> None:
    """What was sent before are the credentials."""
    side = Side()
    side.reads = False
    assert side.take()


def test_while_nothing_changes_there_is_nothing_to_wait_for(side: Side) -> None:
    assert side.deadline() is None
    assert side.take() is None


def test_some_changes_go_out_at_once_and_of_many_more_one_at_a_time(side: Side) -> None:
    sent_at = []
    for number in range(100):
        side.add(f"more-{number}")
        if side.take():
            sent_at.append(side.now)
        side.now += SPACING_S / 10
    burst = [at for at in sent_at if at < 1000.0 + SPACING_S]
    assert AT_ONCE <= len(burst) <= AT_ONCE + 1
    lasted = sent_at[-1] - sent_at[0]
    assert len(sent_at) <= AT_ONCE + 1 + lasted / SPACING_S
    assert len(sent_at) >= lasted / SPACING_S, "it does not wait longer than it must"


def test_after_quiet_as_many_go_out_at_once_as_ever(side: Side) -> None:
    for _ in range(2):
        for number in range(2 * AT_ONCE):
            side.add(f"more-{number}-{side.now}")
            sent = side.take()
            assert bool(sent) is (number < AT_ONCE)
        until = side.feed.rest_until(reads=True)
        assert until is not None
        assert until == side.deadline()
        assert 0 < until - side.now <= SPACING_S
        side.now += AT_ONCE * SPACING_S
        assert side.take(), "what gathered meanwhile goes out as one"
        side.now += 2 * AT_ONCE * SPACING_S


def test_what_gathers_goes_out_as_one_change(side: Side) -> None:
    for number in range(AT_ONCE):
        side.add(f"early-{number}")
        assert side.take()
    for number in range(5):
        side.add(f"late-{number}")
        assert side.take() is None
    due = side.deadline()
    assert due is not None
    side.now = due
    sent = side.take()
    assert sent is not None
    (change,) = sent
    assert isinstance(change, PlanChange)
    assert len(change.changed) == 5


def test_a_change_that_is_undone_while_it_gathers_is_not_sent(side: Side) -> None:
    side.add("fleeting")
    side.planner.set_service("default/fleeting", None)
    side.planner.set_slice("default/fleeting-abc", None)
    assert side.take() == []
    assert side.deadline() is None
    assert side.feed.rest_until(reads=True) == 0.0 - (AT_ONCE - 1) * SPACING_S, "it has cost nothing"


def test_while_the_announcer_does_not_read_changes_gather_and_nothing_spins(side: Side) -> None:
    side.reads = False
    for number in range(3 * AT_ONCE):
        side.add(f"more-{number}")
        assert side.take() is None
        assert side.deadline() is None
        assert side.feed.rest_until(reads=False) is None
        side.now += 1.0
    side.reads = True
    due = side.deadline()
    assert due is not None
    assert due <= side.now
    sent = side.take()
    assert sent is not None
    assert [len(each.changed) for each in sent if isinstance(each, PlanChange)] == [3 * AT_ONCE]


def test_what_is_large_goes_out_in_parts() -> None:
    side = Side(2 * BUNDLES_PER_PART)
    sent = side.take()
    assert sent is not None
    parts = [each for each in sent if isinstance(each, WholePlan)]
    assert [(len(each.plan.bundles), each.more) for each in parts] == [
        (BUNDLES_PER_PART, True),
        (BUNDLES_PER_PART, False),
    ]


def test_a_pool_that_departed_is_missed_when_its_grace_is_over_though_nothing_changes(side: Side) -> None:
    side.configuration.set_pool("metallb-system/lan", None)
    assert side.deadline() is not None, "an object has changed"
    assert side.take() == [], "it stays in force"
    assert side.deadline() == 1000.0 + GRACE_S
    side.now += GRACE_S - 0.1
    assert side.take() is None
    side.now += 0.1
    sent = side.take()
    assert sent is not None
    assert [each.removed for each in sent if isinstance(each, PlanChange)] == [("uid-s0",)]
    assert side.deadline() is None


def test_problems_are_those_of_what_was_read_last(side: Side) -> None:
    bad = IPAddressPool(ObjectMeta(name="lan"), IPAddressPoolSpec(addresses=("192.0.2.9-192.0.2.1",)))
    side.configuration.set_pool("metallb-system/lan", bad)
    assert not side.configuration.problems
    assert side.take() == [], "the last good version stays in force"
    assert [problem.name for problem in side.configuration.problems] == ["lan"]
