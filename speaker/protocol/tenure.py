"""What a holder remembers about a bundle that it holds, and how it says that the bundle should move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.objects import NodeName
from cluster.times import NEVER
from speaker.plan import DRAINED_TIER, Bundle
from speaker.protocol.bundles import candidate_of
from speaker.protocol.peers import Network
from speaker.protocol.regards import Regard, regards

REVIEW_S = 1.0  # between looks at bundles that may have a better holder


@dataclass(slots=True)
class Tenure:
    """What this node remembers about a bundle that it holds."""

    claimed_at: float
    made_on: frozenset[Network]
    """The subnets of the links on which the bundle belonged when it was claimed, and since."""
    provisional: bool = False
    """Claimed at a cold start: it is given on to nodes that arrive."""
    awaited: frozenset[NodeName] = frozenset()
    """Candidates that were absent then."""
    seen: Bundle | None = None
    """As it was when it was looked at last."""
    misfit_since: float = NEVER
    """Since when this node is no candidate, or should be none."""
    regards: dict[NodeName, Regard] = field(default_factory=dict)
    """What is known of other candidates, beyond that they are."""

    def follow(self, bundle: Bundle, own: NodeName, now: float) -> None:
        """The bundle is like this by now."""
        if self.seen is not None and self.seen != bundle:
            self.regards = regards(self.regards, self.seen, bundle, own, now)
        self.seen = bundle
        candidate = candidate_of(bundle, own)
        if candidate is not None and candidate.tier < DRAINED_TIER and not candidate.ending:
            self.misfit_since = NEVER
        elif self.misfit_since == NEVER:
            self.misfit_since = now


class Move(NamedTuple):
    """A bundle to be released, for a reason, at a time: now or later."""

    why: str
    at: float
    to: NodeName | None = None
