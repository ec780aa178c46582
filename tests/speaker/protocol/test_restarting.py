"""How a speaker ends: whom it names as its stand-in, for how long it waits, and when it releases instead."""

from __future__ import annotations

from dataclasses import replace

from cluster.objects import NodeName
from speaker.link import LinkName
from speaker.protocol.claims import Claim
from speaker.protocol.peers import Peer
from speaker.protocol.restarting import LONGEST_S, MORE_S, PATIENCE_S, End, Restarting
from speaker.protocol.settings import RestartMode
from tests.speaker.protocol.company import ETH0, ME, VIP, B, C
from tests.speaker.protocol.restarts import SESSION, Restarts, stood_in

ONE_S = MORE_S  # longer for the one address that is held


class Ending(Restarts):
    """This node holds an address, and is told to end at 1 s."""

    def __init__(self, *others: NodeName) -> None:
        super().__init__()
        self.others = {node: self.speaker(node) for node in others}
        self.log.put(VIP, Claim(2, 0))
        self.log.commit()
        self.restarting = Restarting(
            SESSION,
            self.roster,
            self.log,
            sessions=self.sessions,
            absences=self.absences,
            stand_ins=self.stand_ins,
            answered_on=self._answered_on,
        )

    def _answered_on(self) -> frozenset[LinkName]:
        return frozenset({ETH0}) if self.log.claims else frozenset()

    @property
    def named(self) -> NodeName | None:
        peer = self.sessions.peer(self.restarting.stand_in)
        return peer.node if peer is not None else None

    def stands_in_for(self, node: NodeName) -> Peer:
        """This node, for one that restarts and holds the address."""
        away = self.speaker(node, VIP)
        away.restarting, away.stand_in = True, SESSION
        self.stand_ins.look(0.5)
        self.stand_ins.review(0.5)
        return away

    def is_stood_in_for(self, by: Peer, now: float) -> None:
        said = stood_in(ME, SESSION, self.log.version, self.log.digest)
        self.absences.heard(ETH0, by.session, [said], now)


def test_the_first_in_the_order_is_named() -> None:
    ending = Ending(B, C)
    assert ending.restarting.begin(1.0) is End.NAMES
    assert ending.named == next(node for node in ending.absences.order(ME, ETH0, frozenset(), 1.0) if node != ME)


def test_one_that_says_nothing_for_300_ms_is_replaced_by_the_next() -> None:
    ending = Ending(B, C)
    ending.restarting.begin(1.0)
    first = ending.named
    ending.restarting.review(1.0 + PATIENCE_S)
    assert ending.named == first
    assert ending.restarting.review(1.0 + PATIENCE_S + ONE_S) is End.NAMES
    assert {first, ending.named} == {B, C}


def test_it_ends_once_one_stands_in_with_all_its_claims() -> None:
    ending = Ending(B)
    ending.restarting.begin(1.0)
    ending.absences.heard(ETH0, ending.others[B].session, [stood_in(ME, SESSION, ending.log.version, 0)], 1.1)
    assert ending.restarting.review(1.1) is End.NAMES
    ending.is_stood_in_for(ending.others[B], 1.2)
    assert ending.restarting.review(1.2) is End.STOOD_IN
    assert not ending.restarting.active


def test_whom_this_one_stands_in_for_has_to_be_taken_over_too() -> None:
    ending = Ending(B)
    away = ending.stands_in_for(C)
    assert ending.stand_ins
    ending.restarting.begin(1.0)
    ending.is_stood_in_for(ending.others[B], 1.1)
    assert ending.restarting.review(1.1) is End.NAMES
    both = [
        stood_in(ME, SESSION, ending.log.version, ending.log.digest),
        stood_in(C, away.session, away.mirror.version, away.mirror.digest),
    ]
    ending.absences.heard(ETH0, ending.others[B].session, both, 1.2)
    assert ending.restarting.review(1.2) is End.STOOD_IN


def test_after_two_seconds_without_a_stand_in_it_releases() -> None:
    ending = Ending(B, C)
    ending.restarting.begin(1.0)
    assert ending.restarting.review(1.0 + LONGEST_S) is End.NAMES
    assert ending.restarting.review(1.0 + LONGEST_S + ONE_S) is End.RELEASES
    assert ending.restarting.stand_in == 0


def test_where_nobody_is_heard_it_releases_at_once() -> None:
    assert Ending().restarting.begin(1.0) is End.RELEASES


def test_where_one_is_heard_that_may_soon_be_able_it_is_waited_for() -> None:
    ending = Ending(B)
    ending.others[B].sightings[ETH0].able_since = None
    assert ending.restarting.begin(1.0) is End.NAMES
    assert ending.named is None
    ending.others[B].sightings[ETH0].able_since = 1.5
    ending.restarting.review(1.5)
    assert ending.named == B


def test_where_a_peer_does_not_know_what_a_stand_in_is_it_releases() -> None:
    ending = Ending(B, C)
    ending.others[C].skills = 0
    assert ending.restarting.begin(1.0) is End.RELEASES


def test_where_that_is_asked_for_it_releases() -> None:
    ending = Ending(B)
    ending.roster.settings = replace(ending.roster.settings, restart_mode=RestartMode.RELEASE)
    assert ending.restarting.begin(1.0) is End.RELEASES


def test_without_anything_to_stand_in_for_it_releases_at_once() -> None:
    ending = Ending(B)
    ending.log.put(VIP, None)
    assert ending.restarting.begin(1.0) is End.RELEASES


def test_whoever_is_known_by_lost_links_alone_is_nobody_who_could_stand_in() -> None:
    """A link that is gone takes with it where its peers were heard; whom this one stands in for is still to be left."""
    ending = Ending(B)
    away = ending.stands_in_for(C)
    ending.log.put(VIP, None)
    for peer in (away, ending.others[B]):
        peer.sightings.clear()
    assert ending.restarting.begin(1.0) is End.RELEASES
