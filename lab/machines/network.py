"""The lab's networks: the LAN, which is a bridge with one interface on it for each host, and where there is one the
public side, another bridge with the gateway and the host ``outside``.

The bridge is a plain learning switch. It has no spanning tree and no forwarding delay, so that a port forwards as soon
as it is up. It does not snoop on multicast and sends it to every port. Of the switches that people have, some snoop
and some do not; heartbeats must not depend on it. It drops nothing but what it is told to (``drop``).

A host speaks the lab's families on the LAN and no other: its kernel has no IPv4 address there in an IPv6-only lab, and
in an IPv4-only lab IPv6 is off there, link-local addresses included. IPv6 addresses are used without duplicate address
detection, which would cost each a second, since the layout gives no address twice. No router advertises itself, and a
host that forwards would not listen (``accept_ra`` 1 means: unless forwarding): every default route is configured.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET6

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cluster.addresses import Family
from lab.layout import PUBLIC_INTERFACE, Host, Layout, mac_of
from lab.machines import nat
from lab.machines.namespaces import inside

BRIDGE, PUBLIC_BRIDGE = "lan", "public"
SWITCH = "bridge lab-switch"  # a table of nftables
BR_STATE_FORWARDING = 3  # linux/if_bridge.h
IFA_F_NODAD = 0x02  # linux/if_addr.h
RT_SCOPE_LINK = 253  # linux/rtnetlink.h

SETTINGS = {  # of every host and interface
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/{interface}/rp_filter": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/{interface}/accept_dad": "0",
    "net/ipv6/conf/{interface}/accept_redirects": "0",  # a router cannot be told to send none, as below in IPv4
}
IPV6_OFF = {"net/ipv6/conf/{interface}/disable_ipv6": "1"}
FORWARDING_SETTINGS = {  # of nodes and the gateway
    "net/ipv4/ip_forward": "1",
    # A node passes packets on to pods by the interface that they came from; it must not tell clients about it.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/{interface}/send_redirects": "0",
    "net/ipv6/conf/all/forwarding": "1",
}
EVERYWHERE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


@dataclass(frozen=True)
class _Wire:
    """A cable from a host's interface to a bridge."""

    end: str
    """The name of the interface on the bridge."""
    bridge: str
    interface: str
    """The name of the host's own."""
    mac: str
    networks: dict[Family, str]
    """Of the LAN that the bridge is."""
    addresses: dict[Family, str]


