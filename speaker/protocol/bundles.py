"""The Plan as the wire side keeps it: its bundles by id and by address.

A change of the Plan costs as much as it has bundles, whatever the size of the Plan. The number of addresses that
somebody may hold (``load``), of which fair shares are reckoned, is counted along. Bundles without endpoints cease to be
a load by the time alone (``unserved``), and are counted anew once a second at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO
from speaker.plan import Bundle, BundleId, Candidate, Plan, PlanChange
from speaker.protocol.unserved import Unserved

RECOUNT_S = 1.0


class Changed(NamedTuple):
    """What a change of the Plan did."""

    bundles: tuple[Bundle, ...]
    """Those that are new or not what they were."""
    former: tuple[Bundle, ...]
    """What these were, and those that are gone."""
    resumed: tuple[BundleId, ...]
    """Those that serve now, and were wanted by nobody before, for want of endpoints."""


class Bundles:
    def __init__(self) -> None:
        self.by_id: dict[BundleId, Bundle] = {}
        self.of: dict[AddressText, Bundle] = {}
        """Each address's bundle."""
        self.groups: dict[str, set[BundleId]] = {}
        """Those of each group that is to be spread."""
        self.unserved = Unserved()
        self._served = 0
        """Addresses of bundles that serve."""
        self._held_unserved = 0
        self._counted_at = LONG_AGO

    def set(self, plan: Plan, now: float) -> Changed:
        """Take over a Plan whole."""
        ids = {bundle.id for bundle in plan.bundles}
        changed = tuple(bundle for bundle in plan.bundles if self.by_id.get(bundle.id) != bundle)
        removed = tuple(id_ for id_ in self.by_id if id_ not in ids)
        return self.change(PlanChange(plan.revision, changed, removed), now)

    def change(self, change: PlanChange, now: float) -> Changed:
        """Take over what changed. A bundle to be removed that is not there is ignored."""
        ids = [*change.removed, *(bundle.id for bundle in change.changed)]
        former = tuple(bundle for id_ in ids if (bundle := self.by_id.get(id_)) is not None)
        unwanted = {bundle.id for bundle in former if not self.unserved.lately(bundle, now)}
        resumed = tuple(bundle.id for bundle in change.changed if bundle.serving and bundle.id in unwanted)
        self.unserved.change(self.of, change.changed, change.removed, now)
        for bundle in former:
            del self.by_id[bundle.id]
            for group in bundle.spread:
                self.groups[group].discard(bundle.id)
                if not self.groups[group]:
                    del self.groups[group]
            for address in bundle.addresses:
                if self.of.get(address) is bundle:
                    del self.of[address]
        self._count(former, -1)
        for bundle in change.changed:
            self.by_id[bundle.id] = bundle
            self.of.update(dict.fromkeys(bundle.addresses, bundle))
            for group in bundle.spread:
                self.groups.setdefault(group, set()).add(bundle.id)
        self._count(change.changed, 1)
        return Changed(change.changed, former, resumed)

    def having(self, addresses: Iterable[AddressText]) -> list[Bundle]:
        """Those that have some of the addresses, each once."""
        bundles = (self.of.get(address) for address in addresses)
        return list({bundle.id: bundle for bundle in bundles if bundle is not None}.values())

    def load(self, now: float) -> int:
        """Addresses that somebody may hold."""
        if now - self._counted_at >= RECOUNT_S:
            self._counted_at = now
            idle = (self.by_id[id_] for id_ in self.unserved.ids())
            self._held_unserved = sum(len(each.addresses) for each in idle if self.unserved.may_be_held(each, now))
        return self._served + self._held_unserved

    def _count(self, bundles: Iterable[Bundle], sign: int) -> None:
        for bundle in bundles:
            if bundle.serving:
                self._served += sign * len(bundle.addresses)
            else:
                self._counted_at = LONG_AGO


def candidate_of(bundle: Bundle, node: NodeName) -> Candidate | None:
    """The node's candidacy for the bundle."""
    return next((candidate for candidate in bundle.candidates if candidate.node == node), None)
