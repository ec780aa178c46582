"""Plans, and changes of them, in parts: how ten thousand bundles go over the channel without keeping the announcer from
the wire for as long as they take to decode.

The watcher sends `plan_in_parts` or `change_in_parts`. The announcer puts the parts together again (`Joiner`). A Plan
or a change takes effect when its last part has come, as if it had come whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from speaker.channel import WholePlan
from speaker.plan import Bundle, Plan, PlanChange

BUNDLES_PER_PART = 500
"""Some milliseconds to encode or to decode, with fifty nodes."""


def plan_in_parts(plan: Plan) -> Iterator[WholePlan]:
    """A Plan as messages, to be sent in this order. At least one."""
    for bundles, more in _pieces(plan.bundles):
        yield WholePlan(Plan(plan.revision, plan.node, bundles), more)


def change_in_parts(change: PlanChange) -> Iterator[PlanChange]:
    """A change as messages, to be sent in this order. At least one; what is removed is in the last."""
    for changed, more in _pieces(change.changed):
        yield PlanChange(change.revision, changed, () if more else change.removed, more)


def _pieces(bundles: tuple[Bundle, ...]) -> Iterator[tuple[tuple[Bundle, ...], bool]]:
    """Pieces, and whether others follow. At least one."""
    for start in range(0, max(len(bundles), 1), BUNDLES_PER_PART):
        end = start + BUNDLES_PER_PART
        yield bundles[start:end], end < len(bundles)


class Joiner:
    """Puts the parts together again. They come in order, and nothing else of their kind between them."""

    def __init__(self) -> None:
        self._bundles: list[Bundle] = []

    def take(self, part: WholePlan | PlanChange) -> Plan | PlanChange | None:
        """What this part completes; ``None`` when others are to follow."""
        self._bundles += part.plan.bundles if isinstance(part, WholePlan) else part.changed
        if part.more:
            return None
        bundles, self._bundles = tuple(self._bundles), []
        if isinstance(part, WholePlan):
            return Plan(part.plan.revision, part.plan.node, bundles)
        return replace(part, changed=bundles)
