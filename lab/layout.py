"""The hosts of a lab and their addresses, from a few numbers.

A lab speaks IPv4, IPv6 or both. Addresses follow from names, so that people and tests know them. If n is the first
address of the LAN in a family, the gateway ``gw`` has n+1, the control plane's host ``cp`` n+2, clients n+3 and on,
and ``node-1`` n+11. In IPv6 a number stands with the same digits: node-1 is 172.18.0.11 and fd00:b1b::11. A MAC is
02:42 and the host's IPv4 address, whether the lab speaks IPv4 or not.

            LAN              free for pools                        node N's pods           Services
    IPv4    172.18.0.0/16    172.18.255.200-172.18.255.250         10.244.N.0/24           10.96.0.0/16
    IPv6    fd00:b1b::/64    fd00:b1b::255:200-fd00:b1b::255:250   fd00:10:244:N::/64      fd00:10:96::/112

The IPv6 networks are unique local (RFC 4193). The IPv4 LAN can be another one, the rest is fixed.

With ``nat`` the lab has a public side too, as clouds have: behind the gateway there is a second LAN with one host,
``outside``. It reaches node N at 203.0.113.N, which the gateway maps to the node's address on the LAN and back (1:1
NAT). No host has such an address itself. IPv6 is not translated: the gateway routes it.

            the public side    gw             outside
    IPv4    192.0.2.0/24       192.0.2.1      192.0.2.2
    IPv6    2001:db8::/64      2001:db8::1    2001:db8::2

These networks are kept for documentation (RFC 5737, RFC 3849).
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Literal

import msgspec

from cluster.addresses import Family

DEFAULT_LAN = "172.18.0.0/16"
LAN_V6 = "fd00:b1b::/64"
DEFAULT_POOL = (IPv4Address("172.18.255.200"), IPv4Address("172.18.255.250"))  # what tutorials for kind use
POOL_V6 = ("fd00:b1b::255:200", "fd00:b1b::255:250")
SERVICE_NETWORKS = {Family.IPV4: "10.96.0.0/16", Family.IPV6: "fd00:10:96::/112"}
POD_NETWORKS = {Family.IPV4: "10.244.0.0/16", Family.IPV6: "fd00:10:244::/48"}
PUBLIC_SIDE = {Family.IPV4: "192.0.2.0/24", Family.IPV6: "2001:db8::/64"}
PUBLIC_NODES = "203.0.113.0/24"
"""The addresses that the gateway maps to nodes."""
INTERFACE = "eth0"
PUBLIC_INTERFACE = "eth1"  # of the gateway
CONTROL_PLANE = "cp"
GATEWAY = "gw"
OUTSIDE = "outside"
API_PORT = 6443  # of the API server on cp; where Kubernetes has it
STATUS_PORT = 7472  # of our daemons
MAX_NODES = 100
MAX_CLIENTS = 8

Role = Literal["control-plane", "gateway", "client", "node", "outside"]


class LayoutError(ValueError):
    """The numbers do not make a LAN; the message names the option and says why."""


class Families(StrEnum):
    """What a lab speaks. Its hosts have no address of another family, and their kernels speak no other on the LAN."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    DUAL = "dual"

    @property
    def each(self) -> tuple[Family, ...]:
        """IPv4 first, as in the lists of a dual-stack cluster whose primary family it is."""
        return {Families.IPV4: (Family.IPV4,), Families.IPV6: (Family.IPV6,)}.get(self, tuple(Family))


class Host(msgspec.Struct, frozen=True):
    """A host of the lab: one network namespace with one interface on the LAN, or for ``outside`` on the public side."""

    name: str
    role: Role
    mac: str
    addresses: dict[Family, str]
    """One for each family of the lab, IPv4 first."""
    interface: str = INTERFACE
    pod_networks: dict[Family, str] = {}
    """Of a node: the networks from which its pods have their addresses."""
    public_addresses: dict[Family, str] = {}
    """Of the gateway: its own addresses on the public side. Of a node: the one that the gateway maps to it."""

    @property
    def address(self) -> str:
        """The one in the lab's primary family: IPv4, unless the lab is IPv6 only."""
        return next(iter(self.addresses.values()))


def mac_of(ipv4: str) -> str:
    """The MAC of the interface with this address."""
    return "02:42:" + IPv4Address(ipv4).packed.hex(":")


def url_host(address: str) -> str:
    """An address as it stands in a URL, or before a port: IPv6 in brackets (RFC 3986 §3.2.2)."""
    return f"[{address}]" if ":" in address else address


class FamilyNetworks(msgspec.Struct, frozen=True):
    """What a lab has in one family. Networks are in CIDR notation."""

    lan: str
    pods: str
    services: str
    pool_first: str
    pool_last: str
    """Addresses of the LAN that no host has: what an IPAddressPool may use."""

    @property
    def pool_range(self) -> str:
        return f"{self.pool_first}-{self.pool_last}"


