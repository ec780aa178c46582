"""The nodes that could take a bundle from its holder, and those that were named for one and did not claim.

A node can take a bundle if its own heartbeats say that it is able on all networks of the bundle's addresses, in their
families and on the interfaces that the advertisements name for it, and if it hears this node.

A node to which a bundle was offered in vain (``handing``) is not named again for it for one second. That doubles each
time, up to an hour, as long as the node's session lasts: its Plan may come later, or it may never claim. A node of a
release that takes no offers is told by a release of the bundle. If it does not claim then, so that this node has to
claim again, it is not named again for that bundle in the same session of its.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.objects import NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.plan import BundleId, Candidate
from speaker.protocol.heartbeat import TAKES_OFFERS
from speaker.protocol.peers import LinkFamily
from speaker.protocol.roster import Roster

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 3600.0


@dataclass(slots=True)
class _Pause:
    """A node is not named for a bundle until then."""

    session: int
    seconds: float
    until: float


class Successors:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._named: dict[BundleId, tuple[NodeName, int]] = {}
        """For whom a bundle was released last, in which session, until somebody claims."""
        self._pauses: dict[BundleId, dict[NodeName, _Pause]] = {}

    def takes_offers(self, node: NodeName) -> bool:
        """Whether the node claims what is offered to it. One of an earlier release does not."""
        peer = self._roster.peers.get(node)
        return peer is not None and bool(peer.skills & TAKES_OFFERS)

    def name(self, id_: BundleId, node: NodeName) -> None:
        """This node has released a bundle for another."""
        peer = self._roster.peers.get(node)
        if peer is not None:
            self._named[id_] = peer.node, peer.session

    def claimed(self, id_: BundleId) -> None:
        """Another node has claimed the bundle."""
        self._named.pop(id_, None)

    def failed(self, id_: BundleId) -> None:
        """This node has claimed the bundle, again if it had released it for another."""
        named = self._named.pop(id_, None)
        if named is not None:
            node, session = named
            self._pauses.setdefault(id_, {})[node] = _Pause(session, LONGEST_PAUSE_S, NEVER)

    def offered_in_vain(self, id_: BundleId, node: NodeName, now: float) -> None:
        """The node did not claim what was offered to it."""
        peer = self._roster.peers.get(node)
        pauses = self._pauses.setdefault(id_, {})
        before, session = pauses.get(node), peer.session if peer is not None else 0
        again = before is not None and before.session == session
        seconds = min(2 * before.seconds, LONGEST_PAUSE_S) if before is not None and again else FIRST_PAUSE_S
        pauses[node] = _Pause(session, seconds, now + seconds)

    def forget(self, id_: BundleId) -> None:
        """The bundle is gone."""
        self._named.pop(id_, None)
        self._pauses.pop(id_, None)

    def took(self, id_: BundleId, node: NodeName) -> None:
        """The node has claimed the bundle."""
        self._named.pop(id_, None)
        self._pauses.get(id_, {}).pop(node, None)

    def nameable_at(self, id_: BundleId, node: NodeName) -> float:
        """From when on the node may be named, as far as it was named in vain before."""
        pause, peer = self._pauses.get(id_, {}).get(node), self._roster.peers.get(node)
        return LONG_AGO if pause is None or peer is None or pause.session != peer.session else pause.until

    def able_since(self, candidate: Candidate, places: frozenset[LinkFamily], now: float) -> float | None:
        """Since when a candidate could take a bundle at all its places, as its heartbeats say; None also where it would
        not hear of that."""
        if not places or not self._roster.is_heard_by(candidate.node, {place.link for place in places}, now):
            return None
        able = [self._roster.able_since(candidate.node, (place,), candidate.interfaces) for place in places]
        return None if None in able else max(since for since in able if since is not None)
