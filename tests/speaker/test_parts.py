"""Plans travel in parts and arrive whole."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText, NodeName
from speaker.channel import WholePlan
from speaker.parts import BUNDLES_PER_PART, Joiner, change_in_parts, plan_in_parts
from speaker.plan import Bundle, BundleId, Plan, PlanChange

BUNDLES = tuple(
    Bundle(BundleId(f"{n:06}"), (AddressText(f"10.0.{n >> 8}.{n & 255}"),), (), ()) for n in range(3 * BUNDLES_PER_PART)
)


@pytest.mark.parametrize("count", [0, 1, BUNDLES_PER_PART, BUNDLES_PER_PART + 1, 3 * BUNDLES_PER_PART])
def test_a_plan_and_a_change_arrive_as_they_were_sent(count: int) -> None:
    plan = Plan(7, NodeName("node-1"), BUNDLES[:count])
    change = PlanChange(8, BUNDLES[:count], (BundleId("gone"),))
    joiner = Joiner()
    joined = [joiner.take(part) for part in plan_in_parts(plan)]
    joined += [joiner.take(part) for part in change_in_parts(change)]
    assert [each for each in joined if each is not None] == [plan, change]


def test_parts_are_small() -> None:
    assert all(len(part.plan.bundles) <= BUNDLES_PER_PART for part in plan_in_parts(Plan(1, NodeName("n"), BUNDLES)))
    assert all(len(part.changed) <= BUNDLES_PER_PART for part in change_in_parts(PlanChange(1, BUNDLES)))


def test_nothing_takes_effect_before_the_last_part() -> None:
    parts = list(plan_in_parts(Plan(1, NodeName("n"), BUNDLES)))
    joiner = Joiner()
    assert [joiner.take(part) for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert all(isinstance(part, WholePlan) for part in parts)
