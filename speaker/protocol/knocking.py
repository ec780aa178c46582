"""Knocks at one other speaker that was not heard for 50 ms: an empty datagram, to which only a kernel without a speaker
answers.

A speaker whose process has ended is silent, as is one whose heartbeats are lost; but its node's kernel knows the
difference. It refuses a datagram to a port that no process has (port unreachable: ICMP, RFC 792, or ICMPv6, RFC 4443).
So the end of a process is noticed before its silence is.

1. On each link a speaker knocks at one other: the next by the nodes' names, round and round, if it holds something. So
   each speaker is knocked at by one, and each 50 ms it either says a heartbeat or is knocked at.
2. A refusal makes a suspect at once, and what follows is that of any suspicion (``suspicion``).
3. Whoever hears that a peer is suspected knocks at it, too: each speaker believes its own refusals alone.

A firewall may refuse datagrams though the speaker behind it is heard, and anybody on the LAN can make up a refusal. So
a peer that was heard after one is not suspected for another one for ten minutes.

**Bounds:** a peer is knocked at no more often than each 20 ms, and one refusal counts for each knock.

Not promised: that an end is noticed so soon where datagrams to one node, or the refusals, do not pass. It is noticed by
silence then.

Example: the process ends at 10.00 s. It is knocked at and refuses at 10.03 s, a question for one of its addresses stays
unanswered until 10.06 s, and another speaker stands in for it.
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

GAP_S = 0.05
"""After a heartbeat or a knock, until the next knock."""
SLACK_S = 0.02
"""For so long a knock waits for something else that wakes the loop: to be woken costs more than to knock."""
LEAST_GAP_S = 0.02
"""Between knocks at one peer, at least."""


class Knocking:
    """Sans-IO; emits ``Knock``."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._soonest = NEVER
        self._next: list[tuple[LinkName, Peer, Sighting]] | None = None
        """At whom this node knocks in turn; ``None`` where that is to be found anew."""
        self._knocked: dict[tuple[LinkName, AddressText], int] = {}
        """Where a knock was sent whose refusal counts, and at which session."""

    def look(self, now: float) -> None:
        """Somebody came, went, or claimed: another one may be the next."""
        self._next = None
        self._soonest = min(self._soonest, now)

    def next_deadline(self) -> float:
        return self._soonest + SLACK_S

    def review(self, now: float) -> None:
        """Knock, if it is time to. To be called whenever the loop is awake."""
        if now < self._soonest:
            return
        if self._next is None:
            self._next = list(self._in_turn())
        for name, peer, sighting in self._next:
            if now >= self._due(sighting):
                self._knock(name, peer, sighting, now)
        self._soonest = min((self._due(sighting) for _, _, sighting in self._next), default=NEVER)

    def suspected(self, suspected: Set[tuple[LinkName, int]], now: float) -> None:
        """Somebody says that it suspects these sessions, each on a link."""
        for peer in self._roster.peers.values():
            for link, sighting in peer.sightings.items():
                if (link, peer.session) in suspected and sighting.standing is Standing.ALIVE:
                    self._knock(link, peer, sighting, now)

    def refused(self, link: LinkName, to: AddressText, now: float) -> bool:
        """A kernel refused a datagram. Returns whether that makes a suspect."""
        session = self._knocked.pop((link, to), None)
        for peer, sighting in self._roster.on(link) if session is not None else ():
            if peer.session == session and sighting.standing is Standing.ALIVE and now >= sighting.misled_until:
                sighting.refused_at = now
                return True
        return False

    def _due(self, sighting: Sighting) -> float:
        gap_s = GAP_S * self._roster.scale
        return max(sighting.heard_at + gap_s, sighting.knocked_at + gap_s, sighting.misled_until)

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
        self._knocked[link, sighting.address] = peer.session
        self._roster.emit(Knock(link, sighting.address, sighting.mac))
