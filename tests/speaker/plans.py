"""A Plan as whoever is told of its changes comes to know it."""

from __future__ import annotations

from speaker.plan import Plan, PlanChange


def after(plan: Plan, change: PlanChange) -> Plan:
    """The Plan after the change. A bundle to be removed that is not there is ignored."""
    bundles = {bundle.id: bundle for bundle in plan.bundles if bundle.id not in change.removed}
    bundles |= {bundle.id: bundle for bundle in change.changed}
    return Plan(change.revision, plan.node, tuple(bundles[each] for each in sorted(bundles)))
