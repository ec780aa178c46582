"""The promises of the speaker (``docs/ownership.md``), asserted all the while, on each network on its own.

G1  Of two speakers that hear each other there, at most one answers for an address, from D + 0.3 s after the last fault
    on. Who stands in for another one answers as that one: both name the same MAC.
G2  On each side of a partition somebody answers for every address in the Plan that belongs there, from D + 100 ms ×
    (better candidates that cannot + 1) + the probes after the last fault on, where it can be proved that one hears; or
    after the first proof of a lone speaker that took itself for isolated meanwhile. Where nobody at all is heard, 3.5 s
    later; but not on a link that came up less than 41 s ago, whose port a switch may still block. Half a second later,
    where a stand-in was lost with its node; and as late as for an idle node, where frames are lost and a holder died
    before it was heard to be one.
G3  At most one on each side: G1 for every pair of that side. After healing: G1.
G4  Nothing of this needs the API: schedules freeze it.
    While a speaker is starting, an address that nobody is known to have held may wait for it. One whose link has just
    come up is none that can claim, for 1.3 s. An address that belongs on several networks, or for which interfaces are
    named, may wait a second longer: for who holds it on another one to claim the rest.
    And an owner stays: without a fault nobody becomes or ceases to be one. That endpoints vanish and come back is none.
    Who does not come back, and is stood in for no more, is no owner any more.
    A claim of the start is given on to who arrives: once, until nobody has arrived for 30 s. And a bundle goes to a
    higher preference.
    A bundle without an endpoint that serves is promised no new owner, but one in the place of one that is lost, as long
    as somebody there knows by its own Plan that it served lately, and by having heard the owner that it had one.
G5  Nobody claims what a living node answers for, unless that node has just named it as its successor, and whatever else
    is broken: whose claim was heard once is not taken for dead as long as ARP passes between the two from then on (or
    Neighbour Discovery, as the address is asked for), though no datagram does. Parts of a bundle that two hold come
    together; an address of several networks may be taken from who is not on all of them; and a machine that shares its
    name is not told the claims of those who know the other one. Nor is it promised where frames are lost as well, and
    datagrams do not pass or have begun to less than D ago, since two questions are all that D has time for; nor where a
    firewall answers "port unreachable" and frames are late: that, and a question unanswered for 50 ms, is what a dead
    speaker looks like; nor where what is said to the group has just ceased to pass, and frames or speakers are late:
    there is one question, by unicast, in the rest of D; nor where two frames in a row were lost, and the others or
    speakers are late. Who resumes what is answered for in its name claims nothing new.
G6  Nobody answers for an address on a network where it does not belong, who is or was on the one where it does, or
    hears somebody who is.
G8  Nobody answers for an address on an interface that does not speak its family.
G7  Nobody releases an address for a better candidate, and takes it again since that one did not: unless there was a
    fault. (Several who give on at once what they claimed at a start may give more than is taken.)

D is 350 ms as long as nothing has been late in that world, and nobody was taken for dead a moment before it was heard
again. Then it is the largest that any speaker on that side has for any peer that may hold something. A fault is what
``World.fault`` is told, three losses in a row between two hosts included, and a speaker becoming ready. Hearing is
``hearing``'s: what a firewall parts are two sides, but what the one answers for is answered for the other, since ARP
passes; and what the one lets go without being heard the other goes on taking for its, while ARP proves that it lives.

Above fifty holders all these times are longer in proportion (``hearing.pace_of``).

While a member of the cluster lies (``World.lying``) nothing is promised: a member has the key and can say anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.plan import Bundle
from speaker.protocol.effects import Decision
from tests.speaker.protocol.simulation.hearing import Hearing, WhoHearsWhom, family_of, pace_of
from tests.speaker.protocol.simulation.knowledge import Knowledge
from tests.speaker.protocol.simulation.network import SimulatedNetwork, Weather
from tests.speaker.protocol.simulation.world import World

UNATTENDED_S = 0.5
"""For which a speaker that restarts may be without a stand-in, until it is taken for dead (rule 16)."""

CHECK_S = 0.05
CHECKED_NODES = 20  # among more the promises are looked at less often: a look costs as much as there are pairs
DEAF_S = 2.6  # until a speaker that hears nobody knows that: 2.5 intervals of idle peers
PROBES_S = 0.1  # two questions, 50 ms apart
OVERLAP_S = 0.1  # of two answerers, once things are calm: the time that a claim takes to be heard
LOST_S = 0.25  # where frames are lost: until a claim was said three times, an interval apart
SLACK_S = 0.03  # the loops' lateness and the wire's delay, which the promises leave out
SETTLED_S = 2.5  # after it, no owner changes: a provisional claim moves a second after its better candidate is able
NEW_S = 0.4  # more, for an address that nobody has held, where not all know the same of who holds how much
IDLE_S = 2.6  # more, until one is taken for dead that claimed and died before it was heard: it had nothing to say
JOINED_S = 1.0  # for the holder of a part to claim the rest
TAKEN_AGAIN_S = 1.0  # after a release for another: nobody took it
MOVES = {"Offered", "Released"}
OFFERED_S = 1.0  # before a claim: it may be on its way for as long
PREFERRED = {"preference", "decision"}
FOR_ANOTHER = {*PREFERRED, "no candidate any more"}
TOLD_S = 2.0  # of hearing somebody on the address's own subnet, until that is known
BUSY_S = 2.0  # of a node that claims one after the other, until others claim what it might have
DETECTION_S = 0.35  # D, where nothing is late


PROMISES = {
    "G1": "at most one of two speakers that hear each other answers for an address",
    "G2": "somebody answers for every address that is promised one",
    "G4": "an owner stays while nothing happens",
    "G5": "nobody claims what a living node answers for",
    "G6": "nobody answers on a network where the address does not belong",
    "G7": "nobody takes again what it released for another",
    "G8": "nobody answers on an interface that does not speak the address's family",
    "END": "when everything is healed, one node answers for each address, and nobody for any other",
}


class BrokenPromiseError(AssertionError):
    """A promise was not kept; the message has the seed and what happened."""

    def __init__(self, promise: str, what: str, world: World) -> None:
        """``promise``: its short name, as in the list above."""
        super().__init__(f"{promise}: {what} at {world.now:.4f}\n{world.story()}")
        self.promise = promise
        self.what = what
        self.world = world


class Invariants:
    def __init__(self, world: World, *, owners_stay: bool = True) -> None:
        self.world = world
        self.checks = 0
        self._pace = 1.0
        """By how much everything takes longer than usual."""
        self._check_s = CHECK_S * max(1.0, len(world.nodes) / CHECKED_NODES)
        self._punctual = True
        """Whether nothing has been late so far, and no death a false alarm: then D is known without asking anybody."""
        self._buried: dict[tuple[str, object], float] = {}
        """(node, peer) -> when the one took the other for dead."""
        self._owners_stay = owners_stay
        self._hearing = Hearing(world)
        self._doubled: dict[tuple[str, AddressText, str, str], float] = {}
        self._missing: dict[tuple[str, AddressText, frozenset[str]], float] = {}
        self._ready: set[tuple[str, int]] = set()
        self._ready_at = float("-inf")
        self._changes_seen: dict[str, int] = {}
        self._decisions_seen = 0
        self._claimed_at: dict[str, float] = {}
        """When each node claimed anything last."""
        self._misplaced: dict[tuple[str, AddressText, str], float] = {}
        self._released: dict[tuple[str, str], float] = {}
        """(node, address) -> when it was released for another."""
        self._knowledge = Knowledge(world, self._check_s)
        world.clock.after(self._check_s, self._check)

    def _fail(self, promise: str, what: str) -> None:
        raise BrokenPromiseError(promise, what, self.world)

    def _last_fault(self) -> float:
        losses = (network.last_loss_fault for network in self.world.networks)
        return max(self.world.last_fault, self._hearing.unsettled_at, *losses)

    def _check(self) -> None:
        self.checks += 1
        self._pace = pace_of(self.world)
        self._punctual = self._punctual and self._nothing_is_late()
        views, hearing_since = self._hearing.views(), self.world.last_fault
        self._note_ready()
        if self.world.lying:
            self._doubled, self._missing = {}, {}
            self._decisions_seen = len(self.world.decisions)
        else:
            self._check_kept(views, hearing_since)
            self._check_single(views)
            self._check_somebody(views)
            self._check_stays()
            self._check_places(views)
            self._check_families()
        self._knowledge.note(views, self._pace)
        self.world.clock.after(self._check_s, self._check)

    def _nothing_is_late(self) -> bool:
        """Neither frames nor speakers: no loss, no lag, nobody who stands still, and no work that takes time."""
        calm, world = Weather(), self.world
        weathers = [network.weather for network in world.networks]
        frames = all((each.loss, each.straggling, each.delay_s) == (0.0, 0.0, calm.delay_s) for each in weathers)
        return frames and world.work is None and all(node.paused_until is None for node in world.nodes.values())

    def _note_ready(self) -> None:
        for node in self.world.nodes.values():
            key = (node.name, node.sessions)
            if node.protocol is not None and node.protocol.ready and key not in self._ready:
                self._ready.add(key)
                self._ready_at = self.world.now
                self.world.fault(f"{node.name} is ready")

    def detection(self, side: frozenset[str] | set[str]) -> float:
        """D on this side, of the peers that hold or held something."""
        if self._punctual:
            return DETECTION_S * self._pace
        floor = DETECTION_S * self._pace
        for name in side:
            protocol = self.world.nodes[name].protocol
            if protocol is not None:
                floor = max([floor, *(peer.detection_s for peer in protocol.peers() if peer.claims)])
        return floor

    # ---------------------------------------------------------------------------------------------- G1, G3

    def _check_single(self, views: list[WhoHearsWhom]) -> None:
        now = self.world.now
        doubled: dict[tuple[str, AddressText, str, str], float] = {}
        for view in views:
            for address, answerers in view.network.answerers.items():
                if len(answerers) < 2:
                    continue
                named = view.network.named[address]
                for one in answerers:
                    for other in answerers:
                        if one < other and named[one] != named[other] and view.mutual(one, other):
                            key = (view.network.name, address, one, other)
                            since = doubled[key] = self._doubled.get(key, now)
                            grace = self.detection({one, other}) + 0.3 + SLACK_S
                            fault = max(self._last_fault(), view.noticed_at)
                            overlap = (OVERLAP_S + (LOST_S if view.network.weather.loss else 0.0)) * self._pace
                            if now > fault + grace and now - since > overlap:
                                self._fail("G1", f"{address} is answered on {view.network.name} by {one} and {other}")
        self._doubled = doubled

    # ---------------------------------------------------------------------------------------------- G2, G3

    def _proof_takes(self, view: WhoHearsWhom, side: frozenset[str]) -> float | None:
        """How long somebody on that side waits for a proof that it hears, if all others are gone; None: for ever."""
        world = self.world
        if len(side) > 1:
            return 0.0
        (name,) = side
        on_lan = view.network is world.network
        if on_lan and world.has_gateway and view.network.mutual(name, "gateway"):
            return 0.0
        if world.now < view.there[name].came_up_at + world.settings.link_silence_s + 1.0:
            return None
        if len(world.nodes) == 2 and not (world.has_gateway or world.has_client or world.has_met_hosts):
            return 0.0
        return world.settings.alone_s + self.detection(side)

    def _hears_beyond(self, view: WhoHearsWhom, side: frozenset[str]) -> bool:
        return any(not view.hears[name] <= side for name in side)

    def _overheard(self, view: WhoHearsWhom, side: frozenset[str]) -> bool:
        """Whether they hear someone beyond, who cannot hear them: then its claims stand, and nothing is promised. One
        who hears nobody at all does not count, where somebody else proves that it should."""
        for other, heard in view.hears.items():
            arrives = any(other in view.hears[name] | view.strayed[name] for name in side)
            if other not in side and arrives and (heard or len(side) == 1):
                return True
        return False

    def _check_somebody(self, views: list[WhoHearsWhom]) -> None:
        missing: dict[tuple[str, AddressText, frozenset[str]], float] = {}
        for whole in () if self._hearing.unsettled else views:
            if whole.sides() is None:  # one who speaks the one family says of others what it hears in the other one
                continue
            for family in Family:
                view = whole.of(family)
                for side in view.sides() or ():
                    missing.update(self._check_side(view, side, family))
        self._missing = missing

    def _check_side(
        self, view: WhoHearsWhom, side: frozenset[str], family: Family
    ) -> dict[tuple[str, AddressText, frozenset[str]], float]:
        """Which addresses of a family are missing on a side of those that speak it, and since when."""
        missing: dict[tuple[str, AddressText, frozenset[str]], float] = {}
        ready = [name for name in side if self._able(view, name)]
        plans = {seen for name in side if (seen := self.world.nodes[name].plan_seen) >= 0}
        if not ready or len(plans) != 1 or self._overheard(view, side):
            return missing
        takes = self._proof_takes(view, side)
        if takes is None:
            return missing
        for bundle in self.world.plans[plans.pop()][1]:
            missing.update(self._check_bundle(view, side, ready, bundle, family=family, proof_takes=takes))
        return missing

    def _check_bundle(
        self,
        view: WhoHearsWhom,
        side: frozenset[str],
        ready: list[str],
        bundle: Bundle,
        *,
        family: Family,
        proof_takes: float,
    ) -> dict[tuple[str, AddressText, frozenset[str]], float]:
        """Which of its addresses of a family are missing on that side, and since when."""
        missing: dict[tuple[str, AddressText, frozenset[str]], float] = {}
        addresses = [address for address in bundle.addresses if family_of(address) is family]
        answered = {address: self._reached(view.network, address) for address in addresses}
        if not any(
            answerers.isdisjoint(side) and self._is_promised(view.network, side, address)
            for address, answerers in answered.items()
        ):
            return missing
        now = self.world.now
        holds = (n for n in ready if self.world.can_hold(n, view.network, bundle, addresses[0]))
        able = {self.world.nodes[n].known_as for n in holds}
        names = [candidate.node for candidate in bundle.candidates]
        ranks = [rank for rank, name in enumerate(names) if name in able]
        if not ranks:
            return missing
        better = ranks[0]
        if not bundle.serving:
            if not any(
                self.world.nodes[n].known_as in able and self._knowledge.may_replace(view, n, bundle) for n in ready
            ):
                return missing
            better = len(names) - 1  # the first ones may not know
        for address, answerers in answered.items():
            if answerers & side or not self._is_promised(view.network, side, address):
                continue
            if any(all(view.asks(name, owner) for name in ready) for owner in answerers):
                continue
            if self._was_let_go_unheard(view, ready, address):
                continue
            key = (view.network.name, address, side)
            since = missing[key] = self._missing.get(key, now)
            grace = self.world.settings.start_wait_s if len(ready) < len(side) else 0.0
            grace += proof_takes + (DEAF_S * self._pace if self._hears_beyond(view, side) else 0.0)
            joins = len(self.world.networks_of(address)) > 1 or len({family_of(each) for each in bundle.addresses}) > 1
            joins = joins or any(candidate.interfaces for candidate in bundle.candidates)
            grace += JOINED_S * self._pace if joins else 0.0
            if view.network.weather.loss and address not in view.network.answerers:
                grace += NEW_S
            elif view.network.weather.loss and not any(self._knowledge.has_heard(view, n, address) for n in ready):
                grace += IDLE_S * self._pace
            lent_at = self._knowledge.lent_at.get((view.network.name, address), float("-inf"))
            grace += UNATTENDED_S * self._pace if lent_at > self._last_fault() - 2 * self._check_s else 0.0
            grace += self.detection(side) + 0.1 * (better + 1) + PROBES_S + SLACK_S + self._check_s
            begins = max(since, self._proof_came(side), self._listened(view, ready), view.noticed_at)
            if len(side) > 1:
                busy_at = max(self._claimed_at.get(name, begins) for name in side)
                begins = max(begins, min(busy_at, begins + BUSY_S * self._pace))
            if now > max(self._last_fault(), begins) + grace:
                self._fail("G2", f"{address} has no owner on {view.network.name} among {', '.join(sorted(side))}")
        return missing

    def _reached(self, network: SimulatedNetwork, address: AddressText) -> frozenset[str]:
        """Who answers for it with the MAC of a machine that is there: a stand-in may name one that has died."""
        named = network.named.get(address, {})
        if all(name == owner for name, owner in named.items()):
            return network.answerers.get(address, frozenset())
        return frozenset(
            name
            for name, owner in named.items()
            if name == owner or (self.world.nodes[owner].powered and owner not in network.unplugged)
        )

    def _was_let_go_unheard(self, view: WhoHearsWhom, ready: list[str], address: AddressText) -> bool:
        """Whether one who has answered for it lives, as its answers for others prove, and is not heard."""
        owners = {owner for _, what, who in view.network.owner_changes if what == address for owner in who}
        return any(view.asks(name, owner) and owner not in view.hears[name] for name in ready for owner in owners)

    def _is_promised(self, network: SimulatedNetwork, side: frozenset[str], address: AddressText) -> bool:
        """An address of several networks is promised to who can know that they are networks: by hearing somebody,
        but no machine of which nobody can tell whether it is the one that has its name."""
        networks = self.world.networks_of(address)
        if network not in networks:
            return False
        known = {self.world.nodes[name].known_as for name in side - self._hearing.twins}
        return len(networks) == 1 or len(known) > 1

    def _able(self, view: WhoHearsWhom, name: str) -> bool:
        """Whether the node may claim: started, and not listening on a link that has just come up."""
        protocol, interface = self.world.nodes[name].protocol, view.there[name]
        listening = self.world.now < interface.listens_since + self.world.settings.listening_s
        return protocol is not None and protocol.ready and not listening and not interface.refuses

    def _listened(self, view: WhoHearsWhom, ready: list[str]) -> float:
        """When the first of them was able."""
        return min(view.there[name].listens_since for name in ready) + self.world.settings.listening_s

    def _proof_came(self, side: frozenset[str]) -> float:
        """When a lone speaker whose witness's answers were lost heard one: silence counts from then (decision 0010).
        Only once after a fault: who takes itself for isolated again and again breaks G2."""
        last = self._last_fault()
        if len(side) > 1:
            return last
        rejoined: list[float] = []
        for at, name, decision in reversed(self.world.decisions):
            if at <= last:
                break
            if name in side and decision.reason == "Rejoined":
                rejoined.append(at)
        return rejoined[0] if len(rejoined) == 1 else last

    # ---------------------------------------------------------------------------------------------- owners stay

    def _check_stays(self) -> None:
        for network in self.world.networks:
            seen = self._changes_seen.get(network.name, 0)
            changes = network.owner_changes[seen:]
            self._changes_seen[network.name] = len(network.owner_changes)
            if not self._owners_stay:
                continue
            for at, address, _ in changes:
                longest = max(self.detection({name}) for name in self.world.nodes)
                calm = self._last_fault() + DEAF_S * self._pace + max(SETTLED_S * self._pace, longest + self._pace)
                if at > calm and not self._was_given_on(address, at) and not self._may_change(address, at):
                    self._fail("G4", f"the owner of {address} changed without a fault")

    def _was_given_on(self, address: AddressText, at: float) -> bool:
        """Whether a claim of the start moves: while it may, or only now, since its bundle did not serve when its turn
        to move came."""
        moved = 0
        for released, _, decision in reversed(self.world.decisions):
            if released < self._ready_at:
                break
            moved += decision.reason in MOVES and (decision.fields["address"], decision.fields["why"]) == (
                address,
                "provisional",
            )
            moved -= decision.reason == "NotTaken" and decision.fields["address"] == address
        over_at = self._ready_at + self.world.settings.cold_start_s + SETTLED_S * self._pace
        return moved == 1 and at <= max(over_at, self.world.resumed_at + SETTLED_S * self._pace)

    def _may_change(self, address: AddressText, at: float) -> bool:
        return self._was_taken_back(address, at) or any(
            decision.reason == "StandsInNoMore" and decision.fields["why"] != "it is back"
            for _, decision in self._latest(at - DEAF_S * self._pace)
        )

    def _was_taken_back(self, address: AddressText, at: float) -> bool:
        return any(
            decision.reason in MOVES and decision.fields["address"] == address and decision.fields["why"] in PREFERRED
            for _, decision in self._latest(at - DEAF_S * self._pace)
        )

    def _latest(self, since: float) -> Iterator[tuple[float, Decision]]:
        for at, _, decision in reversed(self.world.decisions):
            if at < since:
                return
            yield at, decision

    # ---------------------------------------------------------------------------------------------- G5, G6, G7

    def _check_kept(self, views: list[WhoHearsWhom], hearing_since: float) -> None:
        """``hearing_since``: from when on each hears whom the views say, which is the last fault. A claim of before, a
        moment ago, is not judged by them."""
        decisions = self.world.decisions[self._decisions_seen :]
        self._decisions_seen = len(self.world.decisions)
        for at, name, decision in decisions:
            self._note_false_alarm(at, name, decision)
            if decision.reason == "Released" and decision.fields["why"] in FOR_ANOTHER:
                self._released[name, str(decision.fields["address"])] = at
            if decision.reason == "Claimed":
                self._claimed_at[name] = at
                self._check_promise(at, name, decision)
            joins = decision.reason == "Claimed" and decision.fields["why"] == "joined bundle"
            if decision.reason == "Claimed" and self._was_handed_over(at, name, decision):
                continue
            if at <= hearing_since:
                continue
            if decision.reason == "Claimed" and not joins and name not in self._hearing.twins:
                self._check_claim(views, at, name, decision, hearing_since)

    def _note_false_alarm(self, at: float, name: str, decision: Decision) -> None:
        """A speaker doubles D of a peer that was heard again at once, if the peer says that it never lost this one."""
        if decision.reason == "PeerDead":
            self._buried[name, decision.fields["node"]] = at
        elif decision.reason == "PeerAlive":
            buried_at = self._buried.pop((name, decision.fields["node"]), float("-inf"))
            self._punctual = self._punctual and at > buried_at + DETECTION_S * self._pace

    def _was_handed_over(self, at: float, claimer: str, claim: Decision) -> bool:
        """Whether the holder has offered that to the claimer just now."""
        known_as = self.world.nodes[claimer].known_as
        wanted = {"address": claim.fields["address"], "to": known_as}
        return str(claim.fields["why"]).startswith("handed over by") and any(
            each.reason == "Offered" and wanted.items() <= each.fields.items()
            for _, each in self._latest(at - OFFERED_S * self._pace)
        )

    def _check_promise(self, at: float, name: str, decision: Decision) -> None:
        """Whether the claimer has just released that for another, who did not take it."""
        address = decision.fields["address"]
        released = self._released.pop((name, str(address)), float("-inf"))
        for when, other, each in reversed(self.world.decisions):
            if when < released:
                break
            if other != name and each.reason == "Claimed" and each.fields["address"] == address:
                return  # that was not heard in time
        if at < released + TAKEN_AGAIN_S * self._pace and self._last_fault() < released - TAKEN_AGAIN_S * self._pace:
            self._fail("G7", f"{name} released {decision.fields['address']} for another and claims it again")

    def _check_claim(
        self, views: list[WhoHearsWhom], at: float, claimer: str, decision: Decision, hearing_since: float
    ) -> None:
        address = AddressText(str(decision.fields["address"]))
        networks = self.world.networks_of(address)
        if len(networks) > 1 or len(self._named(claimer, address)) > 1:
            return  # who has the one network may have to take it from who has the other
        for view in views:
            if view.network not in networks or not self._answers_there(claimer, view.network, address):
                continue
            late = self._are_late(view.network)
            lost_at = view.network.twice_lost_at if late else view.network.last_loss_fault
            if at - lost_at < self.detection({claimer}):
                continue
            before = (who for when, what, who in reversed(view.network.owner_changes) if what == address and when < at)
            holders = next(before, frozenset[str]())
            if decision.fields["why"] == "resumed" and claimer in holders:
                continue  # it was answered for in its name all the while
            for holder in holders - {claimer} - self._hearing.twins:
                mutual = view.mutual(claimer, holder) and at >= hearing_since + self.detection({claimer})
                if not mutual and view.network.weather.loss:
                    continue
                if self._has_released(holder, address):
                    continue  # a stand-in has not heard of it yet
                unnoticed = not view.unnoticed.isdisjoint({(claimer, holder), (holder, claimer)})
                if (holder in view.network.rejecting or unnoticed) and late:
                    continue
                detection_s = self.detection({claimer})
                if self._knowledge.should_keep_off(view, claimer, holder, address, at=at, detection_s=detection_s):
                    self._fail("G5", f"{claimer} claims {address}, which {holder} answers for")

    def _has_released(self, holder: str, address: AddressText) -> bool:
        """Whether that is the last thing that the node did with the address."""
        for _, name, decision in reversed(self.world.decisions):
            of_it = name == holder and decision.fields.get("address") == address
            if of_it and decision.reason in {"Claimed", "Released"}:
                return decision.reason == "Released"
        return False

    def _are_late(self, network: SimulatedNetwork) -> bool:
        """Whether the answer to a question may take longer than 50 ms."""
        return bool(network.weather.straggling or self.world.work is not None)

    def _named(self, name: str, address: AddressText) -> frozenset[LinkName]:
        """The interfaces on which alone a node is to answer, whatever their subnets; empty: none are named."""
        node = self.world.nodes[name]
        bundles = (each for each in self.world.plans[node.plan_seen][1] if address in each.addresses)
        candidates = (each for bundle in bundles for each in bundle.candidates if each.node == node.known_as)
        return frozenset(link for candidate in candidates for link in candidate.interfaces)

    def _answers_there(self, name: str, network: SimulatedNetwork, address: AddressText) -> bool:
        named = self._named(name, address)
        return not named or any(interface.name in named for interface in self.world.nodes[name].on(network))

    def _check_families(self) -> None:
        for node in self.world.nodes.values():
            for interface in node.interfaces:
                for address in interface.answers if node.works else ():
                    if family_of(address) not in interface.known_families:
                        self._fail("G8", f"{node.name} answers for {address} on {interface.name}")

    def _check_places(self, views: list[WhoHearsWhom]) -> None:
        if len(views) == 1:
            return
        misplaced: dict[tuple[str, AddressText, str], float] = {}
        for view in views:
            for address, answerers in view.network.answerers.items():
                place = next((each for each in views if each.network.has(address)), view)
                if place is view or not answerers:
                    continue
                family = family_of(address)
                own = place.of(family)
                for name in answerers:
                    if self._named(view.network.named[address].get(name, name), address):
                        continue
                    interfaces = self.world.nodes[name].interfaces
                    known = [x for x in interfaces if x.network is own.network and family in x.families]
                    told = any(view.mutual(name, other) for other in own.there if other not in self._hearing.twins)
                    if any(each.was_known for each in known) or told:
                        key = (view.network.name, address, name)
                        since = misplaced[key] = self._misplaced.get(key, self.world.now)
                        if self.world.now - since > TOLD_S * self._pace:
                            self._fail("G6", f"{address} is answered on {view.network.name} by {name}")
        self._misplaced = misplaced
