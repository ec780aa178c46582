"""Says what to do about others on the LAN that use an address for which this node answers.

- A *stranger* is no speaker that is heard, or the speaker of another cluster (``foreign``). It is a conflict: reported
  with its MAC, and answered with one defence in ten seconds, as RFC 5227 §2.4 allows.
- A *speaker's* node may have a higher claim that is on its way. Claims decide that, and this node never defends against
  it. If its frames go on for a second without a claim that counts, that is reported with what is known of it: a machine
  with our name (``twin``), a speaker whose datagrams do not arrive here (``blocked``), or a kernel that answers by
  itself (``kernel``), as kube-proxy's does in IPVS mode without strictARP.

``conflicts`` remembers each, until nobody else has the address any more. The tables here hold addresses that this node
held in the last ten seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.protocol.conflicts import Conflicts, ConflictState
from speaker.protocol.effects import NeighbourSeen, SendGratuitous
from speaker.protocol.foreign import ForeignSpeakers
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Standing

K = TypeVar("K")
CLAIM_PATIENCE_S = 1.0  # for the claim of a speaker whose frames we see


class Rivals:
    """Sans-IO; emits ``SendGratuitous`` and ``Decision``."""

    def __init__(self, roster: Roster, conflicts: Conflicts, foreign: ForeignSpeakers) -> None:
        self._roster = roster
        self._conflicts = conflicts
        self._foreign = foreign
        self._defended: OrderedDict[AddressText, float] = OrderedDict()
        """When, the longest ago first."""
        self._met: OrderedDict[tuple[AddressText, NodeName], float] = OrderedDict()

    def meet(self, seen: NeighbourSeen, node: NodeName | None, quiet: frozenset[LinkName], now: float) -> None:
        """``seen`` has an address that we answer for as its sender; ``node`` is the speaker whose MAC it carries."""
        old = now - self._roster.settings.defence_gap_s
        if self._defended.get(seen.sender, LONG_AGO) > old:
            return
        _forget(self._defended, old)
        if node is not None:
            _forget(self._met, old)
            peer = self._roster.peers.get(node)
            claims = (
                peer is not None
                and self._roster.claim_on(peer, seen.sender, seen.link) is not None
                and (sighting := peer.sightings.get(seen.link)) is not None
                and sighting.standing is Standing.ALIVE
            )
            first = self._met.setdefault((seen.sender, node), now)
            if claims or now - first < CLAIM_PATIENCE_S:
                return
        self._defended[seen.sender] = now
        cluster = self._foreign.cluster_of(seen.sender_mac, now) if node is None else ""
        who = {name: text for name, text in (("node", node), ("cluster", cluster)) if text}
        mac = seen.sender_mac.hex(":")
        kind = "cluster" if cluster else self._kind(seen, node)
        self._roster.report("AddressConflict", address=seen.sender, link=seen.link, mac=mac, seen=kind, **who)
        conflict = ConflictState(seen.link, seen.sender_mac, kind, node, cluster, withheld=False, told=True)
        self._conflicts.find(seen.sender, conflict, now)
        if node is None and seen.link not in quiet:
            self._roster.emit(SendGratuitous((seen.sender,), defend=True))

    def _kind(self, seen: NeighbourSeen, node: NodeName | None) -> str:
        if node is None:
            return "stranger"
        if node == self._roster.node:
            return "twin"
        sighting = self._roster.sighting(node, seen.link)
        return "kernel" if sighting is not None and sighting.standing is Standing.ALIVE else "blocked"


def _forget(table: OrderedDict[K, float], old: float) -> None:
    """Forget what is as old. Each frame of a rival asks for it: it costs what there is to forget, and no more."""
    while table and next(iter(table.values())) <= old:
        table.popitem(last=False)
