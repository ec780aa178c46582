"""Keeps the claims of all peers, as far as they were heard, and says which of them are not complete.

``claims`` mirrors one peer's claims. Here is what concerns all mirrors together:

- The roster has who claims an address.
- A peer of whose claims some are lacking is *behind* (``Peer.behind_since``), and is asked for them.
- A peer whose claims are known is doubted no more (``fencing``).

**Bounds**, also against a member that has the key: 60,000 claims of all peers, and 4,096 messages that wait for others
before them. Where there are more claims, the peer with the most of them claims more than there can be. It is named
(``MemberNonsense``), and its claims count no more in this session of its.
"""

from __future__ import annotations

from speaker.protocol.datagram import Drop, HeartbeatError
from speaker.protocol.heartbeat import ClaimPart, ClaimStep
from speaker.protocol.news import News
from speaker.protocol.peers import Peer, claims_of
from speaker.protocol.roster import Roster

MAX_ALL_CLAIMS = 60_000  # of all peers: 20,000 addresses, each claimed by three for a moment
MAX_WAITING = 4096  # claim messages of all peers that wait for others before them


class Mirrors:
    """Of all peers in the roster."""

    def __init__(self, roster: Roster) -> None:
        self.refused = 0
        """Claims that were heard and need a feature that we lack."""
        self._roster = roster
        self._claims = 0
        """Of all peers together."""
        self._waiting = 0
        """Claim messages of all peers that wait for others."""

    def note(self, peer: Peer, version: int, digest: int, now: float) -> bool:
        """What a heartbeat says of a session's claims. Returns whether the peer is doubted no more on some link."""
        if peer.ignored:
            return False
        peer.mirror.note(version, digest)
        return self._note_behind(peer, now)

    def take(self, peer: Peer, message: ClaimStep | ClaimPart, now: float) -> News:
        """Take some of a peer's claims. Raises ``HeartbeatError`` where it would have to wait for others, and too many
        wait already."""
        news = News()
        if peer.ignored:
            return news
        mirror = peer.mirror
        had, waited, strange = mirror.size, mirror.waiting, len(mirror.strange)
        if self._waiting >= MAX_WAITING and mirror.would_wait(message):
            raise HeartbeatError(Drop.TABLE_FULL)  # it is asked for again
        changes = mirror.take_part(message) if isinstance(message, ClaimPart) else mirror.take_step(message)
        self._claims += mirror.size - had
        self.refused += max(0, len(mirror.strange) - strange)
        self._waiting += mirror.waiting - waited
        for address, claim in changes.items():
            self._roster.note_claimant(address, peer.node)
            news.claims[address] = f"released by {peer.node}"
            if claim is not None:
                peer.claimed_at = now
        if self._claims > MAX_ALL_CLAIMS:
            news.add(self._ignore(max(self._roster.all_sessions(), key=lambda other: other.mirror.size)))
        news.changed |= self._note_behind(peer, now)
        return news

    def forget(self, peer: Peer, why: str) -> News:
        """It claims nothing any more, and why."""
        news = News(claims=claims_of(peer, why))
        claimed = list(peer.mirror.claims)
        self._claims -= peer.mirror.size
        self._waiting -= peer.mirror.waiting
        peer.mirror.clear()
        for address in claimed:
            self._roster.note_claimant(address, peer.node)
        return news

    def trust(self, peer: Peer) -> bool:
        """Its claims are known, or it has none any more. Returns whether it is doubted no more on some link."""
        trusted = [link.fencing.trust(peer.session) for link in self._roster.links.values()]
        return any(trusted)

    def _ignore(self, peer: Peer) -> News:
        """Its claims count no more, in this session of its."""
        peer.ignored = True
        news = self.forget(peer, f"nonsense of {peer.node}")
        peer.behind_since = None
        seen = next(iter(peer.sightings.values()), None)
        where = {"address": seen.address, "mac": seen.mac.hex(":")} if seen is not None else {}
        self._roster.report("MemberNonsense", node=peer.node, what="more claims than there can be", **where)
        return news

    def _note_behind(self, peer: Peer, now: float) -> bool:
        """Since when some of its claims are lacking. Returns whether it is doubted no more on some link."""
        if peer.mirror.in_step:
            peer.behind_since = None
            return self.trust(peer)
        if peer.behind_since is None:
            peer.behind_since = now
        return False
