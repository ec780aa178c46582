"""Candidates + who is able + loads -> the node that should hold a bundle.

A bundle goes to the first candidate in the Plan's order that is able, unless that one would have more than its share:

1. Candidates count that are able on some link of the bundle, as their heartbeats say. Of these the ones count that can
   hold most of its addresses, and of these the ones on the own subnets of most of them. So a bundle of both families
   goes to a node that speaks both, if there is one.
2. Of these the ones count whose endpoints stay; of these the ones of the first tier; of a bundle that is to be apart
   from others (``spreading``) the least crowded ones; then those of the highest preference.
3. The first of these is chosen whose load stays within 1.25 × a fair share with the bundle: first a share of all
   candidates in the Plan, then one of those that are able. Where none stays within it, as with a bundle of many
   addresses, the one with the least load is chosen.
4. A bundle that goes back to the node that had it (``Bundle.failback``) goes to the first of these, whatever the loads
   are: the node that it goes back to must not depend on where others are.

Loads are addresses that a node claims, as far as is heard. Two nodes that ask at the same moment about the same claims
choose the same.

Example: of three candidates for 30 addresses one is down. Each of the others is chosen until it has 13, and when both
have, until it has 19.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from cluster.objects import AddressText, NodeName
from speaker.plan import Bundle, Candidate
from speaker.protocol.bundles import Bundles, candidate_of
from speaker.protocol.claims import ClaimLog
from speaker.protocol.owners import Owners
from speaker.protocol.peers import LinkFamily
from speaker.protocol.roster import Roster
from speaker.protocol.spreading import Spreading

LOAD_BOUND = 1.25
Suits = tuple[bool, int, int, int]


class Choosing:
    def __init__(self, roster: Roster, log: ClaimLog, bundles: Bundles, owners: Owners, spreading: Spreading) -> None:
        self._roster = roster
        self._log = log
        self._bundles = bundles
        self._owners = owners
        self.spreading = spreading
        self._ability: dict[tuple[Candidate, frozenset[LinkFamily], bool], bool] = {}
        self._nodes_differ: bool | None = None

    def able(self, candidate: Candidate, places: frozenset[LinkFamily], cold: bool = False) -> bool:
        """Whether a candidate is believed able to claim at any of the places; where ``cold``, or will be soon. So it
        was when that was asked first since ``begin``."""
        key = candidate, places, cold
        able = self._ability.get(key)
        if able is None:
            able = self._ability[key] = self.able_now(candidate, places, cold)
        return able

    def able_now(self, candidate: Candidate, places: frozenset[LinkFamily], cold: bool = False) -> bool:
        """The same, at this moment."""
        if candidate.node == self._roster.node:
            return True
        return self._roster.able_since(candidate.node, places, candidate.interfaces, starting=cold) is not None

    def can_be_taken_from(self, node: NodeName, address: AddressText, bundle: Bundle, now: float) -> bool:
        """Whether another node could hold an address of the bundle that is ranked before that one, or that one is not
        ranked."""
        ranked = candidate_of(bundle, node)
        better = (
            each
            for each in bundle.candidates
            if each.node != node and (ranked is None or (each.ending, each.tier) < (ranked.ending, ranked.tier))
        )
        places = ((each, self._owners.open_to(each, address, now)) for each in better)
        return any(there and self.able_now(each, there) for each, there in places)

    def begin(self) -> None:
        """Ask anew who is able, whether nodes differ, and where the bundles of groups are: the answers are kept while
        many bundles are looked at together."""
        self._ability.clear()
        self.spreading.begin()
        self._nodes_differ = None

    def load(self, node: NodeName) -> int:
        """How many addresses a node claims."""
        load = self._roster.load(node)
        return max(load, len(self._log.claims)) if node == self._roster.node else load

    def loads(self) -> dict[NodeName, int]:
        """How many each node claims, this one included."""
        nodes = (self._roster.node, *self._roster.peers, *self._roster.absences)
        return {node: self.load(node) for node in nodes}

    def choose(
        self, bundle: Bundle, places: frozenset[LinkFamily], cold: bool, loads: Mapping[NodeName, int], now: float
    ) -> Candidate | None:
        """The first equally suited able candidate whose load stays below its bound; the least loaded one if none is.
        The first able one if the bundle goes back. ``loads`` says for some nodes what to count as their load instead of
        what they claim now."""
        total = self._bundles.load(now)
        least_bound = ceil(LOAD_BOUND * total / max(len(bundle.candidates), 1))
        equals: list[Candidate] = []
        best: Suits | None = None
        for candidate in self.in_order(self.fittest(bundle, places, cold, now), bundle, now):
            if best is not None and self.suits(candidate, bundle, now) != best:
                break
            if self.able(candidate, places, cold):
                if best is None:
                    if bundle.failback or self.load_with(candidate.node, bundle, loads) <= least_bound:
                        return candidate  # whatever its fair share is, as most are: spares looking at all the others
                    best = self.suits(candidate, bundle, now)
                equals.append(candidate)
        if len(equals) < 2:
            return equals[0] if equals else None
        bound = ceil(LOAD_BOUND * total / len(equals))
        for limit in (least_bound, bound):
            for candidate in equals:
                if self.load_with(candidate.node, bundle, loads) <= limit:
                    return candidate
        return min(equals, key=lambda candidate: self.load_with(candidate.node, bundle, loads))

    def suits(self, candidate: Candidate, bundle: Bundle, now: float) -> Suits:
        """How well a candidate suits a bundle, the least is the best: by whether its endpoints are ending, by its tier,
        by how crowded it is, and by its preference."""
        return (
            candidate.ending,
            candidate.tier,
            self.spreading.crowd(candidate.node, bundle, now),
            -candidate.preference,
        )

    def in_order(self, candidates: Sequence[Candidate], bundle: Bundle, now: float) -> Sequence[Candidate]:
        """In order of how well they suit the bundle. Only where it is to be apart from others may that be another order
        than the Plan's."""
        if not bundle.spread:
            return candidates
        return sorted(candidates, key=lambda candidate: self.suits(candidate, bundle, now))

    def is_among_the_fittest(
        self, candidate: Candidate, bundle: Bundle, places: frozenset[LinkFamily], now: float
    ) -> bool:
        """Whether no able candidate can hold more of the bundle's addresses."""
        if not self._differ():
            return True
        able = [each for each in bundle.candidates if self.able(each, places)]
        most = max((self._can_hold(each, bundle, False, now) for each in able), default=0)
        return self._can_hold(candidate, bundle, False, now) >= most

    def can_hold_all(self, candidate: Candidate, bundle: Bundle, now: float) -> bool:
        """Whether a candidate is able to hold all of the bundle's addresses that this node can hold."""
        places = (frozenset(self._owners.counts(address, now)) for address in bundle.addresses)
        return all(self.able(candidate, each) for each in places if each)

    def has_room(self, candidate: Candidate, bundle: Bundle, loads: Mapping[NodeName, int], now: float) -> bool:
        """Whether the bundle stays within the candidate's share of all candidates, able or not."""
        least_bound = ceil(LOAD_BOUND * self._bundles.load(now) / max(len(bundle.candidates), 1))
        return self.load_with(candidate.node, bundle, loads) <= least_bound

    def fittest(self, bundle: Bundle, places: frozenset[LinkFamily], cold: bool, now: float) -> Sequence[Candidate]:
        """Of the able candidates those that can hold most of the bundle's addresses, and of these the ones on the
        subnets of most; all candidates, able or not, where nodes do not differ in this."""
        if not self._differ():
            return bundle.candidates
        able = [candidate for candidate in bundle.candidates if self.able(candidate, places, cold)]
        if len(able) < 2:
            return able
        fits = [
            (self._can_hold(candidate, bundle, cold, now), self._owners.near(candidate.node, bundle))
            for candidate in able
        ]
        best = max(fits)
        return [candidate for candidate, fit in zip(able, fits, strict=True) if fit == best]

    def _differ(self) -> bool:
        if self._nodes_differ is None:
            self._nodes_differ = self._owners.nodes_differ()
        return self._nodes_differ

    def _can_hold(self, candidate: Candidate, bundle: Bundle, cold: bool, now: float) -> int:
        """How many of the bundle's addresses a candidate can hold."""
        if candidate.node == self._roster.node:
            return sum(bool(self._owners.counts(address, now)) for address in bundle.addresses)
        return sum(self.able(candidate, self._owners.belongs(address, now), cold) for address in bundle.addresses)

    def load_with(self, node: NodeName, bundle: Bundle, loads: Mapping[NodeName, int]) -> int:
        load = loads.get(node)
        return (self.load(node) if load is None else load) + len(bundle.addresses)
