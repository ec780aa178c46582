"""Evens out the loads of nodes, after some came back: who announces much gives to who announces little.

People ask for it by ``--rebalance``. A node that comes back takes nothing, so the others go on with what it had. A
holder that is *overloaded* gives a bundle to the node with the least load. It looks at the nodes that are able and suit
the bundle as well as itself, itself included:

1. A node is overloaded when its load is more than 1.25 × the mean of theirs, and more than the mean rounded up.
2. The bundle goes to a node that has been able for 60 s, if that node is not overloaded with it, and has less with it
   than the holder has now. Each time that a node was away after it was given something, these 60 s double, up to an
   hour.
3. One bundle is given in ten seconds. The overloaded node with the highest load gives when no other of these nodes has
   claimed anything for ten seconds, the next one when none has for twenty, and so on. So what one gives is heard by the
   others before the next one gives.

**It ends, and two Plans cannot fight.** A node gives only to one that has less afterwards than it had itself. So each
move makes the sum of the squares of all loads smaller. Loads are what nodes claim, and not what any Plan says.

Bundles stay where they are that go back to a certain node (``Bundle.failback``), or that would come together with
others of their group (``spreading``).

**Work is bounded.** A round goes through what this node holds, some bundles in each call. It begins when something has
changed that decides who should hold, and when a node will have been able for long enough. At rest nothing is done.

Not promised: loads that differ by less; that anything is given while addresses are claimed all the time. A bundle is
never divided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, floor

from cluster.objects import NodeName
from cluster.times import LONG_AGO, NEVER, doubled
from speaker.plan import DRAINED_TIER, Bundle, BundleId, Candidate
from speaker.protocol.bundles import Bundles, candidate_of
from speaker.protocol.choosing import LOAD_BOUND, Choosing
from speaker.protocol.handing import HandOvers
from speaker.protocol.owners import Owners
from speaker.protocol.regards import UNKNOWN
from speaker.protocol.roster import Roster
from speaker.protocol.successors import Successors
from speaker.protocol.tenure import REVIEW_S, Move, Tenure

BALANCE = "balance"  # the reason of such a move
GAP_S = 10.0  # between moves
LONGEST_S = 3600.0
CANDIDATES_AT_ONCE = 2000  # looked at in one call


@dataclass(slots=True)
class _Gift:
    """What is known of a node that was given something."""

    able_since: float
    """As it was then."""
    absences: int
    """How often it was away after it was given something."""


class Rebalancing:
    def __init__(
        self,
        roster: Roster,
        bundles: Bundles,
        owners: Owners,
        choosing: Choosing,
        *,
        successors: Successors,
        hand_overs: HandOvers,
    ) -> None:
        self._roster = roster
        self._bundles = bundles
        self._owners = owners
        self._choosing = choosing
        self._successors = successors
        self._hand_overs = hand_overs
        self._round: Iterator[tuple[BundleId, Tenure]] | None = None
        self._begun_at = LONG_AGO
        self._given: dict[NodeName, _Gift] = {}
        self._next_at = NEVER
        self._again_at = NEVER
        """When the next round is to begin, as far as the present one has found."""

    @property
    def next_deadline(self) -> float:
        return self._next_at

    def wake(self, now: float) -> None:
        """Something changed that decides who should hold."""
        if self._roster.settings.rebalance and self._round is None:
            self._next_at = min(self._next_at, max(now + REVIEW_S, self._begun_at + GAP_S))

    def pause(self) -> None:
        """Look at nothing until something changes."""
        self._round, self._next_at = None, NEVER

    def review(self, tenures: Mapping[BundleId, Tenure], now: float) -> tuple[Bundle, Move] | None:
        """The bundle that is to be given now, if any is. ``tenures`` are of what this node holds."""
        self._choosing.begin()
        if self._round is None:
            self._begin(tenures, now)
        left = CANDIDATES_AT_ONCE
        for id_, tenure in self._round or ():
            bundle = self._bundles.by_id.get(id_)
            if bundle is None or tenures.get(id_) is not tenure or id_ in self._hand_overs:
                continue
            move = self._gift(bundle, tenure, now)
            if move is not None and move.at <= now:
                self._round, self._next_at = None, now + GAP_S
                return bundle, move
            if move is not None:
                self._again_at = min(self._again_at, move.at)
            left -= len(bundle.candidates)
            if left <= 0:
                self._next_at = now
                return None
        self._round, self._next_at = None, self._again_at
        return None

    def _begin(self, tenures: Mapping[BundleId, Tenure], now: float) -> None:
        self._begun_at, self._again_at = now, NEVER
        loads = self._choosing.loads()
        if loads[self._roster.node] > min(loads.values()) + 1:
            self._round = iter([(id_, tenure) for id_, tenure in tenures.items() if not tenure.provisional])

    def _gift(self, bundle: Bundle, tenure: Tenure, now: float) -> Move | None:
        """To whom the bundle should be given, and when; None: to nobody."""
        me = self._roster.node
        own = candidate_of(bundle, me)
        if own is None or own.tier == DRAINED_TIER or bundle.failback or not bundle.serving:
            return None
        since = self._equals(bundle, own, tenure, now)
        loads = {node: self._choosing.load(node) for node in (me, *since)}
        mean = sum(loads.values()) / len(loads)
        bound = max(floor(LOAD_BOUND * mean), ceil(mean))
        if loads[me] <= bound:
            return None
        addresses = len(bundle.addresses)
        takers = [node for node in since if loads[node] + addresses <= min(bound, loads[me] - 1)]
        if not takers:
            return None
        taker = min(takers, key=lambda node: (loads[node], self._healthy_at(node, since[node])))
        turn = sum(load > bound and (-load, node) < (-loads[me], me) for node, load in loads.items())
        claimed_at = max(map(self._roster.claimed_at, since))
        at = max(
            self._healthy_at(taker, since[taker]) + turn * GAP_S,
            claimed_at + (1 + turn) * GAP_S,
            self._successors.nameable_at(bundle.id, taker),
        )
        if at <= now:
            self._given[taker] = _Gift(since[taker], self._absences(taker, since[taker]))
        return Move(BALANCE, at, taker)

    def _equals(self, bundle: Bundle, own: Candidate, tenure: Tenure, now: float) -> dict[NodeName, float]:
        """The other nodes that suit the bundle as well as this one, each with since when it could take it."""
        places = self._owners.places_of_any(bundle.addresses, now)
        suits = self._choosing.suits(own, bundle, now)
        found: dict[NodeName, float] = {}
        for each in self._choosing.fittest(bundle, places, False, now):
            if each is own or self._choosing.suits(each, bundle, now) != suits:
                continue
            since = self._successors.able_since(each, places, now)
            if since is not None:
                found[each.node] = max(since, tenure.regards.get(each.node, UNKNOWN).fit_since)
        return found

    def _healthy_at(self, node: NodeName, able_since: float) -> float:
        absences = self._absences(node, able_since)
        return able_since + doubled(self._roster.settings.take_back_s, absences, LONGEST_S)

    def _absences(self, node: NodeName, able_since: float) -> int:
        given = self._given.get(node)
        return 0 if given is None else given.absences + (given.able_since != able_since)