class Layout(msgspec.Struct, frozen=True):
    networks: dict[Family, FamilyNetworks]
    """One for each family of the lab, IPv4 first."""
    hosts: tuple[Host, ...]
    public_side: dict[Family, str] = {}
    """The network behind the gateway in each family of the lab, in CIDR notation; empty where there is none."""

    @property
    def families(self) -> tuple[Family, ...]:
        return tuple(self.networks)

    @property
    def primary(self) -> FamilyNetworks:
        """The network of the family that is named first."""
        return next(iter(self.networks.values()))

    @property
    def nodes(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.role == "node")

    @property
    def clients(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.role == "client")

    @property
    def gateway(self) -> Host | None:
        return next((host for host in self.hosts if host.role == "gateway"), None)

    @property
    def control_plane(self) -> Host:
        return next(host for host in self.hosts if host.role == "control-plane")

    def find(self, name: str) -> Host | None:
        return next((host for host in self.hosts if host.name == name), None)


def lay_out(
    nodes: int,
    clients: int = 1,
    gateway: bool = True,
    lan: str = DEFAULT_LAN,
    families: Families = Families.IPV4,
    *,
    nat: bool = False,
) -> Layout:
    """The hosts of a lab. ``lan`` is the IPv4 LAN; ``nat`` gives it a public side.

    Raises ``LayoutError`` where there are too many or too few hosts, or ``lan`` is no IPv4 network of at least a /24,
    or is chosen for a lab that speaks no IPv4, or there is nothing that translates IPv4.
    """
    if not 1 <= nodes <= MAX_NODES:
        raise LayoutError(f"--nodes: {nodes} is not within 1 to {MAX_NODES}")
    if not 1 <= clients <= MAX_CLIENTS:
        raise LayoutError(f"--clients: {clients} is not within 1 to {MAX_CLIENTS}")
    if lan != DEFAULT_LAN and Family.IPV4 not in families.each:
        raise LayoutError(f"--lan: {lan} is IPv4, and --families {families} is not; its LAN is {LAN_V6}")
    if nat and not gateway:
        raise LayoutError("--nat: the gateway translates, so it cannot be left out")
    if nat and Family.IPV4 not in families.each:
        raise LayoutError(f"--nat: what is translated is IPv4, and --families {families} is not")
    network = _parse_lan(lan)
    first = network.network_address

    def host(name: str, role: Role, number: int) -> Host:
        v4 = first + number
        addresses = {Family.IPV4: str(v4), Family.IPV6: LAN_V6.replace("/64", str(number))}
        return Host(name, role, mac_of(str(v4)), {family: addresses[family] for family in families.each})

    def node(number: int) -> Host:
        pods = {Family.IPV4: f"10.244.{number}.0/24", Family.IPV6: f"fd00:10:244:{number}::/64"}
        made = host(f"node-{number}", "node", 10 + number)
        return msgspec.structs.replace(
            made,
            pod_networks={family: pods[family] for family in families.each},
            public_addresses={Family.IPV4: str(IPv4Network(PUBLIC_NODES)[number])} if nat else {},
        )

    public_side = {family: PUBLIC_SIDE[family] for family in families.each} if nat else {}

    def on_public_side(number: int) -> dict[Family, str]:
        return {family: str(ip_network(network)[number]) for family, network in public_side.items()}

    hosts = [host(CONTROL_PLANE, "control-plane", 2)]
    if gateway:
        hosts.append(msgspec.structs.replace(host(GATEWAY, "gateway", 1), public_addresses=on_public_side(1)))
    if nat:
        addresses = on_public_side(2)
        hosts.append(Host(OUTSIDE, "outside", mac_of(addresses[Family.IPV4]), addresses))
    hosts += [host("client" if i == 1 else f"client{i}", "client", 2 + i) for i in range(1, clients + 1)]
    hosts += [node(number) for number in range(1, nodes + 1)]
    pools = {Family.IPV4: _pool_of(network), Family.IPV6: POOL_V6}
    lans = {Family.IPV4: str(network), Family.IPV6: LAN_V6}
    networks = {
        family: FamilyNetworks(lans[family], POD_NETWORKS[family], SERVICE_NETWORKS[family], *pools[family])
        for family in families.each
    }
    return Layout(networks, tuple(hosts), public_side)


def _parse_lan(lan: str) -> IPv4Network:
    try:
        network = IPv4Network(lan)
    except ValueError as error:
        raise LayoutError(f"--lan: {error}") from error
    if network.prefixlen > 24:
        raise LayoutError(f"--lan: {lan} is too small; a /24 is the least")
    taken = {
        "the pods": POD_NETWORKS[Family.IPV4],
        "the Services": SERVICE_NETWORKS[Family.IPV4],
        "the public side": PUBLIC_SIDE[Family.IPV4],
        "the nodes' public addresses": PUBLIC_NODES,
    }
    for name, other in {**taken, "loopback": "127.0.0.0/8"}.items():
        if network.overlaps(IPv4Network(other)):
            raise LayoutError(f"--lan: {lan} overlaps {other}, the network of {name}")
    return network


def _pool_of(network: IPv4Network) -> tuple[str, str]:
    """The tutorials' range where the LAN has it; otherwise the same place in the LAN's last /24."""
    if all(address in network for address in DEFAULT_POOL):
        first, last = DEFAULT_POOL
    else:
        first, last = network.broadcast_address - 55, network.broadcast_address - 5
    return str(first), str(last)
