"""Sockets of the speaker that a test opens on a host of its own."""

from __future__ import annotations

from speaker.arp_filter import ArpFilter
from speaker.effects import LinkState, Mac
from speaker.heartbeat_socket import HeartbeatSocket
from speaker.plan import LinkName
from speaker.sockets import AnswerSocket, ArpSocket
from tests.wire.network import Host


def mac_of(host: Host, interface: str = "eth0") -> Mac:
    return Mac(bytes.fromhex(host.mac(interface).replace(":", "")))


def state_of(host: Host, *prefixes: str, interface: str = "eth0") -> LinkState:
    """The interface as netlink would show it, with these addresses."""
    index = int(host.link(interface)["ifindex"])
    return LinkState(LinkName(interface), index, mac_of(host, interface), up=True, prefixes=prefixes)


def arp_socket(host: Host, let_pass: ArpFilter | None = None) -> ArpSocket:
    state = state_of(host)
    return host.call(lambda: ArpSocket(state.name, state.index, let_pass or ArpFilter()))


def answer_socket(host: Host) -> AnswerSocket:
    state = state_of(host)
    return host.call(lambda: AnswerSocket(state.name, state.index))


def heartbeat_socket(host: Host, prefix: str, interface: str = "eth0") -> HeartbeatSocket:
    state = state_of(host, prefix, interface=interface)
    return host.call(lambda: HeartbeatSocket(state))
