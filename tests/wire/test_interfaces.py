"""What happens to a node's interfaces while it announces, on real ones: the rows of docs/reference/interfaces.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from msgspec import structs

from cluster.objects import AddressText
from speaker.channel import ExcludedInterfaces
from speaker.link import LinkName
from speaker.plan import Bundle
from tests.waiting import wait_until
from tests.wire.asking import Asker
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import Speaker, Start, bundle

VIP = AddressText("192.0.2.200")
ETH0 = LinkName("eth0")
NODES = ("node-1", "node-2", "node-3")

pytestmark = pytest.mark.lab


class TwoLans:
    """Nodes on two LANs, eth0 and eth1, that announce an address on eth0 alone; and a client on the first."""

    def __init__(self, wire: Wire, start: Start) -> None:
        self.wire = wire
        self.hosts, self.client = [wire.host(name) for name in NODES], wire.host("client")
        wire.second_network(self.hosts)
        self.speakers = [start(host) for host in self.hosts]
        for speaker in self.speakers:
            speaker.plan(1, announced_on(ETH0))
        wait_until(lambda: all(each.stats is not None and each.stats.ready for each in self.speakers), 20)
        wait_until(lambda: self.holders, 20)

    @property
    def holders(self) -> list[Speaker]:
        """Who answers."""
        return [speaker for speaker in self.speakers if speaker.answers_on(VIP)]

    def address(self, host: WireHost) -> str:
        return f"{self.wire.address(host)}/24"

    def until_another_answers(self, event: Callable[[WireHost], object], limit: float) -> tuple[Speaker, float]:
        """Have something happen to the holder: the new holder, and after how many seconds the client had an answer of
        it. ``limit`` is of an idle machine."""
        (holder,) = self.holders
        former = holder.host.mac()
        asker = Asker(self.client, VIP)
        began = time.monotonic()
        event(holder.host)
        (taker,) = wait_until(lambda: [each for each in self.holders if each is not holder], limit)
        wait_until(lambda: self.holders == [taker], 5)
        wait_until(lambda: self.client.answerers(VIP) == {taker.host.mac()}, 5)
        answers = [answer for answer in asker.end() if answer.at >= began]
        first = next(answer.at for answer in answers if answer.mac == taker.host.mac())
        assert not [answer for answer in answers if answer.mac == former and answer.at > first]
        return taker, first - began

    def until_all_are_whole(self) -> None:
        """Each has its link again, and one holds."""
        for speaker in self.speakers:
            wait_until(lambda speaker=speaker: speaker.stats is not None and speaker.stats.links == ("eth0", "eth1"))  # type: ignore[misc]
        self.time_passes(2.0)  # what is new was listened on
        assert len(self.holders) == 1

    def time_passes(self, seconds: float) -> None:
        """Of each speaker's own."""
        before = {speaker.node: loop_at(speaker) for speaker in self.speakers}
        wait_until(lambda: all(loop_at(each) > before[each.node] + seconds for each in self.speakers), 30)


def loop_at(speaker: Speaker) -> float:
    return speaker.stats.loop_at if speaker.stats is not None else 0.0


def announced_on(*interfaces: LinkName) -> Bundle:
    planned = bundle("a", (VIP,), *NODES)
    candidates = tuple(structs.replace(each, interfaces=interfaces) for each in planned.candidates)
    return structs.replace(planned, candidates=candidates, interfaces=interfaces)


def test_node_whose_interfaces_are_all_out_gives_its_addresses_up_at_once(
    wire: Wire, start: Start, stack: ExitStack
) -> None:
    """It is heard on another LAN all the while."""
    lan = TwoLans(wire, start)
    elsewhere = WireHost("elsewhere")
    stack.callback(elsewhere.end)

    def into_a_bridge(host: WireHost) -> None:
        host.run("ip", "link", "add", "br7", "type", "bridge")
        host.run("ip", "link", "set", "eth0", "master", "br7")

    def plugged_again(host: WireHost) -> None:
        host.run("ip", "address", "add", lan.address(host), "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")

    def away(host: WireHost) -> None:
        host.run("ip", "link", "set", "eth0", "netns", str(elsewhere.pid))

    def back(host: WireHost) -> None:
        elsewhere.run("ip", "link", "set", "eth0", "netns", str(host.pid))
        plugged_again(host)

    rows: dict[str, tuple[Callable[[WireHost], object], Callable[[WireHost], object]]] = {
        "carrier": (lambda host: wire.cable(host, "down"), lambda host: wire.cable(host, "up")),
        "down": (
            lambda host: host.run("ip", "link", "set", "eth0", "down"),
            lambda host: host.run("ip", "link", "set", "eth0", "up"),
        ),
        "deleted": (
            lambda host: host.run("ip", "link", "delete", "eth0"),
            lambda host: wire.plug(host, "eth0", lan.address(host)),
        ),
        "in a bridge": (into_a_bridge, lambda host: host.run("ip", "link", "delete", "br7")),
        "in another namespace": (away, back),
        "without address": (lambda host: host.run("ip", "address", "flush", "dev", "eth0"), plugged_again),
    }
    for name, (event, undo) in rows.items():
        (host,) = (holder.host for holder in lan.holders)
        taker, seconds = lan.until_another_answers(event, 1.5)
        print(f"{name}: {seconds:.3f} s")  # noqa: T201  # the table in docs/reference/interfaces.md has these figures
        undo(host)
        lan.until_all_are_whole()
        assert lan.holders == [taker], f"{name}: over, and nothing moves back"


def test_interface_that_is_excluded_is_given_up_and_one_that_is_excluded_no_more_is_announced(
    wire: Wire, start: Start
) -> None:
    """While the speakers run, as the ConfigMap changes; veth is excluded by default, and usable."""
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    for host in hosts:
        wire.plug(host, "veth7", f"198.51.100.{hosts.index(host) + 1}/24")
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, bundle("a", (VIP,), "node-1", "node-2"))
    wait_until(lambda: first.holds(VIP) and second.stats is not None and second.stats.ready, 20)
    assert first.stats is not None
    assert first.stats.links == ("eth0",)
    first.say(ExcludedInterfaces(("^eth",)))
    wait_until(lambda: client.answerers(VIP) == {second.host.mac()}, 5)
    wait_until(lambda: first.stats is not None and first.stats.links == ("veth7",))
    assert first.stats.unusable[ETH0] == "is excluded by its name (^eth)"
    first.say(ExcludedInterfaces(()))
    wait_until(lambda: first.stats is not None and first.stats.links == ("eth0", "veth7"))
    second.say(ExcludedInterfaces(("^eth",)))
    wait_until(lambda: client.answerers(VIP) == {first.host.mac()}, 5)
