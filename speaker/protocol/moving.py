"""Finds the held bundles that this node should step aside from, and when to look at them again.

A holder moves a bundle by *stepping aside*: it releases the bundle, and the better candidate claims it. If that one
does not, the former holder claims again after its rank's delay. Only the holder begins a move, by its own Plan, so two
Plans cannot fight. It has four reasons:

- *It is no candidate any more*, and an able one exists. It waits 0.3 s, since the successor's Plan may lag.
- *Its claim is provisional*: made at a cold start, when nobody was known to have held the bundle before. It gives the
  bundle on once, to an equally suited candidate that was absent then and has been able for a second, if that one would
  be chosen were all provisional claims free. While speakers still arrive, a candidate has room for a share of all
  candidates in the Plan; once none has arrived for 30 s, for a share of those that are there. When that gives no more,
  or after 120 s, the claim is final.
- *Another node has a higher preference*, and has been healthy for 60 s. That wait doubles each time, up to an hour,
  and counts from the last time, too. The Plan must have said so for five seconds, since the other one's must as well.
- *No endpoint serves*, for as long as ``unserved`` says.

A node counts as better only if its own heartbeats say that it is able on all networks of the bundle's addresses and on
the interfaces that the advertisements name for it, and that it hears this node. A node that was named and did not
claim is not named again for that bundle in the same session of its.

**Work is bounded.** ``review`` looks at 500 bundles, and asks to be called again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import NamedTuple

from cluster.objects import NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName
from speaker.plan import Bundle, BundleId, Candidate
from speaker.protocol.bundles import Bundles
from speaker.protocol.choosing import Choosing, candidate_of
from speaker.protocol.owners import Owners
from speaker.protocol.roster import Network, Roster

MISFIT_WAIT_S = 0.3  # before stepping aside as no candidate: the successor's Plan may lag
AGREED_S = 5.0  # of a Plan that prefers another, until that one's Plan is believed to say so, too
STEADY_S = 1.0  # ability of a successor before a provisional claim moves to it
REVIEW_S = 1.0  # between looks at claims that may have a better holder
LONGEST_TAKE_BACK_S = 3600.0
LOOKED_AT = 500  # bundles in one call


@dataclass(slots=True)
class Tenure:
    """What this node remembers about a bundle that it holds."""

    claimed_at: float
    made_on: frozenset[Network]
    """The subnets of the links on which the bundle belonged when it was claimed, and since."""
    provisional: bool = False
    """Claimed at a cold start: it is given on to who arrives."""
    awaited: frozenset[NodeName] = frozenset()
    """Candidates that were absent then."""
    misfit_since: float | None = None
    ranked: tuple[Candidate, ...] = ()
    ranked_at: float = NEVER
    """The candidates as this node's Plan has them, and since when it has."""


@dataclass(slots=True)
class _Waiting:
    """For the next time that a bundle goes to a higher preference."""

    times: int
    since: float


class Move(NamedTuple):
    """A bundle to be released, for a reason, at a time: now or later."""

    why: str
    at: float
    to: NodeName | None = None


