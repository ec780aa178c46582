"""Whom this node stands in for, and what ends that."""

from __future__ import annotations

from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from speaker.link import Mac
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol.effects import AskAddress, Decision
from speaker.protocol.heartbeat import STOOD_IN_OCTETS, unpack_address
from speaker.protocol.peers import Peer
from speaker.protocol.standing_in import BACK_S, ENDED_S, ENTRY_OCTETS, STANDS_IN_S
from tests.speaker.protocol.company import ETH0, STRANGER_MAC, VIP, B, C, address_of, mac_of
from tests.speaker.protocol.restarts import SESSION, Restarts

D_S = 0.35
STEP_S = 0.05
MAC = mac_of(B)


class StoodIn(Restarts):
    """``b`` has ended, with this node as its stand-in. Its kernel answers, and ``c`` is heard, unless told."""

    def __init__(self, *more: AddressText, ended_at: float = 0.5) -> None:
        super().__init__()
        self.ownership.set_plan(plan(VIP, B), 0.0)
        self.other, self.peer = self.speaker(C), self.speaker(B, VIP, *more)
        self.peer.restarting, self.peer.stand_in = True, SESSION
        self.now = 0.0
        self.run(ended_at, kernel=False)
        self.absences.begin(self.peer, "restarts", self.now, ended=True)
        self.look()

    def look(self) -> None:
        self.stand_ins.look(self.now)
        self.stand_ins.review(self.now)

    def run(self, until: float, *, kernel: bool = True, third: bool = True) -> None:
        begin = self.now
        for step in range(round((until - begin) / STEP_S)):
            self.now = round(begin + (step + 1) * STEP_S, 3)
            if kernel:
                self.peer.sightings[ETH0].kernel_at = self.now
            if third:
                self.other.sightings[ETH0].heard_at = self.now
            self.look()

    @property
    def whys(self) -> list[str]:
        """Why this node stands in no more."""
        effects = (each for each in self.company.effects if isinstance(each, Decision))
        return [str(each.fields["why"]) for each in effects if each.reason == "StandsInNoMore"]

    def is_answered(self, address: AddressText = VIP) -> bool:
        """Whether this node answers for the address with the MAC of ``b``."""
        return self.stand_ins.lent(address, self.now) == {ETH0: mac_of(B)}


def plan(address: AddressText, *nodes: NodeName) -> Plan:
    candidates = tuple(Candidate(node, 0, 0) for node in nodes)
    return Plan(1, NodeName("a"), (Bundle(BundleId("b1"), (address,), ("default/b1",), candidates),))


def test_it_answers_with_the_nodes_mac_and_says_so() -> None:
    stood_in = StoodIn()
    assert stood_in.is_answered()
    (said,) = stood_in.stand_ins.said_on(ETH0)
    assert (said.session, said.node, said.mac) == (stood_in.peer.session, B, mac_of(B))
    assert (said.version, said.digest) == (stood_in.peer.mirror.version, stood_in.peer.mirror.digest)


def test_no_more_sessions_are_stood_in_for_than_a_heartbeat_can_tell_of() -> None:
    restarts = Restarts()
    restarts.speaker(C)
    nodes = [NodeName(chr(ord("d") + number)) for number in range(17)]
    for number, node in enumerate(nodes):
        peer = restarts.speaker(node, AddressText(f"10.0.9.{number + 1}"))
        peer.restarting, peer.stand_in = True, SESSION
    restarts.stand_ins.look(1.0)
    restarts.stand_ins.review(1.0)
    assert len(restarts.stand_ins.sessions()) == STOOD_IN_OCTETS // (ENTRY_OCTETS + 1)


def test_it_ends_after_a_minute() -> None:
    stood_in = StoodIn()
    stood_in.run(0.5 + STANDS_IN_S - STEP_S)
    assert stood_in.is_answered()
    stood_in.run(0.5 + STANDS_IN_S)
    assert not stood_in.stand_ins
    assert stood_in.whys == ["it did not come back"]
    assert stood_in.is_answered(), "until another node claims it"
    stood_in.run(0.5 + STANDS_IN_S + 3.0)
    assert not stood_in.is_answered()


def test_what_becomes_free_is_answered_only_where_this_nodes_kernel_speaks_its_family() -> None:
    unspoken = AddressText("fd00::9")
    stood_in = StoodIn(unspoken)
    assert not stood_in.stand_ins.lent(unspoken, stood_in.now), "the link speaks IPv4 alone"
    stood_in.run(0.5 + STANDS_IN_S + STEP_S)
    assert stood_in.whys == ["it did not come back"]
    assert stood_in.is_answered()
    assert not stood_in.stand_ins.lent(unspoken, stood_in.now)


