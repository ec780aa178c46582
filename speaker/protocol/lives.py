"""Who of the peers lives, for those outside the protocol: for people, and for node-IP mode.

A node is *unheard* when its speaker is dead on every link on which it was ever alive and that tells anything, by the
proof that a death needs (``suspicion``), and nothing speaks for the node itself:

1. A speaker that left said so. It is no peer any more, and its node is not unheard.
2. A speaker whose node's kernel refused a datagram is dead, and its kernel is not: the process ended without a word.
3. A link that is down, on which this node cannot send, or on which it is ``alone``, tells nothing of anybody.

Not promised: that an unheard node is dead. Something may drop the datagrams of its speaker alone. So no single speaker
is believed (``controller.nodeip.liveness``).
"""

from __future__ import annotations

from cluster.objects import NodeName
from cluster.times import LONG_AGO
from speaker.protocol.effects import PeerView
from speaker.protocol.peers import Peer
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Standing


def unheard_nodes(roster: Roster) -> frozenset[NodeName]:
    """See the module's docstring. The cost grows with the peers."""
    return frozenset(peer.node for peer in roster.peers.values() if _is_unheard(roster, peer))


def _is_unheard(roster: Roster, peer: Peer) -> bool:
    lived = [
        sighting
        for link, sighting in peer.sightings.items()
        if sighting.life_at > LONG_AGO and roster.judges(link) and not roster.links[link].alone
    ]
    return bool(lived) and all(
        sighting.standing is Standing.DEAD and sighting.refused_at <= sighting.life_at for sighting in lived
    )


def peer_views(roster: Roster, now: float) -> tuple[PeerView, ...]:
    """The peers, as metrics show them."""
    views = []
    for peer in roster.peers.values():
        seen = peer.sightings.values()
        standings = {sighting.standing for sighting in seen}
        views.append(
            PeerView(
                peer.node,
                alive=bool(standings - {Standing.DEAD}),
                detection_s=max((roster.detection(sighting, now) for sighting in seen), default=0.0),
                lateness_s=max((sighting.detector.lateness for sighting in seen), default=0.0),
                claims=len(peer.mirror.claims),
                suspected=Standing.SUSPECTED in standings and Standing.ALIVE not in standings,
                heartbeats=sum(sighting.detector.heartbeats for sighting in seen),
                missed=sum(sighting.detector.missed for sighting in seen),
            )
        )
    return tuple(views)
