"""The kernel of a node whose speaker is away: this node asks it, and finds out where it is dead.

A stand-in is the only one who has a proof that the node lives: no heartbeat tells of it (``standing_in``).

1. The kernel is asked for the node's own address, by unicast, each 100 ms.
2. When it has not answered for 150 ms an answer was lost. It is asked each 15 ms then; and the gateways, the last
   neighbours and the kernels of some other speakers are asked each 50 ms: an answer shows that this node hears.
3. When it has not answered for the detection floor, and somebody else was heard meanwhile, the node is dead there.
4. While nobody else is heard either, this node may be the one that is cut off, as ``suspicion`` says under *Isolation*.
   When somebody is heard again silence counts from then: the kernel could not reach us either. After 3.5 s without a
   frame of anybody the node is taken for dead.

Nothing is asked, and no silence counts, on a link that is down, on which this node cannot send, or does not answer.

Not promised: that a dead node is found out where a switch answers ARP in its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.protocol.absences import ask_kernel
from speaker.protocol.news import News
from speaker.protocol.peers import Peer
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Standing

DOUBTFUL_S = 0.15  # without an answer of the kernel: one was lost
QUICK_GAP_S = 0.015  # between questions then
WITNESS_GAP_S = 0.05  # between questions to others then
WITNESSES = 3  # speakers that are asked then, besides gateways and neighbours


class WatchedKernel:
    """Of a peer's node, where it is watched. Sans-IO; emits ``AskAddress``."""

    def __init__(self, peer: Peer, roster: Roster) -> None:
        self.links: dict[LinkName, float] = {}
        """Where it is watched, and since when its silence counts."""
        self.ask_next = LONG_AGO
        self._peer = peer
        self._roster = roster
        self._witness_next = LONG_AGO
        self._deaf: set[LinkName] = set()
        """Where nobody at all was heard while it was silent for longer than the floor."""

    def watch_on(self, links: Iterable[LinkName], now: float) -> None:
        self.links.update(dict.fromkeys(links, now))

    def leave(self, link: LinkName) -> None:
        del self.links[link]
        self._deaf.discard(link)

    def excuse(self, now: float) -> None:
        """No silence from before counts."""
        self.links = dict.fromkeys(self.links, now)

    def dead_on(self, now: float) -> dict[LinkName, float]:
        """Where it is dead, and for how many seconds it has been silent there."""
        dead = {}
        settings = self._roster.settings
        floor = settings.detection_floor_s * self._roster.scale + self._roster.own_lateness
        for link in list(self.links):
            if not self._judges(link):
                self.links[link] = now
            answered_at = self._answered_at(link)
            if now - answered_at <= floor:
                self._deaf.discard(link)
            elif not self._hears(link, answered_at, now):
                self._deaf.add(link)
                if self._roster.links[link].is_alone(answered_at + floor + settings.alone_s, now):
                    dead[link] = now - answered_at
            elif link in self._deaf:
                self._deaf.discard(link)
                self.links[link] = now
            else:
                dead[link] = now - answered_at
        return dead

    def ask(self, now: float) -> News:
        """Ask it, and others when it is silent, if it is time to."""
        news = News()
        silent = {link: at for link in self.links if now - (at := self._answered_at(link)) > DOUBTFUL_S}
        if now >= self.ask_next:
            self.ask_next = now + (QUICK_GAP_S if silent else self._roster.settings.interval_s)
            for link in filter(self._judges, self.links):
                ask_kernel(self._roster, self._peer.sightings[link], link)
        if now < self._witness_next:
            return news
        if unproven := [link for link, at in silent.items() if not self._roster.third_party_since(link, at)]:
            self._witness_next = now + WITNESS_GAP_S
            for link in unproven:
                self._roster.links[link].ask_next = news.look_at = now
                self._ask_speakers(link)
        return news

    def _judges(self, link: LinkName) -> bool:
        return self._roster.links[link].answering and self._roster.judges(link)

    def _answered_at(self, link: LinkName) -> float:
        return max(self._peer.sightings[link].kernel_at, self.links[link])

    def _ask_speakers(self, link: LinkName) -> None:
        """Some others, whose heartbeats may be a second apart."""
        others = (each for peer, each in self._roster.on(link) if peer.node != self._peer.node)
        alive = (each for each in others if each.standing is Standing.ALIVE)
        for sighting in islice(alive, WITNESSES):
            ask_kernel(self._roster, sighting, link)

    def _hears(self, link: LinkName, since: float, now: float) -> bool:
        """Whether somebody was heard on the link since then, or there is nobody who could be."""
        here, recently = self._roster.links[link], now - self._roster.settings.third_party_s
        if self._roster.third_party_since(link, since):
            return True
        others = any(each.standing is not Standing.DEAD for _, each in self._roster.on(link))
        known = here.gateway_at > recently or any(at > recently for _, at in here.neighbours.values())
        return not (others or known or here.came_up)
