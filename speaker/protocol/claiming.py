"""Finds the bundles that it is this node's turn to claim.

A bundle is *unowned* while one of its addresses has no owner on some link (``owners``). Each speaker goes through the
unowned bundles in order of id, and asks for each who should have it (``choosing``):

1. The chosen node claims at once.
2. The next able candidate claims 100 ms later, the one after it 200 ms later, and so on. They wait longer by how late
   the chosen node's heartbeats usually are. They wait 400 ms more where nobody has held the bundle yet, since the
   chosen node's Plan may come later.
3. While the chosen node is heard to claim one bundle after the other, its turn goes on, for two seconds at most.

A node that was unable until now counts these times from when it became able, so that a start does not find every delay
expired.

A bundle is claimed whole. Where several nodes hold parts of one for a second, the holder of the highest claim among
them takes the rest by higher claims. Only *its* Plan has to know of the bundle. If others can hold more addresses of
the bundle than that node, as one that speaks both families, one of these takes all, unless that node claims all itself.

A bundle without an endpoint that serves is not claimed, unless it served until lately and was held (``unserved``).

A newly assigned address is claimed once nobody has answered when it was asked for (``probes``).

**Work is bounded.** One call looks at 200 bundles and takes 50 of them at most, and asks to be called again; heartbeats
and answers go out between. A round over all unowned bundles begins when the ability of some node changed, or when a
turn may have come. It rests afterwards in proportion to what it looked at, so that thousands of bundles of others do
not keep this node from its own. What was just found to be unowned is looked at in a round of its own.

Loads are those of the beginning of a round, with what was taken and given since. Two nodes that go through the same
bundles at the same time therefore choose the same for each.

A bundle that its holder *offers* to this node (``handing``) is claimed by a higher claim, if the holder holds it as far
as is known here, and this node is a candidate by its own Plan, and not a worse one than the holder.

Where the whole cluster started, who held a bundle before goes first (``former``).

On a link where somebody cannot be heard the record in the API has to be won first (``arbitration``).

Not promised: that only one node claims. Two that cannot hear each other both do, and then the claims decide.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.plan import Bundle, BundleId, Candidate
from speaker.protocol.arbitration import Arbitration
from speaker.protocol.bundles import Bundles, candidate_of
from speaker.protocol.choosing import Choosing
from speaker.protocol.chosen import Chosen
from speaker.protocol.claims import Claim
from speaker.protocol.former import Former
from speaker.protocol.handing import OFFER_S, HandOvers
from speaker.protocol.owners import Owners
from speaker.protocol.peers import LinkFamily
from speaker.protocol.probes import Probes
from speaker.protocol.roster import Roster

JOIN_WAIT_S = 1.0  # before taking the rest of a bundle from its other holders: their Plans may be about to agree
EVALUATE_GAP_S = 0.01  # between rounds at the least, so that a burst of claims is judged together
LOOKED_AT = 200  # bundles in one call
TAKEN_AT_ONCE = 50  # of these: they are said before others follow, so that whoever is next in rank hears it in time
REST_S = 0.0001  # for each bundle that a round over all looked at, until the next: the round costs about half as much
BUSY_S = 2.0  # for which whoever goes on claiming may take to claim all that it is to


class ToClaim(NamedTuple):
    """A bundle to be claimed now."""

    bundle: Bundle
    own: Candidate
    addresses: tuple[AddressText, ...]
    why: str
    since: float
    """When it came to be without the holder that it is to have, as far as this node knew."""


class _Kind(enum.Enum):
    """Why a bundle is looked at."""

    OFFERED = enum.auto()
    UNOWNED = enum.auto()
    PARTIAL = enum.auto()


class _Round:
    """One look at unowned bundles, in as many calls as it takes."""

    def __init__(
        self,
        unowned: Iterable[BundleId],
        partial: Iterable[BundleId],
        offered: Iterable[BundleId],
        able_since: float,
        loads: dict[NodeName, int],
    ) -> None:
        self.ids = chain(
            ((id_, _Kind.OFFERED) for id_ in sorted(offered)),
            ((id_, _Kind.UNOWNED) for id_ in unowned),
            ((id_, _Kind.PARTIAL) for id_ in sorted(partial)),
        )
        self.able_since = able_since
        self.loads = loads
        """What each node claimed at first, and with it what it has taken or was given since."""
        self.next_at = NEVER
        """When somebody's turn may come."""
        self.looked_at = 0


