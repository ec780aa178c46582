"""Speakers that restart and those that stand in for them, as this node has them in its tables: without a wire."""

from __future__ import annotations

import random

from cluster.objects import AddressText, NodeName
from speaker.protocol.absences import Absences
from speaker.protocol.claims import Claim, ClaimLog
from speaker.protocol.foreign import ForeignSpeakers
from speaker.protocol.heartbeat import STANDS_IN, ClaimStep, StoodIn, WireClaim, pack_address
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import News
from speaker.protocol.ownership import Ownership
from speaker.protocol.peers import Peer
from speaker.protocol.sessions import Sessions
from speaker.protocol.standing import Standing
from speaker.protocol.standing_in import StandIns
from tests.speaker.protocol.company import ETH0, ME, VIP, Company, address_of, mac_of

SESSION = 1
"""This node's."""


class Restarts:
    """This node is ``a``, and could stand in. All is as at time 0."""

    def __init__(self) -> None:
        self.company = Company()
        self.link = self.company.link(ETH0, "10.0.0.97/16")
        self.roster = self.company.roster
        self.roster.able = True
        self.log = ClaimLog()
        self.sessions, self.mirrors = Sessions(self.roster), Mirrors(self.roster)
        self.absences = Absences(SESSION, self.roster, self.sessions, self.mirrors)
        self.ownership = Ownership(self.roster, self.log, ForeignSpeakers(), random.Random(1))
        self.stand_ins = StandIns(SESSION, self.roster, self.ownership, mirrors=self.mirrors, absences=self.absences)

    def speaker(self, node: NodeName, *addresses: AddressText, session: int = 0) -> Peer:
        """One that is heard, could stand in, and holds these."""
        peer = self.company.peer(node, eth0=Standing.ALIVE)
        peer.session = session or peer.session
        peer.sightings[ETH0].able_since = 0.0
        peer.skills = STANDS_IN
        self.sessions.add(peer)
        if addresses:
            self.hold(peer, *addresses)
        return peer

    def hold(self, peer: Peer, *addresses: AddressText, epoch: int = 2) -> None:
        """It is heard to claim these as well."""
        claims = tuple(WireClaim(pack_address(address), epoch, 0) for address in addresses)
        self.mirrors.take(peer, ClaimStep(peer.mirror.version + 1, claims), 0.0)

    def release(self, peer: Peer, *addresses: AddressText) -> None:
        """It is heard to claim these no more."""
        self.hold(peer, *addresses, epoch=0)

    def dies(self, peer: Peer) -> None:
        peer.sightings[ETH0].standing = Standing.DEAD

    def is_absent(self, node: NodeName) -> bool:
        return self.absences.of(node) is not None

    def counts(self, node: NodeName, address: AddressText = VIP) -> bool:
        """Whether the node's claim counts."""
        return self.roster.claim_of(node, address, ETH0) is not None

    def says_to_stand_in(self, by: Peer, *sessions: Peer, now: float) -> News:
        """A speaker's heartbeat says for whom it stands in."""
        said = [stood_in(peer.node, peer.session, peer.mirror.version, peer.mirror.digest) for peer in sessions]
        return self.absences.heard(ETH0, by.session, said, now)

    def own_former_session(self, by: Peer, addresses: list[AddressText], now: float = 0.0) -> Peer:
        """Another speaker stands in for the session that this node had before, and tells its claims."""
        former = ClaimLog()
        for address in addresses:
            former.put(address, Claim(6, 0))
        steps = former.commit()
        said = stood_in(ME, 7, former.version, former.digest)
        self.absences.heard(ETH0, by.session, [said], now)
        peer = self.absences.peer(7)
        assert peer is not None
        for step in steps:
            self.mirrors.take(peer, step, now)
        return peer


def stood_in(node: NodeName, session: int, version: int, digest: int) -> StoodIn:
    return StoodIn(session, node, version, digest, ETH0, mac_of(node), 3, (pack_address(address_of(node)),))
