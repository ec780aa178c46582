"""A roster with links and peers as a test wants them, without a wire and without a clock."""

from __future__ import annotations

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.protocol.claims import Claim
from speaker.protocol.detector import Detector
from speaker.protocol.effects import Decision, Effect, LinkState
from speaker.protocol.peers import Link, Peer, Sighting, Suspicion
from speaker.protocol.replay import ReplayWindow
from speaker.protocol.roster import Roster
from speaker.protocol.settings import Settings
from speaker.protocol.standing import Standing

ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")
ME, B, C = NodeName("a"), NodeName("b"), NodeName("c")
VIP = AddressText("10.0.9.1")
VIP6 = AddressText("fd10::9:1")
GATEWAY = AddressText("10.0.0.254")
STRANGER_MAC = Mac(b"\2\0\0\0\xff\xff")


def mac_of(node: NodeName, link: LinkName = ETH0) -> Mac:
    return Mac(bytes((2, 0, 0, 0, ord(link[-1]), ord(node))))


def address_of(node: NodeName) -> AddressText:
    return AddressText(f"10.0.0.{ord(node)}")


def link_local_of(node: NodeName) -> AddressText:
    return AddressText(f"fe80::{ord(node):x}")


class Company:
    """This node is ``a``. Times are seconds; everything is as at time 0. Peers are heard in both families."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.roster = Roster(ME, Settings(), self.effects.append)

    def link(self, name: LinkName, *prefixes: str, up: bool = True, gateway: AddressText | None = None) -> Link:
        gateways = () if gateway is None else (gateway,)
        state = LinkState(name, ord(name[-1]), mac_of(ME, name), up, prefixes, gateways)
        link = self.roster.links[name] = Link(state)
        link.ask_next = 1e9  # nobody is asked only to know whether there is anybody
        return link

    def peer(self, node: NodeName, **standings: Standing) -> Peer:
        """One that is seen on some links, and was last heard at time 0, and says ten heartbeats a second."""
        peer = self.roster.peers[node] = Peer(node, ord(node), ReplayWindow())
        for name, standing in standings.items():
            link = LinkName(name)
            sighting = Sighting(address_of(node), mac_of(node, link), Detector(0.1, 0.0), 0.0, link)
            sighting.other_address = link_local_of(node)
            sighting.standing, sighting.life_at = standing, 0.0
            if standing is Standing.SUSPECTED:
                sighting.suspicion = Suspicion(0.0, 0.0)
                self.roster.suspects[peer.session] = peer
            peer.sightings[link] = sighting
            self.roster.by_mac[sighting.mac] = node
        return peer

    def claims(self, peer: Peer, address: AddressText = VIP) -> None:
        peer.mirror.claims[address] = Claim(2, 0)
        self.roster.note_claimant(address, peer.node)

    def decisions(self) -> list[str]:
        return [effect.reason for effect in self.effects if isinstance(effect, Decision)]
