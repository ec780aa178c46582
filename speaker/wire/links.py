"""The announced interfaces as they are now: names, MACs, carrier, own addresses, gateways.

`LinkTable` is fed with what the kernel says (``link_socket``), first the answers to some dumps, then events, and says
which links are announced. What no dump mentions is forgotten at its end.

An interface is announced if it is Ethernet with broadcast and ARP, is part of nothing else, has an address by which
speakers can talk to each other (any of IPv4, or the link-local one that the kernel gives each interface with IPv6), and
has a name that is not excluded (``exclusion``). `LinkTable.unusable` says why one is not.

`steps` says how the protocol hears of a change, so that nothing that happened between two looks is passed over.

A node may have hundreds of interfaces for its pods, and one of them thousands of addresses (``kube-ipvs0`` has every
Service's): looking costs as much as there are interfaces with addresses, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.exclusion import DEFAULT
from speaker.link import LinkName
from speaker.protocol.effects import LinkState
from speaker.wire import netlink
from speaker.wire.addresses import OwnAddress, WireAddress
from speaker.wire.netlink import Dump, Gateway, Interface, InterfaceAddress, Known, Removed

MAX_UNUSABLE = 16
"""Interfaces of which it is said why they are not announced on."""

MAX_GATEWAYS = 256
"""Default routes of IPv6 that are known. A host on the LAN makes one by saying that it is a router (RFC 4861 §6.2)."""

DUMPS = (netlink.LINKS, netlink.ADDRESSES, *netlink.ROUTES)
"""What is to be asked for, in this order, until all is known."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Interfaces, by index, that lost something and have it again."""

    interface: frozenset[int] = frozenset()
    """Themselves: they were deleted, or in another network namespace. Sockets of before hear nothing any more."""
    carrier: frozenset[int] = frozenset()
    ipv6: frozenset[int] = frozenset()
    """As when the MTU was below 1,280 for a moment, or ``disable_ipv6`` was set."""

    def without(self, state: LinkState) -> LinkState | None:
        """The link, without what it lost; None: it was none."""
        if state.index in self.carrier:
            state = replace(state, up=False)
        if state.index in self.ipv6:
            state = replace(state, link_local=None, prefixes=tuple(p for p in state.prefixes if ":" not in p))
        return None if state.index in self.interface or not state.families else state


