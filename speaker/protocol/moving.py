"""Finds the held bundles that this node should hand over, to whom, and when to look at them again.

Only the holder begins a move, by its own Plan, so two Plans cannot fight. It names a successor, and holds the bundle
until that one claims it (``handing``). It *steps aside*, so that the next one in turn claims, in two cases: where no
single node can take the whole bundle, and where the successor is of a release that takes no offers.

A holder has nine reasons to move a bundle:

- *It is no candidate any more*, and each address has an able one.
- *Its endpoints are ending* (``Candidate.ending``), and those of some able node stay. It moves the bundle while they
  still serve, and to a node that has got an endpoint lately, if there is one: an update of the pods has been there, and
  will not come again. That node's kube-proxy has two seconds to know of the endpoint.
- *It is drained*, and some able node is not.
- *Its claim is provisional*: made at a cold start, when nobody was known to hold the bundle. It gives the bundle on
  once, to a node that arrives, or back to the one that held it before (``giving``).
- *Another node has a higher preference.*
- *It is to be apart from others* of its group (``spreading``), and another node is less crowded.
- *It goes back to the node that had it* (``Bundle.failback``): to the first of those that are preferred alike, unless
  this node comes before it. That this node is NotReady is no reason.
- *It has many, and another node few* (``rebalancing``), where that is wanted.
- *No endpoint serves*, for as long as ``unserved`` says.

Where a person decided that another node is preferred, that the bundle is to be apart, or that it goes back, it acts at
once. A node that came back by itself (``regards``) has to be healthy for 60 s first, and for 10 s where the bundle goes
back. That wait doubles each time, up to an hour, and counts
from the last time, too. A decision acts once: a bundle that comes back to this node all the same waits as for any
other.

A node that was named and did not claim is not named again for a while (``successors``).

Where a Plan changes, 0.3 s are waited for, since the successor's may come later.

**Work is bounded.** ``review`` looks at 500 bundles, and asks to be called again. A round over all that may have to
move begins when something changed for many of them, and once a second at most. What changed in the Plan is looked at in
a round of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER, doubled
from speaker.plan import DRAINED_TIER, Bundle, BundleId, Candidate
from speaker.protocol.bundles import Bundles, candidate_of
from speaker.protocol.choosing import Choosing
from speaker.protocol.former import Former
from speaker.protocol.giving import PROVISIONAL, RETURNED, Giving
from speaker.protocol.handing import HandOvers
from speaker.protocol.owners import Owners
from speaker.protocol.peers import LinkFamily
from speaker.protocol.rebalancing import Rebalancing
from speaker.protocol.regards import UNKNOWN
from speaker.protocol.roster import Roster
from speaker.protocol.successors import Successors
from speaker.protocol.tenure import REVIEW_S, Move, Tenure

PREFERENCE, APART, FAILBACK, DECISION = "preference", "apart from its group", "failback", "decision"
"""The reasons of moves to a better node: that came back by itself, or, the last one, by a person."""
ENDING = "its endpoints are ending"
PLANS_S = 0.3  # after a change of the Plan: the successor's may lag
PROXY_S = 2.0  # for a node's kube-proxy to know of an endpoint there: it writes rules once a second by its defaults
UPDATED_S = 600.0  # for which an update of the pods is taken not to come to a node again
LONGEST_TAKE_BACK_S = 3600.0
LOOKED_AT = 500  # bundles in one call


@dataclass(slots=True)
class _Waiting:
    """For the next time that a bundle goes to a better node."""

    times: int
    since: float


class Moving:
    def __init__(
        self,
        roster: Roster,
        bundles: Bundles,
        owners: Owners,
        choosing: Choosing,
        hand_overs: HandOvers,
        *,
        former: Former,
    ) -> None:
        self.tenures: dict[BundleId, Tenure] = {}
        self._restless: dict[BundleId, None] = {}
        """The bundles held that may have to move, whatever becomes of it; most may not."""
        self._roster = roster
        self._settings = roster.settings
        self._bundles = bundles
        self._owners = owners
        self._choosing = choosing
        self._hand_overs = hand_overs
        self._successors = Successors(roster)
        self._loads: dict[NodeName, int] = {}
        """What each node claims, what is being handed over to it, and what was given to it in the present round."""
        self.giving = Giving(roster, choosing, self._successors, former)
        self._rebalancing = Rebalancing(
            roster, bundles, owners, choosing, successors=self._successors, hand_overs=hand_overs
        )
        self._take_backs: dict[BundleId, _Waiting] = {}
        self._fresh: dict[BundleId, None] = {}
        """Those of them that are not what they were."""
        self._round: Iterator[BundleId] | None = None
        self._over_all = False
        """The round looks at all."""
        self._goes_on_at = NEVER
        self._fresh_at = NEVER
        self._all_at = NEVER

    @property
    def next_deadline(self) -> float:
        return min(self._review_at, self._rebalancing.next_deadline)

    @property
    def _review_at(self) -> float:
        return self._goes_on_at if self._round is not None else min(self._fresh_at, self._all_at)

    def wake(self, now: float) -> None:
        """Something changed that decides who should hold."""
        self._rebalancing.wake(now)
        if self._restless:
            self._look_at(now + REVIEW_S)

    def consider(self, bundle: Bundle, now: float) -> None:
        """A bundle that is held is not what it was."""
        tenure = self.tenures.get(bundle.id)
        if tenure is None:
            return
        tenure.follow(bundle, self._roster.node, now)
        if not self._stays(bundle, tenure):
            self._restless[bundle.id] = None
            self._look_soon(bundle.id, now + PLANS_S)
            if tenure.provisional:
                self._look_at(now + REVIEW_S)

    def claimed(self, bundle: Bundle, tenure: Tenure, now: float) -> None:
        """This node has claimed a bundle, or more of one."""
        self.tenures.setdefault(bundle.id, tenure)
        self._successors.failed(bundle.id)
        self.consider(bundle, now)

    def taken(self, id_: BundleId) -> None:
        """Another node has claimed a bundle."""
        self._successors.claimed(id_)

    def released(self, id_: BundleId, to: NodeName | None) -> None:
        """A bundle was released: for another node, where one is named."""
        if to is not None:
            self._successors.name(id_, to)

    def let_go(self, id_: BundleId) -> None:
        """This node claims nothing of a bundle any more."""
        self.tenures.pop(id_, None)
        self._hand_overs.end(id_)

    def outclaimed(self, id_: BundleId, by: NodeName, now: float) -> None:
        """It claims nothing of it any more, since another node's claim is higher: perhaps as it was asked to."""
        self._successors.took(id_, by)
        if self._hand_overs.why(id_) in {PREFERENCE, APART, FAILBACK}:
            times = self._take_backs[id_].times if id_ in self._take_backs else 0
            self._take_backs[id_] = _Waiting(times + 1, now)
        self.let_go(id_)

    def offered_in_vain(self, id_: BundleId, node: NodeName, now: float) -> None:
        """The node that was named for a bundle did not claim."""
        self._successors.offered_in_vain(id_, node, now)
        if id_ in self.tenures:
            self._restless[id_] = None
            self._look_soon(id_, now)

    def forget(self, id_: BundleId) -> None:
        """The bundle is gone."""
        self.let_go(id_)
        self._take_backs.pop(id_, None)
        self._successors.forget(id_)

    def pause(self) -> None:
        """Review nothing until something changes."""
        self._fresh_at, self._all_at, self._round = NEVER, NEVER, None
        self._rebalancing.pause()

    def _look_at(self, at: float) -> None:
        """At all."""
        self._all_at = min(self._all_at, at)

    def _look_soon(self, id_: BundleId, at: float) -> None:
        self._fresh[id_] = None
        self._fresh_at = min(self._fresh_at, at)

    # ------------------------------------------------------------------------------------------------ review

    def review(self, now: float) -> Iterator[tuple[Bundle, Move]]:
        """What is to be moved now, each before the next is asked for."""
        if now >= self._review_at:
            yield from self._review(now)
        if now >= self._rebalancing.next_deadline:
            gift = self._rebalancing.review(self.tenures, now)
            if gift is not None:
                yield gift

    def _review(self, now: float) -> Iterator[tuple[Bundle, Move]]:
        self._round = round_ = self._round or self._new_round(now)
        self._choosing.begin()
        looked = 0
        for id_ in islice(round_, LOOKED_AT):
            looked += 1
            tenure, bundle = self.tenures.get(id_), self._bundles.by_id.get(id_)
            if tenure is None or bundle is None or self._stays(bundle, tenure):
                self._restless.pop(id_, None)
                continue
            if id_ in self._hand_overs:
                continue
            move = self._reason_to_move(bundle, tenure, now)
            if move is None:
                continue
            if move.at <= now:
                if move.to is not None:
                    self._loads[move.to] = self._choosing.load_with(move.to, bundle, self._loads)
                    self._choosing.spreading.put(bundle, move.to)
                    if move.why in {PROVISIONAL, RETURNED}:
                        self.giving.gave(bundle, move.to)
                yield bundle, move
            elif move.at <= now + PLANS_S and move.why not in {PROVISIONAL, RETURNED}:
                self._look_soon(id_, move.at)  # provisional claims are given in rounds over all
            elif move.at < NEVER:
                self._look_at(move.at)
        if looked == LOOKED_AT:
            self._goes_on_at = now
        else:
            self._round = None

    def _new_round(self, now: float) -> Iterator[BundleId]:
        loads, under_way = self._choosing.loads(), self._hand_overs.under_way()
        self._loads = {node: load + under_way[node] for node, load in loads.items()}
        self._over_all = now >= self._all_at
        if self._over_all:
            self._all_at = NEVER
            held = ((self.tenures.get(id_), self._bundles.by_id.get(id_)) for id_ in self._restless)
            provisional = [bundle for tenure, bundle in held if bundle and tenure and tenure.provisional]
            self.giving.begin(provisional, loads, under_way)
            return iter(sorted(self._restless))
        fresh, self._fresh, self._fresh_at = self._fresh, {}, NEVER
        return iter(sorted(fresh.keys() & self._restless.keys()))

    def _stays(self, bundle: Bundle, tenure: Tenure) -> bool:
        """Whether nothing but a change of the bundle could move it."""
        own = candidate_of(bundle, self._roster.node)
        if own is None or own.ending or own.tier == DRAINED_TIER or tenure.provisional or not bundle.serving:
            return False
        if bundle.spread or (bundle.failback and bundle.candidates[0] is not own):
            return False
        return not any(candidate.preference > own.preference for candidate in bundle.candidates)

    def _reason_to_move(self, bundle: Bundle, tenure: Tenure, now: float) -> Move | None:
        """Why the bundle should move, and from when on; or that nothing is to be expected before a change."""
        if not bundle.serving:
            return Move("no endpoint serves", self._bundles.unserved.release_at(bundle))
        places = self._owners.places_of_any(bundle.addresses, now)
        own = candidate_of(bundle, self._roster.node)
        if own is None:
            if not places or not all(self._can_be_taken(address, bundle, now) for address in bundle.addresses):
                return None
            why, at = "no candidate any more", tenure.misfit_since + PLANS_S
            known = [each for each in bundle.candidates if not each.ending and _proxied_at(each, tenure) <= now]
            return self._hand_over(bundle, why, at, places, now, among=bundle.candidates, first=known) or Move(why, at)
        if own.ending:
            return self._leave_ending(bundle, tenure, places, now)
        if own.tier == DRAINED_TIER:
            at = tenure.misfit_since + PLANS_S
            in_use = [each for each in bundle.candidates if each.tier < DRAINED_TIER and not each.ending]
            return self._hand_over(bundle, "drained", at, places, now, among=in_use, first=in_use)
        moves = [
            self.giving.give_on(bundle, own, tenure, places, now) if tenure.provisional and self._over_all else None,
            self._take_back(bundle, own, tenure, places, now),
        ]
        return min((move for move in moves if move is not None), key=lambda move: move.at, default=None)

    def _can_be_taken(self, address: AddressText, bundle: Bundle, now: float) -> bool:
        """Whether some candidate could hold the address, or this node does not answer for it anyway."""
        places = frozenset(self._owners.counts(address, now))
        return not places or any(self._choosing.able(candidate, places) for candidate in bundle.candidates)

    def _leave_ending(self, bundle: Bundle, tenure: Tenure, places: frozenset[LinkFamily], now: float) -> Move | None:
        """To a node with an endpoint that stays, and rather to one that has got it lately."""
        staying = [each for each in bundle.candidates if not each.ending]
        updated = {each: at for each in staying if (at := _proxied_at(each, tenure)) > now - UPDATED_S}
        at = tenure.misfit_since + PLANS_S
        at = max(at, min(updated.values(), default=at))
        known = [each for each, proxied_at in updated.items() if proxied_at <= max(at, now)]
        return self._hand_over(bundle, ENDING, at, places, now, among=staying, first=known or staying)

    def _hand_over(
        self,
        bundle: Bundle,
        why: str,
        at: float,
        places: frozenset[LinkFamily],
        now: float,
        *,
        among: Iterable[Candidate],
        first: Collection[Candidate],
    ) -> Move | None:
        """To the one of these nodes that should have the bundle now, rather to one of the ``first``: the next one,
        where that was named in vain; nothing where no node can take all of it."""
        chosen = self._choosing.choose(bundle, places, False, self._loads, now)
        candidates = self._choosing.in_order(list(among), bundle, now)
        candidates = sorted(candidates, key=lambda each: (each not in first, each != chosen))
        able = (each.node for each in candidates if self._successors.able_since(each, places, now) is not None)
        nameable = {node: self._successors.nameable_at(bundle.id, node) for node in able}
        for node, since in nameable.items():
            if now >= since:
                return Move(why, at, node)
        return Move(why, min(nameable.values())) if nameable else None

    def takes_offers(self, node: NodeName) -> bool:
        """Whether the node claims what is offered to it."""
        return self._successors.takes_offers(node)

    # ------------------------------------------------------------------------------------------------ a better node

    def _take_back(
        self, bundle: Bundle, own: Candidate, tenure: Tenure, places: frozenset[LinkFamily], now: float
    ) -> Move | None:
        before = self._take_backs.get(bundle.id)
        times, last = (before.times, before.since) if before is not None else (0, LONG_AGO)
        healthy_s = self._settings.failback_s if bundle.failback else self._settings.take_back_s
        wait = doubled(healthy_s, times, LONGEST_TAKE_BACK_S)
        soonest: Move | None = None
        for reason, candidate in self._better(bundle, own, places, now):
            able_since = self._successors.able_since(candidate, places, now)
            if able_since is not None:
                regard = tenure.regards.get(candidate.node, UNKNOWN)
                since = max(able_since, regard.fit_since)
                if regard.decided_at >= max(since, tenure.claimed_at):
                    why, at = DECISION, regard.decided_at + PLANS_S
                else:
                    why, at = reason, max(since, last, tenure.claimed_at) + wait
                nameable_at = self._successors.nameable_at(bundle.id, candidate.node)
                move = Move(why, max(at, nameable_at), candidate.node)
                if why == DECISION and nameable_at <= at:
                    return move  # it is the best one: who decides twice at once wants what was decided last
                soonest = move if soonest is None or move.at < soonest.at else soonest
        return soonest

    def _better(
        self, bundle: Bundle, own: Candidate, places: frozenset[LinkFamily], now: float
    ) -> Iterator[tuple[str, Candidate]]:
        """The candidates that should have the bundle rather than this node, the best first, each with the reason. That
        one is Ready and this node is not is none."""
        crowd = self._choosing.spreading.crowd
        here = crowd(own.node, bundle, now)
        behind = False
        fittest = self._choosing.fittest(bundle, places, False, now)
        for candidate in self._choosing.in_order(fittest, bundle, now):
            if candidate is own:
                behind = True
            elif candidate.tier <= own.tier and candidate.ending <= own.ending:
                there = crowd(candidate.node, bundle, now)
                if there != here:
                    if there < here:
                        yield APART, candidate
                elif candidate.preference != own.preference:
                    if candidate.preference > own.preference:
                        yield PREFERENCE, candidate
                elif bundle.failback and candidate.tier == own.tier and not behind:
                    yield FAILBACK, candidate


def _proxied_at(candidate: Candidate, tenure: Tenure) -> float:
    """When a node's kube-proxy knows of the endpoints there, as far as this node saw them come."""
    return tenure.regards.get(candidate.node, UNKNOWN).serving_since + PROXY_S