def test_on_a_link_that_this_node_has_no_more_it_stands_in_no_more() -> None:
    stood_in = StoodIn()
    del stood_in.peer.sightings[ETH0]
    stood_in.look()
    assert not stood_in.stand_ins


def new_session(stood_in: StoodIn, mac: Mac = MAC) -> Peer:
    peer = stood_in.speaker(B, session=1000)
    peer.sightings[ETH0].mac = mac
    peer.restarting = True
    return peer


def test_it_ends_half_a_second_after_the_nodes_new_session_holds_everything() -> None:
    stood_in = StoodIn()
    peer = new_session(stood_in)
    stood_in.run(5.0)
    assert stood_in.stand_ins
    stood_in.hold(peer, VIP)
    stood_in.run(5.5)
    assert not stood_in.is_answered(), "the new session does"
    peer.restarting = False
    stood_in.run(5.5 + BACK_S)
    assert stood_in.stand_ins
    stood_in.run(5.5 + BACK_S + 2 * STEP_S)
    assert stood_in.whys == ["it is back"]


def test_what_the_new_session_claims_and_releases_is_free_no_more() -> None:
    """It may have released it since it cannot answer for it."""
    stood_in = StoodIn()
    peer = new_session(stood_in)
    stood_in.hold(peer, VIP)
    peer.restarting = False
    stood_in.run(1.2)
    assert stood_in.whys == ["it is back"]
    stood_in.stand_ins.follow((VIP,))
    stood_in.run(1.3)
    stood_in.release(peer, VIP)
    stood_in.stand_ins.follow((VIP,))
    stood_in.run(1.4)
    assert stood_in.ownership.owners.owner_node(VIP, ETH0) is None
    assert not stood_in.is_answered()


def test_a_new_session_with_another_mac_ends_it() -> None:
    stood_in = StoodIn()
    new_session(stood_in, STRANGER_MAC)
    stood_in.run(2.0)
    assert stood_in.whys == ["it has another MAC"]


def silent_since(stood_in: StoodIn, *, third: bool) -> float:
    """Seconds of the kernel's silence, from 2.0 on, until its node was declared dead; 5 if it was not."""
    stood_in.run(2.0)
    stood_in.run(2.0 + D_S - STEP_S, kernel=False, third=third)
    assert "NodeDead" not in stood_in.company.decisions()
    while "NodeDead" not in stood_in.company.decisions() and stood_in.now < 7.0:
        stood_in.run(stood_in.now + STEP_S, kernel=False, third=third)
    return stood_in.now - 2.0


def test_the_kernels_silence_is_its_nodes_death_after_the_floor() -> None:
    stood_in = StoodIn()
    assert silent_since(stood_in, third=True) < D_S + 2 * STEP_S
    assert not stood_in.stand_ins
    assert not stood_in.is_answered()


def test_the_kernel_is_watched_from_when_its_speaker_is_gone() -> None:
    """Until the stand-in has worked out thousands of answers the speaker that ends is there, and may be for longer than
    D. Nobody asks its kernel meanwhile."""
    stood_in = StoodIn(ended_at=1.0)
    stood_in.run(1.0 + D_S - STEP_S, kernel=False)
    assert stood_in.is_answered()
    stood_in.run(1.0 + D_S + 2 * STEP_S, kernel=False)
    assert "NodeDead" in stood_in.company.decisions()


def test_while_nobody_else_is_heard_either_it_is_none_for_three_and_a_half_seconds_more() -> None:
    """The router may have run on that node's machine, and the neighbour may be asleep."""
    stood_in = StoodIn()
    alone_s = stood_in.roster.settings.alone_s
    silent_s = silent_since(stood_in, third=False)
    assert D_S + alone_s - STEP_S < silent_s < D_S + alone_s + 3 * STEP_S
    assert stood_in.roster.links[ETH0].alone


def test_the_kernels_of_other_speakers_show_that_this_node_hears() -> None:
    """Who holds nothing speaks once a second. A stand-in that waited for that would take itself for cut off."""
    stood_in = StoodIn()
    stood_in.run(2.0)
    stood_in.company.effects.clear()
    stood_in.run(2.0 + D_S - STEP_S, kernel=False, third=False)
    assert AskAddress(ETH0, address_of(C), mac_of(C)) in stood_in.company.effects
    stood_in.other.sightings[ETH0].kernel_at = stood_in.now
    stood_in.run(2.0 + D_S + 2 * STEP_S, kernel=False, third=False)
    assert "NodeDead" in stood_in.company.decisions()