class LinkTable:
    """What is known of interfaces, addresses and default routes."""

    def __init__(self) -> None:
        self._interfaces: dict[int, Interface] = {}
        self._addresses: dict[int, dict[OwnAddress, None]] = {}
        """Addresses by interface, in the order in which they were told. None is empty."""
        self._gateways: set[Gateway] = set()
        self._dumping: Dump | None = None
        self._unconfirmed: set[Known] = set()
        self._lost_interfaces: set[int] = set()
        """Interfaces that were deleted since `take_lost`, whether or not there is one of that index again."""
        self._lost_carrier: set[int] = set()
        """Interfaces that lost their carrier since `take_lost`, whether or not they have it again."""
        self._lost_ipv6: set[int] = set()
        """Interfaces that lost a link-local address since then, in the same way."""
        self.exclusion = DEFAULT
        """By name."""
        self.complete = False
        """Every dump has been answered once."""

    def begin_dump(self, dump: Dump) -> None:
        """The answers to a request for everything of one kind come next."""
        self._dumping = dump
        if dump == netlink.LINKS:
            self._unconfirmed = set(self._interfaces.values())
        elif dump == netlink.ADDRESSES:
            self._unconfirmed = {
                InterfaceAddress(index, own) for index, addresses in self._addresses.items() for own in addresses
            }
        else:
            family = Family.IPV4 if dump == netlink.ROUTES[0] else Family.IPV6
            self._unconfirmed = {gateway for gateway in self._gateways if gateway.address.family is family}

    def end_dump(self) -> None:
        """All answers have come: what was not among them is no more."""
        if self._dumping == DUMPS[-1]:
            self.complete = True
        self._dumping = None
        for gone in self._unconfirmed:
            self._forget(gone)
        self._unconfirmed = set()

    def receive(self, message: Known | Removed) -> None:
        if isinstance(message, Removed):
            self._forget(message.what)
            return
        self._unconfirmed.discard(message)
        if isinstance(message, Interface):
            before = self._interfaces.get(message.index)
            if before is not None:
                self._unconfirmed.discard(before)
                if before.carrier and (not message.carrier or message.downs > before.downs):
                    self._lost_carrier.add(message.index)
            self._interfaces[message.index] = message
        elif isinstance(message, InterfaceAddress):
            self._addresses.setdefault(message.index, {})[message.own] = None
        elif message.address.family is Family.IPV4 or len(self._gateways) < MAX_GATEWAYS:
            self._gateways.add(message)

    def tells_of_routes(self, message: Known | Removed) -> bool:
        """Whether routes should be asked for again: the kernel says nothing of those that go with an interface, and
        one word only where a route replaces another."""
        if isinstance(message, Interface):
            before = self._interfaces.get(message.index)
            return before is not None and before.carrier != message.carrier and message.index in self._addresses
        return isinstance(message, Gateway)

    def links(self) -> tuple[LinkState, ...]:
        """The announced links, in order of name."""
        states = []
        for index, addresses in self._addresses.items():
            interface = self._interfaces.get(index)
            if interface is None or interface.unfit or not _can_talk(addresses) or self.exclusion.by(interface.name):
                continue
            states.append(
                LinkState(
                    name=interface.name,
                    index=index,
                    mac=interface.mac,
                    up=interface.carrier,
                    prefixes=tuple(
                        own.text
                        for own in sorted(addresses, key=lambda own: own.address.family)
                        if not is_link_local(own)
                    ),
                    gateways=tuple(self._gateways_of(index)),
                    link_local=next((own.address.text for own in addresses if is_link_local(own)), None),
                )
            )
        return tuple(sorted(states, key=lambda state: state.name))

    def local(self) -> Iterator[tuple[LinkName, WireAddress]]:
        """Every address that the kernel has, with the interface that it is on, whether or not that is announced."""
        for index, addresses in self._addresses.items():
            interface = self._interfaces.get(index)
            if interface is not None:
                for own in addresses:
                    yield interface.name, own.address

    def unusable(self) -> dict[LinkName, str]:
        """Why interfaces cannot be announced on at this moment, as predicates (``has no IPv4 address``): the first by
        name, those that are excluded last; without the loopback, whose name says it all."""
        reasons = []
        for interface in self._interfaces.values():
            pattern = self.exclusion.by(interface.name)
            reason = self._why_not(interface) if pattern is None else f"is excluded by its name ({pattern})"
            if reason and interface.name != "lo":
                reasons.append((pattern is not None, interface.name, reason))
        return {name: reason for _, name, reason in sorted(reasons)[:MAX_UNUSABLE]}

    def _why_not(self, interface: Interface) -> str:
        if interface.unfit:
            return interface.unfit.value
        if not _can_talk(self._addresses.get(interface.index, ())):
            return "has no IPv4 and no link-local IPv6 address"
        return "" if interface.carrier else "has no carrier"

    def _gateways_of(self, index: int) -> Iterator[AddressText]:
        """The best one of each family."""
        for family in Family:
            here = (each for each in self._gateways if each.index == index and each.address.family is family)
            best = min(here, key=lambda gateway: (gateway.metric, gateway.address), default=None)
            if best is not None:
                yield best.address.text

    def take_lost(self) -> Lost:
        """What interfaces lost and had back before we looked, since the last call."""
        interfaces, self._lost_interfaces = self._lost_interfaces, set()
        carrier, self._lost_carrier = self._lost_carrier, set()
        ipv6, self._lost_ipv6 = self._lost_ipv6, set()
        return Lost(
            interface=frozenset(interfaces & self._interfaces.keys()),
            carrier=frozenset(index for index in carrier if self._interfaces[index].carrier),
            ipv6=frozenset(index for index in ipv6 if any(map(is_link_local, self._addresses.get(index, ())))),
        )

    def _forget(self, gone: Known) -> None:
        if isinstance(gone, Interface):
            if self._interfaces.pop(gone.index, None) is not None:
                self._lost_interfaces.add(gone.index)
            self._lost_carrier.discard(gone.index)
            self._lost_ipv6.discard(gone.index)
            self._addresses.pop(gone.index, None)
            self._gateways = {gateway for gateway in self._gateways if gateway.index != gone.index}
        elif isinstance(gone, InterfaceAddress):
            addresses = self._addresses.get(gone.index, {})
            if gone.own in addresses:
                del addresses[gone.own]
                if is_link_local(gone.own):
                    self._lost_ipv6.add(gone.index)
            if not addresses:
                self._addresses.pop(gone.index, None)
        else:
            self._gateways.discard(gone)


def is_link_local(own: OwnAddress) -> bool:
    """Whether it is an IPv6 address that is valid on its link only. Every interface has one, of the same subnet."""
    return own.address.family is Family.IPV6 and IPv6Address(bytes(own.address)).is_link_local


def _can_talk(addresses: Iterable[OwnAddress]) -> bool:
    return any(own.address.family is Family.IPV4 or is_link_local(own) for own in addresses)


def steps(before: tuple[LinkState, ...], now: tuple[LinkState, ...], lost: Lost) -> Iterator[tuple[LinkState, ...]]:
    """What the links are said to be, one after the other, from what was said ``before`` to what they are ``now``.

    1. What was ``lost`` and back before we looked was lost all the same: others may have taken over while there was no
       carrier; the kernel forgets all memberships of an interface that has no IPv6, and the sockets of one that is
       gone. Without IPv6, an interface that has no IPv4 address is no link.
    2. Where another interface has a link's name by now, first the one is gone, then the other is there.
    """
    said = tuple(state for each in before if (state := lost.without(each)))
    if said != before:
        yield said
    named = {state.name: state.index for state in now}
    if any(named.get(state.name, state.index) != state.index for state in said):
        said = tuple(state for state in said if state.index in named.values())
        yield said
    if said != now:
        yield now
