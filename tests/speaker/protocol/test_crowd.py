"""What is said among many: how often, whom a heartbeat lists, and whose claims are asked for."""

from __future__ import annotations

import random

import pytest

from cluster.objects import NodeName
from speaker.protocol.absences import Absences
from speaker.protocol.claims import ClaimLog
from speaker.protocol.crowd import HEARTBEATS_S, LISTED, Turns, idle_interval, rounds, scale_of
from speaker.protocol.datagram import Authenticator
from speaker.protocol.effects import Effect, SendHeartbeat
from speaker.protocol.foreign import ForeignSpeakers
from speaker.protocol.heartbeat import (
    BY_GROUP,
    LONGEST_INTERVAL_MS,
    MAX_ASKS,
    MAX_HEARD,
    RETURNED,
    SUSPECTED,
    Heartbeat,
    all_hows,
    how_heard,
    pack_heard,
    unpack_heard,
)
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.ownership import Ownership
from speaker.protocol.peers import Peer
from speaker.protocol.sessions import Sessions
from speaker.protocol.settings import Settings
from speaker.protocol.standing import Standing
from speaker.protocol.standing_in import StandIns
from speaker.protocol.voice import Voice
from tests.speaker.protocol.company import ETH0, Company

MANY = 1000
ROOM = 100


@pytest.mark.parametrize("holders", [1, 50, 51, 200, 500, MANY])
def test_what_all_say_together_grows_no_more_above_fifty_holders(holders: int) -> None:
    settings = Settings()
    active_s = settings.interval_s * scale_of(holders)
    assert holders / active_s <= HEARTBEATS_S + 1
    for usual_s in (settings.idle_interval_s, settings.brisk_interval_s):
        idle_s = idle_interval(usual_s, settings, scale_of(holders), MANY)
        assert MANY / idle_s <= HEARTBEATS_S
        assert active_s <= idle_s <= LONGEST_INTERVAL_MS / 1000


def test_everybody_is_listed_in_turn_as_soon_as_is_counted_on() -> None:
    turns, heard = Turns(), [(session, BY_GROUP) for session in range(MANY)]
    listed: set[int] = set()
    for _ in range(rounds(MANY)):
        chosen = turns.choose(heard, set(), LISTED)
        assert len(set(chosen)) == LISTED
        listed |= {session for session, _ in chosen}
    assert listed == set(range(MANY))


def test_whom_somebody_waits_to_see_is_listed_at_once() -> None:
    heard = [(session, BY_GROUP) for session in range(MANY)]
    heard[700] = (700, BY_GROUP | SUSPECTED)
    heard[800] = (800, RETURNED)
    turns = Turns()
    for _ in range(30):
        assert {700, 800, 900} <= {session for session, _ in turns.choose(heard, {900}, ROOM)}
    assert len(turns.choose(heard, set(range(MANY)), ROOM)) == ROOM, "all are awaited"


def test_one_session_and_all_ages_are_read_as_if_one_after_the_other_was() -> None:
    rng = random.Random(5)
    for count in (0, 1, 2, 100, MAX_HEARD):
        # sessions of few octets, so that one is often found across two entries
        heard = [(rng.choice((0, 1, 256, 1 << 16, rng.getrandbits(64))), rng.getrandbits(16)) for _ in range(count)]
        packed = pack_heard(heard)
        assert all_hows(packed) == tuple(how for _, how in unpack_heard(packed))
        first = dict(reversed(heard))
        for session in (*first, 0, 1, 256, 1 << 16, 7):
            assert how_heard(packed, session) == first.get(session)


class Speaker:
    """Among many peers, who claim what it has not heard."""

    def __init__(self) -> None:
        self.company = Company()
        self.company.link(ETH0, "10.0.0.97/16")
        self.said: list[Effect] = []
        self.company.roster.emit = self.said.append
        log, rng = ClaimLog(), random.Random(1)
        self.authenticator = Authenticator("cluster", (b"k" * 32,))
        roster = self.company.roster
        mirrors, sessions = Mirrors(roster), Sessions(roster)
        absences = Absences(1, roster, sessions, mirrors)
        ownership = Ownership(roster, log, ForeignSpeakers(), rng)
        stand_ins = StandIns(1, roster, ownership, mirrors=mirrors, absences=absences)
        self.voice = Voice(1, roster, log, rng, 0.0, stand_ins=stand_ins, missing=lambda _link, _now: [])
        self.voice.authenticator = self.authenticator

    def add_peer(self, number: int) -> Peer:
        template = self.company.peer(NodeName("b"), eth0=Standing.ALIVE)
        del self.company.roster.peers[NodeName("b")]
        peer = Peer(NodeName(f"node-{number}"), 1000 + number, template.window, template.sightings, behind_since=0.0)
        self.company.roster.peers[peer.node] = peer
        return peer

    def asks(self, now: float) -> list[int]:
        """Whose claims the heartbeats ask for that go out until then."""
        while self.voice.next_deadline() <= now:
            self.voice.handle_timer(self.voice.next_deadline())
        messages = [
            self.authenticator.parse(each.data).message for each in self.said if isinstance(each, SendHeartbeat)
        ]
        self.said.clear()
        return [session for each in messages if isinstance(each, Heartbeat) for session, _ in each.asks]


def test_the_claims_of_a_hundred_are_asked_for_within_half_a_second_and_then_at_the_usual_pace() -> None:
    speaker = Speaker()
    sessions = {speaker.add_peer(number).session for number in range(100)}
    assert speaker.asks(0.05) == [], "they may be on their way"
    assert set(speaker.asks(0.5)) == sessions
    assert len(speaker.asks(1.5)) <= 12 * MAX_ASKS, "who does not answer is not asked more often"


def test_peers_whose_claims_never_come_keep_nobody_from_being_asked() -> None:
    speaker = Speaker()
    for number in range(MAX_ASKS + 2):
        speaker.add_peer(number)
    asked = speaker.asks(1.0)
    assert min(asked.count(1000 + number) for number in range(MAX_ASKS + 2)) >= 4, asked
