"""Several announcers on wires that do strange things: which holds an address, and which does not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from cluster.objects import AddressText
from speaker.wire.arp.frames import ArpFrame, Operation
from speaker.wire.ethernet import BROADCAST
from tests.arp_frames import on_wire
from tests.waiting import wait_until
from tests.wire.asking import Asker
from tests.wire.network import Wire, WireHost
from tests.wire.opened import arp_resolver, mac_of
from tests.wire.speakers import Speaker, bundle

VIP, ROUTED = AddressText("192.0.2.200"), AddressText("203.0.113.10")
NODES = ("node-1", "node-2", "node-3")

pytestmark = pytest.mark.lab


class BridgedLan:
    """Three nodes that run speakers, and a client."""

    def __init__(self, wire: Wire, stack: ExitStack, *addresses: AddressText, nodes: tuple[str, ...] = NODES) -> None:
        self.wire = wire
        self.stack = stack
        self.bundles = tuple(bundle(f"b{i:02}", (address,), *nodes) for i, address in enumerate(addresses))
        self.hosts = [wire.host(name) for name in nodes]
        self.client = wire.host("client")
        self.speakers: dict[str, Speaker] = {}

    def start(self) -> None:
        for host in self.hosts:
            self.speakers[host.name] = self.run(host)
        wait_until(lambda: all(s.ready for s in self.speakers.values()), 20)
        for each in self.bundles:
            wait_until(lambda each=each: len(self.answering(each.addresses[0])) == 1, 20)  # type: ignore[misc]

    def run(self, host: WireHost) -> Speaker:
        speaker = Speaker(host)
        self.stack.callback(speaker.end)
        speaker.plan(1, *self.bundles)
        return speaker

    def answering(self, address: AddressText = VIP) -> list[str]:
        return [name for name, speaker in self.speakers.items() if speaker.answers_on(address)]

    def holder(self, address: AddressText = VIP) -> Speaker:
        (name,) = self.answering(address)
        return self.speakers[name]

    def others(self, speaker: Speaker) -> list[Speaker]:
        return [other for other in self.speakers.values() if other is not speaker]

    def power_cut(self, speaker: Speaker) -> None:
        self.wire.cable(speaker.host, "down")
        speaker.process.kill()
        del self.speakers[speaker.node]

    def time_passes(self, heartbeats: int = 50) -> None:
        """Each speaker goes on for as many heartbeats of a holder, which is longer than any detection takes."""
        before = {name: loops(speaker) for name, speaker in self.speakers.items()}
        seconds = heartbeats / 10
        wait_until(lambda: all(loops(s) > before[name] + seconds for name, s in self.speakers.items()), 60)


def loops(speaker: Speaker) -> float:
    return speaker.stats.loop_at if speaker.stats is not None else 0.0


def decisions(speakers: list[Speaker], reason: str) -> list[dict[str, object]]:
    return [
        dict(decision.fields) for speaker in speakers for decision in speaker.decisions if decision.reason == reason
    ]


@pytest.fixture
def lan(wire: Wire, stack: ExitStack) -> Callable[..., BridgedLan]:
    def make(*addresses: AddressText, nodes: tuple[str, ...] = NODES) -> BridgedLan:
        return BridgedLan(wire, stack, *addresses, nodes=nodes)

    return make


@pytest.mark.parametrize("direction", ["to", "from", "both"])
def test_holder_whose_datagrams_are_dropped_on_the_way_stays_and_is_named(
    lan: Callable[..., BridgedLan], direction: str
) -> None:
    """A firewall between the nodes lets ARP pass: the holder proves that it answers, and nobody else begins to."""
    here = lan(VIP)
    here.start()
    holder = here.holder()
    port = f"{holder.host.name}-eth0"
    ways = {"to": [f'oifname "{port}"'], "from": [f'iifname "{port}"']}
    ways["both"] = ways["to"] + ways["from"]
    here.wire.drop("closed", *(f"{way} udp dport 7948" for way in ways[direction]))
    here.time_passes(80)
    assert here.answering() == [holder.node]
    assert here.client.answerers(VIP) == {holder.host.mac()}
    named = {str(fields["node"]) for fields in decisions(here.others(holder), "DatagramsBlocked")}
    assert named == {holder.node}


def test_replies_that_anybody_sends_in_a_dead_nodes_name_hold_nothing_off(
    lan: Callable[..., BridgedLan], stack: ExitStack
) -> None:
    """A forger, or a switch that answers ARP for its hosts: it cannot prove anything."""
    here = lan(VIP)
    forger = here.wire.host("forger")
    here.start()
    holder = here.holder()
    resolver = arp_resolver(forger)
    stack.callback(resolver.close)
    dead = mac_of(holder.host)
    here.power_cut(holder)

    def forge() -> bool:
        for host in here.hosts:
            for to in (mac_of(host), BROADCAST):
                frame = ArpFrame(
                    to,
                    mac_of(forger),
                    Operation.REPLY,
                    dead,
                    on_wire(VIP),
                    mac_of(host),
                    on_wire(here.wire.address(host)),
                )
                resolver.questions.send(frame.encode())
        return len(here.answering()) == 1

    wait_until(forge, 5, "nobody takes over")
    assert len(here.client.answerers(VIP)) == 1


def test_claims_travel_where_the_switch_forwards_no_groups(lan: Callable[..., BridgedLan]) -> None:
    here = lan(VIP)
    here.start()
    holder = here.holder()
    here.wire.group_passes(False)
    here.time_passes()
    assert here.answering() == [holder.node]
    here.power_cut(holder)
    wait_until(here.answering, 10, "nobody takes over")
    here.time_passes(30)
    assert len(here.answering()) == 1
    assert here.client.answerers(VIP) == {here.holder().host.mac()}


def test_holder_that_has_lost_the_lan_and_lives_on_another_network_is_replaced(lan: Callable[..., BridgedLan]) -> None:
    here = lan(ROUTED)
    here.wire.second_network(here.hosts)
    here.start()
    holder = here.holder(ROUTED)
    here.wire.cable(holder.host, "down")
    wait_until(lambda: here.answering(ROUTED) not in ([], [holder.node]), 10, "nobody else takes over")
    asker = Asker(here.client, ROUTED)
    here.time_passes(20)
    taker = here.holder(ROUTED)
    assert {mac for _, mac in asker.end()} == {taker.host.mac()}
    here.wire.cable(holder.host, "up")
    here.time_passes()
    assert here.answering(ROUTED) == [taker.node]


@pytest.mark.parametrize("what", ["address away", "renamed", "in a bridge"])
def test_node_with_a_new_link_takes_nothing_from_living_holders(lan: Callable[..., BridgedLan], what: str) -> None:
    addresses = [AddressText(f"192.0.2.{n}") for n in range(200, 212)]
    here = lan(*addresses)
    here.start()
    here.time_passes(20)
    spare = here.speakers["node-2"]
    before = {address: here.holder(address).node for address in addresses}
    run, own = spare.host.run, f"{here.wire.address(spare.host)}/24"
    if what == "address away":
        run("ip", "address", "flush", "dev", "eth0")
        run("ip", "address", "add", own, "dev", "eth0")
    elif what == "renamed":
        run("ip", "link", "set", "eth0", "name", "lan0")
    else:
        run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        run("ip", "address", "flush", "dev", "eth0")
        run("ip", "link", "set", "eth0", "master", "br0")
        run("ip", "link", "set", "br0", "up")
        run("ip", "address", "add", own, "dev", "br0")
    here.time_passes(40)
    for address in addresses:
        wait_until(lambda address=address: len(here.answering(address)) == 1, 10)  # type: ignore[misc]
    moved = {a: here.holder(a).node for a in addresses if before[a] not in {spare.node, here.holder(a).node}}
    assert not moved


def test_of_two_machines_with_one_name_one_answers_and_both_say_so(lan: Callable[..., BridgedLan]) -> None:
    here = lan(VIP, nodes=("node-1",))
    other = here.wire.host("twin")
    here.start()
    other.name = "node-1"
    twin = here.run(other)
    first = here.speakers["node-1"]
    wait_until(lambda: decisions([first], "DuplicateNode") and decisions([twin], "DuplicateNode"), 15)
    here.time_passes(40)
    assert here.client.answerers(VIP) == {first.host.mac()}
    assert decisions([first], "DuplicateNode")[0]["mac"] == other.mac()
    assert decisions([twin], "DuplicateNode")[0]["mac"] == first.host.mac()
    here.power_cut(first)
    here.speakers["node-1"] = twin
    wait_until(lambda: here.client.answerers(VIP) == {other.mac()}, 20, "the other one does not take over")


def test_blocked_port_is_noticed_as_fast_the_next_time(lan: Callable[..., BridgedLan]) -> None:
    """The carrier stays: each side is as silent to the other as it seems, and D is not doubled for it."""
    here = lan(VIP)
    here.start()
    asker = Asker(here.client, VIP)
    for _ in range(2):
        holder = here.holder()
        here.wire.block(holder.host, blocked=True)
        wait_until(lambda holder=holder: set(here.answering()) - {holder.node}, 10)  # type: ignore[misc]
        here.time_passes(20)
        here.wire.block(holder.host, blocked=False)
        wait_until(lambda: len(here.answering()) == 1, 10)
        here.time_passes(20)
    answers = asker.end()
    views = [view for s in here.speakers.values() if s.stats is not None for view in s.stats.peers]
    assert len(views) == 6
    assert all(view.detection_s < (0.7 if view.claims else 2.0) for view in views), "none is given twice its time"
    assert len({mac for _, mac in answers}) >= 2
