"""The families in which heartbeats are said, and what each brings.

This table is the only place in heartbeats that knows the rooms of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cluster.addresses import Family
from speaker.wire.heartbeats import ipv4, ipv6
from speaker.wire.heartbeats.encapsulation import Encapsulation

IPV4 = Encapsulation(
    family=Family.IPV4,
    ethertype=ipv4.ETHERTYPE,
    headers_octets=ipv4.HEADERS_OCTETS,
    group=ipv4.GROUP,
    group_mac=ipv4.GROUP_MAC,
    own=ipv4.own,
    is_hosts=ipv4.is_hosts,
    encode=ipv4.encode,
    parse=ipv4.parse,
    layout=ipv4.LAYOUT,
)
IPV6 = Encapsulation(
    family=Family.IPV6,
    ethertype=ipv6.ETHERTYPE,
    headers_octets=ipv6.HEADERS_OCTETS,
    group=ipv6.GROUP,
    group_mac=ipv6.GROUP_MAC,
    own=ipv6.own,
    is_hosts=ipv6.is_hosts,
    encode=ipv6.encode,
    parse=ipv6.parse,
    layout=ipv6.LAYOUT,
)

ENCAPSULATIONS: Mapping[Family, Encapsulation] = MappingProxyType({each.family: each for each in (IPV4, IPV6)})