def test_when_this_node_was_cut_off_the_silence_counts_from_the_end_of_that() -> None:
    """The first frame through a healed network may be another machine's."""
    stood_in = StoodIn()
    stood_in.run(2.0)
    stood_in.run(3.0, kernel=False, third=False)
    stood_in.run(3.0 + D_S - STEP_S, kernel=False)
    assert "NodeDead" not in stood_in.company.decisions()
    stood_in.run(3.0 + D_S, kernel=False, third=False)
    stood_in.run(3.0 + D_S + 3 * STEP_S, kernel=False)
    assert "NodeDead" in stood_in.company.decisions()


def test_what_was_not_answered_while_this_node_could_not_hear_does_not_count() -> None:
    stood_in = StoodIn()
    stood_in.run(2.0)
    stood_in.run(2.3, kernel=False)
    stood_in.stand_ins.excuse(2.3)
    stood_in.run(2.3 + D_S - STEP_S, kernel=False)
    assert "NodeDead" not in stood_in.company.decisions()


def test_what_leaves_the_plan_ends_on_the_sessions_behalf() -> None:
    stood_in = StoodIn()
    stood_in.run(0.5 + ENDED_S)
    stood_in.ownership.set_plan(Plan(2, NodeName("a"), ()), 1.0)
    stood_in.stand_ins.follow([VIP])
    stood_in.look()
    ((session, step),) = stood_in.stand_ins.take_steps()
    assert session == stood_in.peer.session
    assert [claim.epoch for claim in step.claims] == [0]


def test_a_claim_that_another_node_outranks_ends_on_the_sessions_behalf() -> None:
    kept = AddressText("10.0.9.2")
    stood_in = StoodIn(kept)
    of_both = replace(plan(VIP, B, C).bundles[0], addresses=(VIP, kept))
    stood_in.ownership.set_plan(Plan(2, NodeName("a"), (of_both,)), stood_in.now)
    stood_in.hold(stood_in.other, kept, epoch=1)
    stood_in.hold(stood_in.other, VIP, epoch=4)
    stood_in.stand_ins.follow((VIP, kept))
    stood_in.run(1.0)
    assert not stood_in.is_answered(VIP)
    assert stood_in.is_answered(kept)
    ((session, step),) = stood_in.stand_ins.take_steps()
    assert session == stood_in.peer.session
    assert [(unpack_address(claim.address), claim.epoch) for claim in step.claims] == [(VIP, 0)]


def test_what_the_session_or_another_stand_in_ends_is_answered_no_more() -> None:
    stood_in = StoodIn()
    stood_in.run(1.0)
    stood_in.stand_ins.touched.clear()
    stood_in.release(stood_in.peer, VIP)
    stood_in.stand_ins.follow((VIP,))
    stood_in.run(1.1)
    assert VIP in stood_in.stand_ins.touched, "the responder is told"
    assert not stood_in.is_answered()
    log = stood_in.stand_ins.log_of(stood_in.peer.session)
    assert log is not None
    assert (log.claims, log.version) == ({}, stood_in.peer.mirror.version)


def test_a_claim_that_was_outranked_ends_when_its_session_has_and_not_before() -> None:
    restarts = Restarts()
    restarts.ownership.set_plan(plan(VIP, B, C), 0.0)
    restarts.hold(restarts.speaker(C), VIP, epoch=4)
    peer = restarts.speaker(B, VIP)
    peer.restarting, peer.stand_in = True, SESSION
    for now in (1.0, 1.1):
        restarts.stand_ins.look(now)
        restarts.stand_ins.review(now)
    assert restarts.stand_ins
    assert VIP in peer.mirror.claims, "it is its own to withdraw"
    restarts.absences.begin(peer, "restarts", 1.2, ended=True)
    for now in (1.2, 1.2 + ENDED_S - 0.01):
        restarts.stand_ins.look(now)
        restarts.stand_ins.review(now)
    assert VIP in peer.mirror.claims, "its process may not have ended yet"
    for now in (1.2 + ENDED_S, 1.3 + ENDED_S):
        restarts.stand_ins.look(now)
        restarts.stand_ins.review(now)
    assert VIP not in peer.mirror.claims
