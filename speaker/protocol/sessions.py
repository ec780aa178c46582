"""Which sessions count as peers, and which never count again.

A session is one process of a speaker. ``identity`` admits sessions and removes them, ``absences`` sets those aside that
another speaker stands in for. Of a session that was removed its datagrams up to some sequence never count again: all of
them, if it said that it ends. 4,096 of these are remembered.
"""

from __future__ import annotations

from collections import OrderedDict

from speaker.protocol.peers import Peer
from speaker.protocol.roster import Roster

MAX_RETIRED = 4096
FOREVER = (1 << 64) - 1


class Sessions:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._peers: dict[int, Peer] = {}
        self._retired: OrderedDict[int, int] = OrderedDict()
        """Session -> its datagrams up to this sequence never count again."""

    def peer(self, session: int) -> Peer | None:
        """Whose session it is, of those that count."""
        return self._peers.get(session)

    def add(self, peer: Peer) -> None:
        """It counts from now on, as the speaker of its node."""
        self._roster.peers[peer.node] = peer
        self._peers[peer.session] = peer

    def remove(self, peer: Peer) -> None:
        """It counts no more."""
        for sighting in peer.sightings.values():
            self._roster.end_suspicion(peer, sighting)
        self._roster.suspects.pop(peer.session, None)
        del self._roster.peers[peer.node]
        del self._peers[peer.session]

    def forget_macs(self, peer: Peer) -> None:
        """Nothing of the peer is on the LAN any more."""
        for sighting in peer.sightings.values():
            self._roster.by_mac.pop(sighting.mac, None)
            self._roster.by_mac.pop(sighting.other_mac, None)

    def is_retired(self, session: int, sequence: int) -> bool:
        return sequence <= self._retired.get(session, -1)

    def retire(self, session: int, up_to: int = FOREVER) -> None:
        """Datagrams of the session up to this sequence never count again."""
        self._retired[session] = up_to
        while len(self._retired) > MAX_RETIRED:
            self._retired.popitem(last=False)
