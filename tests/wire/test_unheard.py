"""Segments on which speakers cannot hear each other by the group: they find each other by the directory."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText
from speaker.directory import DirectoryChange, ListedLink, ListedSpeaker
from speaker.link import LinkName
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import Speaker, Start, bundle

VIP = AddressText("192.0.2.200")

pytestmark = pytest.mark.lab


def listed(wire: Wire, host: WireHost, *, mac: bool = True) -> ListedSpeaker:
    number = wire.hosts.index(host) + 1
    known = bytes.fromhex(host.mac().replace(":", "")) if mac else b""
    return ListedSpeaker(host.name, (ListedLink(LinkName("eth0"), known, (f"192.0.2.{number}/24",)),), mac)  # type: ignore[arg-type]  # a text


def started(speaker: Speaker, directory: DirectoryChange) -> Speaker:
    speaker.say(directory)
    speaker.plan(1, bundle("a", (VIP,), "node-1", "node-2"))
    return speaker


@pytest.mark.parametrize("mac_known", [True, False], ids=["by a Lease", "by the Node's address"])
def test_without_multicast_a_holder_is_found_by_the_directory_and_replaced_when_it_dies(
    wire: Wire, start: Start, mac_known: bool
) -> None:
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    wire.group_passes(False)
    first, second = (
        started(start(host), DirectoryChange((listed(wire, other, mac=mac_known),), whole=True))
        for host, other in zip(hosts, reversed(hosts), strict=True)
    )
    wait_until(lambda: first.stats is not None and second.stats is not None)
    wait_until(lambda: first.holds(VIP) and second.holds() and second.ready)
    wait_until(lambda: second.stats and any(peer.alive for peer in second.stats.peers))
    assert client.resolve(VIP) == hosts[0].mac()
    assert client.answerers(VIP) == {hosts[0].mac()}
    wire.cable(hosts[0], "down")
    first.process.kill()
    wait_until(lambda: client.neighbour(VIP) == hosts[1].mac(), 5, "the client still knows the dead node's MAC")
    assert client.answerers(VIP) == {hosts[1].mac()}