class Claiming:
    def __init__(
        self,
        roster: Roster,
        bundles: Bundles,
        owners: Owners,
        choosing: Choosing,
        hand_overs: HandOvers,
        *,
        probes: Probes,
        arbitration: Arbitration,
        former: Former,
        chosen: Chosen,
    ) -> None:
        self.able_since: float | None = None
        """Since when this node may claim at all: started, not leaving, with a Plan that is kept up to date."""
        self._roster = roster
        self._bundles = bundles
        self._owners = owners
        self._choosing = choosing
        self._probes = probes
        self._arbitration = arbitration
        self._hand_overs = hand_overs
        self._former = former
        self._unowned: dict[BundleId, float] = {}
        self._partial: dict[BundleId, float] = {}
        self._offered: dict[BundleId, tuple[NodeName, float]] = {}
        """Bundles that their holders offer to this node: who does, and until when."""
        self._reasons: dict[BundleId, str] = {}
        self._round: _Round | None = None
        self._fresh: dict[BundleId, None] = {}
        """Those that no round has looked at since something was found out about them."""
        self._chosen = chosen
        self._goes_on_at = NEVER
        self._fresh_at = NEVER
        self._all_at = NEVER
        """When all is to be looked at."""
        self._gap_until = self._rests_until = LONG_AGO

    # ------------------------------------------------------------------------------------------------ what is unowned

    def look(self, bundle: Bundle, now: float, why: str | None = None) -> None:
        """Keep the lists of bundles without owner and with several; ``why`` a bundle may have none any more."""
        owners = {owner.node if owner is not None else None for owner in self._owners.of_bundle(bundle, now)}
        if None in owners and bundle.candidates:
            self._unowned.setdefault(bundle.id, now)
            if why is not None:
                self._reasons[bundle.id] = why
        else:
            self._unowned.pop(bundle.id, None)
            self._reasons.pop(bundle.id, None)
            self._chosen.forget(bundle.id)
        if len(owners) > 1:
            self._partial.setdefault(bundle.id, now)
        else:
            self._partial.pop(bundle.id, None)
        if self._is_listed(bundle.id):
            self._fresh[bundle.id] = None
            self._fresh_at = min(self._fresh_at, now)

    def offered(self, bundle: Bundle, by: NodeName, now: float) -> None:
        """The holder of a bundle names this node as its successor."""
        self._offered[bundle.id] = by, now + OFFER_S
        self._fresh[bundle.id] = None
        self._fresh_at = min(self._fresh_at, now)

    def _is_listed(self, id_: BundleId) -> bool:
        return id_ in self._unowned or id_ in self._partial or id_ in self._offered

    def forget(self, id_: BundleId) -> None:
        """The bundle is gone."""
        for table in (self._unowned, self._partial, self._offered, self._reasons, self._fresh):
            table.pop(id_, None)
        self._chosen.forget(id_)

    def begin_turns(self, id_: BundleId) -> None:
        """The turns of the bundle's candidates begin anew."""
        self._unowned.pop(id_, None)
        self._reasons.pop(id_, None)

    def wake(self, now: float) -> None:
        """Something changed that decides who should claim, whatever it is."""
        if self._unowned or self._partial:
            self._all_at = min(self._all_at, now)

    @property
    def next_deadline(self) -> float:
        if self._round is not None:
            return self._goes_on_at
        fresh_at = min(self._fresh_at, self._probes.next_deadline)
        return max(self._gap_until, min(fresh_at, max(self._all_at, self._rests_until)))

    # ------------------------------------------------------------------------------------------------ whose turn it is

    def evaluate(self, now: float) -> Iterator[ToClaim]:
        """What is to be claimed now, each to be claimed before the next is asked for."""
        self._choosing.begin()
        for id_ in self._probes.take_due(now):
            if self._is_listed(id_):
                self._fresh[id_], self._fresh_at = None, min(self._fresh_at, now)
        if self.able_since is None:
            self._round, self._fresh_at, self._all_at = None, NEVER, NEVER
            return
        round_ = self._round = self._round or self._new_round(self.able_since, now)
        looked = taken = 0
        turns = {
            _Kind.OFFERED: self._turn_at_offered,
            _Kind.UNOWNED: self._turn_at_unowned,
            _Kind.PARTIAL: self._turn_at_partial,
        }
        for id_, kind in islice(round_.ids, LOOKED_AT):
            looked += 1
            due = turns[kind](id_, round_, now)
            if due is not None:
                yield due
                taken += 1
            if taken == TAKEN_AT_ONCE:
                break
        round_.looked_at += looked
        if looked == LOOKED_AT or taken == TAKEN_AT_ONCE:
            self._goes_on_at = now
            return
        self._round = None
        self._gap_until = now + EVALUATE_GAP_S
        self._all_at = min(self._all_at, round_.next_at)
        self._rests_until = max(self._rests_until, now + REST_S * round_.looked_at)

    def _new_round(self, able_since: float, now: float) -> _Round:
        fresh, self._fresh, self._fresh_at = self._fresh, {}, NEVER
        if now >= max(self._all_at, self._rests_until):
            self._all_at = NEVER
            self._chosen.clear()
            unowned = self._former.first(self._unowned)
            return _Round(unowned, self._partial, self._offered, able_since, self._loads())
        for id_ in fresh:
            self._chosen.forget(id_)
        listed = (self._unowned, self._partial, self._offered)
        unowned, partial, offered = ([id_ for id_ in fresh if id_ in those] for those in listed)
        return _Round(self._former.first(unowned), partial, offered, able_since, self._loads())

    def _loads(self) -> dict[NodeName, int]:
        """What each node claims, and is to claim."""
        return {node: load + self._chosen.addresses(node) for node, load in self._choosing.loads().items()}

    def _turn_at_unowned(self, id_: BundleId, round_: _Round, now: float) -> ToClaim | None:
        bundle = self._bundles.by_id.get(id_)
        if bundle is None or not self._wanted(bundle, now):
            return None
        if id_ not in self._unowned:
            owner = self._leader(bundle, now)
            if owner is not None:
                self._give(owner, bundle, round_)
            return None
        vacant = self._owners.vacant(bundle, now)
        cold = self._owners.is_cold(bundle)
        chosen = self._choosing.choose(bundle, vacant, cold, round_.loads, now)
        begins_at = LONG_AGO
        if cold:
            chosen, begins_at = self._former.turn(bundle, chosen, vacant, round_.able_since, now)
        if chosen is None:
            return None
        own = candidate_of(bundle, self._roster.node)
        mine = own is not None and any(self._roster.may_claim(place.link, now) for place in vacant)
        due = NEVER
        free: tuple[AddressText, ...] = ()
        if mine:
            since = max(self._unowned[id_], round_.able_since, begins_at)
            due = self._turn(bundle, chosen, vacant, since, now)
            if due <= now:
                due = self._permitted_at(bundle, now)
            if due <= now:
                missing = tuple(a for a in bundle.addresses if self._owners_missing(a, now))
                free, due = self._probes.free(missing, now, chosen=chosen.node == self._roster.node), NEVER
        if own is None or not free:
            self._give(chosen.node, bundle, round_)
            self._chosen.choose(bundle, chosen.node)
            round_.next_at = min(round_.next_at, due)
            return None
        self._give(self._roster.node, bundle, round_)
        return ToClaim(bundle, own, free, self._reasons.get(id_) or "unowned", self._unowned[id_])

    def _permitted_at(self, bundle: Bundle, now: float) -> float:
        """When it may be claimed: now, if nobody may hold it whom this node cannot hear, or if the record is this
        node's; otherwise when to look again."""
        links = self._owners.links_of_any(bundle.addresses, now)
        return self._arbitration.due(bundle, links, self._owners.next_epoch(bundle, alone=False, now=now), now)

    def _give(self, node: NodeName, bundle: Bundle, round_: _Round) -> None:
        round_.loads[node] = self._choosing.load_with(node, bundle, round_.loads)
        self._choosing.spreading.put(bundle, node)

    def _turn_at_offered(self, id_: BundleId, round_: _Round, now: float) -> ToClaim | None:
        bundle, offer = self._bundles.by_id.get(id_), self._offered.pop(id_, None)
        if bundle is None or offer is None or not self._wanted(bundle, now):
            return None
        by, until = offer
        own, holder = candidate_of(bundle, self._roster.node), candidate_of(bundle, by)
        if own is None or now >= until or not self._may_claim(bundle, now):
            return None
        if holder is not None and self._is_better(holder, own, bundle, now):
            return None
        theirs = [a for a in bundle.addresses if self._is_owned_by(a, by, now)]
        if not theirs:
            return None
        permitted_at = self._permitted_at(bundle, now)
        if permitted_at > now:
            self._offered[id_] = offer
            round_.next_at = min(round_.next_at, permitted_at)
            return None
        missing = [a for a in bundle.addresses if a not in theirs and self._owners_missing(a, now)]
        self._give(self._roster.node, bundle, round_)
        return ToClaim(bundle, own, (*theirs, *missing), f"handed over by {by}", until - OFFER_S)

    def _is_better(self, holder: Candidate, own: Candidate, bundle: Bundle, now: float) -> bool:
        """Whether the bundle would be given back to its holder, by this node's own Plan."""
        theirs, mine = self._choosing.suits(holder, bundle, now), self._choosing.suits(own, bundle, now)
        if bundle.failback and theirs == mine:
            return bundle.candidates.index(holder) < bundle.candidates.index(own)
        return theirs < mine

    def _turn_at_partial(self, id_: BundleId, round_: _Round, now: float) -> ToClaim | None:
        bundle, since = self._bundles.by_id.get(id_), self._partial.get(id_)
        if bundle is None or since is None or not self._wanted(bundle, now):
            return None
        joins_at = max(since, round_.able_since) + JOIN_WAIT_S
        if joins_at > now:
            round_.next_at = min(round_.next_at, joins_at)
            return None
        own = candidate_of(bundle, self._roster.node)
        if own is None or not self._may_claim(bundle, now) or self._joiner(bundle, round_, now) != self._roster.node:
            return None
        me = self._roster.node
        wanted = tuple(
            a for a in bundle.addresses if self._owners_missing(a, now) or self._owned_by_another(a, me, now)
        )
        permitted_at = self._permitted_at(bundle, now) if wanted else NEVER
        if permitted_at > now:
            round_.next_at = min(round_.next_at, permitted_at)
            return None
        free = self._probes.free(wanted, now, chosen=True)
        if not free:
            return None
        epoch = self._owners.next_epoch(bundle, self._owners.is_alone(free, now), now)
        if not self._owners.would_stay(Claim(epoch, own.preference), bundle, now):
            return None  # what is withdrawn at once would be claimed again at once
        return ToClaim(bundle, own, free, "joined bundle", since)

    def _joiner(self, bundle: Bundle, round_: _Round, now: float) -> NodeName | None:
        """Who takes the rest of a bundle that several hold."""
        leader = self._leader(bundle, now)
        candidate = candidate_of(bundle, leader) if leader is not None else None
        if candidate is None or self._owners.claims_all(candidate.node, bundle):
            return leader  # it may hold the whole where this node does not hear it, and would take it back
        places = self._owners.places_of_any(bundle.addresses, now)
        seen = (self._roster.sighting(candidate.node, place.link) for place in places)
        if any(sighting is not None and sighting.suspicion is not None for sighting in seen):
            return leader  # whether it is able will be known in a moment
        if self._choosing.is_among_the_fittest(candidate, bundle, places, now):
            return leader
        chosen = self._choosing.choose(bundle, places, False, round_.loads, now)
        return chosen.node if chosen is not None else leader

    def _owner_nodes(self, address: AddressText, now: float) -> set[NodeName | None]:
        """Whose the address is at the places that count; None: at some nobody's."""
        owners = (self._owners.owner(address, place.link) for place in self._owners.counts(address, now))
        return {owner.node if owner is not None else None for owner in owners}

    def _owners_missing(self, address: AddressText, now: float) -> bool:
        return None in self._owner_nodes(address, now)

    def _is_owned_by(self, address: AddressText, node: NodeName, now: float) -> bool:
        """Whether a node owns the address somewhere where that counts."""
        return node in self._owner_nodes(address, now)

    def _owned_by_another(self, address: AddressText, me: NodeName, now: float) -> bool:
        return not self._owner_nodes(address, now) <= {None, me}

    def _may_claim(self, bundle: Bundle, now: float) -> bool:
        places = self._owners.places_of_any(bundle.addresses, now)
        return any(self._roster.may_claim(place.link, now) for place in places)

    def _wanted(self, bundle: Bundle, now: float) -> bool:
        """Whether it is to be claimed if nobody is heard to hold it: it serves, or did until lately and was held; and
        nobody has taken it unheard."""
        if self._hand_overs.is_away(bundle.id):
            return False
        return bundle.serving or (self._bundles.unserved.lately(bundle, now) and not self._owners.is_cold(bundle))

    def _turn(
        self,
        bundle: Bundle,
        chosen: Candidate,
        places: frozenset[LinkFamily],
        since: float,
        now: float,
    ) -> float:
        """When this node may claim the bundle, whose turns began, for this node, at ``since``."""
        settings, cold = self._roster.settings, self._owners.is_cold(bundle)
        if bundle.id in self._partial:
            leader = self._leader(bundle, now)
            if leader == self._roster.node:
                return since
            if leader is not None and self._roster.lives(leader, places):
                since += JOIN_WAIT_S  # it is to claim the rest
        if chosen.node == self._roster.node:
            return since
        chosen_since = self._roster.able_since(chosen.node, places, chosen.interfaces)
        if chosen_since is None:
            since += settings.start_wait_s  # it is starting, as everybody is
        else:
            since = max(since, chosen_since)
        delay = settings.rank_delay_s
        since = max(since, min(self._roster.claimed_at(chosen.node), since + BUSY_S))
        since += self._roster.lateness(chosen.node, {place.link for place in places}) + (
            settings.plan_lag_s if cold else 0.0
        )
        if now < since + delay:
            return since + delay
        better = 1
        for candidate in bundle.candidates:
            if candidate.node == self._roster.node:
                break
            if candidate.node != chosen.node and self._choosing.able(candidate, places, cold):
                better += 1
        return since + better * delay

    def _leader(self, bundle: Bundle, now: float) -> NodeName | None:
        """Whose is the highest claim on any of the bundle's addresses."""
        owners = [owner for owner in self._owners.of_bundle(bundle, now) if owner is not None]
        best = max(owners, key=lambda owner: (owner.claim[:2], owner.node), default=None)
        return best.node if best is not None else None
