"""Who held what before the whole cluster stopped, by the records in the API, and whose turn that makes it.

The problem: after a power failure of the whole site all speakers start, and nobody is left who holds anything. By rank
alone each address would come up wherever the ranking has it first, which is another node than before for whatever had
moved since.

1. The watcher reads the records when it begins, and tells who held which bundle before it sends the first Plan.
2. A record counts for a bundle that nobody is known to have held since this speaker started. A live claim always beats
   it.
3. The former holder claims first, whatever its load is, and also where the API has not found it to be Ready again. It
   has to be a candidate that is not drained, and no able one may be preferred to it.
4. The others wait for it until they have been able for ``Settings.former_s``, also where it is not heard. Then their
   turns begin.
5. What another node has claimed by then is handed over to the former holder, if that comes within 120 s (``giving``).
6. A claim has an epoch above the recorded one. So a node that was cut off all the while, and still holds the bundle,
   withdraws when it is heard again.

A record that names a node that is gone, or no candidate any more, counts for the epoch alone.

Not promised: that an address comes back to whoever held it last. Records are written after the fact: after a take-over
of thousands the last of them are a minute late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.times import LONG_AGO
from speaker.plan import DRAINED_TIER, Bundle, BundleId, Candidate
from speaker.protocol.bundles import candidate_of
from speaker.protocol.choosing import Choosing
from speaker.protocol.effects import FormerHolder
from speaker.protocol.peers import LinkFamily
from speaker.protocol.roster import Roster


class Former:
    """Pure. Knows a bundle until it is held for good."""

    def __init__(self, roster: Roster, choosing: Choosing) -> None:
        self._roster = roster
        self._choosing = choosing
        self._holders: dict[BundleId, FormerHolder] = {}

    def tell(self, holders: Mapping[BundleId, FormerHolder]) -> None:
        """Who held these bundles."""
        self._holders.update(holders)

    def forget(self, id_: BundleId) -> None:
        """The bundle is held, or gone."""
        self._holders.pop(id_, None)

    def epoch(self, bundle: Bundle) -> int:
        """Of the former holder's claim; 0 where none is known."""
        holder = self._holders.get(bundle.id)
        return holder.epoch if holder is not None else 0

    def is_own(self, bundle: Bundle) -> bool:
        """Whether it was this node that held the bundle."""
        holder = self._holders.get(bundle.id)
        return holder is not None and holder.node == self._roster.node

    def candidate(self, bundle: Bundle) -> Candidate | None:
        """The former holder, if it may hold the bundle now, and if the bundle has no other place to go back to."""
        holder = self._holders.get(bundle.id) if not bundle.failback else None
        candidate = candidate_of(bundle, holder.node) if holder is not None else None
        if candidate is None or candidate.ending or candidate.tier == DRAINED_TIER:
            return None
        return candidate

    def first(self, ids: Iterable[BundleId]) -> list[BundleId]:
        """In order of id, those with a former holder first: the rest is shared out by what these make of the loads."""
        return sorted(ids, key=lambda id_: (id_ not in self._holders, id_))

    def turn(
        self, bundle: Bundle, chosen: Candidate | None, places: frozenset[LinkFamily], able_since: float, now: float
    ) -> tuple[Candidate | None, float]:
        """Who should have the bundle, as the former holder goes before the ``chosen`` one; and from when on the turns
        of the others count on this node, which is able since ``able_since``."""
        former = self.candidate(bundle)
        if former is None or (chosen is not None and chosen.preference > former.preference):
            return chosen, LONG_AGO
        begins_at = LONG_AGO if former.node == self._roster.node else able_since + self._roster.settings.former_s
        if self._choosing.able(former, places, cold=True):
            fits = self._choosing.is_among_the_fittest(former, bundle, places, now)
            return (former, begins_at) if fits else (chosen, LONG_AGO)
        if self._is_able_elsewhere(former):
            return chosen, LONG_AGO
        return former if now < begins_at else chosen, begins_at

    def _is_able_elsewhere(self, candidate: Candidate) -> bool:
        """Whether the node can claim on another network. There it held the bundle, and here another one did."""
        peer = self._roster.peers.get(candidate.node)
        return peer is not None and any(each.able_since is not None for each in peer.sightings.values())
