"""Knocks at one other speaker whose heartbeat is late: an empty datagram, to which only a kernel without a speaker
answers.

A speaker whose process has ended is silent, as is one whose heartbeats are lost; but its node's kernel knows the
difference. It refuses a datagram to a port that no process has (port unreachable: ICMP, RFC 792, or ICMPv6, RFC 4443).
So the end of a process is noticed before its silence is.

1. On each link a speaker watches one other: the next by the nodes' names, round and round, if it holds something. When
   its heartbeat is 15 ms late, the speaker knocks, and each 50 ms while none comes. So each speaker is watched by one,
   and while all are punctual nobody knocks.
2. A refusal makes a suspect at once, and what follows is that of any suspicion (``suspicion``).
3. Whoever hears that a peer is suspected knocks at it, too: each speaker believes its own refusals alone.

A firewall may refuse datagrams though the speaker behind it is heard, and anybody on the LAN can make up a refusal. So
a peer that was heard after one is not suspected for another one for ten minutes.

**Bounds:** a peer is knocked at no more often than each 20 ms, and one refusal counts for each knock.

Not promised: that an end is noticed so soon where datagrams to one node, or the refusals, do not pass. It is noticed by
silence then.

Example: the process ends at 10.00 s. Its next heartbeat was due at 10.04 s. It is knocked at and refuses at 10.055 s, a
question for one of its addresses stays unanswered until 10.08 s, and another speaker stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from cluster.objects import AddressText
from cluster.times import NEVER
from speaker.link import LinkName
from speaker.protocol.effects import Knock
from speaker.protocol.heartbeat import STANDS_IN
from speaker.protocol.peers import Peer, Sighting
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Standing

LATE_S = 0.015
"""After a heartbeat was due, until the first knock: more than two loops are late where they have time."""
GAP_S = 0.05
"""Until the next one, if nothing is heard."""
LEAST_GAP_S = 0.02
"""Between knocks at one peer, at least."""
LOOK_S = 0.01
"""After a change, until it is found anew who is watched: a thousand peers may claim at once."""


class Knocking:
    """Sans-IO; emits ``Knock``."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._soonest = NEVER
        self._watched: list[tuple[LinkName, Peer, Sighting]] = []
        self._stale = True
        """Whom it watches is to be found anew."""
        self._knocked: dict[tuple[LinkName, AddressText], Peer] = {}
        """Where a knock was sent whose refusal counts, and at whom."""

    def look(self, now: float) -> None:
        """Somebody came, went, or claimed: another one may be the next."""
        self._stale = True
        self._soonest = min(self._soonest, now + LOOK_S * self._roster.scale)

    def heard(self) -> None:
        """A heartbeat may put the next knock off."""
        if not self._stale:
            self._soonest = self._due()

    def next_deadline(self) -> float:
        return self._soonest

    def review(self, now: float) -> None:
        """Knock, if it is time to."""
        if now < self._soonest:
            return
        if self._stale:
            self._watched, self._stale = list(self._in_turn()), False
        for name, peer, sighting in self._watched:
            if now >= self._due_at(sighting):
                self._knock(name, peer, sighting, now)
        self._soonest = self._due()

    def suspected(self, suspected: Set[tuple[LinkName, int]], now: float) -> None:
        """Somebody says that it suspects these sessions, each on a link."""
        for peer in self._roster.peers.values():
            for link, sighting in peer.sightings.items():
                if (link, peer.session) in suspected and sighting.standing is Standing.ALIVE:
                    self._knock(link, peer, sighting, now)

    def refused(self, link: LinkName, to: AddressText, now: float) -> bool:
        """A kernel refused a datagram. Returns whether that makes a suspect."""
        peer = self._knocked.pop((link, to), None)
        if peer is None or self._roster.peers.get(peer.node) is not peer:  # another session of the node by now
            return False
        sighting = peer.sightings.get(link)
        if sighting is None or sighting.standing is not Standing.ALIVE or now < sighting.misled_until:
            return False
        sighting.refused_at = now
        return True

    def _due(self) -> float:
        return min((self._due_at(sighting) for _, _, sighting in self._watched), default=NEVER)

    def _due_at(self, sighting: Sighting) -> float:
        late_at = sighting.heard_at + sighting.detector.interval + LATE_S * self._roster.scale
        return max(late_at, sighting.knocked_at + GAP_S * self._roster.scale, sighting.misled_until)

    def _in_turn(self) -> Iterator[tuple[LinkName, Peer, Sighting]]:
        for name, link in self._roster.links.items():
            if not link.state.up or link.state.routed:
                continue
            alive = [each for each in self._roster.on(name) if each[1].standing is Standing.ALIVE]
            behind = [each for each in alive if each[0].node > self._roster.node] or alive
            for peer, sighting in sorted(behind, key=lambda each: each[0].node)[:1]:
                if peer.mirror.claims and peer.skills & STANDS_IN:
                    yield name, peer, sighting

    def _knock(self, link: LinkName, peer: Peer, sighting: Sighting, now: float) -> None:
        if now < sighting.knocked_at + LEAST_GAP_S or now < sighting.misled_until:
            return
        sighting.knocked_at = now
        if len(self._knocked) > len(self._roster.peers) * len(self._roster.links):  # of places where nobody is any more
            self._knocked.clear()
        self._knocked[link, sighting.address] = peer
        self._roster.emit(Knock(link, sighting.address, sighting.mac))