class Lan:
    """The bridges and the hosts' interfaces. Made in the namespace of the process that keeps the lab."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.netlink = IPRoute()
        for bridge in (BRIDGE, PUBLIC_BRIDGE) if layout.public_side else (BRIDGE,):
            self.netlink.link(
                "add", ifname=bridge, kind="bridge", br_forward_delay=0, br_stp_state=0, br_mcast_snooping=0, state="up"
            )

    def attach(self, host: Host, namespace: int) -> None:
        """Give a host's new namespace its interfaces, addresses and routes, and plug it in."""
        for wire in self._wires(host):
            self._lay(wire, host, namespace)
        with inside(namespace), IPRoute() as netlink:
            for family in self.layout.families:
                self._add_routes(netlink, host, family)
            if host.role == "gateway" and self.layout.public_side:
                nat.install(self.layout)
        for wire in self._wires(host):
            self._plug(wire, namespace)

    def plug(self, host: Host, namespace: int) -> None:
        """Put the cable in: the host sees its carrier come.

        Returns when frames pass both ways (at most two seconds later): on a busy machine the kernel's own bookkeeping
        of links, which turns the bridge's port on, lets the host's interface send and gives it its link-local address,
        comes a good while after the command.
        """
        self._plug(self._wires(host)[0], namespace)

    def _plug(self, wire: _Wire, namespace: int) -> None:
        self.netlink.link("set", ifname=wire.end, state="up")
        deadline = time.monotonic() + 2.0
        with inside(namespace), IPRoute() as theirs:
            while not (self._forwards(wire) and self._is_up(theirs, wire)) and time.monotonic() < deadline:
                time.sleep(0.001)

    def pull(self, host: Host) -> None:
        """Pull the cable: the host sees its carrier go."""
        self.netlink.link("set", ifname=host.name, state="down")

    def detach(self, host: Host) -> None:
        """Take the host's interface away, both its ends."""
        self.netlink.link("del", ifname=host.name)

    def close(self) -> None:
        self.netlink.close()

    def _wires(self, host: Host) -> tuple[_Wire, ...]:
        """The host's own cable, and after it the one from the gateway to the public side."""
        public = self.layout.public_side
        if host.role == "outside":
            return (_Wire(host.name, PUBLIC_BRIDGE, host.interface, host.mac, public, host.addresses),)
        lans = {family: network.lan for family, network in self.layout.networks.items()}
        own = _Wire(host.name, BRIDGE, host.interface, host.mac, lans, host.addresses)
        if host.role != "gateway" or not public:
            return (own,)
        addresses = host.public_addresses
        mac = mac_of(addresses[Family.IPV4])
        return (own, _Wire(f"{host.name}-public", PUBLIC_BRIDGE, PUBLIC_INTERFACE, mac, public, addresses))

    def _lay(self, wire: _Wire, host: Host, namespace: int) -> None:
        """Make a wire whose end on the bridge is down still."""
        self.netlink.link(
            "add",
            ifname=wire.end,
            kind="veth",
            peer={"ifname": wire.interface, "address": wire.mac, "net_ns_fd": namespace},
            master=self.netlink.link_lookup(ifname=wire.bridge)[0],
        )
        with inside(namespace), IPRoute() as netlink:
            index = netlink.link_lookup(ifname=wire.interface)[0]
            self._set_kernel(host, wire.interface)
            netlink.link("set", index=index, state="up")
            for family, network in wire.networks.items():
                _add_address(netlink, index, wire.addresses[family], int(network.partition("/")[2]))

    def _forwards(self, wire: _Wire) -> bool:
        port = self.netlink.get_links(ifname=wire.end)[0]
        state = port.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_STATE")
        return bool(port.get_attr("IFLA_OPERSTATE") == "UP" and state == BR_STATE_FORWARDING)

    def _is_up(self, netlink: IPRoute, wire: _Wire) -> bool:
        """Whether the host's own interface sends (until then its queue drops whatever it is given), with the addresses
        that the kernel gives itself."""
        link = netlink.get_links(ifname=wire.interface)[0]
        if link.get_attr("IFLA_OPERSTATE") != "UP":
            return False
        return Family.IPV6 not in self.layout.networks or any(
            True for _ in netlink.get_addr(family=AF_INET6, index=link["index"], scope=RT_SCOPE_LINK)
        )

    def _set_kernel(self, host: Host, interface: str) -> None:
        settings = SETTINGS if Family.IPV6 in self.layout.networks else SETTINGS | IPV6_OFF
        if host.role in ("node", "gateway"):
            settings = settings | FORWARDING_SETTINGS
        for name, value in settings.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                Path("/proc/sys", name.format(interface=interface)).write_text(value)

    def _add_routes(self, netlink: IPRoute, host: Host, family: Family) -> None:
        gateway = self.layout.gateway
        if gateway is not None and gateway != host:
            theirs = gateway.public_addresses if host.role == "outside" else gateway.addresses
            netlink.route("add", dst=EVERYWHERE[family], gateway=theirs[family])
        if host.role not in ("node", "control-plane"):
            return
        for node in self.layout.nodes:
            if node != host:
                netlink.route("add", dst=node.pod_networks[family], gateway=node.addresses[family])
        if gateway is None:
            # A packet of the host itself needs a route before the rules can send it to an endpoint.
            services, index = self.layout.networks[family].services, netlink.link_lookup(ifname=host.interface)[0]
            netlink.route("add", dst=services, oif=index, scope="link", prefsrc=host.addresses[family])


def _add_address(netlink: IPRoute, index: int, address: str, length: int) -> None:
    netlink.addr("add", index=index, address=address, prefixlen=length, flags=IFA_F_NODAD if ":" in address else 0)


def drop(frames: Iterable[str]) -> None:
    """Have the bridges drop the frames that match one of these, instead of those that they dropped before.

    Each is a rule of nftables without its verdict (nft(8)). ``iifname`` is the host that a frame comes from, and
    ``oifname`` one that it goes to: a frame to several hosts is looked at once for each. It is done in the namespace of
    the process that keeps the lab. Raises ``ValueError`` with what nft says.
    """
    rules = "\n".join(f"add rule {SWITCH} forward {each} drop" for each in frames)
    chain = f"add chain {SWITCH} forward {{ type filter hook forward priority 0; }}"
    script = f"add table {SWITCH}\ndelete table {SWITCH}\nadd table {SWITCH}\n{chain}\n{rules}\n"
    told = subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
    if told.returncode != 0:
        raise ValueError(told.stderr.strip().partition("\n")[0])


def set_pod_addresses(namespace: int, addresses: Iterable[str], *, present: bool) -> None:
    """Give a node a pod's addresses, or take them away. Doing it twice does no harm."""
    with inside(namespace), IPRoute() as netlink:
        for address in addresses:
            length = 128 if ":" in address else 32
            with contextlib.suppress(NetlinkError):
                if present:
                    _add_address(netlink, 1, address, length)
                else:
                    netlink.addr("del", index=1, address=address, prefixlen=length)
