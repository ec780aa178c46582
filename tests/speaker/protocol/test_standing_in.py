"""What a stand-in finds out about the kernel of a node whose speaker is away."""

from __future__ import annotations

import random

from speaker.protocol.absences import Absences
from speaker.protocol.claims import Claim, ClaimLog
from speaker.protocol.foreign import ForeignSpeakers
from speaker.protocol.heartbeat import STANDS_IN
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.ownership import Ownership
from speaker.protocol.sessions import Sessions
from speaker.protocol.standing import Standing
from speaker.protocol.standing_in import StandIns
from tests.speaker.protocol.company import ETH0, VIP, B, C, Company

SESSION = 1
D_S = 0.35


class Post:
    """``b`` restarts and has named this node. ``c`` is heard all along."""

    def __init__(self) -> None:
        self.company = Company()
        self.company.link(ETH0, "10.0.0.1/16")
        roster = self.company.roster
        roster.able = True
        self.peer = self.company.peer(B, eth0=Standing.ALIVE)
        self.peer.skills = STANDS_IN
        self.peer.restarting, self.peer.stand_in = True, SESSION
        mirror = self.peer.mirror
        mirror.claims[VIP] = Claim(2, 0)
        mirror.note(1, 0)
        mirror.version = 1
        self.third = self.company.peer(C, eth0=Standing.ALIVE)
        sessions, mirrors = Sessions(roster), Mirrors(roster)
        sessions.add(self.peer)
        ownership = Ownership(roster, ClaimLog(), ForeignSpeakers(), random.Random(1))
        self.absences = Absences(SESSION, roster, sessions, mirrors)
        self.stand_ins = StandIns(SESSION, roster, ownership, mirrors=mirrors, absences=self.absences)

    def run(self, begin: float, end: float) -> None:
        """Look each 10 ms while ``c`` is heard."""
        for step in range(round((end - begin) * 100)):
            now = begin + step / 100
            self.third.sightings[ETH0].heard_at = self.third.sightings[ETH0].life_at = now
            self.stand_ins.look(now)
            self.stand_ins.review(now)

    @property
    def stands_in(self) -> bool:
        return bool(self.stand_ins)


def test_the_kernel_is_watched_from_when_its_speaker_is_gone() -> None:
    """Until the stand-in has worked out thousands of answers the speaker that ends is there, and may be for longer than
    D. Nobody asks its kernel meanwhile."""
    post = Post()
    post.run(0.0, 1.0)
    assert post.stands_in
    post.absences.begin(post.peer, "restarts", 1.0, ended=True)
    post.run(1.0, 1.0 + D_S - 0.02)
    assert post.stands_in
    post.run(1.0 + D_S, 1.0 + D_S + 0.1)
    assert not post.stands_in
    assert "NodeDead" in post.company.decisions()
