"""G5 and G7: nobody claims what a living node answers for, nor again what it has released for another."""

from __future__ import annotations

from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.protocol.effects import Decision
from tests.speaker.protocol.simulation.course import Course
from tests.speaker.protocol.simulation.hearing import Hearing, WhoHearsWhom
from tests.speaker.protocol.simulation.knowledge import Knowledge
from tests.speaker.protocol.simulation.network import SimulatedNetwork
from tests.speaker.protocol.simulation.promises import BrokenPromiseError
from tests.speaker.protocol.simulation.world import World

TAKEN_AGAIN_S = 1.0  # after a release for another: nobody took it
OFFERED_S = 1.0  # before a claim: it may be on its way for as long
PREFERRED = {"preference", "decision"}
"""Why an owner gives an address to a better one."""
FOR_ANOTHER = {*PREFERRED, "no candidate any more"}


class Taking:
    """Judges the claims that were made since the last look."""

    def __init__(self, world: World, course: Course, hearing: Hearing, knowledge: Knowledge) -> None:
        self._world = world
        self._course = course
        self._hearing = hearing
        self._knowledge = knowledge
        self._seen = 0
        """How many of the world's decisions were looked at."""
        self.claimed_at: dict[str, float] = {}
        """When each node claimed anything last."""
        self._released: dict[tuple[str, str], float] = {}
        """(node, address) -> when it was released for another."""

    def skip(self) -> None:
        """Judge nothing of what was decided until now."""
        self._seen = len(self._world.decisions)

    def named(self, name: str, address: AddressText) -> frozenset[LinkName]:
        """The interfaces on which alone a node is to answer, whatever their subnets; empty: none are named."""
        node = self._world.nodes[name]
        bundles = (each for each in self._world.plans[node.plan_seen][1] if address in each.addresses)
        candidates = (each for bundle in bundles for each in bundle.candidates if each.node == node.known_as)
        return frozenset(link for candidate in candidates for link in candidate.interfaces)

    def check(self, views: list[WhoHearsWhom], hearing_since: float) -> None:
        """``hearing_since``: from when on each hears whom the views say, which is the last fault. A claim of before, a
        moment ago, is not judged by them."""
        decisions = self._world.decisions[self._seen :]
        self._seen = len(self._world.decisions)
        for at, name, decision in decisions:
            self._course.note_false_alarm(at, name, decision)
            if decision.reason == "Released" and decision.fields["why"] in FOR_ANOTHER:
                self._released[name, str(decision.fields["address"])] = at
            if decision.reason != "Claimed":
                continue
            self.claimed_at[name] = at
            self._check_promise(at, name, decision)
            joins = decision.fields["why"] == "joined bundle"
            if joins or at <= hearing_since or name in self._hearing.twins or self._was_handed_over(at, name, decision):
                continue
            self._check_claim(views, at, name, decision, hearing_since)

    def _was_handed_over(self, at: float, claimer: str, claim: Decision) -> bool:
        """Whether the holder has offered that to the claimer just now."""
        known_as = self._world.nodes[claimer].known_as
        wanted = {"address": claim.fields["address"], "to": known_as}
        return str(claim.fields["why"]).startswith("handed over by") and any(
            each.reason == "Offered" and wanted.items() <= each.fields.items()
            for _, each in self._course.latest(at - OFFERED_S * self._course.pace)
        )

    def _check_promise(self, at: float, name: str, decision: Decision) -> None:
        """Whether the claimer has just released that for another, who did not take it."""
        address = decision.fields["address"]
        released = self._released.pop((name, str(address)), float("-inf"))
        for when, other, each in reversed(self._world.decisions):
            if when < released:
                break
            if other != name and each.reason == "Claimed" and each.fields["address"] == address:
                return  # that was not heard in time
        soon = TAKEN_AGAIN_S * self._course.pace
        if at < released + soon and self._course.last_fault() < released - soon:
            raise BrokenPromiseError("G7", f"{name} released {address} for another and claims it again", self._world)

    def _check_claim(
        self, views: list[WhoHearsWhom], at: float, claimer: str, decision: Decision, hearing_since: float
    ) -> None:
        address = AddressText(str(decision.fields["address"]))
        networks = self._world.networks_of(address)
        if len(networks) > 1 or len(self.named(claimer, address)) > 1:
            return  # who has the one network may have to take it from who has the other
        detection_s = self._course.detection({claimer})
        for view in views:
            if view.network not in networks or not self._answers_there(claimer, view.network, address):
                continue
            late = self._are_late(view.network)
            lost_at = view.network.twice_lost_at if late else view.network.last_loss_fault
            if at - lost_at < detection_s:
                continue
            before = (who for when, what, who in reversed(view.network.owner_changes) if what == address and when < at)
            holders = next(before, frozenset[str]())
            if decision.fields["why"] == "resumed" and claimer in holders:
                continue  # it was answered for in its name all the while
            for holder in holders - {claimer} - self._hearing.twins:
                mutual = view.mutual(claimer, holder) and at >= hearing_since + detection_s
                if not mutual and view.network.weather.loss:
                    continue
                if self._has_released(holder, address):
                    continue  # a stand-in has not heard of it yet
                unnoticed = not view.unnoticed.isdisjoint({(claimer, holder), (holder, claimer)})
                if (holder in view.network.rejecting or unnoticed) and late:
                    continue
                if self._knowledge.should_keep_off(view, claimer, holder, address, at=at, detection_s=detection_s):
                    what = f"{claimer} claims {address}, which {holder} answers for"
                    raise BrokenPromiseError("G5", what, self._world)

    def _has_released(self, holder: str, address: AddressText) -> bool:
        """Whether that is the last thing that the node did with the address."""
        for _, name, decision in reversed(self._world.decisions):
            of_it = name == holder and decision.fields.get("address") == address
            if of_it and decision.reason in {"Claimed", "Released"}:
                return decision.reason == "Released"
        return False

    def _are_late(self, network: SimulatedNetwork) -> bool:
        """Whether the answer to a question may take longer than 50 ms."""
        return bool(network.weather.straggling or self._world.work is not None)

    def _answers_there(self, name: str, network: SimulatedNetwork, address: AddressText) -> bool:
        named = self.named(name, address)
        return not named or any(interface.name in named for interface in self._world.nodes[name].on(network))
