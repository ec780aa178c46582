"""The nodes for which a holder steps aside: who could take a bundle, and who was named for one and did not claim.

A node can take a bundle if its own heartbeats say that it is able on all networks of the bundle's addresses, in their
families and on the interfaces that the advertisements name for it, and if it hears this node. A promise to move is kept
once: a node that was named and did not claim, so that this node had to claim again, is not named again for that bundle
in the same session of its.
"""

from __future__ import annotations

from cluster.objects import NodeName
from speaker.plan import Bundle, BundleId, Candidate
from speaker.protocol.roster import LinkFamily, Roster


class Successors:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._named: dict[BundleId, tuple[NodeName, int]] = {}
        """Who was named last, in which session, until somebody claims."""
        self._failed: dict[BundleId, tuple[NodeName, int]] = {}
        """Who was named and did not claim."""

    def name(self, id_: BundleId, node: NodeName) -> None:
        """This node has stepped aside for another."""
        peer = self._roster.peers.get(node)
        if peer is not None:
            self._named[id_] = peer.node, peer.session

    def claimed(self, id_: BundleId) -> None:
        """Another node has claimed the bundle."""
        self._named.pop(id_, None)

    def failed(self, id_: BundleId) -> None:
        """This node has claimed the bundle, again if it had named another."""
        named = self._named.pop(id_, None)
        if named is not None:
            self._failed[id_] = named

    def forget(self, id_: BundleId) -> None:
        """The bundle is gone."""
        self._named.pop(id_, None)
        self._failed.pop(id_, None)

    def able_since(
        self, bundle: Bundle, candidate: Candidate, places: frozenset[LinkFamily], now: float
    ) -> float | None:
        """Since when a candidate could take the bundle at all its places, as its heartbeats say; None also where it
        would not hear of a release, and where it was named before and did not claim."""
        peer = self._roster.peers.get(candidate.node)
        if peer is None or not places or self._failed.get(bundle.id) == (peer.node, peer.session):
            return None
        if not self._roster.is_heard_by(candidate.node, {place.link for place in places}, now):
            return None
        able = [self._roster.able_since(candidate.node, (place,), candidate.interfaces) for place in places]
        return None if None in able else max(since for since in able if since is not None)
