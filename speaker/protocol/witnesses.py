"""Notes what frames that are no heartbeats prove: that somebody is there, and that this node can hear.

- A frame of ARP or Neighbour Discovery from the gateway or a neighbour shows both. The last eight neighbours of each
  link are remembered, so that they can be asked.
- A frame of any kind shows both, unless it is a suspect's own: a suspect's kernel sends some without its speaker.
- A proof that a suspect answers for its address shows that it lives.
- An answer of a speaker's kernel for the node's own address shows that the kernel lives.
- The word of a suspect's kernel that nobody listens on the port shows that its speaker does not.

``suspicion`` says what follows.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.protocol.effects import NeighbourSeen
from speaker.protocol.peers import NEIGHBOURS
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Standing


class Witnesses:
    """Notes in the roster what was seen. Each method returns whether suspicions are to be judged now."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def refused(self, link: LinkName, to: AddressText, now: float) -> bool:
        """The kernel at ``to`` says that no speaker listens there (port unreachable: ICMP, RFC 792, or ICMPv6, RFC
        4443)."""
        of_suspect = False
        for peer in list(self._roster.suspects.values()):
            sighting = peer.sightings.get(link)
            if sighting is not None and sighting.suspicion is not None and to in sighting.addresses:
                sighting.refused_at = now
                of_suspect = True
        return of_suspect

    def proved(self, seen: NeighbourSeen, node: NodeName, proves: Callable[[bytes], bool], now: float) -> bool:
        """Take a frame of a speaker's node: perhaps a suspect's answer to one of our latest questions for its address,
        with a proof that only a speaker can make. It has to come from the suspect's place, not from that of another
        machine with its name. ``proves`` tells by a nonce."""
        sighting = self._roster.sighting(node, seen.link)
        if not seen.proof or sighting is None or seen.sender_mac not in {sighting.mac, sighting.other_mac}:
            return False
        nonces = sighting.suspicion.nonces if sighting.suspicion is not None else {}
        if not any(address == seen.sender and proves(nonce) for nonce, address in nonces.items()):
            return False
        if sighting.suspicion is not None:
            sighting.suspicion.served_at, sighting.suspicion.served = now, seen.sender
        return True

    def kernel(self, seen: NeighbourSeen, node: NodeName, now: float) -> None:
        """Take a frame of a speaker's node: perhaps its kernel's answer to a question for the node's own address."""
        for peer in self._roster.sessions(node) if seen.is_reply else ():
            sighting = peer.sightings.get(seen.link)
            if sighting is not None and sighting.mac == seen.sender_mac and seen.sender in sighting.addresses:
                sighting.kernel_at = now

    def frame(self, link: LinkName, sender: Mac, now: float) -> bool:
        """Take a frame of any kind: unless a suspect's own, it proves that we can hear."""
        here = self._roster.links.get(link)
        if here is None:
            return False
        node = self._roster.by_mac.get(sender)
        sighting = self._roster.sighting(node, link) if node is not None else None
        if sighting is not None and sighting.standing is not Standing.ALIVE:
            return False
        here.frame_at = now
        here.alone = False
        return True

    def neighbour(self, seen: NeighbourSeen, now: float) -> bool:
        """Take a frame of somebody who is no speaker."""
        here = self._roster.links[seen.link]
        here.alone = False
        if seen.sender in here.state.gateways:
            here.gateway_at = now
        else:
            here.neighbours[seen.sender_mac] = (seen.sender, now)
            here.neighbours.move_to_end(seen.sender_mac)
            while len(here.neighbours) > NEIGHBOURS:
                here.neighbours.popitem(last=False)
        return bool(self._roster.suspects)

    def whose(self, mac: Mac) -> NodeName | None:
        """The speaker that has this MAC."""
        node = self._roster.by_mac.get(mac)
        if node is not None:
            return node
        return next((pending.node for pending in self._roster.pending.values() if pending.mac == mac), None)
