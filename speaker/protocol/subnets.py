"""Says on which links an address belongs, on which of them it is answered for, and which nodes are near it.

Own subnets come from the links, those of peers from their heartbeats. A client on the subnet asks everybody on its
link, but only a node that has the subnet answers the client without a router. Such nodes are *near*, and come first.

**Where an address belongs.** The first of these that applies:

1. On the interfaces that the advertisement names, whatever their subnets.
2. On the links of which an own address has the address in its subnet.
3. On the links on which a peer has the subnet.
4. Nowhere, where some node has the subnet on another network, or this one had a link with it within the last hour.
5. On the links on whose subnet a speaker was ever heard: a router sends such an address to the LAN. On all links, where
   none was heard within the last hour on any that this node has or had.

**One answer on each segment.** Of several links on one segment one answers, or clients would get two MACs. Links are on
one segment if this node's heartbeats from one were heard on the other within the last ten seconds, or if both have the
address's subnet and no interface was named. The first by name that is up and not fenced is the one.

**What is remembered** are subnets, and when they were last said or had, whoever it was: 64 on each link, and 64
elsewhere. A node that is new and says the same as others changes nothing.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

from cluster.addresses import Family
from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.protocol.effects import LinkState
from speaker.protocol.heartbeat import Heartbeat, pack_address
from speaker.protocol.peers import Link, Network, Sighting
from speaker.protocol.roster import Roster

KNOWN_S = 3600.0  # for which a subnet is remembered that nobody has any more
SAME_SEGMENT_S = 10.0  # since the last heartbeat of ours that came back on another link
SHORTEST_PREFIX = 8  # a shorter one says nothing of where an address belongs
MAX_NETWORKS = 64  # remembered in each table
NOTED_S = 60.0  # between notes of when a subnet was last said


@lru_cache(maxsize=1024)
def networks_of(prefixes: tuple[str, ...]) -> tuple[Network, ...]:
    """The subnets of interface addresses such as ``192.0.2.11/24``; a text that is none, as a peer may say, is none."""
    networks: list[Network] = []
    for prefix in prefixes:
        with suppress(ValueError):
            network = ipaddress.ip_interface(prefix).network
            if network.prefixlen >= SHORTEST_PREFIX:
                networks.append(network)
    return tuple(networks)


@lru_cache(maxsize=64)
def one_of_each_subnet(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Of the interface addresses on each subnet the first: a host has many on one IPv6 subnet (RFC 8981)."""
    return tuple({networks_of((prefix,)): prefix for prefix in reversed(prefixes)}.values())[::-1]


