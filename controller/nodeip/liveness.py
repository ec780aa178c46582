"""Which nodes the speakers do not hear: faster news of a dead node than its condition ``Ready``.

Each speaker writes into its Lease which nodes it does not hear. A node is unheard when more than half of all speakers
with a fresh Lease say so. The speaker of the node itself counts among all, and never says it of its own node.

1. One speaker that hears nobody takes out nobody, for it is a minority. Of two speakers neither takes out the other.
2. Where so many were unheard that the rest is no majority of the speakers, nobody is. Then the heartbeats are broken,
   not the nodes: a firewall that drops them must not take every address out of every status.

The Lease of a speaker is fresh for ``FRESH_S`` after the controller last saw it renewed, by the controller's own clock.
The clocks of the nodes do not matter.

Not promised: a dead node of two is noticed only by its condition, or when its Lease is not fresh any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.objects import NodeName
from cluster.times import NEVER

FRESH_S = 30.0
"""Three renewals of a speaker's Lease."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """What one speaker's Lease said last."""

    renewed_at: float
    """When the controller saw it renewed, in its own monotonic seconds."""
    unheard: frozenset[NodeName] = frozenset()


def unheard_nodes(hearings: Mapping[NodeName, Hearing], now: float) -> frozenset[NodeName]:
    """The nodes that a majority does not hear. ``hearings``: by the speaker's node."""
    fresh = {node: each for node, each in hearings.items() if now < each.renewed_at + FRESH_S}
    votes = Counter(node for speaker, each in fresh.items() for node in each.unheard if node != speaker)
    unheard = frozenset(node for node, count in votes.items() if 2 * count > len(fresh))
    if 2 * len(fresh.keys() - unheard) <= len(fresh):
        return frozenset()
    return unheard


def next_stale_at(hearings: Mapping[NodeName, Hearing], now: float) -> float:
    """When the next Lease stops being fresh, and ``unheard_nodes`` may change by itself."""
    return min((at for each in hearings.values() if (at := each.renewed_at + FRESH_S) > now), default=NEVER)
