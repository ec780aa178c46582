"""Speakers that hold nothing and need no capability, on a real (virtual) wire: among themselves, beside speakers that
announce, and across a router."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from cluster.addresses import Family
from cluster.objects import AddressText, NodeName
from lab.machines.container import limit_capabilities
from speaker.channel import Brisk
from speaker.directory import DirectoryChange, ListedLink, ListedSpeaker
from speaker.link import LinkName
from speaker.wire.addresses import WireAddress
from speaker.wire.heartbeats.routed import Heartbeats, RoutedHeartbeats
from speaker.wire.heartbeats.sockets import Datagram, PortRefused
from speaker.wire.medium import routed_links
from tests.waiting import assert_stays, wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import CREDENTIALS, Speaker, Start, bundle

pytestmark = pytest.mark.lab

VIP = AddressText("192.0.2.200")
logger = logging.getLogger(__name__)

NODES = tuple(NodeName(f"node-{number}") for number in (1, 2, 3))


@pytest.fixture
def hosts(wire: Wire) -> list[WireHost]:
    return [wire.host(name) for name in NODES]


@pytest.fixture
def third(hosts: list[WireHost]) -> Iterator[Speaker]:
    """The third node's speaker, for liveness alone."""
    speaker = Speaker(hosts[2], liveness_only=True)
    yield speaker
    speaker.end()


def everybody_but(own: Speaker, wire: Wire, hosts: list[WireHost], *, announcing: bool = False) -> DirectoryChange:
    """The directory of one speaker: the Nodes' addresses, or what the Leases of those have that announce."""
    others = [host for host in hosts if host is not own.host]
    found = []
    for host in others:
        address = wire.address(host)
        by_node = ListedLink(LinkName(""), b"", (address,))
        links: tuple[ListedLink, ...] = (by_node,)
        if announcing:  # a Lease of one for liveness alone lists no links
            mac = bytes.fromhex(host.mac().replace(":", ""))
            links = () if host is hosts[2] else (ListedLink(LinkName("eth0"), mac, (f"{address}/24",)),)
        found.append(ListedSpeaker(NodeName(host.name), links, True))
    return DirectoryChange(tuple(found), whole=True)


def peers(speaker: Speaker) -> set[str]:
    return {peer.node for peer in speaker.stats.peers if peer.alive} if speaker.stats is not None else set()


def test_one_beside_two_that_announce_is_heard_and_is_no_candidate(
    wire: Wire, hosts: list[WireHost], third: Speaker, start: Start
) -> None:
    first, second = (start(host) for host in hosts[:2])
    for speaker in (first, second):
        speaker.say(Brisk(True), everybody_but(speaker, wire, hosts, announcing=True))
        speaker.plan(1, bundle("a", (VIP,), "node-3", "node-1", "node-2"))
    third.say(CREDENTIALS, Brisk(True), everybody_but(third, wire, hosts))
    wait_until(lambda: [len(peers(speaker)) for speaker in (first, second, third)] == [2, 2, 2])
    wait_until(lambda: first.holds(VIP) and second.holds())
    assert all(decision.reason != "RecordDecides" for decision in first.decisions + second.decisions)
    wait_until(lambda: (second.unheard, third.unheard) == ((), ()))
    began = time.monotonic()
    wire.cable(hosts[0], "down")
    first.process.kill()
    wait_until(lambda: (second.unheard, third.unheard) == (("node-1",), ("node-1",)), 5)
    logger.info("unheard after %.2f s", time.monotonic() - began)
    wait_until(lambda: second.holds(VIP), 5)
    assert not third.claims


def test_a_process_that_ends_without_a_word_leaves_its_node_heard(
    wire: Wire, hosts: list[WireHost], third: Speaker
) -> None:
    others = [Speaker(host, liveness_only=True) for host in hosts[:2]]
    try:
        for speaker in (third, *others):
            speaker.say(CREDENTIALS, Brisk(True), everybody_but(speaker, wire, hosts))
        wait_until(lambda: all(len(peers(speaker)) == 2 for speaker in (third, *others)))
        third.process.kill()
        wait_until(lambda: all(len(peers(speaker)) == 1 for speaker in others), 5)
        assert_stays(lambda: [speaker.unheard for speaker in others] == [(), ()], 1.0)
    finally:
        for speaker in others:
            speaker.end()


def test_nodes_of_another_network_are_heard_across_a_router(wire: Wire, hosts: list[WireHost], third: Speaker) -> None:
    far, router = hosts[2], wire.host("router")
    wire.second_network([router, far])
    far.run("ip", "link", "set", "eth0", "down")
    far.run("ip", "route", "add", "default", "via", "198.51.100.1")
    router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    for host in hosts[:2]:
        host.run("ip", "route", "add", "198.51.100.0/24", "via", wire.address(router))
    addresses = [wire.address(hosts[0]), wire.address(hosts[1]), AddressText("198.51.100.2")]
    near = [Speaker(host, liveness_only=True) for host in hosts[:2]]
    try:
        for speaker in (*near, third):
            listed = tuple(
                ListedSpeaker(node, (ListedLink(LinkName(""), b"", (address,)),), True)
                for node, address in zip(NODES, addresses, strict=True)
                if node != speaker.node
            )
            speaker.say(CREDENTIALS, Brisk(True), DirectoryChange(listed, whole=True))
        wait_until(lambda: all(len(peers(speaker)) == 2 for speaker in (third, *near)))
        wire.cable(router, "down")
        wait_until(lambda: [speaker.unheard for speaker in near] == [("node-3",), ("node-3",)], 5)
        assert third.unheard == (), "one that hears nobody has no proof that it can"
        wire.cable(router, "up")
        wait_until(lambda: [speaker.unheard for speaker in near] == [(), ()])
    finally:
        for speaker in near:
            speaker.end()


@pytest.mark.parametrize("family", list(Family))
def test_datagrams_and_refusals_without_any_capability(wire: Wire, hosts: list[WireHost], family: Family) -> None:
    wire.with_ipv6()
    state = routed_links(())[0]

    def opened(host: WireHost) -> Heartbeats:
        def confined() -> Heartbeats:
            limit_capabilities(())
            return RoutedHeartbeats(family)

        return host.call(confined)

    prefix = "192.0.2." if family is Family.IPV4 else "2001:db8::"
    addresses = [AddressText(f"{prefix}{number}") for number in (1, 2, 3)]
    one, two = opened(hosts[0]), opened(hosts[1])
    try:
        to = [WireAddress.of(address) for address in addresses]
        assert one.send_to(to[1], state.mac, b"a word") == 0
        heard = wait_until(lambda: list(two.receive(10)))
        assert heard == [Datagram(to[0], state.mac, False, b"a word")]
        assert one.send_to(to[2], state.mac, b"is anybody there?") == 0
        assert wait_until(lambda: list(one.receive(10))) == [PortRefused(to[2])]
        assert one.send_to(to[1], state.mac, b"another") == 0, "a refusal is no error of what follows"
        wait_until(lambda: list(two.receive(10)))
        assert list(one.receive(10)) == []
        assert two.lost() == 0
        size = 0
        while not (lost := two.lost()) and size < 10_000:
            one.send_to(to[1], state.mac, bytes(1200))
            size += 1
        assert lost > 0
        assert two.lost() == 0
    finally:
        one.close()
        two.close()
