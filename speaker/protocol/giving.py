"""Gives provisional claims on: what the first node claimed at a cold start goes to the nodes that arrive.

A claim on what nobody was heard to hold, made within 30 s of this node's start, is provisional. What another node held
before (``former``) goes back to that one, whatever its load is, and to nobody else for 120 s; such a claim is
provisional also if it is made within 120 s. What this node held before it keeps. The rest is shared.

One round looks at all provisional claims of this node, in order of id:

1. All provisional claims are taken to be free. ``choosing`` says who should have each, with what was given before in
   the round, and what earlier ones gave and is not claimed yet.
2. A claim goes to the chosen node, if that one was absent when the claim was made, is equally suited or less crowded
   (``spreading``), and has been able for a second.
3. While speakers still arrive, a node has room for a share of all candidates in the Plan. Once none has arrived for
   30 s, or 120 s after the claim, it has room for a share of those that are there.
4. A claim is final when its time is over, and a round gave nothing to anybody.

A bundle that had a former holder is shared in the same way when that one has not come.

Others give at the same time, each in proportion to what it has. The node that has most begins; of several, one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil

from cluster.objects import NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.plan import Bundle, Candidate
from speaker.protocol.choosing import Choosing
from speaker.protocol.former import Former
from speaker.protocol.peers import LinkFamily
from speaker.protocol.roster import Roster
from speaker.protocol.successors import Successors
from speaker.protocol.tenure import REVIEW_S, Move, Tenure

PROVISIONAL, RETURNED = "provisional", "its former holder is back"
"""The reasons of such moves."""
STEADY_S = 1.0  # ability of a node before a claim is given to it


class Giving:
    def __init__(self, roster: Roster, choosing: Choosing, successors: Successors, former: Former) -> None:
        self._roster = roster
        self._choosing = choosing
        self._successors = successors
        self._former = former
        self._started_at = NEVER
        """When this node first became able to claim."""
        self._absent: frozenset[NodeName] = frozenset()
        self._arrivals: dict[tuple[NodeName, frozenset[LinkFamily]], float] = {}
        """When each node was first seen to be able at these places, of those that were awaited."""
        self._given_to: dict[NodeName, int] = {}
        """How many addresses the present round gives to whom; and those before it did, as far as nobody claims them."""
        self._gave_before = False
        """The round before gave anything."""
        self._givers = 1.0
        """What is given in all, for each address of this node."""
        self._has_most = False
        """Nobody claims more than this node, nor as much and comes after it by name: of two that began at the same time
        each would give the last that a node has room for."""
        self._kept = 0
        """This node's load as far as the present round has come: all that is final, and what is kept of the rest."""
        self._arrived_at = LONG_AGO
        """When a speaker last became able."""

    def started(self, now: float) -> None:
        """This node is able to claim."""
        self._started_at = min(self._started_at, now)

    def enter(self, bundle: Bundle, tenure: Tenure, now: float) -> None:
        """A bundle is claimed that nobody was known to hold."""
        settings = self._roster.settings
        lasts_s = settings.cold_start_s if self._former.candidate(bundle) is None else settings.provisional_s
        if self._former.is_own(bundle) or now - self._started_at >= lasts_s:
            self._former.forget(bundle.id)
            return
        absent = (each for each in bundle.candidates if not self._choosing.can_hold_all(each, bundle, now))
        tenure.provisional = True
        tenure.awaited = self._shared(frozenset(each.node for each in absent))

    def _shared(self, absent: frozenset[NodeName]) -> frozenset[NodeName]:
        """One object for all equal ones: thousands of claims at a start await the same nodes."""
        if absent != self._absent:
            self._absent = absent
        return self._absent

    def begin(
        self, provisional: Iterable[Bundle], loads: Mapping[NodeName, int], under_way: Mapping[NodeName, int]
    ) -> None:
        """Begin a round over these bundles. ``loads``: what each node claims. ``under_way``: what is being handed over
        to whom, by earlier rounds."""
        self._gave_before, self._given_to = bool(self._given_to), dict(under_way)
        mine = loads[self._roster.node]
        self._kept = mine - sum(len(bundle.addresses) for bundle in provisional)
        self._givers = sum(loads.values()) / max(mine, 1)
        self._has_most = self._roster.node == max(loads, key=lambda node: (loads[node], node))
        self._arrived_at = max(self._arrived_at, self._roster.latest_able())

    def gave(self, bundle: Bundle, to: NodeName) -> None:
        """The bundle is released for a node."""
        self._given_to[to] = self._given_to.get(to, 0) + len(bundle.addresses)
        self._kept -= len(bundle.addresses)

    def give_on(
        self, bundle: Bundle, own: Candidate, tenure: Tenure, places: frozenset[LinkFamily], now: float
    ) -> Move | None:
        """To the former holder; or to whoever would be chosen if all provisional claims were free, in order of id: then
        everybody chooses the same, this node included."""
        settings, me = self._roster.settings, self._roster.node
        former = self._former.candidate(bundle)
        arrived_at = max(self._arrived_at, tenure.claimed_at)
        over_at = tenure.claimed_at + settings.provisional_s
        if former is None:
            over_at = min(over_at, arrived_at + settings.cold_start_s)
        over = now >= over_at
        if over and not self._gave_before and not self._given_to:
            tenure.provisional = False
            self._former.forget(bundle.id)
        later = Move(PROVISIONAL, max(over_at, now + REVIEW_S)) if tenure.provisional else None
        addresses = len(bundle.addresses)
        free = {node: self._choosing.load(node) + self._gifts(node, addresses) for node in tenure.awaited}
        free[me] = self._kept
        self._kept += addresses
        if former is not None and not over:
            return self._give_back(bundle, former, own, places, now) or later
        chosen = self._choosing.choose(bundle, places, False, free, now)
        if chosen is None or chosen.node == me or chosen.node not in tenure.awaited:
            return later
        crowd = self._choosing.spreading.crowd
        apart = crowd(chosen.node, bundle, now) < crowd(me, bundle, now)
        if (chosen.ending, chosen.tier) != (own.ending, own.tier) or (
            chosen.preference != own.preference and not apart
        ):
            return later
        if now < self._successors.nameable_at(bundle.id, chosen.node):
            return later
        since = self._successors.able_since(chosen, places, now)
        if since is None or self._arrivals.setdefault((chosen.node, places), since) != since:
            return later  # it is not able, or has been before and had its share
        if not over and not self._choosing.has_room(chosen, bundle, free, now):
            return later  # a share of what is still others', who may arrive
        return Move(PROVISIONAL, since + STEADY_S, chosen.node)

    def _give_back(
        self, bundle: Bundle, former: Candidate, own: Candidate, places: frozenset[LinkFamily], now: float
    ) -> Move | None:
        """To the former holder, when that has been able for a second."""
        since = self._successors.able_since(former, places, now)
        suits = self._choosing.suits
        if since is None or suits(former, bundle, now) > suits(own, bundle, now):
            return None
        return Move(RETURNED, max(since + STEADY_S, self._successors.nameable_at(bundle.id, former.node)), former.node)

    def _gifts(self, node: NodeName, addresses: int) -> int:
        """What all may give to a node in this round, once this one gives so many more addresses, without these."""
        given = self._given_to.get(node, 0)
        if self._has_most and not given:
            return 0  # somebody has to begin, and it is whoever has most
        return ceil((given + addresses) * self._givers) - addresses
