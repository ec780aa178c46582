"""Sockets of the speaker that a test opens on a host of its own, with the capabilities that a speaker has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from cluster.objects import AddressText
from lab.machines.container import limit_capabilities
from lab.shipped.rights import rights_of
from speaker.link import LinkName, Mac
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import WireAddress
from speaker.wire.arp.responder import ArpResponder
from speaker.wire.families import ARP
from speaker.wire.heartbeats.encapsulation import Encapsulation
from speaker.wire.heartbeats.sockets import HeartbeatSocket
from speaker.wire.resolver import Resolver
from tests.wire.network import WireHost

T = TypeVar("T")
RIGHTS = rights_of("speaker")


def as_speaker(host: WireHost, make: Callable[[], T]) -> T:
    """What ``make`` makes on a host."""

    def make_confined() -> T:
        limit_capabilities(RIGHTS.capabilities)  # of this thread, which ends
        return make()

    return host.call(make_confined)


def mac_of(host: WireHost, interface: str = "eth0") -> Mac:
    return Mac(bytes.fromhex(host.mac(interface).replace(":", "")))


def state_of(host: WireHost, *prefixes: str, interface: str = "eth0") -> LinkState:
    """The interface as netlink would show it, with these addresses. A link-local one is without its length."""
    index = int(host.link(interface)["ifindex"])
    link_local = next((AddressText(prefix) for prefix in prefixes if prefix.startswith("fe80:")), None)
    others = tuple(prefix for prefix in prefixes if prefix != link_local)
    return LinkState(
        LinkName(interface), index, mac_of(host, interface), up=True, prefixes=others, link_local=link_local
    )


def arp_resolver(host: WireHost, *held: AddressText) -> Resolver:
    """The sockets of ARP, with the filter for these addresses."""
    state, responder = state_of(host, "192.0.2.99/24"), responder_for(mac_of(host), held)
    return as_speaker(host, lambda: Resolver(state, ARP, responder))


def responder_for(mac: Mac, held: Iterable[AddressText]) -> ArpResponder:
    made = ArpResponder(LinkName("eth0"), mac)
    for address in held:
        made.hold(WireAddress.of(address))
    made.filter.tighten()
    return made


def heartbeat_socket(host: WireHost, ip: Encapsulation, prefix: str, *, interface: str = "eth0") -> HeartbeatSocket:
    state = state_of(host, prefix, interface=interface)
    return as_speaker(host, lambda: HeartbeatSocket(state, ip))
