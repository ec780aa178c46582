"""This node's own links: as they come, go, change and stall, and when they are trusted again.

A link is known by its index; under another name it goes on as what it was. A link that is new since heartbeats began to
flow, or that came up, is fenced (``fencing``) and listened on. So is every link after a stall of the loop, without the
listening. A link that speaks a family more than before is listened on, since others may be heard there that were not.
After an absence, whatever its cause, nobody's silence from before counts. A link that is down declares nobody dead.

A link that goes down, or is gone, is said at once on the links that are left, and for as long as it is so: peers that
are heard on one of them, too, need not wait for a silence. A link that is up again before anything was said is not
mentioned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cluster.objects import AddressText
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName, Mac
from speaker.protocol.claims import ClaimLog
from speaker.protocol.effects import LinkState, SendGratuitous
from speaker.protocol.fencing import DOUBT_S, Fence, FenceEvent, FenceOutcome
from speaker.protocol.heartbeat import MAX_LOST_LINKS
from speaker.protocol.news import NO_NEWS, News
from speaker.protocol.peers import Link, claims_of
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Sign, Standing
from speaker.protocol.subnets import Subnets


class OwnLinks:
    """Keeps the roster's links."""

    def __init__(
        self, roster: Roster, log: ClaimLog, links_of: Callable[[AddressText, float], frozenset[LinkName]]
    ) -> None:
        self._roster = roster
        self._log = log
        self._links_of = links_of
        """Where an address is answered for."""
        self._subnets = Subnets(roster)
        self._looked_at = LONG_AGO

    def set_links(self, states: tuple[LinkState, ...], began: bool, now: float) -> tuple[News, bool]:
        """Take over the links as they are now. ``began``: heartbeats flow, so that a link which was not known is new.
        Returns also whether any link is new or came up."""
        roster, news = self._roster, News(changed=True, look_at=now)
        former = {link.state.index: link for link in roster.links.values()}
        self._subnets.remember_own(now)
        kept = [(state, former.pop(state.index, None)) for state in states]
        gone = [link.state.name for link in former.values()]
        names = {link.state.name: state.name for state, link in kept if link is not None}
        news.speak = self._note_lost(states, names)
        news.claims = self._name_links(gone, names)
        roster.links = {}
        any_up = False
        for state, known in kept:
            comes_up = state.up and (began if known is None else not known.state.up)
            link = known or Link(state, shared=self._subnets.was_shared(state, now))
            if state.gateways != link.state.gateways:
                link.gateway_at, link.ask_next = LONG_AGO, LONG_AGO
            spoke, link.state = link.state.families, state
            roster.links[state.name] = link
            news.speak |= state.families != spoke  # claims count by what is said of families
            if began and state.families - spoke:
                self.listen(state.name, now)
            if not state.up:
                link.fencing.change(FenceEvent.DOWN, now)
            elif comes_up:
                for _, sighting in roster.on(state.name):
                    sighting.heard_at = LONG_AGO
                news.add(self._change(state.name, FenceEvent.UP, now))
                self.listen(state.name, now)
                any_up = True
        return news, any_up

    def _note_lost(self, states: Iterable[LinkState], names: Mapping[LinkName, LinkName]) -> bool:
        """Keep the list of lost links; ``names`` says what known links are called by now. Returns whether another one
        was lost."""
        roster, up = self._roster, {state.name for state in states if state.up}
        were_up = (names.get(name, name) for name, link in roster.links.items() if link.state.up)
        lost = [name for name in were_up if name not in up]
        all_lost = dict.fromkeys(name for name in (*roster.lost, *lost) if name not in up)
        roster.lost = tuple(all_lost)[-MAX_LOST_LINKS:]
        return bool(lost)

    def stall(self, now: float) -> News:
        """The loop was away for long."""
        news = News()
        for name, link in self._roster.links.items():
            if link.state.up:
                news.add(self._change(name, FenceEvent.STALL, now))
        return news

    def listen(self, name: LinkName, now: float) -> None:
        """Claim nothing new there for as long as at a start."""
        self._roster.links[name].fencing.listening_until = now + self._roster.settings.listening_s

    def excuse(self, name: LinkName, now: float) -> News:
        """Count nobody's silence from before."""
        news = News(look_at=now)
        for peer, sighting in self._roster.on(name):
            if sighting.standing is not Standing.DEAD:
                sighting.life_at = now
                sighting.detector.skip(sighting.detector.interval, now)
                news.add(self._roster.change_standing(peer, name, Sign.EXCUSE, "", now))
        return news

    def is_own(self, mac: Mac) -> bool:
        """Whether one of this node's links has the MAC."""
        return any(mac == link.state.mac for link in self._roster.links.values())

    def review(self, now: float) -> News:
        """Answer, claim and speak again where that is due."""
        self._looked_at = now
        waiting = [(name, link) for name, link in self._roster.links.items() if link.fencing.waits]
        if not waiting:
            return NO_NEWS
        news = News()
        for name, link in waiting:
            trusted, listened = link.fencing.end_waits(now)
            news.changed |= trusted or listened
            news.speak |= listened
            event = self._found_out(name, link, now)
            if event is not None:
                news.add(self._change(name, event, now))
        return news

    def next_deadline(self) -> float:
        interval_s = self._roster.settings.interval_s
        fences = [link.fencing for link in self._roster.links.values() if link.fencing.waits]
        return min([fence.next_deadline(interval_s, self._looked_at) for fence in fences]) if fences else NEVER

    def _found_out(self, name: LinkName, link: Link, now: float) -> FenceEvent | None:
        """What the time, and what was heard on the link, say about its fence."""
        settings, fencing = self._roster.settings, link.fencing
        if not fencing.may_be_heard(settings.interval_s, now):
            return None
        if self._roster.third_party_since(name, fencing.since):
            waits = fencing.suspended and self._roster.behind(name, now, DOUBT_S)
            return None if waits else FenceEvent.HEARD
        unheard = fencing.is_unheard(settings.detection_floor_s, settings.link_silence_s, now)
        return FenceEvent.UNHEARD if unheard else None

    def _change(self, name: LinkName, event: FenceEvent, now: float) -> News:
        """Change the link's fence, and do what follows."""
        link = self._roster.links[name]
        outcome = link.fencing.change(event, now)
        if outcome is FenceOutcome.SUSPENDS:
            link.ask_next = now
            news = self.excuse(name, now)
            news.changed = True
            return news
        if outcome is FenceOutcome.RESUMES:
            self._resume(name, link.fencing.state is Fence.OPEN, now)
        done = outcome is not FenceOutcome.NOTHING
        return News(changed=done, speak=outcome is FenceOutcome.RESUMES)

    def _resume(self, name: LinkName, heard: bool, now: float) -> None:
        resumed = tuple(address for address in self._log.claims if name in self._links_of(address, now))
        if resumed:
            self._roster.report("Resumed", link=name, addresses=len(resumed), heard=int(heard))
            if heard:
                self._roster.emit(SendGratuitous(resumed))

    def _name_links(self, gone: Iterable[LinkName], names: dict[LinkName, LinkName]) -> dict[AddressText, str]:
        """Forget who was heard on links that are gone, and know the others by the names that their links have now.
        Returns the claims that count for something else than before, and why."""
        claims: dict[AddressText, str] = {}
        for peer in self._roster.all_sessions():
            for name in gone:
                if name in peer.sightings:
                    self._roster.end_suspicion(peer, peer.sightings[name])
                    del peer.sightings[name]
                    claims.update(claims_of(peer, f"loss of link {name}"))
            peer.sightings = {names[name]: sighting for name, sighting in peer.sightings.items()}
        for pending in self._roster.pending.values():
            pending.link = names.get(pending.link, pending.link)
        for link in self._roster.links.values():
            link.also = {names[name]: at for name, at in link.also.items() if name in names}
        return claims
