"""The lab's LAN: a bridge, and one interface on it for each host.

The bridge is a plain learning switch. It has no spanning tree and no forwarding delay, so that a port forwards as soon
as it is up. It does not snoop on multicast and sends it to every port. Of the switches that people have, some snoop
and some do not; heartbeats must not depend on it.
"""

from __future__ import annotations

import contextlib
import time
from ipaddress import IPv4Network
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lab.layout import SERVICE_NETWORK, Host, Layout
from lab.machines.namespaces import inside

BRIDGE = "lan"
BR_STATE_FORWARDING = 3  # linux/if_bridge.h

SETTINGS = {  # of every host
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/eth0/rp_filter": "0",
    "net/ipv6/conf/all/accept_ra": "0",
}
FORWARDING_SETTINGS = {  # of nodes and the gateway
    "net/ipv4/ip_forward": "1",
    # A node passes packets on to pods by the interface that they came from; it must not tell clients about it.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/eth0/send_redirects": "0",
}


class Lan:
    """The bridge and the hosts' interfaces. Made in the namespace of the process that keeps the lab."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.prefix_length = IPv4Network(layout.lan).prefixlen
        self.netlink = IPRoute()
        self.netlink.link(
            "add", ifname=BRIDGE, kind="bridge", br_forward_delay=0, br_stp_state=0, br_mcast_snooping=0, state="up"
        )
        self.bridge = self.netlink.link_lookup(ifname=BRIDGE)[0]

    def attach(self, host: Host, namespace: int) -> None:
        """Give a host's new namespace its interface, address and routes, and plug it in."""
        self.netlink.link(
            "add",
            ifname=host.name,
            kind="veth",
            peer={"ifname": host.interface, "address": host.mac, "net_ns_fd": namespace},
            master=self.bridge,
        )
        with inside(namespace), IPRoute() as netlink:
            index = netlink.link_lookup(ifname=host.interface)[0]
            netlink.link("set", index=1, state="up")
            netlink.addr("add", index=index, address=host.address, prefixlen=self.prefix_length)
            netlink.link("set", index=index, state="up")
            self._set_kernel(host)
            self._add_routes(netlink, index, host)
        self.plug(host, namespace)

    def plug(self, host: Host, namespace: int) -> None:
        """Put the cable in: the host sees its carrier come.

        Returns when frames pass both ways (at most two seconds later): on a busy machine the kernel's own bookkeeping
        of links, which turns the bridge's port on and lets the host's interface send, comes a good while after the
        command.
        """
        self.netlink.link("set", ifname=host.name, state="up")
        deadline = time.monotonic() + 2.0
        with inside(namespace), IPRoute() as theirs:
            while not (self._forwards(host) and _is_up(theirs, host)) and time.monotonic() < deadline:
                time.sleep(0.001)

    def pull(self, host: Host) -> None:
        """Pull the cable: the host sees its carrier go."""
        self.netlink.link("set", ifname=host.name, state="down")

    def _forwards(self, host: Host) -> bool:
        port = self.netlink.get_links(ifname=host.name)[0]
        state = port.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_STATE")
        return bool(port.get_attr("IFLA_OPERSTATE") == "UP" and state == BR_STATE_FORWARDING)

    def detach(self, host: Host) -> None:
        """Take the host's interface away, both its ends."""
        self.netlink.link("del", ifname=host.name)

    def close(self) -> None:
        self.netlink.close()

    @staticmethod
    def _set_kernel(host: Host) -> None:
        settings = dict(SETTINGS)
        if host.role in ("node", "gateway"):
            settings |= FORWARDING_SETTINGS
        for name, value in settings.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                Path("/proc/sys", name).write_text(value)

    def _add_routes(self, netlink: IPRoute, index: int, host: Host) -> None:
        gateway = self.layout.gateway
        if gateway is not None and gateway != host:
            netlink.route("add", dst="0.0.0.0/0", gateway=gateway.address)
        if host.role not in ("node", "control-plane"):
            return
        for node in self.layout.nodes:
            if node != host:
                netlink.route("add", dst=node.pod_network, gateway=node.address)
        if gateway is None:
            # A packet of the host itself needs a route before the rules can send it to an endpoint.
            netlink.route("add", dst=SERVICE_NETWORK, oif=index, scope="link", prefsrc=host.address)


def _is_up(netlink: IPRoute, host: Host) -> bool:
    """Whether the host's own interface sends: until then its queue drops whatever it is given."""
    return bool(netlink.get_links(ifname=host.interface)[0].get_attr("IFLA_OPERSTATE") == "UP")


def set_pod_address(namespace: int, address: str, *, present: bool) -> None:
    """Give a node a pod's address, or take it away. Doing it twice does no harm."""
    with inside(namespace), IPRoute() as netlink, contextlib.suppress(NetlinkError):
        netlink.addr("add" if present else "del", index=1, address=address, prefixlen=32)
