"""Which subnets are where: on which links an address belongs, and which nodes are on its own subnet.

Own subnets come from the links, the peers' from their heartbeats. A client on the subnet asks everybody on its link,
but only a node that has the subnet can answer the client itself without a router: such nodes come first.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from functools import lru_cache

from cluster.objects import AddressText, NodeName
from speaker.plan import LinkName
from speaker.roster import Roster

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=1024)
def networks_of(prefixes: tuple[str, ...]) -> tuple[Network, ...]:
    """The subnets of interface addresses such as ``192.0.2.11/24``; a text that is none, as a peer may say, is none."""
    networks: list[Network] = []
    for prefix in prefixes:
        with suppress(ValueError):
            networks.append(ipaddress.ip_interface(prefix).network)
    return tuple(networks)


class Subnets:
    """Of this node and of the peers, as the roster has them now."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def links(self, address: AddressText, interfaces: tuple[LinkName, ...]) -> frozenset[LinkName]:
        """Where the address may be answered: on the interfaces named (none: on all), and of those only on the ones with
        a subnet that contains it, if any has one."""
        wanted = [name for name in self._roster.links if not interfaces or name in interfaces]
        if len(wanted) < 2:
            return frozenset(wanted)
        inside = [name for name in wanted if _contain(networks_of(self._roster.links[name].state.prefixes), address)]
        return frozenset(inside or wanted)

    def differ(self) -> bool:
        """Whether not all nodes have the same subnets: otherwise nobody is nearer than another."""
        return len({frozenset(self._of(node)) for node in (self._roster.node, *self._roster.peers)}) > 1

    def has(self, node: NodeName, address: AddressText) -> bool:
        """Whether the node is connected to the address's own subnet."""
        return _contain(self._of(node), address)

    def _of(self, node: NodeName) -> tuple[Network, ...]:
        if node == self._roster.node:
            said = [segment.state.prefixes for segment in self._roster.links.values()]
        else:
            peer = self._roster.peers.get(node)
            said = [sighting.prefixes for sighting in peer.sightings.values()] if peer is not None else []
        return tuple(network for prefixes in said for network in networks_of(prefixes))


def _contain(networks: tuple[Network, ...], address: AddressText) -> bool:
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in networks)
