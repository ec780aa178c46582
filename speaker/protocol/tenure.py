"""What a holder remembers about a bundle that it holds, and how it says that the bundle should move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cluster.objects import NodeName
from cluster.times import NEVER
from speaker.plan import Candidate
from speaker.protocol.roster import Network

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
    misfit_since: float | None = None
    ranked: tuple[Candidate, ...] = ()
    ranked_at: float = NEVER
    """The candidates as this node's Plan has them, and since when it has."""


class Move(NamedTuple):
    """A bundle to be released, for a reason, at a time: now or later."""

    why: str
    at: float
    to: NodeName | None = None
