"""What a Linux neighbour table makes of gratuitous frames: why ours have the form that they have."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.protocol.effects import AnswerChange, LinkState
from speaker.wire.addresses import WireAddress
from speaker.wire.answering import Answering
from speaker.wire.arp.frames import ArpFrame, Operation
from speaker.wire.ethernet import BROADCAST
from speaker.wire.families import RESOLUTIONS
from speaker.wire.gratuitous import GratuitousSchedule
from speaker.wire.sockets import PacketSocket
from tests.arp_frames import gratuitous
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import arp_resolver, mac_of

ETH0 = LinkName("eth0")
VIP = AddressText("192.0.2.200")
LOCKTIME_S = 60

pytestmark = pytest.mark.lab


def opened(host: WireHost, stack: ExitStack) -> PacketSocket:
    made = arp_resolver(host)
    stack.callback(made.close)
    return made.questions


def fresh_entry(client: WireHost, holder: WireHost, arp: PacketSocket, stack: ExitStack) -> None:
    """The client's entry names the holder and was updated this moment: for a minute it will not take what it does not
    take for gratuitous. Linux's own locktime of a second would be over in a test on a busy machine."""
    locktime = "/proc/sys/net/ipv4/neigh/eth0/locktime"
    client.run("sh", "-c", f"echo {LOCKTIME_S * 100} > {locktime}")
    client.run("ip", "neigh", "replace", VIP, "lladdr", "02:00:00:00:00:99", "nud", "stale", "dev", "eth0")
    arp.send(gratuitous(Operation.REQUEST, VIP, mac_of(holder)).encode())
    wait_until(lambda: client.neighbour(VIP) == holder.mac(), 2)


def first_round(state: LinkState) -> list[bytes]:
    answering = Answering(RESOLUTIONS)
    schedule = GratuitousSchedule(RESOLUTIONS, answering)
    schedule.set_links([state], 0.0)
    schedule.follow(answering.change(AnswerChange({VIP: frozenset((ETH0,))})), 0.0)
    schedule.announce([WireAddress.of(VIP)])
    return [frame.data for frame in schedule.handle_timer(0.0)]


def test_the_first_round_changes_an_entry_that_is_in_its_locktime(wire: Wire, stack: ExitStack) -> None:
    old, new, client = (wire.host(name) for name in ("old", "new", "client"))
    fresh_entry(client, old, opened(old, stack), stack)
    successor = opened(new, stack)
    for frame in first_round(LinkState(ETH0, 2, mac_of(new), up=True)):
        successor.send(frame)
    wait_until(lambda: client.neighbour(VIP) == new.mac(), message="the fresh entry was not changed")


def test_our_reply_changes_a_fresh_entry_too_and_the_usual_one_does_not(wire: Wire, stack: ExitStack) -> None:
    """Linux takes a broadcast Reply for gratuitous within the locktime only if both hardware addresses are the same
    (``arp_is_garp``), so the common form with target ff:ff:ff:ff:ff:ff is ignored."""
    old, new, client = (wire.host(name) for name in ("old", "new", "client"))
    holder, successor = opened(old, stack), opened(new, stack)
    ours = gratuitous(Operation.REPLY, VIP, mac_of(new))
    usual = replace(ours, target_mac=BROADCAST)
    fresh_entry(client, old, holder, stack)
    with client.listening() as heard:
        successor.send(usual.encode())
        wait_until(lambda: has_arrived(client, successor, new), 2)
        assert client.neighbour(VIP) == old.mac()
    assert usual in heard, "it did arrive"
    fresh_entry(client, old, holder, stack)
    successor.send(ours.encode())
    wait_until(lambda: client.neighbour(VIP) == new.mac())


def has_arrived(client: WireHost, arp: PacketSocket, host: WireHost) -> bool:
    """A frame sent now by the same socket has been taken in, and with it all before."""
    marker = AddressText("192.0.2.250")
    client.run("ip", "neigh", "replace", marker, "lladdr", "02:00:00:00:00:98", "nud", "stale", "dev", "eth0")
    arp.send(gratuitous(Operation.REQUEST, marker, mac_of(host)).encode())
    return bool(wait_until(lambda: client.neighbour(marker) == host.mac(), 1))


def test_gratuitous_frames_make_no_entry_where_there_was_none(wire: Wire, stack: ExitStack) -> None:
    new, client = wire.host("new"), wire.host("client")
    successor = opened(new, stack)
    frames: list[ArpFrame] = [gratuitous(operation, VIP, mac_of(new)) for operation in Operation]
    for frame in frames:
        successor.send(frame.encode())
    has_arrived(client, successor, new)
    assert client.neighbour(VIP) is None
