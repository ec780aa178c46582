"""Claims what this node should hold, keeps it, withdraws it when a higher claim is heard, and releases it.

A speaker that claims an address keeps it: a live claim beats rank, preference and the opinion of any Plan. A claim ends
in one of four ways:

- The speaker releases it: since the address left the Plan, since none of its links speaks the address's family any
  more, since it steps aside (``moving``), or since it ends.
- A higher claim is heard (``claims.outranks``). The speaker withdraws its own at once and silently. So it does when it
  has named a successor (``handing``) and hears that one claim. When it hears a lower claim it sends its gratuitous
  frames again.
- The record in the API names another node, on a link where not everybody can be heard (``arbitration``).
- The address belongs on other networks altogether than when the claim was made, so that its holders there may not have
  been heard. Or it belongs on interfaces that this node does not have, so that the claim keeps it from others.

How a change runs through the parts:

1. ``bundles`` takes over the Plan, and says what changed.
2. ``owners`` says who owns an address on which link. Who answers for addresses, or watches others do so, asks there.
3. ``claiming`` says which bundles without an owner are this node's to claim now; ``choosing`` says who should have one.
4. ``moving`` says which bundles this node should hand over, and ``handing`` says so to the successor.
5. This module makes the claims, and tells by ``touched`` which addresses to look at.

**Work is bounded.** One call follows 50 bundles of what changed in the Plan or by the links, or judges 100 addresses
of what was heard. ``claiming`` and ``moving`` have bounds of their own. Nothing is claimed before the whole Plan is
followed, since shares are reckoned of the whole.

Not promised: one holder among speakers that do not hear each other.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName
from speaker.plan import Bundle, BundleId, Plan, PlanChange
from speaker.protocol.arbitration import Arbitration, Held, Verdict
from speaker.protocol.bundles import Bundles, Changed
from speaker.protocol.choosing import Choosing
from speaker.protocol.chosen import Chosen
from speaker.protocol.claiming import Claiming, ToClaim
from speaker.protocol.claims import Claim, ClaimLog
from speaker.protocol.conflicts import Conflicts
from speaker.protocol.effects import NeighbourSeen, RecordAnswer, SendGratuitous
from speaker.protocol.foreign import ForeignSpeakers
from speaker.protocol.former import Former
from speaker.protocol.handing import HandOvers
from speaker.protocol.moving import Moving
from speaker.protocol.owners import HIGHEST_EPOCH, Owner, Owners
from speaker.protocol.probes import Probes
from speaker.protocol.roster import Roster
from speaker.protocol.spreading import Spreading
from speaker.protocol.tenure import Tenure

JUDGED_AT_ONCE = 100  # addresses
FOLLOWED_AT_ONCE = 50  # bundles
ABLE_SAID_S = 0.05  # until the others know that this node is able: nobody else claims then what is its turn


class Ownership:
    """Sans-IO. ``release_all`` is final."""

    def __init__(self, roster: Roster, log: ClaimLog, foreign: ForeignSpeakers, rng: random.Random) -> None:
        self.log = log
        self._bundles = Bundles()
        self.owners = Owners(roster, log, self._bundles)
        """Who asks whose an address is, or where it may be answered, asks this."""
        self.touched: dict[AddressText, None] = {}
        """Addresses for which own claims, or where they are answered, may have changed, until the owner of this clears
        it."""
        self._roster = roster
        self.conflicts = Conflicts(roster, self.owners.links_of, log.claims.__contains__)
        self.probes = Probes(roster, self.owners, self.conflicts, foreign)
        self.hand_overs = HandOvers(roster, rng)
        chosen = Chosen()
        spreading = Spreading(self._bundles, self.owners, self.hand_overs, chosen)
        self.choosing = Choosing(roster, log, self._bundles, self.owners, spreading)
        self._arbitration = Arbitration(roster)
        self.degraded: frozenset[LinkName] = frozenset()
        """Links on which somebody cannot be heard, as of the last ``confirm``."""
        self.recorded = Former(roster, self.choosing)
        tables = (roster, self._bundles, self.owners, self.choosing, self.hand_overs)
        self._claiming = Claiming(
            *tables, probes=self.probes, arbitration=self._arbitration, former=self.recorded, chosen=chosen
        )
        self._moving = Moving(*tables, former=self.recorded)
        self._heard: dict[AddressText, str] = {}
        """Still to be judged, and why."""
        self._judge_at = NEVER
        self._former: deque[Bundle] = deque()
        """Bundles as they were, from which conclusions are still to be drawn."""
        self._former_tenures: dict[AddressText, Tenure] = {}
        """Of their addresses: whoever has them now goes on with these."""
        self._to_look_at: dict[BundleId, bool] = {}
        """Bundles that are not what they were, or whose links are not; and whether none of these is on its way."""
        self._follow_at = NEVER
        self._planned = False
        """There was a Plan already."""

    @property
    def bundles(self) -> int:
        """How many there are in the Plan."""
        return len(self._bundles.by_id)

    # ------------------------------------------------------------------------------------------------ inputs

    def set_plan(self, plan: Plan, now: float) -> None:
        """Take over a Plan whole. Claims on addresses that left it are released."""
        self._take_over(self._bundles.set(plan, now), now)

    def change_plan(self, change: PlanChange, now: float) -> None:
        """Take over what changed in the Plan, at the cost of what changed."""
        self._take_over(self._bundles.change(change, now), now)

    def links_changed(self, now: float, *, complete: bool = False) -> None:
        """Links are not what they were; ``complete``, where one is new or renamed, so that none that is lacking is
        merely on its way."""
        self.owners.forget_links()
        self._to_look_at.update(dict.fromkeys(self._bundles.by_id, complete))
        self._follow(now)

    def networks_changed(self, now: float) -> None:
        """What is known of subnets, or where answering is suspended, is not what it was."""
        self.owners.forget_links()
        for id_ in self._bundles.by_id:
            self._to_look_at.setdefault(id_, False)
        self._follow(now)

    def set_able(self, able: bool, now: float) -> None:
        """Whether this node may claim at all: started, and not leaving."""
        if able and self._claiming.able_since is None:
            self._claiming.able_since = now + ABLE_SAID_S
            self._moving.giving.started(now)
            self.wake(now)
        elif not able:
            self._claiming.able_since = None

    def heard(self, addresses: Mapping[AddressText, str], now: float) -> None:
        """Peers' claims on these addresses, or the standing of who made them, changed, and why: judge them."""
        self._heard.update(addresses)
        self._judge(now)

    def offered(self, holders: Mapping[AddressText, NodeName], now: float) -> None:
        """The holders of these addresses name this node as their successor."""
        for address, holder in holders.items():
            bundle = self._bundles.of.get(address)
            if bundle is not None:
                self._claiming.offered(bundle, holder, now)

    def receive_neighbour(
        self, seen: NeighbourSeen, node: NodeName, proves: Callable[[bytes], bool], now: float
    ) -> None:
        """A frame of a node may show that it has taken what was offered to it. ``proves`` tells by a nonce."""
        bundle = self._bundles.of.get(seen.sender)
        if bundle is not None and self.hand_overs.note_answer(bundle.id, seen, node, proves, now):
            self._release_bundle(bundle, f"{node} answers", now)

    def wake(self, now: float) -> None:
        """Something changed that decides who should claim."""
        self._claiming.wake(now)
        self._moving.wake(now)

    def give_up(self, why: str, now: float) -> None:
        """Release every claim."""
        held = self._bundles.having(self.log.claims)
        self._release(list(self.log.claims), why)
        for bundle in held:
            self._claiming.look(bundle, now)

    def discard_answers(self, now: float) -> None:
        """What has arrived was thrown away, perhaps answers to probes."""
        self.probes.discard_answers()
        self.conflicts.discard_answers(now)

    def release_all(self, now: float) -> None:
        """Release every claim and make no other, ever."""
        self._claiming.able_since = None
        self.give_up("leaving", now)

    # ------------------------------------------------------------------------------------------------ the record

    def answer_record(self, answer: RecordAnswer, now: float) -> None:
        """Whose a bundle is, by its record in the API."""
        verdict, bundle = self._arbitration.answered(answer, now), self._bundles.by_id.get(answer.bundle)
        if bundle is None:
            return
        if answer.epoch:
            for address in bundle.addresses:
                self.owners.note_epoch(address, min(answer.epoch, HIGHEST_EPOCH) - 1)
        if verdict is Verdict.RELEASE:
            self._release_bundle(bundle, f"on record with {answer.holder}", now)
        elif verdict is Verdict.REPEAT:
            self._roster.emit(SendGratuitous(tuple(self._claimed(bundle))))
        self._claiming.look(bundle, now)

    def confirm(self, resumed: frozenset[LinkName], now: float) -> None:
        """Ask the record about what this node holds where somebody cannot be heard any more; and about what it answers
        for again, on links that are ``resumed``, where it was away meanwhile."""
        before = self.degraded
        self.degraded = frozenset(name for name, link in self._roster.links.items() if link.blocked)
        for links, keep in ((self.degraded - before, True), (resumed & self.degraded & before, False)):
            for bundle in self._bundles.having(self.log.claims) if links else ():
                if not links.isdisjoint(self.owners.links_of_any(bundle.addresses, now)):
                    self._arbitration.confirm(bundle.id, now, keep=keep)

    def doubt(self, address: AddressText, now: float) -> None:
        """Somebody who is not heard claims an address that this node holds: ask the record."""
        bundle = self._bundles.of.get(address)
        if bundle is not None:
            self._arbitration.confirm(bundle.id, now, keep=False)

    def _held(self, id_: BundleId, now: float) -> Held | None:
        bundle = self._bundles.by_id.get(id_)
        claimed = self._claimed(bundle) if bundle is not None else []
        if bundle is None or not claimed:
            return None
        epoch = max(self.log.claims[address].epoch for address in claimed)
        return Held(bundle, self.owners.links_of_any(bundle.addresses, now), epoch)

    def _release_bundle(self, bundle: Bundle, why: str, now: float) -> None:
        self._release(self._claimed(bundle), why)
        self._claiming.look(bundle, now)

    # ------------------------------------------------------------------------------------------------ following

    def _take_over(self, changed: Changed, now: float) -> None:
        self.probes.enter(changed.bundles, changed.former, first=not self._planned)
        self._planned = True
        for id_ in changed.resumed:
            self._claiming.begin_turns(id_)
        self._former += changed.former
        self._to_look_at.update((bundle.id, True) for bundle in changed.bundles)
        self._follow(now)

    def _follow(self, now: float) -> None:
        """Draw the conclusions for some of what has become another in the Plan or by the links: first what is gone,
        then what there is. Nothing is claimed before all are drawn, since shares are reckoned of the whole."""
        left = FOLLOWED_AT_ONCE
        while self._former and left:
            self._leave_former(self._former.popleft())
            left -= 1
        for id_ in list(islice(self._to_look_at, left)):
            complete, bundle = self._to_look_at.pop(id_), self._bundles.by_id.get(id_)
            if bundle is not None:
                self._look_at(bundle, now, complete=complete)
        if self._former or self._to_look_at:
            self._follow_at = LONG_AGO
        else:
            self._follow_at = NEVER
            self._former_tenures.clear()
            self._moving.wake(now)

    def _leave_former(self, former: Bundle) -> None:
        """A bundle is not in the Plan any more as it was."""
        of = self._bundles.of
        tenure = self._moving.tenures.get(former.id)
        if tenure is not None:
            self._former_tenures.update(dict.fromkeys(former.addresses, tenure))
        gone = [address for address in former.addresses if address not in of]
        self._release([address for address in gone if address in self.log.claims], "left the Plan")
        self._touch(gone)
        for address in gone:
            self.owners.forget(address)
            self.probes.forget(address)
            self.conflicts.forget(address)
        if former.id not in self._bundles.by_id:
            self._claiming.forget(former.id)
            self._moving.forget(former.id)
            self.recorded.forget(former.id)
            self._arbitration.forget(former.id)

    def _look_at(self, bundle: Bundle, now: float, *, complete: bool) -> None:
        """A bundle is not what it was, or its links are not."""
        for address in bundle.addresses:
            self.owners.move(address)
            self.owners.note_epochs(address)
            if address in self.log.claims:
                self.owners.note_epoch(address, self.log.claims[address].epoch)
                if bundle.id not in self._moving.tenures:
                    former = self._former_tenures.get(address)
                    self._moving.tenures[bundle.id] = replace(former) if former else self._tenure(bundle, now)
        self._say_links(bundle, now)
        self._keep_or_give_up(bundle, now, complete=complete)
        self._moving.consider(bundle, now)
        self._claiming.look(bundle, now)
        self._touch(bundle.addresses)

    def _say_links(self, bundle: Bundle, now: float) -> None:
        """Have the claims on a bundle say for which links they are now."""
        links = self.owners.claimed_for(bundle, now)
        for address in self._claimed(bundle):
            claim = self.log.claims[address]
            if links != claim.links:
                self.log.put(address, claim._replace(links=links))

    # ------------------------------------------------------------------------------------------------ own claims

    def _claimed(self, bundle: Bundle) -> list[AddressText]:
        """Those of its addresses that this node claims."""
        return [address for address in bundle.addresses if address in self.log.claims]

    # ------------------------------------------------------------------------------------------------ a restart

    def resume(self, claims: Mapping[AddressText, Claim], now: float) -> list[AddressText]:
        """Claim at the same epochs what this node's former session claimed, as far as the Plan still has it and no
        other node has taken it. Returns what is claimed."""
        resumed: list[AddressText] = []
        bundles: dict[BundleId, Bundle] = {}
        for address, claim in claims.items():
            bundle = self._bundles.of.get(address)
            if bundle is None or address in self.log.claims or self.owners.is_unspoken(address, now):
                continue
            if self.owners.is_of_others(address, self.owners.decisive_links(address, now), self._roster.node):
                continue
            self.log.put(address, claim._replace(links=self.owners.claimed_for(bundle, now)))
            self.owners.note_epoch(address, claim.epoch)
            self.probes.forget(address)
            self._roster.report("Claimed", address=address, epoch=claim.epoch, why="resumed")
            resumed.append(address)
            bundles[bundle.id] = bundle
        for bundle in bundles.values():
            self._moving.claimed(bundle, self._tenure(bundle, now), now)
            self._claiming.look(bundle, now)
        self._touch(resumed)
        return resumed

    # ------------------------------------------------------------------------------------------------ in time

    def next_deadline(self) -> float:
        if self._follow_at < NEVER:
            return self._follow_at
        claiming_at = self._claiming.next_deadline if not self._heard else NEVER
        moves_at = min(self._moving.next_deadline, self.hand_overs.next_deadline)
        parts = (moves_at, self.conflicts.next_deadline, self._arbitration.next_deadline())
        return min(self._judge_at, claiming_at, *parts)

    def handle_timer(self, now: float) -> None:
        """Follow the Plan, and judge what is left to judge; claim what it is this node's turn to claim; step aside
        where that is due."""
        if now >= self._judge_at:
            self._judge(now)
        elif now >= self._follow_at:
            self._follow(now)
        if self._follow_at < NEVER:
            return
        for address in self.conflicts.check(now):
            self.probes.over(address, now)
        if now >= self._arbitration.next_deadline():
            for id_ in self._arbitration.review(partial(self._held, now=now), now):
                self._release_bundle(self._bundles.by_id[id_], "whose it is by the record is not known", now)
        if now >= self._moving.next_deadline:
            self._move(now)
        if now >= self.hand_overs.next_deadline:
            if self.hand_overs.ask_again(now):
                self._claiming.wake(now)
            for id_, node in self.hand_overs.review(now):
                self._moving.offered_in_vain(id_, node, now)
        if now >= self._claiming.next_deadline and not self._heard:  # or who has judged more would choose others
            self._claim_due(now)

    def _move(self, now: float) -> None:
        """Hand over, or release, what should be another node's."""
        if self._claiming.able_since is None:
            self._moving.pause()
            return
        for bundle, move in self._moving.review(now):
            if move.to is not None and self._moving.takes_offers(move.to):
                self.hand_overs.begin(bundle, self._claimed(bundle), move.to, move.why)
                continue
            self._release(self._claimed(bundle), move.why)
            self._moving.released(bundle.id, move.to)
            self._claiming.look(bundle, now)
            self._claiming.wake(now)

    def _claim_due(self, now: float) -> None:
        claimed: list[AddressText] = []
        for due in self._claiming.evaluate(now):
            self._claim(due, now)
            claimed += due.addresses
        if claimed:
            self._roster.emit(SendGratuitous(tuple(claimed)))

    # ------------------------------------------------------------------------------------------------ judging

    def _judge(self, now: float) -> None:
        addresses = {address: self._heard.pop(address) for address in list(islice(self._heard, JUDGED_AT_ONCE))}
        self._judge_at = LONG_AGO if self._heard else NEVER
        lost: dict[NodeName, list[tuple[AddressText, Owner]]] = {}
        kept: list[AddressText] = []
        looked: dict[str, tuple[Bundle, str]] = {}
        for address, why in addresses.items():
            bundle = self._bundles.of.get(address)
            if bundle is not None:
                self.owners.note_epochs(address)
                looked[bundle.id] = bundle, why
                if address in self._roster.claimants:
                    self.probes.forget(address)
                    self.conflicts.withhold_no_more(address)
                    self._moving.taken(bundle.id)
                    self.hand_overs.heard(bundle.id)
                    if bundle.id not in self._moving.tenures:
                        self.recorded.forget(bundle.id)
            if address in self.log.claims:
                winner, some_kept = self.owners.rivals(address, now)
                if winner is not None:
                    lost.setdefault(winner.node, []).append((address, winner))
                elif some_kept:
                    kept.append(address)
                elif (lower := self.owners.lowered(address)) is not None:
                    self.log.put(address, lower)
        for node, theirs in lost.items():
            self._withdraw(theirs, node, now)
        if kept:
            self._roster.emit(SendGratuitous(tuple(kept)))
        for bundle, why in looked.values():
            self._claiming.look(bundle, now, why)
        self._touch(address for address in addresses if address in self.log.claims)
        if looked:
            self._moving.wake(now)

    def _touch(self, addresses: Iterable[AddressText]) -> None:
        self.touched.update(dict.fromkeys(addresses))

    # ------------------------------------------------------------------------------------------------ claiming

    def _tenure(self, bundle: Bundle, now: float) -> Tenure:
        return Tenure(now, self.owners.networks(bundle, now))

    def _claim(self, due: ToClaim, now: float) -> None:
        bundle, addresses, after_ms = due.bundle, due.addresses, int((now - due.since) * 1000)
        tenure = self._tenure(bundle, now)
        alone = self.owners.is_alone(addresses, now)
        epoch = self.owners.next_epoch(bundle, alone, now, above=self.recorded.epoch(bundle))
        if all(self.owners.never_held(address) for address in addresses):
            self._moving.giving.enter(bundle, tenure, now)
        claim = Claim(epoch, due.own.preference, self.owners.claimed_for(bundle, now))
        for address in addresses:
            self.owners.note_epoch(address, epoch)
            self.probes.forget(address)
            self.log.put(address, claim)
            self._roster.report("Claimed", address=address, epoch=epoch, why=due.why, after_ms=after_ms)
        self._moving.claimed(bundle, tenure, now)
        self._touch(addresses)
        self._claiming.look(bundle, now)

    # ------------------------------------------------------------------------------------------------ letting go

    def _keep_or_give_up(self, bundle: Bundle, now: float, *, complete: bool) -> None:
        """A claim on an address whose family this node does not speak any more is given up; the rest of the bundle
        stays, until whoever claims that takes it, too. A claim that was made on other networks altogether is given up:
        its holders there may not have been heard. So is one for interfaces that this node does not have, or has by
        another name, since it keeps the address from others; but not while links go, of which one may be back in a
        moment: when they are ``complete``."""
        unspoken = [address for address in self._claimed(bundle) if self.owners.is_unspoken(address, now)]
        if unspoken:
            self._release(unspoken, "no link speaks its family")
        tenure = self._moving.tenures.get(bundle.id)
        if tenure is None:
            return
        networks = self.owners.networks(bundle, now)
        why = ""
        if networks and tenure.made_on and tenure.made_on.isdisjoint(networks):
            why = "made on another network"
        elif not networks and bundle.interfaces and complete:
            why = "no such interface"
        if why:
            self._release(self._claimed(bundle), why)
        else:
            tenure.made_on |= networks

    def _withdraw(self, lost: list[tuple[AddressText, Owner]], to: NodeName, now: float) -> None:
        for address, winner in lost:
            own = self.log.claims[address]
            self.log.put(address, None)
            theirs = winner.claim.epoch
            self._roster.report("Withdrawn", address=address, to=winner.node, epoch=own.epoch, their_epoch=theirs)
        for id_ in self._close([address for address, _ in lost]):
            self._moving.outclaimed(id_, to, now)

    def _release(self, addresses: list[AddressText], why: str) -> None:
        for address in addresses:
            epoch = self.log.claims[address].epoch
            if address in self._bundles.of:
                self.owners.note_epoch(address, epoch)
            self.log.put(address, None)
            self._roster.report("Released", address=address, epoch=epoch, why=why)
        for id_ in self._close(addresses):
            self._moving.let_go(id_)

    def _close(self, addresses: list[AddressText]) -> list[BundleId]:
        """Returns the bundles of which nothing is claimed any more."""
        self._touch(addresses)
        return [bundle.id for bundle in self._bundles.having(addresses) if not self._claimed(bundle)]