class Subnets:
    """Of this node and of the peers, as the roster has them now."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def belongs(self, address: AddressText, interfaces: tuple[LinkName, ...], now: float) -> list[LinkName]:
        """The links of the address."""
        links = self._roster.links
        if interfaces:
            return [name for name in links if name in interfaces]
        own = [name for name in links if _contain(networks_of(links[name].state.prefixes), address)]
        if own:
            return own
        near = [name for name in links if _contain(said_lately(links[name].networks, now), address)]
        if near or _contain(said_lately(self._roster.elsewhere, now), address):
            return near
        shared = [name for name in links if links[name].shared]
        return shared if shared or said_lately(self._roster.shared, now) else list(links)

    def note(self, here: Link, sighting: Sighting, message: Heartbeat, now: float) -> tuple[bool, bool]:
        """Remember what a peer says of the subnets here and elsewhere; most say the same each time. Returns whether the
        peer may be nearer to some addresses than before, and whether addresses may belong on other links."""
        nearer = moved = False
        if (sighting.prefixes, sighting.elsewhere) != (message.prefixes, message.elsewhere):
            sighting.prefixes, sighting.elsewhere = message.prefixes, message.elsewhere
            nearer = True
        for table, prefixes in ((here.networks, message.prefixes), (self._roster.elsewhere, message.elsewhere)):
            for network in networks_of(prefixes):
                said_at = table.get(network, LONG_AGO)
                if now - said_at >= NOTED_S:
                    forgotten = _remember(table, network, now)
                    moved = moved or forgotten or now - said_at >= KNOWN_S
        return nearer, moved

    def remember_own(self, now: float) -> None:
        """An address on a subnet of a link of ours belongs there, also while we lack the link; and one on nobody's
        subnet on those where speakers are."""
        for link in self._roster.links.values():
            for network in (*said_lately(link.networks, now), *networks_of(link.state.prefixes)):
                _remember(self._roster.elsewhere, network, now)
            if link.shared:
                for network in _marks(link.state):
                    _remember(self._roster.shared, network, now)

    def was_shared(self, state: LinkState, now: float) -> bool:
        """Whether speakers were heard on the subnet of a link that is new."""
        return not set(_marks(state)).isdisjoint(said_lately(self._roster.shared, now))

    def answered_on(
        self, address: AddressText, belongs: list[LinkName], named: bool, now: float
    ) -> frozenset[LinkName]:
        """Of the links of an address, those on which it may be answered: one for each segment."""
        links = self._roster.links
        chosen: list[LinkName] = []
        for name in sorted(belongs, key=lambda name: (not links[name].answering, name)):
            also = links[name].also
            same = any(now - also.get(other, LONG_AGO) < SAME_SEGMENT_S for other in chosen)
            if not same and not named:
                own = networks_of(links[name].state.prefixes)
                same = any(_both(own, networks_of(links[other].state.prefixes), address) for other in chosen)
            if not same:
                chosen.append(name)
        return frozenset(chosen)

    def families_at(self, name: LinkName, now: float) -> frozenset[Family]:
        """The families that this node speaks on the segment of a link: by it, or by another link there."""
        states = [self._roster.links[each].state for each in self.same_segment(name, now)]
        return self._roster.links[name].state.families.union(*(state.families for state in states if state.up))

    def same_segment(self, name: LinkName, now: float) -> list[LinkName]:
        """The other links that lead to the segment of a link."""
        return [other for other, at in self._roster.links[name].also.items() if now - at < SAME_SEGMENT_S]

    def differ(self) -> bool:
        """Whether not all nodes have the same subnets: otherwise nobody is nearer than another."""
        return len({frozenset(self._of(node)) for node in (self._roster.node, *self._roster.peers)}) > 1

    def has(self, node: NodeName, address: AddressText) -> bool:
        """Whether the node is connected to the address's own subnet."""
        return _contain(self._of(node), address)

    def _of(self, node: NodeName) -> tuple[Network, ...]:
        if node == self._roster.node:
            said = [link.state.prefixes for link in self._roster.links.values()]
        else:
            peer = self._roster.peers.get(node)
            seen = peer.sightings.values() if peer is not None else ()
            said = [prefixes for sighting in seen for prefixes in (sighting.prefixes, sighting.elsewhere)]
        return tuple(network for prefixes in said for network in networks_of(prefixes))


def _marks(state: LinkState) -> tuple[Network, ...]:
    """What a link is known by when it is there again: its subnets, and its own link-local address, which may be all
    that it has of IPv6. Interfaces are given that by their MAC or their name (RFC 4291, RFC 7217)."""
    return networks_of((*state.prefixes, f"{state.link_local}/128") if state.link_local else state.prefixes)


def _contain(networks: tuple[Network, ...], address: AddressText) -> bool:
    packed = pack_address(address)
    bits = int.from_bytes(packed, "big")
    return any(len(packed) == octets and bits & mask == first for octets, mask, first in map(_bits, networks))


@lru_cache(maxsize=2 * MAX_NETWORKS)
def _bits(network: Network) -> tuple[int, int, int]:
    """Octets of its addresses, the mask, and the first address."""
    return network.max_prefixlen // 8, int(network.netmask), int(network.network_address)


def _both(one: tuple[Network, ...], other: tuple[Network, ...], address: AddressText) -> bool:
    return _contain(one, address) and _contain(other, address)


def _remember(table: OrderedDict[Network, float], network: Network, now: float) -> bool:
    """Whether others had to be forgotten for it."""
    table[network] = now
    table.move_to_end(network)
    full = len(table) > MAX_NETWORKS
    while len(table) > MAX_NETWORKS:
        table.popitem(last=False)
    return full


def said_lately(table: Mapping[Network, float], now: float) -> tuple[Network, ...]:
    """The subnets of a table of the roster that are not too old to be believed."""
    return tuple(network for network, at in table.items() if now - at < KNOWN_S)
