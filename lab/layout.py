"""The hosts of a lab and their addresses, from a few numbers.

A lab speaks IPv4, IPv6 or both. Addresses follow from names, so that people and tests know them. If n is the first
address of the LAN in a family, the gateway ``gw`` has n+1, the control plane's host ``cp`` n+2, clients n+3 and on,
and ``node-1`` n+11. In IPv6 a number stands with the same digits: node-1 is 172.18.0.11 and fd00:b1b::11. A MAC is
02:42 and the host's IPv4 address, whether the lab speaks IPv4 or not.

            LAN              free for pools                        node N's pods           Services
    IPv4    172.18.0.0/16    172.18.255.200-172.18.255.250         10.244.N.0/24           10.96.0.0/16
    IPv6    fd00:b1b::/64    fd00:b1b::255:200-fd00:b1b::255:250   fd00:10:244:N::/64      fd00:10:96::/112

The IPv6 networks are unique local (RFC 4193). The IPv4 LAN can be another one, the rest is fixed.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

import msgspec

from cluster.addresses import Family

DEFAULT_LAN = "172.18.0.0/16"
LAN_V6 = "fd00:b1b::/64"
DEFAULT_POOL = (IPv4Address("172.18.255.200"), IPv4Address("172.18.255.250"))  # what tutorials for kind use
POOL_V6 = ("fd00:b1b::255:200", "fd00:b1b::255:250")
SERVICE_NETWORKS = {Family.IPV4: "10.96.0.0/16", Family.IPV6: "fd00:10:96::/112"}
POD_NETWORKS = {Family.IPV4: "10.244.0.0/16", Family.IPV6: "fd00:10:244::/48"}
INTERFACE = "eth0"
CONTROL_PLANE = "cp"
GATEWAY = "gw"
API_PORT = 6443  # of the API server on cp; where Kubernetes has it
STATUS_PORT = 7472  # of our daemons
MAX_NODES = 100
MAX_CLIENTS = 8

Role = Literal["control-plane", "gateway", "client", "node"]


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
    """A host of the lab: one network namespace with one interface on the LAN."""

    name: str
    role: Role
    mac: str
    addresses: dict[Family, str]
    """One for each family of the lab, IPv4 first."""
    interface: str = INTERFACE
    pod_networks: dict[Family, str] = {}
    """Of a node: the networks from which its pods have their addresses."""

    @property
    def address(self) -> str:
        """The one in the lab's primary family: IPv4, unless the lab is IPv6 only."""
        return next(iter(self.addresses.values()))


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
) -> Layout:
    """The hosts of a lab. ``lan`` is the IPv4 LAN.

    Raises ``LayoutError`` where there are too many or too few hosts, or ``lan`` is no IPv4 network of at least a /24,
    or is chosen for a lab that speaks no IPv4.
    """
    if not 1 <= nodes <= MAX_NODES:
        raise LayoutError(f"--nodes: {nodes} is not within 1 to {MAX_NODES}")
    if not 1 <= clients <= MAX_CLIENTS:
        raise LayoutError(f"--clients: {clients} is not within 1 to {MAX_CLIENTS}")
    if lan != DEFAULT_LAN and Family.IPV4 not in families.each:
        raise LayoutError(f"--lan: {lan} is IPv4, and --families {families} is not; its LAN is {LAN_V6}")
    network = _parse_lan(lan)
    first = network.network_address

    def host(name: str, role: Role, number: int) -> Host:
        v4 = first + number
        addresses = {Family.IPV4: str(v4), Family.IPV6: LAN_V6.replace("/64", str(number))}
        return Host(name, role, "02:42:" + v4.packed.hex(":"), {family: addresses[family] for family in families.each})

    def node(number: int) -> Host:
        pods = {Family.IPV4: f"10.244.{number}.0/24", Family.IPV6: f"fd00:10:244:{number}::/64"}
        made = host(f"node-{number}", "node", 10 + number)
        return msgspec.structs.replace(made, pod_networks={family: pods[family] for family in families.each})

    hosts = [host(CONTROL_PLANE, "control-plane", 2)]
    if gateway:
        hosts.append(host(GATEWAY, "gateway", 1))
    hosts += [host("client" if i == 1 else f"client{i}", "client", 2 + i) for i in range(1, clients + 1)]
    hosts += [node(number) for number in range(1, nodes + 1)]
    pools = {Family.IPV4: _pool_of(network), Family.IPV6: POOL_V6}
    lans = {Family.IPV4: str(network), Family.IPV6: LAN_V6}
    networks = {
        family: FamilyNetworks(lans[family], POD_NETWORKS[family], SERVICE_NETWORKS[family], *pools[family])
        for family in families.each
    }
    return Layout(networks, tuple(hosts))


def _parse_lan(lan: str) -> IPv4Network:
    try:
        network = IPv4Network(lan)
    except ValueError as error:
        raise LayoutError(f"--lan: {error}") from error
    if network.prefixlen > 24:
        raise LayoutError(f"--lan: {lan} is too small; a /24 is the least")
    taken = {"the pods": POD_NETWORKS[Family.IPV4], "the Services": SERVICE_NETWORKS[Family.IPV4]}
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
