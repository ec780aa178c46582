"""Remembers the speakers of other clusters on the LAN by their MACs, so that one of them is called what it is.

Several clusters may share a LAN. Their heartbeats are dropped (``other_cluster``), and disturb nobody. The header of
each says in the clear which cluster it is of, by a digest. So where a speaker of another cluster is found to have an
address, this can be said, and of which cluster it is.

Nothing proves what such a heartbeat says, and nothing but the words of a decision depends on it. The 64 MACs that were
heard last are remembered, each for ten minutes.
"""

from __future__ import annotations

from collections import OrderedDict

from speaker.link import Mac

MAX_FOREIGN = 64
REMEMBERED_S = 600.0


class ForeignSpeakers:
    """By MAC. Times are seconds."""

    def __init__(self) -> None:
        self._clusters: OrderedDict[Mac, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clusters)

    def hear(self, mac: Mac, cluster: bytes, now: float) -> None:
        """A heartbeat of another cluster came from this MAC."""
        self._clusters[mac] = cluster.hex(), now
        self._clusters.move_to_end(mac)
        if len(self._clusters) > MAX_FOREIGN:
            self._clusters.popitem(last=False)

    def cluster_of(self, mac: Mac, now: float) -> str:
        """The digest of the cluster of which a speaker has this MAC; empty: of none that is known."""
        cluster, at = self._clusters.get(mac, ("", now))
        return cluster if now - at < REMEMBERED_S else ""
