"""Asserts the promises of the speaker (``promises``) all the while: what there is, and who answers. Who takes an
address from whom is judged in ``taking``."""

from __future__ import annotations

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.plan import Bundle
from tests.speaker.protocol.simulation.course import Course
from tests.speaker.protocol.simulation.hearing import Hearing, WhoHearsWhom, family_of
from tests.speaker.protocol.simulation.knowledge import Knowledge
from tests.speaker.protocol.simulation.network import SimulatedNetwork
from tests.speaker.protocol.simulation.promises import BrokenPromiseError
from tests.speaker.protocol.simulation.taking import PREFERRED, Taking
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
MOVES = {"Offered", "Released"}
TOLD_S = 2.0  # of hearing somebody on the address's own subnet, until that is known
BUSY_S = 2.0  # of a node that claims one after the other, until others claim what it might have


class Invariants:
    def __init__(self, world: World, *, owners_stay: bool = True) -> None:
        self.world = world
        self.checks = 0
        self._check_s = CHECK_S * max(1.0, len(world.nodes) / CHECKED_NODES)
        self._owners_stay = owners_stay
        self._hearing = Hearing(world)
        self._course = Course(world, self._hearing)
        self._doubled: dict[tuple[str, AddressText, str, str], float] = {}
        self._missing: dict[tuple[str, AddressText, frozenset[str]], float] = {}
        self._ready: set[tuple[str, int]] = set()
        self._ready_at = float("-inf")
        self._changes_seen: dict[str, int] = {}
        self._misplaced: dict[tuple[str, AddressText, str], float] = {}
        self._knowledge = Knowledge(world, self._check_s)
        self._taking = Taking(world, self._course, self._hearing, self._knowledge)
        world.clock.after(self._check_s, self._check)

    def _check(self) -> None:
        self.checks += 1
        self._course.look()
        views, hearing_since = self._hearing.views(), self.world.last_fault
        self._note_ready()
        if self.world.lying:
            self._doubled, self._missing = {}, {}
            self._taking.skip()
        else:
            self._taking.check(views, hearing_since)
            self._check_single(views)
            self._check_somebody(views)
            self._check_stays()
            self._check_places(views)
            self._check_families()
        self._knowledge.note(views, self._course.pace)
        self.world.clock.after(self._check_s, self._check)

    def _note_ready(self) -> None:
        for node in self.world.nodes.values():
            key = (node.name, node.sessions)
            if node.protocol is not None and node.protocol.ready and key not in self._ready:
                self._ready.add(key)
                self._ready_at = self.world.now
                self.world.fault(f"{node.name} is ready")

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
                            grace = self._course.detection({one, other}) + 0.3 + SLACK_S
                            fault = max(self._course.last_fault(), view.noticed_at)
                            overlap = (OVERLAP_S + (LOST_S if view.network.weather.loss else 0.0)) * self._course.pace
                            if now > fault + grace and now - since > overlap:
                                raise BrokenPromiseError(
                                    "G1",
                                    f"{address} is answered on {view.network.name} by {one} and {other}",
                                    self.world,
                                )
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
        return world.settings.alone_s + self._course.detection(side)

    def _hears_beyond(self, view: WhoHearsWhom, side: frozenset[str]) -> bool:
        return any(not view.hears[name] <= side for name in side)

    def _overheard(self, view: WhoHearsWhom, side: frozenset[str]) -> bool:
        """Whether they hear someone beyond, who cannot hear them: then its claims stand, and nothing is promised. One
        who hears nobody at all does not count, where a peer proves that it should: a machine of the same name is
        none."""
        alone = len({self.world.nodes[name].known_as for name in side}) == 1
        for other, heard in view.hears.items():
            arrives = any(other in view.hears[name] | view.strayed[name] for name in side)
            if other not in side and arrives and (heard or alone):
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
            answerers.isdisjoint(side) and self._is_promised(view.network, side, address, bundle)
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
            if answerers & side or not self._is_promised(view.network, side, address, bundle):
                continue
            if any(all(view.asks(name, owner) for name in ready) for owner in answerers):
                continue
            if self._was_let_go_unheard(view, ready, address):
                continue
            key = (view.network.name, address, side)
            since = missing[key] = self._missing.get(key, now)
            grace = self.world.settings.start_wait_s if len(ready) < len(side) else 0.0
            grace += proof_takes + (DEAF_S * self._course.pace if self._hears_beyond(view, side) else 0.0)
            joins = len(self.world.networks_of(address)) > 1 or len({family_of(each) for each in bundle.addresses}) > 1
            joins = joins or any(candidate.interfaces for candidate in bundle.candidates)
            grace += JOINED_S * self._course.pace if joins else 0.0
            if view.network.weather.loss and address not in view.network.answerers:
                grace += NEW_S * self._course.pace
            elif view.network.weather.loss and not any(self._knowledge.has_heard(view, n, address) for n in ready):
                grace += IDLE_S * self._course.pace
            lent_at = self._knowledge.lent_at.get((view.network.name, address), float("-inf"))
            grace += (
                UNATTENDED_S * self._course.pace if lent_at > self._course.last_fault() - 2 * self._check_s else 0.0
            )
            grace += self._course.detection(side) + 0.1 * (better + 1) + PROBES_S + SLACK_S + self._check_s
            begins = max(since, self._proof_came(side), self._listened(view, ready), view.noticed_at)
            if len(side) > 1:
                busy_at = max(self._taking.claimed_at.get(name, begins) for name in side)
                begins = max(begins, min(busy_at, begins + BUSY_S * self._course.pace))
            if now > max(self._course.last_fault(), begins) + grace:
                raise BrokenPromiseError(
                    "G2", f"{address} has no owner on {view.network.name} among {', '.join(sorted(side))}", self.world
                )
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

    def _is_promised(
        self, network: SimulatedNetwork, side: frozenset[str], address: AddressText, bundle: Bundle
    ) -> bool:
        """An address of several networks, by its subnet or by the interfaces that are named, is promised to who can
        know that they are networks: by hearing somebody, but no machine of which nobody can tell whether it is the one
        that has its name."""
        networks = self.world.networks_of(address)
        if network not in networks:
            return False
        known = {self.world.nodes[name].known_as for name in side - self._hearing.twins}
        several = len(networks) > 1 or any(len(each.interfaces) > 1 for each in bundle.candidates)
        return not several or len(known) > 1

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
        last = self._course.last_fault()
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
                longest = max(self._course.detection({name}) for name in self.world.nodes)
                calm = (
                    self._course.last_fault()
                    + DEAF_S * self._course.pace
                    + max(SETTLED_S * self._course.pace, longest + self._course.pace)
                )
                if at > calm and not self._was_given_on(address, at) and not self._may_change(address, at):
                    raise BrokenPromiseError("G4", f"the owner of {address} changed without a fault", self.world)

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
        over_at = self._ready_at + self.world.settings.cold_start_s + SETTLED_S * self._course.pace
        return moved == 1 and at <= max(over_at, self.world.resumed_at + SETTLED_S * self._course.pace)

    def _may_change(self, address: AddressText, at: float) -> bool:
        """Whether it was given to a better owner, or its owner is given up by its stand-in, or answers again on a link
        that had come up, now that somebody is heard there."""
        return self._was_taken_back(address, at) or any(
            (decision.reason == "StandsInNoMore" and decision.fields["why"] != "it is back")
            or (decision.reason == "Resumed" and when > at - 2 * self._check_s)
            for when, decision in self._course.latest(at - DEAF_S * self._course.pace)
        )

    def _was_taken_back(self, address: AddressText, at: float) -> bool:
        return any(
            decision.reason in MOVES and decision.fields["address"] == address and decision.fields["why"] in PREFERRED
            for _, decision in self._course.latest(at - DEAF_S * self._course.pace)
        )

    # ---------------------------------------------------------------------------------------------- G6, G8

    def _check_families(self) -> None:
        for node in self.world.nodes.values():
            for interface in node.interfaces:
                for address in interface.answers if node.works else ():
                    if family_of(address) not in interface.known_families:
                        raise BrokenPromiseError(
                            "G8", f"{node.name} answers for {address} on {interface.name}", self.world
                        )

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
                    if self._taking.named(view.network.named[address].get(name, name), address):
                        continue
                    interfaces = self.world.nodes[name].interfaces
                    known = [x for x in interfaces if x.network is own.network and family in x.families]
                    told = any(view.mutual(name, other) for other in own.there if other not in self._hearing.twins)
                    if any(each.was_known for each in known) or told:
                        key = (view.network.name, address, name)
                        since = misplaced[key] = self._misplaced.get(key, self.world.now)
                        if self.world.now - since > TOLD_S * self._course.pace:
                            raise BrokenPromiseError(
                                "G6", f"{address} is answered on {view.network.name} by {name}", self.world
                            )
        self._misplaced = misplaced
