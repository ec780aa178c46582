"""The hosts of a lab and their addresses, from a few numbers.

Addresses follow from names, so that people and tests know them. If n is the LAN's first address, the gateway ``gw`` has
n+1, the control plane's host ``cp`` n+2, clients n+3 and on, and ``node-1`` n+11. A MAC is 02:42 and the address. Each
node has 10.244.N.0/24 for its pods.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Literal

import msgspec

DEFAULT_LAN = "172.18.0.0/16"
DEFAULT_POOL = (IPv4Address("172.18.255.200"), IPv4Address("172.18.255.250"))  # what tutorials for kind use
SERVICE_NETWORK = "10.96.0.0/16"
POD_NETWORK = "10.244.0.0/16"
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


class Host(msgspec.Struct, frozen=True):
    """A host of the lab: one network namespace with one interface on the LAN."""

    name: str
    role: Role
    address: str
    mac: str
    interface: str = INTERFACE
    pod_network: str | None = None
    """Of a node: the network from which its pods have their addresses."""


class Layout(msgspec.Struct, frozen=True):
    lan: str
    pool_first: str
    pool_last: str
    """Addresses of the LAN that no host has: what an IPAddressPool may use."""
    hosts: tuple[Host, ...]

    @property
    def pool_range(self) -> str:
        return f"{self.pool_first}-{self.pool_last}"

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


def lay_out(nodes: int, clients: int = 1, gateway: bool = True, lan: str = DEFAULT_LAN) -> Layout:
    """The hosts of a lab.

    Raises ``LayoutError`` where there are too many or too few hosts, or the LAN is no IPv4 network of at least a /24.
    """
    if not 1 <= nodes <= MAX_NODES:
        raise LayoutError(f"--nodes: {nodes} is not within 1 to {MAX_NODES}")
    if not 1 <= clients <= MAX_CLIENTS:
        raise LayoutError(f"--clients: {clients} is not within 1 to {MAX_CLIENTS}")
    network = _parse_lan(lan)
    first = network.network_address

    def host(name: str, role: Role, offset: int, pod_network: str | None = None) -> Host:
        address = first + offset
        return Host(name, role, str(address), "02:42:" + address.packed.hex(":"), pod_network=pod_network)

    hosts = [host(CONTROL_PLANE, "control-plane", 2)]
    if gateway:
        hosts.append(host(GATEWAY, "gateway", 1))
    hosts += [host("client" if i == 1 else f"client{i}", "client", 2 + i) for i in range(1, clients + 1)]
    hosts += [host(f"node-{i}", "node", 10 + i, f"10.244.{i}.0/24") for i in range(1, nodes + 1)]
    low, high = _pool_of(network)
    return Layout(str(network), str(low), str(high), tuple(hosts))


def _parse_lan(lan: str) -> IPv4Network:
    try:
        network = IPv4Network(lan)
    except ValueError as error:
        raise LayoutError(f"--lan: {error}") from error
    if network.prefixlen > 24:
        raise LayoutError(f"--lan: {lan} is too small; a /24 is the least")
    for name, taken in (("the pods", POD_NETWORK), ("the Services", SERVICE_NETWORK), ("loopback", "127.0.0.0/8")):
        if network.overlaps(IPv4Network(taken)):
            raise LayoutError(f"--lan: {lan} overlaps {taken}, the network of {name}")
    return network


def _pool_of(network: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
    """The tutorials' range where the LAN has it; otherwise the same place in the LAN's last /24."""
    if all(address in network for address in DEFAULT_POOL):
        return DEFAULT_POOL
    last = network.broadcast_address
    return last - 55, last - 5