class Moving:
    def __init__(self, roster: Roster, bundles: Bundles, owners: Owners, choosing: Choosing) -> None:
        self.tenures: dict[BundleId, Tenure] = {}
        self._restless: dict[BundleId, None] = {}
        """The bundles held that may have to move, whatever becomes of it; most may not."""
        self._roster = roster
        self._settings = roster.settings
        self._bundles = bundles
        self._owners = owners
        self._choosing = choosing
        self._take_backs: dict[BundleId, _Waiting] = {}
        self._named: dict[BundleId, tuple[NodeName, int]] = {}
        """Who was named a better holder last, in which session, until somebody else claims."""
        self._failed: dict[BundleId, tuple[NodeName, int]] = {}
        """Who was named and did not claim."""
        self._arrivals: dict[tuple[NodeName, frozenset[LinkName]], float] = {}
        """When each node was first seen to be able on these links, of those that were awaited."""
        self._round: Iterator[BundleId] | None = None
        self._given: dict[NodeName, int] = {}
        """How many addresses the present round gives to whom."""
        self._gave = False
        """The round before gave anything."""
        self._givers = 1.0
        """Others give, too, each in proportion to what it has: what is given in all, for each address of ours."""
        self._has_most = False
        """Nobody claims more than this node."""
        self._kept = 0
        """This node's load as far as the present round has come: all that is final, and what is kept of the rest."""
        self._review_at = NEVER
        self._next_at = NEVER
        """When the round after the present one begins."""
        self._arrived_at = LONG_AGO
        """When a speaker last became able."""

    @property
    def next_deadline(self) -> float:
        return self._review_at

    def wake(self, now: float) -> None:
        """Something changed that decides who should hold."""
        if self._restless:
            self._look_at(now + REVIEW_S)

    def consider(self, bundle: Bundle, now: float) -> None:
        """A bundle that is held is not what it was."""
        tenure = self.tenures.get(bundle.id)
        if tenure is not None and not self._stays(bundle, tenure):
            self._restless[bundle.id] = None
            self._look_at(now + REVIEW_S)

    def claimed(self, bundle: Bundle, tenure: Tenure, now: float) -> None:
        """This node has claimed a bundle, or more of one."""
        self.tenures.setdefault(bundle.id, tenure)
        named = self._named.pop(bundle.id, None)
        if named is not None:
            self._failed[bundle.id] = named
        self.consider(bundle, now)

    def taken(self, id_: BundleId) -> None:
        """Another node has claimed a bundle."""
        self._named.pop(id_, None)

    def moved(self, id_: BundleId, move: Move, now: float) -> None:
        """A bundle was released for the reason given."""
        peer = self._roster.peers.get(move.to) if move.to is not None else None
        if peer is not None:
            self._named[id_] = peer.node, peer.session
        if move.why == "preference":
            times = self._take_backs[id_].times if id_ in self._take_backs else 0
            self._take_backs[id_] = _Waiting(times + 1, now)

    def forget(self, id_: BundleId) -> None:
        """The bundle is gone."""
        self.tenures.pop(id_, None)
        for table in (self._take_backs, self._named, self._failed):
            table.pop(id_, None)

    def pause(self) -> None:
        """Review nothing until something changes."""
        self._review_at, self._round = NEVER, None

    def _look_at(self, at: float) -> None:
        if self._round is None:
            self._review_at = min(self._review_at, at)
        else:
            self._next_at = min(self._next_at, at)

    # ------------------------------------------------------------------------------------------------ review

    def review(self, now: float) -> Iterator[tuple[Bundle, Move]]:
        """What is to be released now, each to be released before the next is asked for."""
        if self._round is None:
            self._round, self._next_at = iter(sorted(self._restless)), NEVER
            self._gave, self._given = bool(self._given), {}
            loads = self._choosing.loads()
            mine = loads[self._roster.node]
            self._kept = mine - self._provisional_load()
            self._givers = sum(loads.values()) / max(mine, 1)
            self._has_most = mine == max(loads.values())
            self._arrived_at = max(self._arrived_at, self._roster.latest_able())
        self._choosing.begin()
        looked = 0
        for id_ in islice(self._round, LOOKED_AT):
            looked += 1
            tenure, bundle = self.tenures.get(id_), self._bundles.by_id.get(id_)
            if tenure is None or bundle is None or self._stays(bundle, tenure):
                self._restless.pop(id_, None)
                continue
            move = self._reason_to_move(bundle, tenure, now)
            if move is None:
                continue
            if move.at <= now:
                if move.to is not None and move.why == "provisional":
                    self._given[move.to] = self._given.get(move.to, 0) + len(bundle.addresses)
                    self._kept -= len(bundle.addresses)
                yield bundle, move
            elif move.at < NEVER:
                self._look_at(max(move.at, now + MISFIT_WAIT_S))
        if looked == LOOKED_AT:
            self._review_at = now
        else:
            self._round, self._review_at = None, self._next_at

    def _provisional_load(self) -> int:
        held = ((self.tenures.get(id_), self._bundles.by_id.get(id_)) for id_ in self._restless)
        return sum(len(bundle.addresses) for tenure, bundle in held if bundle and tenure and tenure.provisional)

    def _stays(self, bundle: Bundle, tenure: Tenure) -> bool:
        """Whether nothing but a change of the bundle could move it."""
        own = candidate_of(bundle, self._roster.node)
        if own is None or tenure.provisional or not bundle.serving:
            return False
        tenure.misfit_since = None
        return not any(candidate.preference > own.preference for candidate in bundle.candidates)

    def _reason_to_move(self, bundle: Bundle, tenure: Tenure, now: float) -> Move | None:
        """Why the bundle should move, and from when on; or that nothing is to be expected before a change."""
        if tenure.ranked != bundle.candidates:
            tenure.ranked, tenure.ranked_at = bundle.candidates, now
        if not bundle.serving:
            tenure.misfit_since = None
            return Move("no endpoint serves", self._bundles.unserved.release_at(bundle))
        links = self._owners.links_of_any(bundle.addresses, now)
        own = candidate_of(bundle, self._roster.node)
        if own is None:
            if not any(self._choosing.able(candidate, links) for candidate in bundle.candidates):
                tenure.misfit_since = None
                return None
            tenure.misfit_since = now if tenure.misfit_since is None else tenure.misfit_since
            return Move("no candidate any more", tenure.misfit_since + MISFIT_WAIT_S)
        tenure.misfit_since = None
        moves = [
            self._give_on(bundle, own, tenure, links, now) if tenure.provisional else None,
            self._take_back(bundle, own, tenure, links, now),
        ]
        return min((move for move in moves if move is not None), key=lambda move: move.at, default=None)

    # ------------------------------------------------------------------------------------------ provisional claims

    def _give_on(
        self, bundle: Bundle, own: Candidate, tenure: Tenure, links: frozenset[LinkName], now: float
    ) -> Move | None:
        """To whoever would be chosen if all provisional claims were free, in order of id: then everybody chooses the
        same, this node included."""
        settings, me = self._settings, self._roster.node
        over_at = min(tenure.claimed_at + settings.provisional_s, self._last_arrival(tenure) + settings.cold_start_s)
        over = now >= over_at
        if over and not self._gave and not self._given:
            tenure.provisional = False
        later = Move("provisional", max(over_at, now + REVIEW_S)) if tenure.provisional else None
        addresses = len(bundle.addresses)
        free = {node: self._choosing.load(node) + self._gifts(node, addresses) for node in tenure.awaited}
        free[me] = self._kept
        self._kept += addresses
        chosen = self._choosing.choose(bundle, links, False, free, now)
        if chosen is None or chosen.node == me or chosen.node not in tenure.awaited:
            return later
        if (chosen.tier, chosen.preference) != (own.tier, own.preference) or not self._has_arrived(
            bundle, chosen, links, now
        ):
            return later
        if not over and not self._choosing.has_room(chosen, bundle, free, now):
            return later  # a share of what is still others', who may arrive
        since = self._able_since(bundle, chosen, links, now) or now
        return Move("provisional", since + STEADY_S, chosen.node)

    def _gifts(self, node: NodeName, addresses: int) -> int:
        """What all may give to a node in this round, once this one gives so many more addresses, without these."""
        given = self._given.get(node, 0)
        if self._has_most and not given:
            return 0  # somebody has to begin, and it is whoever has most
        return ceil((given + addresses) * self._givers) - addresses

    def _last_arrival(self, tenure: Tenure) -> float:
        return max(self._arrived_at, tenure.claimed_at)

    def _has_arrived(self, bundle: Bundle, candidate: Candidate, links: frozenset[LinkName], now: float) -> bool:
        """Whether the candidate is able, and has been ever since it was for the first time: who comes back has had its
        share."""
        since = self._able_since(bundle, candidate, links, now)
        return since is not None and self._arrivals.setdefault((candidate.node, links), since) == since

    # ------------------------------------------------------------------------------------------------ preference

    def _take_back(
        self, bundle: Bundle, own: Candidate, tenure: Tenure, links: frozenset[LinkName], now: float
    ) -> Move | None:
        before = self._take_backs.get(bundle.id)
        times, last = (before.times, before.since) if before is not None else (0, LONG_AGO)
        wait = min(self._settings.take_back_s * 2.0**times, LONGEST_TAKE_BACK_S)
        best: Move | None = None
        for candidate in bundle.candidates[: bundle.candidates.index(own)]:
            if candidate.preference > own.preference and candidate.tier <= own.tier:
                able_since = self._able_since(bundle, candidate, links, now)
                if able_since is not None:
                    at = max(max(able_since, last) + wait, tenure.ranked_at + AGREED_S)
                    move = Move("preference", at, candidate.node)
                    best = move if best is None or move.at < best.at else best
        return best

    def _able_since(self, bundle: Bundle, candidate: Candidate, links: frozenset[LinkName], now: float) -> float | None:
        """Since when a candidate could take the bundle on all its links, as its heartbeats say; None also where it
        would not hear of a release, and where it was named before and did not claim."""
        peer = self._roster.peers.get(candidate.node)
        if peer is None or not links or self._failed.get(bundle.id) == (peer.node, peer.session):
            return None
        if not self._roster.is_heard_by(candidate.node, links, now):
            return None
        able = [self._roster.able_since(candidate.node, (link,), candidate.interfaces) for link in links]
        return None if None in able else max(since for since in able if since is not None)


__all__ = ["REVIEW_S", "Move", "Moving", "Tenure"]
