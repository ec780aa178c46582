"""Which ports this node listens on, from what the kernel lists of its sockets.

A port counts when a socket can be reached on it at a node's address, where a Service would take it away: one that is
bound to all addresses, or to one of the node's own. ``read_sockets`` reads the kernel's lists (``/proc/net/tcp`` and
its like, proc(5)); ``Listening`` decides what counts, over time:

1. Ports of NodePorts are left out, and so are those that the kernel picks for sockets that ask for none
   (``ip_local_port_range``): they are clients', and change all the time.
2. A TCP socket counts at once. A UDP socket has no state that tells a server from a client, and resolvers pick their
   ports themselves. So one counts when the same socket has been there for ``LASTING_S``.
3. A port counts until two looks in a row have not seen it. A service that restarts changes nothing.
4. What the speaker before this one has reported counts as seen, until two looks have missed it.
5. At most ``MAX_LISTENING`` ports count, the lowest.

Not promised: that a port which is open for a moment is seen, or a UDP server on one of the kernel's own ports.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from itertools import islice
from typing import NamedTuple

from cluster.addresses import Address, Family
from cluster.node_report import MAX_LISTENING, read_report
from cluster.objects import Lease, Node
from cluster.sharing import Port
from speaker.directory import ListedLink, address_of

LASTING_S = 20.0
"""No question to a name server lasts that long."""
LOOKS = 2
"""That have to miss a port."""
MAX_SOCKETS = 20_000
"""Of one protocol and family, so that a look takes some tens of milliseconds at the most."""
NODE_PORTS = range(30000, 32768)
"""kube-apiserver's default for ``--service-node-port-range``."""
LOCAL_PORTS = range(32768, 61000)
"""Linux's default for ``ip_local_port_range``."""

_LISTENS, _UNCONNECTED = "0A", "07"
"""States of sockets (``TCP_LISTEN`` and ``TCP_CLOSE``, include/net/tcp_states.h), of TCP and of UDP."""


class BoundSocket(NamedTuple):
    """A socket that takes what arrives for its port."""

    protocol: str
    """TCP or UDP."""
    address: Address
    port: int
    identity: str
    """The same as long as it is the same socket: its inode."""


def read_sockets(lines: Iterable[str], protocol: str) -> Iterator[BoundSocket]:
    """The sockets that take what arrives, in one of the kernel's lists, with its heading. TCP's listening sockets are
    the first in theirs: what follows is not read."""
    wanted = _LISTENS if protocol == "TCP" else _UNCONNECTED
    for line in islice(lines, 1, MAX_SOCKETS + 1):
        fields = line.split(maxsplit=10)
        if len(fields) < 10:
            continue
        if fields[3] != wanted:
            if protocol == "TCP":
                return
            continue
        address, _, port = fields[1].partition(":")
        try:
            yield BoundSocket(protocol, _address(address), int(port, 16), fields[9])
        except ValueError:
            continue


def _address(text: str) -> Address:
    """Words of 32 bits, each written as a number of the machine's order."""
    words = (text[at : at + 8] for at in range(0, len(text), 8))
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 4:
        return Address(Family.IPV4, int.from_bytes(packed))
    ip = IPv6Address(packed)
    return Address(Family.IPV6, int(ip)) if ip.ipv4_mapped is None else Address(Family.IPV4, int(ip.ipv4_mapped))


def _known(texts: Iterable[str]) -> frozenset[Address]:
    """Those that are addresses; link-local ones, of which each node has some, are no Service's."""
    found = set()
    for text in texts:
        with suppress(ValueError):
            ip = ip_address(text)
            if not ip.is_link_local:
                found.add(Address(Family(ip.version), int(ip)))
    return frozenset(found)


class Listening:
    """See the module's docstring. One look after the other, in monotonic seconds."""

    def __init__(self) -> None:
        self._of_node: frozenset[Address] = frozenset()
        self._of_links: frozenset[Address] = frozenset()
        self._looked = False
        self._since: dict[BoundSocket, float] = {}
        """Since when each UDP socket of the last look is there."""
        self._missed: dict[Port, int] = {}
        """How many looks have not seen each port that counts."""

    def set_node(self, node: Node) -> None:
        """This node's Node: the addresses in its status are its own."""
        self._of_node = _known(each.address for each in node.status.addresses)

    def set_links(self, links: tuple[ListedLink, ...]) -> None:
        """The addresses of these links are the node's own."""
        self._of_links = _known(address_of(each) for link in links for each in link.addresses)

    def remember(self, lease: Lease) -> None:
        """This node's own Lease, as the speaker before this one left it. After the first look it is no news."""
        if not self._looked:
            self._missed = dict.fromkeys(read_report(lease.metadata.annotations).listening, 0)

    def look(self, sockets: Iterable[BoundSocket], now: float, local_ports: range = LOCAL_PORTS) -> frozenset[Port]:
        """What the node listens on. ``local_ports``: what the kernel picks from."""
        self._looked = True
        own = self._of_node | self._of_links
        since: dict[BoundSocket, float] = {}
        seen: set[Port] = set()
        for each in sockets:
            if each.port in local_ports or each.port in NODE_PORTS or not each.port:
                continue
            if each.address.value and each.address not in own:
                continue
            if each.protocol == "UDP":
                since[each] = self._since.get(each, now)
                if now < since[each] + LASTING_S and (each.protocol, each.port) not in self._missed:
                    continue
            seen.add((each.protocol, each.port))
        self._since = since
        missed = {port: count + 1 for port, count in self._missed.items() if count + 1 < LOOKS}
        missed.update(dict.fromkeys(seen, 0))
        kept = sorted(missed, key=lambda port: (port[1], port[0]))[:MAX_LISTENING]
        self._missed = {port: missed[port] for port in kept}
        return frozenset(kept)
