"""Plan + membership + own claims + now -> claim, hold, withdraw.

**Hold.** Whoever claims an address keeps it: a live claim beats rank, preference and opinion. It ends by release, by
the address leaving the Plan, or by a higher claim (``claims.outranks``), on hearing which the holder withdraws at once
and silently; on hearing a lower one it repeats its frames.

**Claim.** A bundle with an address that no live claim covers is *unowned*. Unowned bundles are taken in order of id,
and for each the first equally suited able candidate is chosen whose claims, plus those just given, stay below 1.25 ×
its fair share. The chosen one claims at once, the next able candidate 100 ms later, and so on, each with an epoch above
all that was heard. Who was unable until now counts from then, so that a start does not find every delay expired.

**A bundle is claimed whole.** Where several nodes hold parts of one bundle, the holder of the highest claim among them
takes the rest by higher claims, once this has lasted for a second; that needs only *its* Plan to know of the bundle.

**Without an endpoint that serves** a bundle is not claimed. One that is held stays where it is for as long as
``unserved`` says; if its holder dies meanwhile it is taken over, and afterwards the holder releases it.

**Stepping aside** is how a holder moves a bundle: it releases, and the better candidate, whose turn it is, claims; if
that one does not, the former holder claims again after its rank's delay. A holder steps aside when it is no candidate
any more but an able one exists, when a claim made at a cold start is provisional and the better candidate arrives
within 120 s, and for a higher preference after 60 s of that node's health, doubling each time. Only the holder starts
a move, by its own Plan, so two Plans cannot fight.

**Links.** An address is answered on its bundle's interfaces (all, if it names none), and of those only on the ones
with a prefix that contains it, if any has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from cluster.objects import AddressText, NodeName
from speaker.claims import Claim, ClaimLog, outranks
from speaker.effects import Announce
from speaker.plan import Bundle, BundleId, Candidate, LinkName, Plan
from speaker.roster import Roster
from speaker.subnets import Subnets
from speaker.unserved import Unserved

LOAD_BOUND = 1.25
JOIN_WAIT_S = 1.0  # before taking the rest of a bundle from its other holders: their Plans may be about to agree
MISFIT_WAIT_S = 0.3  # before stepping aside as no candidate: the successor's Plan may lag
STEADY_S = 1.0  # ability of a successor before a provisional claim moves to it
REVIEW_S = 1.0  # between looks at claims that may have a better holder
EVALUATE_GAP_S = 0.01  # between evaluations at the least, so that a burst of claims is judged together
EVALUATE_EACH_S = 0.00002  # and for each unowned bundle: an evaluation looks at all of them
LONGEST_GAP_S = 0.1
LONGEST_TAKE_BACK_S = 3600.0
NEVER = float("inf")


@dataclass(slots=True)
class Tenure:
    """What this node remembers about a bundle that it holds."""

    claimed_at: float
    awaited: frozenset[NodeName] = frozenset()
    """Better candidates that were absent from a claim at a cold start: it is provisional."""
    misfit_since: float | None = None


class Ownership:
    """Sans-IO. ``release_all`` is final."""

    def __init__(self, roster: Roster, log: ClaimLog) -> None:
        self.node = roster.node
        self.log = log
        self.changed = True
        """Own claims, or the links of one, changed since the owner of this last cleared it."""
        self._settings = roster.settings
        self._roster = roster
        self._plan: Plan | None = None
        self._bundles: dict[BundleId, Bundle] = {}
        self._bundle_of: dict[AddressText, Bundle] = {}
        self._unserved = Unserved()
        self._total = 0
        self._subnets = Subnets(roster)
        self._subnets_differ = False
        self._links_of: dict[AddressText, frozenset[LinkName]] = {}
        self._epochs: dict[AddressText, int] = {}
        self._unowned: dict[BundleId, float] = {}
        self._reasons: dict[BundleId, str] = {}
        self._partial: dict[BundleId, float] = {}
        self._tenures: dict[BundleId, Tenure] = {}
        self._take_backs: dict[BundleId, int] = {}
        self._ability: dict[tuple[NodeName, frozenset[LinkName], bool], bool] = {}
        self._able_at: float | None = None
        self._started_at = NEVER
        self._leaving = False
        self._evaluate_at = NEVER
        self._next_evaluation = float("-inf")
        self._review_at = NEVER

    # ------------------------------------------------------------------------------------------------ inputs

    def set_plan(self, plan: Plan, now: float) -> None:
        """Take over a Plan whole. Claims on addresses that left it are released."""
        self._plan = plan
        former = self._bundles
        idle = [id_ for id_ in self._unowned if not self._wanted(former[id_], now)]
        self._unserved.set_plan(self._bundle_of, plan.bundles, now)
        self._bundles = {bundle.id: bundle for bundle in sorted(plan.bundles, key=lambda bundle: bundle.id)}
        self._bundle_of = {address: bundle for bundle in self._bundles.values() for address in bundle.addresses}
        self._total = sum(len(bundle.addresses) for bundle in plan.bundles if self._unserved.may_be_held(bundle, now))
        gone = [address for address in self.log.claims if address not in self._bundle_of]
        if gone:
            self._release(gone, "left the Plan")
        for id_ in [id_ for id_ in self._take_backs if id_ not in self._bundles]:
            del self._take_backs[id_]
        self._tenures = {
            self._bundle_of[address].id: self._tenures.get(self._bundle_of[address].id) or Tenure(now)
            for address in self.log.claims
        }
        for table in (self._unowned, self._partial, self._reasons):
            for id_ in [id_ for id_ in table if id_ not in self._bundles]:
                del table[id_]
        for id_ in idle:
            if id_ in self._bundles and self._bundles[id_].serving:  # its turns begin now
                self._unowned.pop(id_, None)
                self._reasons.pop(id_, None)
        self._epochs = {
            address: epoch
            for address, epoch in self._epochs.items()
            if address in self._bundle_of or address in self._roster.claimants
        }
        for id_, bundle in self._bundles.items():
            before = former.get(id_)
            if before is None or before is not bundle:
                for address in bundle.addresses:
                    self._links_of.pop(address, None)
                self._look(bundle, now)
        self._links_of = {a: links for a, links in self._links_of.items() if a in self._bundle_of}
        self.changed = True
        self.wake(now)

    def links_changed(self, now: float) -> None:
        """Links, or their prefixes, are not what they were."""
        self._links_of.clear()
        for bundle in self._bundles.values():
            self._look(bundle, now)
        self.changed = True
        self.wake(now)

    def set_able(self, able: bool, now: float) -> None:
        """Whether this node may claim at all: started, and not leaving."""
        if able and self._able_at is None:
            self._able_at = now
            self._started_at = min(self._started_at, now)
            self.wake(now)
        elif not able:
            self._able_at = None

    def heard(self, addresses: Mapping[AddressText, str], now: float) -> None:
        """Peers' claims on these addresses, or the standing of who made them, changed, and why: judge them."""
        lost: dict[NodeName, list[AddressText]] = {}
        kept: list[AddressText] = []
        looked: dict[BundleId, str] = {}
        for address, why in addresses.items():
            self._note_epochs(address)
            own = self.log.claims.get(address)
            rival = self._rival(address)
            if own is not None and rival is not None:
                if outranks(rival[1], rival[0], own, self.node):
                    lost.setdefault(rival[0], []).append(address)
                else:
                    kept.append(address)
            bundle = self._bundle_of.get(address)
            if bundle is not None:
                looked[bundle.id] = why
        for winner, theirs in lost.items():
            self._withdraw(winner, theirs)
        if kept:
            self._roster.emit(Announce(tuple(kept)))
        for id_, why in looked.items():
            self._look(self._bundles[id_], now)
            if id_ in self._unowned:
                self._reasons[id_] = why
        if looked:
            self.wake(now)

    def wake(self, now: float) -> None:
        """Something changed that decides who should claim."""
        if self._unowned or self._partial:
            self._evaluate_at = min(self._evaluate_at, max(now, self._next_evaluation))
        if self.log.claims:
            self._review_at = min(self._review_at, now + REVIEW_S)

    def release_all(self) -> None:
        """Release every claim and make no other, ever."""
        self._leaving = True
        self._able_at = None
        self._release(list(self.log.claims), "leaving")

    # ------------------------------------------------------------------------------------------------ answers

    def links_of(self, address: AddressText) -> frozenset[LinkName]:
        """Where the address may be answered."""
        links = self._links_of.get(address)
        if links is None:
            bundle = self._bundle_of.get(address)
            links = self._subnets.links(address, bundle.interfaces if bundle is not None else ())
            if bundle is not None:
                self._links_of[address] = links
        return links

    def next_deadline(self) -> float:
        return min(self._evaluate_at, self._review_at)

    def handle_timer(self, now: float) -> None:
        """Claim what it is this node's turn to claim; step aside where that is due."""
        if now >= self._review_at:
            self._review(now)
        if now >= self._evaluate_at:
            self._evaluate(now)

    # ------------------------------------------------------------------------------------------------ who holds what

    def _note_epochs(self, address: AddressText) -> None:
        for node in self._roster.claimants.get(address, ()):
            claim = self._roster.peers[node].mirror.claims[address]
            self._epochs[address] = max(claim.epoch, self._epochs.get(address, 0))

    def _rival(self, address: AddressText) -> tuple[NodeName, Claim] | None:
        """The highest live claim of another node."""
        best: tuple[NodeName, Claim] | None = None
        for node in self._roster.claimants.get(address, ()):
            if not self._roster.hears(node, self.links_of(address)):
                continue
            claim = self._roster.peers[node].mirror.claims[address]
            if best is None or outranks(claim, node, best[1], best[0]):
                best = node, claim
        return best

    def _owner(self, address: AddressText) -> tuple[NodeName, Claim] | None:
        rival = self._rival(address)
        own = self.log.claims.get(address)
        if own is None:
            return rival
        if rival is not None and outranks(rival[1], rival[0], own, self.node):
            return rival
        return self.node, own

    def _look(self, bundle: Bundle, now: float) -> None:
        """Keep the lists of bundles without owner and with several."""
        owners = {owner[0] if (owner := self._owner(address)) else None for address in bundle.addresses}
        if None in owners and bundle.candidates:
            self._unowned.setdefault(bundle.id, now)
        else:
            self._unowned.pop(bundle.id, None)
            self._reasons.pop(bundle.id, None)
        if len(owners) > 1:
            self._partial.setdefault(bundle.id, now)
        else:
            self._partial.pop(bundle.id, None)

    # ------------------------------------------------------------------------------------------------ claiming

    def _wanted(self, bundle: Bundle, now: float) -> bool:
        """Whether it is to be claimed if nobody holds it: it serves, or did until lately and was held."""
        return bundle.serving or (self._unserved.lately(bundle, now) and not self._is_cold(bundle))

    def _able(self, candidate: Candidate, links: frozenset[LinkName], cold: bool = False) -> bool:
        if candidate.node == self.node:
            return not self._leaving
        key = candidate.node, links, cold
        able = self._ability.get(key)
        if able is None:
            able = self._roster.able_since(candidate.node, links, starting=cold) is not None
            self._ability[key] = able
        return able

    def _load(self, node: NodeName) -> int:
        if node == self.node:
            return len(self.log.claims)
        peer = self._roster.peers.get(node)
        return len(peer.mirror.claims) if peer is not None else 0

    def _choose(
        self, bundle: Bundle, links: frozenset[LinkName], cold: bool, given: dict[NodeName, int]
    ) -> Candidate | None:
        """The first equally suited able candidate whose load stays below its bound; the first able one if none is.
        Only those on the address's own subnet count, if an able one is (as heartbeats say)."""
        near = self._near(bundle, links, cold)
        least_bound = ceil(LOAD_BOUND * self._total / max(len(bundle.candidates), 1))
        equals: list[Candidate] = []
        for candidate in near:
            if equals and (candidate.tier, candidate.preference) != (equals[0].tier, equals[0].preference):
                break
            if self._able(candidate, links, cold):
                if not equals and self._load_with(candidate, bundle, given) <= least_bound:
                    return candidate  # whatever its fair share is, as most are: spares looking at all the others
                equals.append(candidate)
        if len(equals) < 2:
            return equals[0] if equals else None
        bound = ceil(LOAD_BOUND * self._total / len(equals))
        for candidate in equals:
            if self._load_with(candidate, bundle, given) <= bound:
                return candidate
        return equals[0]

    def _near(self, bundle: Bundle, links: frozenset[LinkName], cold: bool) -> Sequence[Candidate]:
        if not self._subnets_differ:
            return bundle.candidates
        near = [
            candidate
            for candidate in bundle.candidates
            if self._able(candidate, links, cold) and self._subnets.has(candidate.node, bundle.addresses[0])
        ]
        return near or bundle.candidates

    def _load_with(self, candidate: Candidate, bundle: Bundle, given: dict[NodeName, int]) -> int:
        return self._load(candidate.node) + given.get(candidate.node, 0) + len(bundle.addresses)

    def _evaluate(self, now: float) -> None:
        self._next_evaluation = now + min(EVALUATE_GAP_S + len(self._unowned) * EVALUATE_EACH_S, LONGEST_GAP_S)
        self._evaluate_at = NEVER
        self._ability.clear()
        if self._plan is None or self._able_at is None:
            return
        self._subnets_differ = self._subnets.differ()
        waits = [NEVER]
        given: dict[NodeName, int] = {}
        usable = {link for link in self._roster.links if self._roster.may_claim(link)}
        claimed: list[AddressText] = []
        for id_ in sorted(self._unowned):
            bundle = self._bundles[id_]
            if not self._wanted(bundle, now):
                continue
            links = self.links_of(bundle.addresses[0])
            chosen = self._choose(bundle, links, self._is_cold(bundle), given)
            if chosen is None:
                continue
            given[chosen.node] = given.get(chosen.node, 0) + len(bundle.addresses)
            own = next((c for c in bundle.candidates if c.node == self.node), None)
            if own is None or usable.isdisjoint(links):
                continue
            due = self._turn(bundle, chosen, self._able_at, now)
            if due > now:
                waits.append(due)
                continue
            claimed += self._claim(bundle, own, links, now)
            given[chosen.node] -= len(bundle.addresses)
        for id_, since in sorted(self._partial.items()):
            bundle = self._bundles[id_]
            if not self._wanted(bundle, now):
                continue
            if since + JOIN_WAIT_S > now:
                waits.append(since + JOIN_WAIT_S)
            elif not usable.isdisjoint(self.links_of(bundle.addresses[0])) and self._leads(bundle):
                own = next((c for c in bundle.candidates if c.node == self.node), None)
                if own is not None:
                    claimed += self._claim(bundle, own, self.links_of(bundle.addresses[0]), now, "joined bundle")
        if claimed:
            self._roster.emit(Announce(tuple(claimed)))
        self._evaluate_at = min(waits)

    def _turn(self, bundle: Bundle, chosen: Candidate, able_at: float, now: float) -> float:
        """When this node, able since ``able_at``, may claim the bundle."""
        links, cold = self.links_of(bundle.addresses[0]), self._is_cold(bundle)
        since = max(self._unowned[bundle.id], able_at)
        if bundle.id in self._partial:
            if self._leads(bundle):
                return since
            since += JOIN_WAIT_S  # the leader is to claim the rest
        if chosen.node == self.node:
            return since
        chosen_since = self._roster.able_since(chosen.node, links)
        if chosen_since is None:
            since += self._settings.start_wait_s  # it is starting, as everybody is
        else:
            since = max(since, chosen_since)
        delay = self._settings.rank_delay_s
        if now < since + delay:
            return since + delay
        better = 1
        for candidate in bundle.candidates:
            if candidate.node == self.node:
                break
            if candidate.node != chosen.node and self._able(candidate, links, cold):
                better += 1
        return since + better * delay

    def _is_cold(self, bundle: Bundle) -> bool:
        """Whether nobody is known to have held any of it."""
        return all(address not in self._epochs for address in bundle.addresses)

    def _leads(self, bundle: Bundle) -> bool:
        """Whether the highest claim on any of the bundle's addresses is this node's."""
        owners = [owner for address in bundle.addresses if (owner := self._owner(address)) is not None]
        return bool(owners) and max(owners, key=lambda owner: (owner[1], owner[0]))[0] == self.node

    def _claim(
        self, bundle: Bundle, own: Candidate, links: frozenset[LinkName], now: float, why: str | None = None
    ) -> list[AddressText]:
        wanted = [
            address
            for address in bundle.addresses
            if (owner := self._owner(address)) is None or (why is not None and owner[0] != self.node)
        ]
        awaited: frozenset[NodeName] = frozenset()
        if self._is_cold(bundle) and now - self._started_at < self._settings.cold_start_s:
            better = bundle.candidates[: bundle.candidates.index(own)]
            awaited = frozenset(candidate.node for candidate in better if not self._able(candidate, links))
        epoch = 1 + max((self._epochs.get(address, 0) for address in bundle.addresses), default=0)
        for address in wanted:
            self._epochs[address] = epoch
            self.log.put(address, Claim(epoch, own.preference))
            reason = why or self._reasons.get(bundle.id) or "unowned"
            self._roster.report("Claimed", address=address, epoch=epoch, why=reason)
        self._tenures.setdefault(bundle.id, Tenure(now, awaited))
        self.changed = True
        self._look(bundle, now)
        self._review_at = min(self._review_at, now + REVIEW_S)
        return wanted

    # ------------------------------------------------------------------------------------------------ letting go

    def _withdraw(self, winner: NodeName, addresses: list[AddressText]) -> None:
        for address in addresses:
            own = self.log.claims[address]
            self.log.put(address, None)
            rival = self._rival(address)
            epoch = rival[1].epoch if rival is not None else 0
            self._roster.report("Withdrawn", address=address, to=winner, epoch=own.epoch, their_epoch=epoch)
        self._close(addresses)

    def _release(self, addresses: list[AddressText], why: str) -> None:
        for address in addresses:
            epoch = self.log.claims[address].epoch
            self._epochs[address] = max(epoch, self._epochs.get(address, 0))
            self.log.put(address, None)
            self._roster.report("Released", address=address, epoch=epoch, why=why)
        self._close(addresses)

    def _close(self, addresses: list[AddressText]) -> None:
        for address in addresses:
            bundle = self._bundle_of.get(address)
            if bundle is not None and not any(other in self.log.claims for other in bundle.addresses):
                self._tenures.pop(bundle.id, None)
        if addresses:
            self.changed = True

    def _review(self, now: float) -> None:
        """Step aside where this node's own Plan has a better holder; release what has not served for long."""
        self._review_at = NEVER
        self._ability.clear()
        if self._able_at is None:
            return
        for id_, tenure in list(self._tenures.items()):
            bundle = self._bundles.get(id_)
            best = bundle.candidates[0].node if bundle is not None and bundle.candidates else self.node
            if bundle is None or (bundle.serving and best == self.node):
                tenure.misfit_since = None
                continue
            links = self.links_of(bundle.addresses[0])
            why, due = self._reason_to_move(bundle, tenure, links, now)
            if why is not None and due <= now:
                self._release([address for address in bundle.addresses if address in self.log.claims], why)
                if why == "preference":
                    self._take_backs[id_] = self._take_backs.get(id_, 0) + 1
                self._look(bundle, now)
                self.wake(now)
            elif due < NEVER:
                self._review_at = min(self._review_at, max(due, now + MISFIT_WAIT_S))

    def _reason_to_move(
        self, bundle: Bundle, tenure: Tenure, links: frozenset[LinkName], now: float
    ) -> tuple[str | None, float]:
        """Why the bundle should move, and from when on; or that nothing is to be expected before a change."""
        if not bundle.serving:
            tenure.misfit_since = None
            return "no endpoint serves", self._unserved.release_at(bundle)
        own = next((c for c in bundle.candidates if c.node == self.node), None)
        if own is None:
            if not any(self._able(candidate, links) for candidate in bundle.candidates):
                tenure.misfit_since = None
                return None, NEVER
            tenure.misfit_since = now if tenure.misfit_since is None else tenure.misfit_since
            return "no candidate any more", tenure.misfit_since + MISFIT_WAIT_S
        tenure.misfit_since = None
        provisional_until = tenure.claimed_at + self._settings.provisional_s
        soonest = NEVER
        if tenure.awaited and now < provisional_until:
            chosen = self._choose(bundle, links, False, {})
            if chosen is not None and chosen.node in tenure.awaited:
                able_since = self._roster.able_since(chosen.node, links)
                if able_since is not None:
                    return "provisional", able_since + STEADY_S
        wait = min(self._settings.take_back_s * 2 ** self._take_backs.get(bundle.id, 0), LONGEST_TAKE_BACK_S)
        for candidate in bundle.candidates[: bundle.candidates.index(own)]:
            if candidate.preference > own.preference and candidate.tier <= own.tier:
                able_since = self._roster.able_since(candidate.node, links)
                if able_since is not None:
                    soonest = min(soonest, able_since + wait)
        return ("preference", soonest) if soonest < NEVER else (None, NEVER)
