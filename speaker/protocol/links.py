"""Own links as they come, go and change: what that means for whoever was heard there.

A link is known by its index; it goes on under another name as what it was. One that is new since heartbeats began to
flow, or came up, is fenced (``fencing``), and nothing is claimed on it for as long as at a start: everybody who holds
something there will have been heard by then. A link that is down declares nobody dead. After we were away from one, for
whatever reason, nobody's silence from before counts.
"""

from __future__ import annotations

from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.protocol.effects import LinkState
from speaker.protocol.roster import Link, Roster, Standing
from speaker.protocol.subnets import Subnets


class OwnLinks:
    """Keeps the roster's links."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._subnets = Subnets(roster)

    def set_links(self, states: tuple[LinkState, ...], began: bool, now: float) -> bool:
        """Take over the links as they are now, known by their index. One that is new since heartbeats ``began`` to
        flow, or came up, is fenced and listened on; what was heard on it is not held against anybody. Returns whether
        there is one."""
        roster = self._roster
        former = {link.state.index: link for link in roster.links.values()}
        self._subnets.remember_own(now)
        kept = [(state, former.pop(state.index, None)) for state in states]
        gone = [link.state.name for link in former.values()]
        self._name_links(gone, {here.state.name: state.name for state, here in kept if here is not None})
        roster.links = {}
        fenced = False
        for state, known in kept:
            came_up = state.up and (began if known is None else not known.state.up)
            here = known or Link(state, shared=self._subnets.was_shared(state.prefixes, now))
            if state.gateway != here.state.gateway:
                here.gateway_at, here.ask_next = LONG_AGO, LONG_AGO
            here.state = state
            if not state.up:
                here.quiet_since = None
            roster.links[state.name] = here
            if came_up:
                for _, sighting in roster.on(state.name):
                    sighting.heard_at = LONG_AGO
                self.fence(state.name, now)
                here.listening_until = now + roster.settings.listening_s
                fenced = True
        roster.changed = True
        roster.check_at = now
        return fenced

    def fence(self, link: LinkName, now: float) -> None:
        """We were away from this link: suspend it, and count nobody's silence from before."""
        here = self._roster.links[link]
        here.fenced_since = now
        here.ask_next = now
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
        for here in self._roster.links.values():
            here.also = {names[link]: at for link, at in here.also.items() if link in names}
