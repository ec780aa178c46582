"""A speaker that cannot send, or that loses what arrives, or hears nobody who answers: it knows, and does no harm."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from cluster.objects import AddressText
from speaker.wire.heartbeats.port import HEARTBEAT_PORT
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import SETTINGS, Speaker, bundle

VIP = AddressText("192.0.2.200")

pytestmark = pytest.mark.lab

Start = Callable[..., list[Speaker]]


@pytest.fixture
def start(wire: Wire, stack: ExitStack) -> Start:
    """Speakers that may all hold the address, of which the first does."""

    def start(*hosts: WireHost) -> list[Speaker]:
        speakers = [Speaker(host) for host in hosts]
        for speaker in speakers:
            stack.callback(speaker.end)
            speaker.plan(1, bundle("a", (VIP,), *(host.name for host in hosts)))
        wait_until(lambda: speakers[0].holds(VIP) and all(s.ready for s in speakers), 20)
        return speakers

    return start


def power_cut(wire: Wire, speaker: Speaker) -> None:
    wire.cable(speaker.host, "down")
    speaker.process.kill()


def counted(speaker: Speaker, counter: str) -> int:
    return speaker.stats.counters.get(counter, 0) if speaker.stats is not None else 0


def test_who_cannot_send_takes_nobody_for_dead_until_it_can_again(wire: Wire, start: Start) -> None:
    """It hears the others and they do not hear it: whatever it claimed would be answered by two."""
    hosts, client = [wire.host(f"node-{n}") for n in (1, 2, 3)], wire.host("client")
    first, second, third = start(*hosts)
    hook = 'type filter hook egress device "eth0" priority 0'
    second.host.nft(f"table netdev mute {{\nchain out {{\n{hook}\nudp dport {HEARTBEAT_PORT} drop\n}}\n}}\n")
    wait_until(lambda: counted(second, "sends_failed:heartbeats") > 0, 10)
    power_cut(wire, first)
    wait_until(lambda: third.holds(VIP), 10)
    failed = counted(second, "sends_failed:heartbeats")
    wait_until(lambda: counted(second, "sends_failed:heartbeats") > failed + 3, 30)
    assert not second.claims
    assert client.answerers(VIP) == {third.host.mac()}
    (said,) = [decision for decision in second.decisions if decision.reason == "CannotSend"]
    assert said.fields["link"] == "eth0"
    assert str(said.fields["error"]).startswith(("EPERM", "ENOBUFS"))
    second.host.run("nft", "delete", "table", "netdev", "mute")
    sent = counted(second, "sent_heartbeats")
    wait_until(lambda: counted(second, "sent_heartbeats") > sent + 3, 20)
    power_cut(wire, third)
    wait_until(lambda: second.holds(VIP), 10, "who can send again takes over")
    assert client.answerers(VIP) == {second.host.mac()}


def test_who_loses_what_arrives_gives_everybody_more_time(wire: Wire, start: Start) -> None:
    """Datagrams that nobody can use fill the queue that the heartbeats of others come through."""
    hosts, client = [wire.host(f"node-{n}") for n in (1, 2)], wire.host("client")
    first, second = start(*hosts)

    def detection() -> float:
        """What the second allows the first to be silent, in seconds."""
        peers = second.stats.peers if second.stats is not None else ()
        return next((peer.detection_s for peer in peers if peer.node == first.node), 0.0)

    def burst() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for _ in range(3000):
                datagrams.sendto(bytes(1400), (wire.address(second.host), HEARTBEAT_PORT))

    def more_time_is_given() -> bool:
        """After a burst too short for any heartbeat to be missed: the loss alone must tell."""
        client.call(burst)
        before = second.stats
        wait_until(lambda: second.stats is not before)
        return counted(second, "frames_lost:heartbeats") > 0 and detection() > SETTINGS.detection_floor_s + 0.2

    wait_until(more_time_is_given, 30)
    wait_until(lambda: any(decision.reason == "ReceiveOverflow" for decision in second.decisions))
    assert first.holds(VIP)
    assert not second.claims
    assert all(decision.reason != "PeerDead" for decision in second.decisions)


def test_frame_of_any_kind_proves_that_one_hears_where_nobody_answers(
    wire: Wire, start: Start, stack: ExitStack
) -> None:
    """A gateway that answered before is silent now, as when it died with the holder; but something can be heard."""
    hosts, gateway, other = [wire.host(f"node-{n}") for n in (1, 2)], wire.host("gateway"), wire.host("other")
    for host in hosts:
        host.run("ip", "route", "add", "default", "via", str(wire.address(gateway)))
    with gateway.listening() as heard:
        first, second = start(*hosts)
    asked = {frame.sender.text for frame in heard if frame.target.text == wire.address(gateway)}
    assert wire.address(second.host) in asked
    gateway.run("ip", "link", "set", "eth0", "arp", "off")
    assert not watchers(second.host)
    other.run("ip", "link", "set", "eth0", "arp", "off")
    noise = other.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    stack.callback(noise.close)
    other.call(lambda: noise.bind(("eth0", 0)))
    anything = b"\xff" * 6 + bytes.fromhex("020000000077") + b"\x88\xb5" + bytes(46)  # EtherType for experiments

    def taken_over() -> bool:
        noise.send(anything)
        return second.holds(VIP)

    power_cut(wire, first)
    wait_until(taken_over, 10)
    deaths = wait_until(lambda: [decision for decision in second.decisions if decision.reason == "PeerDead"], 5)
    assert [death.fields["proof"] for death in deaths] == ["a frame"]
    wait_until(lambda: not watchers(second.host), 5, "what is not needed is watched no more")


def watchers(host: WireHost) -> list[str]:
    """Packet sockets that receive frames of all kinds: of EtherType 3 as /proc/net/packet says it."""
    return [line for line in host.run("cat", "/proc/net/packet").splitlines()[1:] if line.split()[3] == "0003"]
