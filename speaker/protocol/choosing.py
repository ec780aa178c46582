"""Candidates + who is able + loads -> the node that should hold a bundle.

A bundle goes to the first candidate in the Plan's order that is able, unless that one would have more than its share:

1. Candidates count that are able on some link of the bundle, as their heartbeats say, and of these the ones on the own
   subnets of most of its addresses.
2. Of the first tier and preference among them, the first candidate is chosen whose load stays within 1.25 × a fair
   share with the bundle: first a share of all candidates in the Plan, then one of those that are able.
3. Where none stays within it, the first one is chosen.

Loads are addresses that a node claims, as far as is heard. Two nodes that ask at the same moment about the same claims
choose the same.

Example: of three candidates for 30 addresses one is down. Each of the others is chosen until it has 13, and when both
have, until it has 19.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from cluster.objects import NodeName
from speaker.link import LinkName
from speaker.plan import Bundle, Candidate
from speaker.protocol.bundles import Bundles
from speaker.protocol.claims import ClaimLog
from speaker.protocol.owners import Owners
from speaker.protocol.roster import Roster

LOAD_BOUND = 1.25


class Choosing:
    def __init__(self, roster: Roster, log: ClaimLog, bundles: Bundles, owners: Owners) -> None:
        self._roster = roster
        self._log = log
        self._bundles = bundles
        self._owners = owners
        self._ability: dict[tuple[Candidate, frozenset[LinkName], bool], bool] = {}
        self._subnets_differ: bool | None = None

    def able(self, candidate: Candidate, links: frozenset[LinkName], cold: bool = False) -> bool:
        """Whether a candidate is believed able to claim on any of the links; where ``cold``, or will be soon."""
        if candidate.node == self._roster.node:
            return True
        key = candidate, links, cold
        able = self._ability.get(key)
        if able is None:
            since = self._roster.able_since(candidate.node, links, candidate.interfaces, starting=cold)
            able = self._ability[key] = since is not None
        return able

    def begin(self) -> None:
        """Ask the roster anew who is able, and whose subnets differ: its answers are kept while many bundles are looked
        at together."""
        self._ability.clear()
        self._subnets_differ = None

    def load(self, node: NodeName) -> int:
        """How many addresses a node claims."""
        if node == self._roster.node:
            return len(self._log.claims)
        peer = self._roster.peers.get(node)
        return len(peer.mirror.claims) if peer is not None else 0

    def loads(self) -> dict[NodeName, int]:
        """How many each node claims, this one included."""
        return {node: self.load(node) for node in (self._roster.node, *self._roster.peers)}

    def choose(
        self, bundle: Bundle, links: frozenset[LinkName], cold: bool, loads: Mapping[NodeName, int], now: float
    ) -> Candidate | None:
        """The first equally suited able candidate whose load stays below its bound; the first able one if none is.
        ``loads`` says for some nodes what to count as their load instead of what they claim now.
        Only those on the own subnets of most of its addresses count, if an able one is on any (as heartbeats say)."""
        total = self._bundles.load(now)
        least_bound = ceil(LOAD_BOUND * total / max(len(bundle.candidates), 1))
        equals: list[Candidate] = []
        for candidate in self._near(bundle, links, cold):
            if equals and (candidate.tier, candidate.preference) != (equals[0].tier, equals[0].preference):
                break
            if self.able(candidate, links, cold):
                if not equals and self.load_with(candidate.node, bundle, loads) <= least_bound:
                    return candidate  # whatever its fair share is, as most are: spares looking at all the others
                equals.append(candidate)
        if len(equals) < 2:
            return equals[0] if equals else None
        bound = ceil(LOAD_BOUND * total / len(equals))
        for limit in (least_bound, bound):
            for candidate in equals:
                if self.load_with(candidate.node, bundle, loads) <= limit:
                    return candidate
        return equals[0]

    def has_room(self, candidate: Candidate, bundle: Bundle, loads: Mapping[NodeName, int], now: float) -> bool:
        """Whether the bundle stays within the candidate's share of all candidates, able or not."""
        least_bound = ceil(LOAD_BOUND * self._bundles.load(now) / max(len(bundle.candidates), 1))
        return self.load_with(candidate.node, bundle, loads) <= least_bound

    def _near(self, bundle: Bundle, links: frozenset[LinkName], cold: bool) -> Sequence[Candidate]:
        """The able candidates on the subnets of most of the bundle's addresses; all candidates where none is on any."""
        if self._subnets_differ is None:
            self._subnets_differ = self._owners.subnets_differ()
        if not self._subnets_differ:
            return bundle.candidates
        able = [candidate for candidate in bundle.candidates if self.able(candidate, links, cold)]
        near = [self._owners.near(candidate.node, bundle) for candidate in able]
        most = max(near, default=0)
        if most == 0:
            return bundle.candidates
        return [candidate for candidate, count in zip(able, near, strict=True) if count == most]

    def load_with(self, node: NodeName, bundle: Bundle, loads: Mapping[NodeName, int]) -> int:
        load = loads.get(node)
        return (self.load(node) if load is None else load) + len(bundle.addresses)


def candidate_of(bundle: Bundle, node: NodeName) -> Candidate | None:
    """The node's candidacy for the bundle."""
    return next((candidate for candidate in bundle.candidates if candidate.node == node), None)
