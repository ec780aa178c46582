"""Own links as they come, go and change: what that means for whoever was heard there.

A link is known by its index; it goes on under another name as what it was. One that is new since heartbeats began to
flow, or came up, is fenced (``fencing``), and nothing is claimed on it for as long as at a start: everybody who holds
something there will have been heard by then. A link that is down declares nobody dead. After we were away from one, for
whatever reason, nobody's silence from before counts.
"""

from __future__ import annotations

from speaker.link import LinkName
from speaker.protocol.effects import LinkState
from speaker.protocol.roster import NEVER, Roster, Segment, Standing
from speaker.protocol.subnets import Subnets


class Segments:
    """Keeps the roster's links."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._subnets = Subnets(roster)

    def set_links(self, states: tuple[LinkState, ...], began: bool, now: float) -> bool:
        """Take over the links as they are now, known by their index. One that is new since heartbeats ``began`` to
        flow, or came up, is fenced and listened on; what was heard on it is not held against anybody. Returns whether
        there is one."""
        roster = self._roster
        former = {segment.state.index: segment for segment in roster.links.values()}
        self._subnets.remember_own(now)
        kept = [(state, former.pop(state.index, None)) for state in states]
        gone = [segment.state.name for segment in former.values()]
        self._name_links(gone, {segment.state.name: state.name for state, segment in kept if segment is not None})
        roster.links = {}
        fenced = False
        for state, known in kept:
            came_up = state.up and (began if known is None else not known.state.up)
            segment = known or Segment(state, shared=self._subnets.was_shared(state.prefixes, now))
            if state.gateway != segment.state.gateway:
                segment.gateway_at, segment.ask_next = NEVER, NEVER
            segment.state = state
            if not state.up:
                segment.quiet_since = None
            roster.links[state.name] = segment
            if came_up:
                for _, sighting in roster.on(state.name):
                    sighting.heard_at = NEVER
                self.fence(state.name, now)
                segment.listening_until = now + roster.settings.listening_s
                fenced = True
        roster.changed = True
        roster.check_at = now
        return fenced

    def fence(self, link: LinkName, now: float) -> None:
        """We were away from this link: suspend it, and count nobody's silence from before."""
        segment = self._roster.links[link]
        segment.fenced_since = now
        segment.ask_next = now
        self.excuse(link, now)
        self._roster.changed = True

    def excuse(self, link: LinkName, now: float) -> None:
        """Count nobody's silence from before."""
        for peer, sighting in self._roster.on(link):
            if sighting.standing is not Standing.DEAD:
                sighting.life_at = now
                sighting.detector.skip(sighting.detector.interval, now)
                self._roster.forget_suspicion(peer, sighting)
                sighting.standing = Standing.ALIVE
        self._roster.check_at = now

    def _name_links(self, gone: list[LinkName], names: dict[LinkName, LinkName]) -> None:
        """Forget whom we heard on links that are gone, and know the others by the names that their links have now."""
        for peer in self._roster.peers.values():
            for link in gone:
                if link in peer.sightings:
                    self._roster.forget_suspicion(peer, peer.sightings[link])
                    del peer.sightings[link]
                    self._roster.mark_claims(peer, f"loss of link {link}")
            peer.sightings = {names[link]: sighting for link, sighting in peer.sightings.items()}
        for pending in self._roster.pending.values():
            pending.link = names.get(pending.link, pending.link)
        for segment in self._roster.links.values():
            segment.also = {names[link]: at for link, at in segment.also.items() if link in names}
