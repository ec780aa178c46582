"""Solicited-node groups on a real (virtual) wire: what the kernel holds, and what a switch that listens learns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.wire.addresses import WireAddress
from speaker.wire.groups import Groups
from speaker.wire.memberships import MANY, STEPS_AT_ONCE, TRY_AGAIN_S, Memberships
from speaker.wire.nd.frames import solicited_node
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import as_speaker, state_of

VIP = WireAddress.of(AddressText("2001:db8::200"))
GROUP = solicited_node(VIP).text

pytestmark = pytest.mark.lab


class ListeningNode:
    """A host whose memberships are carried out with a speaker's rights, at times that the test says."""

    def __init__(self, host: WireHost) -> None:
        self.host = host
        self.groups = Groups()
        self.memberships = Memberships(LinkName("eth0"), state_of(host).index, self.groups)
        self.now = 0.0

    def hold(self, *addresses: WireAddress) -> None:
        for address in addresses:
            self.groups.want(solicited_node(address))
        self.carry_out()

    def release(self, *addresses: WireAddress) -> None:
        for address in addresses:
            self.groups.want_no_more(solicited_node(address))
        self.carry_out()

    def carry_out(self) -> None:
        """All that is due now."""

        def steps() -> None:
            while (due := self.memberships.next_deadline()) is not None and due <= self.now:
                self.memberships.handle_timer(self.now)

        as_speaker(self.host, steps)

    @property
    def joined(self) -> set[str]:
        """The solicited-node groups of addresses that are none of the kernel's own."""
        shown = self.host.run("ip", "-6", "maddress", "show", "dev", "eth0")
        own = self.host.run("ip", "-6", "-oneline", "address", "show", "dev", "eth0")
        kernels = {
            solicited_node(WireAddress.of(AddressText(line.split()[3].partition("/")[0]))).text
            for line in own.splitlines()
        }
        groups = {line.split()[1] for line in shown.splitlines() if "ff02::1:ff" in line}
        return groups - kernels


@contextmanager
def node_on(host: WireHost) -> Iterator[ListeningNode]:
    node = ListeningNode(host)
    try:
        yield node
    finally:
        node.memberships.close()


def many(count: int) -> list[WireAddress]:
    return [WireAddress(VIP[:13] + (0x100000 + n).to_bytes(3, "big")) for n in range(count)]


def texts(addresses: list[WireAddress]) -> set[str]:
    return {solicited_node(address).text for address in addresses}


@pytest.mark.parametrize("optmem_octets", [None, 20480], ids=["as the kernel has it", "20 KiB, as older ones have"])
def test_more_groups_than_a_socket_holds_are_joined_and_left_again(wire: Wire, optmem_octets: int | None) -> None:
    host = wire.host("node")
    if optmem_octets is not None:
        host.run("sysctl", "-q", "-w", f"net.core.optmem_max={optmem_octets}")
    addresses = many(1000 if optmem_octets else 2500)
    with node_on(host) as node:
        node.hold(*addresses)
        assert node.joined == texts(addresses)
        node.release(*addresses[100:])
        assert node.joined == texts(addresses[:100])
        node.hold(*addresses[100:200])
        assert node.joined == texts(addresses[:200])
    assert node.joined == set(), "the sockets' end is the memberships' end"


def test_while_many_groups_are_not_joined_the_interface_passes_all_of_them(wire: Wire) -> None:
    """A network card drops what goes to groups that it was not told of, and joining takes seconds for thousands."""
    host = wire.host("node")
    with node_on(host) as node:
        before = passes_all(host)
        node.hold(*many(MANY - 1))
        assert passes_all(host) == before
        addresses = many(2 * MANY + STEPS_AT_ONCE)
        for address in addresses[MANY - 1 :]:
            node.groups.want(solicited_node(address))
        as_speaker(host, lambda: node.memberships.handle_timer(node.now))
        assert node.joined != texts(addresses)
        assert passes_all(host) == before + 1
        node.carry_out()
        assert node.joined == texts(addresses)
        assert passes_all(host) == before
        node.release(*addresses)
        assert passes_all(host) == before, "leaving needs nothing"


def passes_all(host: WireHost) -> int:
    """How many want the interface to pass what goes to any group, as the kernel counts them."""
    (found,) = json.loads(host.run("ip", "-json", "-details", "link", "show", "dev", "eth0"))
    return int(found["allmulti"])


def test_switch_that_listens_forwards_questions_to_the_member_alone(wire: Wire) -> None:
    host, other = wire.host("node"), wire.host("other")
    wire.snoop()
    with node_on(host) as node:
        node.hold(VIP)
        wait_until(lambda: wire.members(GROUP) == {"node"}, 10, "the switch has seen no report")
        node.release(VIP)
        wait_until(lambda: wire.members(GROUP) == set(), 10, "the switch has seen no report of leaving")
        node.hold(VIP)
        wait_until(lambda: wire.members(GROUP) == {"node"}, 10, "the switch has seen no second report")
        wire.cable(host, "down")
        wait_until(lambda: wire.members(GROUP) == set(), 10)
        wire.cable(host, "up")
        wait_until(lambda: wire.members(GROUP) == {"node"}, 20, "no report after the cable was put back")
    with node_on(other) as node:
        node.hold(VIP)
        wait_until(lambda: wire.members(GROUP) == {"other"}, 10, "the switch has not followed to another node")


def test_interface_without_ipv6_is_asked_once_a_second_and_joined_when_it_has_ipv6(wire: Wire) -> None:
    host = wire.host("node")
    host.run("ip", "link", "set", "eth0", "mtu", "1200")
    with node_on(host) as node:
        node.hold(*many(40))
        assert node.memberships.refused
        assert node.memberships.next_deadline() == TRY_AGAIN_S
        host.run("ip", "link", "set", "eth0", "mtu", "1500")
        node.carry_out()
        assert node.joined == set(), "not before its time"
        node.now += TRY_AGAIN_S
        node.carry_out()
        assert node.joined == texts(many(40))
        assert node.memberships.next_deadline() is None
        assert not node.memberships.refused


@pytest.mark.parametrize(
    ("commands", "lost"),
    [
        ("ip link set eth0 down; ip link set eth0 up", False),
        ("ip link set eth0 down; ip link set eth0 name eth9; ip link set eth9 name eth0; ip link set eth0 up", False),
        ("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1 && sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0", False),
        ("ip link set eth0 mtu 1200; ip link set eth0 mtu 1500", True),
    ],
    ids=["down and up", "renamed", "IPv6 off and on", "MTU below IPv6's least"],
)
def test_memberships_last_as_long_as_the_interface_has_ipv6_and_are_made_anew(
    wire: Wire, commands: str, lost: bool
) -> None:
    host = wire.host("node")
    with node_on(host) as node:
        node.hold(*many(20))
        host.run("sh", "-c", commands)
        assert node.joined == (set() if lost else texts(many(20)))
        node.memberships.rejoin()
        node.carry_out()
        assert node.joined == texts(many(20))
