"""What happens to a node's interfaces while it announces, on real ones: the rows of docs/reference/interfaces.md."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from msgspec import structs

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.channel import ExcludedInterfaces
from speaker.link import LinkName, Reception
from speaker.plan import Bundle
from speaker.wire.addresses import WireAddress
from speaker.wire.families import RESOLUTIONS
from speaker.wire.nd.frames import solicited_node
from tests.waiting import wait_until
from tests.wire.asking import Asker
from tests.wire.network import Wire, WireHost
from tests.wire.opened import mac_of
from tests.wire.speakers import Speaker, Start, bundle

VIP = AddressText("192.0.2.200")
ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")
OTHER = AddressText("192.0.2.201")
V6, OTHER_V6 = AddressText("2001:db8::200"), AddressText("2001:db8::201")
CLIENT = {Family.IPV4: AddressText("192.0.2.2"), Family.IPV6: AddressText("2001:db8::2")}
"""The client's own."""
MODES = {Reception.ALL_MULTICAST: "allmulti", Reception.PROMISCUOUS: "promiscuity"}
"""What ``ip`` calls them."""
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
        wait_until(lambda: all(each.ready for each in self.speakers), 20)
        wait_until(lambda: self.holders, 20)

    @property
    def holders(self) -> list[Speaker]:
        """Who answers."""
        return [speaker for speaker in self.speakers if speaker.answers_on(VIP)]

    def address(self, host: WireHost) -> str:
        return f"{self.wire.address(host)}/24"

    def exclude(self, host: WireHost, *patterns: str) -> None:
        """Have a node announce on no interface that one of these matches."""
        (speaker,) = (each for each in self.speakers if each.host is host)
        speaker.say(ExcludedInterfaces(patterns))

    def until_another_answers(self, event: Callable[[WireHost], object], limit: float) -> tuple[Speaker, float]:
        """Have something happen to the holder: the new holder, and after how many seconds the client had an answer of
        it. ``limit`` is of an idle machine."""
        (holder,) = self.holders
        former = holder.host.mac()
        asker = Asker(self.client, VIP)

        def others() -> list[Speaker]:
            """One, once it is settled: on a busy machine two may claim in the same moment, and one withdraws."""
            found = [each for each in self.holders if each is not holder]
            return found if len(found) == 1 else []

        began = time.monotonic()
        event(holder.host)
        (taker,) = wait_until(others, limit)
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
    """It is heard on another LAN all the while, and says there what it lost: nobody has to wait for its silence."""
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
        "excluded": (lambda host: lan.exclude(host, "^eth0$"), lan.exclude),
        "without address": (lambda host: host.run("ip", "address", "flush", "dev", "eth0"), plugged_again),
    }
    for name, (event, undo) in rows.items():
        (host,) = (holder.host for holder in lan.holders)
        taker, seconds = lan.until_another_answers(event, 1.5)
        print(f"{name}: {seconds:.3f} s")  # noqa: T201  # the table in docs/reference/interfaces.md has these figures
        undo(host)
        lan.until_all_are_whole()
        assert lan.holders == [taker], f"{name}: over, and nothing moves back"
    proofs = [each.fields["proof"] for one in lan.speakers for each in one.decisions if each.reason == "PeerDead"]
    # Of a speaker that stood still for the detection time at that moment the silence tells: not seven times.
    assert "lost its link" in proofs


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
    wait_until(lambda: first.holds(VIP) and second.ready, 20)
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


def node_and_client(wire: Wire, start: Start, *addresses: AddressText) -> tuple[Speaker, WireHost]:
    """A node on which the addresses are announced, and a client."""
    node, client = wire.host("node-1"), wire.host("client")
    wire.with_ipv6()
    speaker = start(node)
    speaker.plan(1, bundle("a", addresses, "node-1"))
    wait_until(lambda: speaker.holds(*addresses), 20)
    return speaker, client


def test_holder_whose_interface_becomes_another_goes_on_answering(wire: Wire, start: Start) -> None:
    """Its name, its MAC and its own address; and nothing moves."""
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, bundle("a", (VIP,), "node-1", "node-2"))
    wait_until(lambda: first.holds(VIP) and second.ready, 20)
    run = first.host.run
    asker = Asker(client, VIP)
    run("ip", "link", "set", "eth0", "name", "lan7")
    wait_until(lambda: first.answers_on(VIP) == ("lan7",))
    run("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")
    run("ip", "address", "add", "192.0.2.61/24", "dev", "lan7")
    run("ip", "address", "delete", "192.0.2.1/24", "dev", "lan7")
    mac, before = "02:00:5e:00:53:01", first.host.mac("lan7")
    assert client.resolve(VIP) == before
    began = time.monotonic()
    run("ip", "link", "set", "lan7", "address", mac)
    wait_until(lambda: client.neighbour(VIP) == mac, 2, "clients do not learn the new MAC")
    print(f"MAC: {time.monotonic() - began:.3f} s")  # noqa: T201  # as above
    wait_until(lambda: client.answerers(VIP) == {mac}, 5)
    answers = asker.end()
    assert {answer.mac for answer in answers} == {before, mac}
    gaps = [after.at - answer.at for answer, after in itertools.pairwise(answers)]
    print(f"longest time without an answer: {max(gaps):.3f} s")  # noqa: T201  # as above
    assert not second.claims
    assert not [decision for decision in second.decisions if decision.reason == "PeerDead"]


def test_node_whose_address_is_on_a_bridge_answers_with_the_bridges_mac_also_when_that_changes(
    wire: Wire, start: Start
) -> None:
    """A bridge has its MAC from its ports, the lowest of theirs."""
    node, client = wire.host("node-1"), wire.host("client")
    run = node.run
    run("ip", "link", "add", "br7", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    run("ip", "address", "flush", "dev", "eth0")
    run("ip", "address", "add", "192.0.2.1/24", "dev", "br7")
    run("ip", "link", "set", "br7", "up")
    speaker = start(node)
    speaker.plan(1, bundle("a", (VIP,), "node-1"))
    wait_until(lambda: speaker.answers_on(VIP) == ("br7",), 20)
    alone = node.mac("br7")
    run("ip", "link", "set", "eth0", "master", "br7")
    assert node.mac("br7") == node.mac("eth0") != alone
    wait_until(lambda: client.answerers(VIP) == {node.mac("br7")}, 10)
    assert client.resolve(VIP) == node.mac("br7")
    run("ip", "link", "add", "lan2", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "other")
    run("ip", "link", "set", "lan2", "master", "br7", "up")
    assert node.mac("br7") == "02:00:00:00:00:01"
    wait_until(lambda: client.neighbour(VIP) == "02:00:00:00:00:01", 5, "clients do not learn the bridge's new MAC")
    assert client.answerers(VIP) == {"02:00:00:00:00:01"}
    assert speaker.stats is not None
    assert speaker.stats.links == ("br7",)
    assert speaker.stats.unusable[ETH0] == "is part of a bridge, a bond or a VRF"
    run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "nomaster")
    wait_until(lambda: speaker.stats is not None and "eth0" in (speaker.stats.links or ()), 5, "it left the bridge")


def test_card_that_nobody_configured_speaks_ipv6_and_is_in_nobodys_way(wire: Wire, start: Start) -> None:
    """It has a link-local address, as the kernel gives each interface."""
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    wire.with_ipv6()
    for host in hosts:
        wire.plug(host, "eth1")
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, bundle("a", (VIP, V6), "node-1", "node-2"))
    wait_until(lambda: first.holds(VIP, V6) and second.ready, 20)
    wait_until(lambda: first.stats is not None and first.stats.families.get(ETH1) == (Family.IPV6,), 10)
    wait_until(lambda: second.stats is not None and second.stats.families.get(ETH1) == (Family.IPV6,), 10)
    assert first.answers_on(VIP) == first.answers_on(V6) == ("eth0",)
    assert client.answerers(VIP) == {hosts[0].mac()}
    wire.cable(hosts[0], "down")
    wait_until(lambda: client.answerers(VIP) == {hosts[1].mac()}, 5, "IPv4 does not go to another node")
    assert not [each for each in (*first.decisions, *second.decisions) if each.reason == "CannotSend"]
    assert first.stats is not None
    assert first.stats.refused == {}


def test_holder_whose_interface_loses_ipv6_gives_up_what_is_ipv6_at_once_and_the_rest_of_the_bundle_follows(
    wire: Wire, start: Start
) -> None:
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    wire.with_ipv6()
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, bundle("a", (VIP, V6), "node-1", "node-2"))
    wait_until(lambda: first.holds(VIP, V6) and second.ready, 20)
    assert client.resolve(V6) == hosts[0].mac()
    began = time.monotonic()
    hosts[0].run("ip", "link", "set", "eth0", "mtu", "1200")
    wait_until(lambda: client.neighbour(V6) == hosts[1].mac(), 1, "another node does not answer at once")
    print(f"IPv6: {time.monotonic() - began:.3f} s")  # noqa: T201  # as above
    wait_until(lambda: second.holds(VIP, V6) and not first.claims, 5)
    assert client.answerers(VIP) == {hosts[1].mac()}


def test_ipv6_that_was_lost_and_is_back_between_two_looks_is_asked_again(wire: Wire, start: Start) -> None:
    """An MTU below 1,280 takes IPv6 from an interface, and with it all memberships of groups."""
    node, client = wire.host("node-1"), wire.host("client")
    node.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    wire.with_ipv6()
    speaker = start(node)
    speaker.plan(1, bundle("a", (V6, VIP), "node-1"))
    wait_until(lambda: speaker.holds(V6, VIP), 20)
    joined = ("ip", "-6", "maddress", "show", "dev", "eth0")
    group = solicited_node(WireAddress.of(V6)).text
    wait_until(lambda: group in node.run(*joined), 10)
    batch = "link set eth0 mtu 1200\nlink set eth0 mtu 1500\naddress add 2001:db8::1/64 dev eth0 nodad\n"
    speaker.signal(signal.SIGSTOP)
    subprocess.run(["nsenter", f"--net={node.namespace}", "ip", "-batch", "-"], input=batch.encode(), check=True)
    assert group not in node.run(*joined), "the kernel did not lose it"
    speaker.signal(signal.SIGCONT)
    wait_until(lambda: group in node.run(*joined), 5, "the group is not joined again")
    wait_until(lambda: client.answerers(VIP) == {node.mac()}, 10)
    assert client.resolve(V6) == node.mac()


def test_macvlan_is_announced_on_and_is_down_with_the_interface_below_it(wire: Wire, start: Start) -> None:
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    run = hosts[0].run
    run("ip", "link", "add", "lan7", "link", "eth0", "type", "macvlan", "mode", "bridge")
    run("ip", "address", "flush", "dev", "eth0")
    run("ip", "address", "add", "192.0.2.1/24", "dev", "lan7")
    run("ip", "link", "set", "lan7", "up")
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, bundle("a", (VIP,), "node-1", "node-2"))
    wait_until(lambda: first.holds(VIP) and second.ready, 20)
    assert client.answerers(VIP) == {hosts[0].mac("lan7")}
    wire.cable(hosts[0], "down")
    wait_until(lambda: client.answerers(VIP) == {hosts[1].mac()}, 5)


@pytest.mark.parametrize(("vip", "other"), [(VIP, OTHER), (V6, OTHER_V6)], ids=["ARP", "Neighbour Discovery"])
def test_what_arrives_tagged_is_not_for_the_interface_without_a_tag(
    wire: Wire, start: Start, stack: ExitStack, vip: AddressText, other: AddressText
) -> None:
    """A frame of VLAN 7 is another network's. One of VLAN 0 has a priority and no VLAN (IEEE 802.1Q)."""
    speaker, client = node_and_client(wire, start, vip, other)
    resolution = RESOLUTIONS[WireAddress.of(vip).family]
    opened = stack.enter_context(contextlib.closing(ears(client, resolution.ethertype)))

    def ask(address: AddressText, tags: str) -> None:
        source = WireAddress.of(CLIENT[resolution.family])
        frame = resolution.question(WireAddress.of(address), source, mac_of(client), None, b"")
        opened.send(frame[:12] + bytes.fromhex(tags) + frame[12:])

    def answered() -> set[AddressText]:
        found = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = opened.recv(resolution.frame_octets)
                if frame[6:12] == mac_of(speaker.host) and frame[:6] == mac_of(client):
                    found |= {each for each in (vip, other) if bytes(WireAddress.of(each)) in frame}
        return found

    for tags in ("81000007", "8100000781000007", "88a80007", "8100000088a80007"):
        ask(vip, tags)
        ask(other, "")
        seen: set[AddressText] = set()
        wait_until(lambda seen=seen: seen.update(answered()) or other in seen, 5)  # type: ignore[misc]
        assert seen == {other}, tags
    ask(vip, "8100e000")
    wait_until(lambda: vip in answered(), 5)


def ears(host: WireHost, ethertype: int) -> socket.socket:
    """A socket that receives such frames on eth0, and sends any."""
    opened = host.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0))
    host.call(lambda: opened.bind(("eth0", ethertype)))
    return opened


@pytest.mark.parametrize(("reception", "shown"), MODES.items())
def test_interface_receives_more_while_it_is_announced_on_and_no_longer(
    wire: Wire, stack: ExitStack, reception: Reception, shown: str
) -> None:
    """However the speaker ends, and under whatever name."""
    node = wire.host("node-1")

    def wanted(interface: str = "eth0") -> int:
        """How many want the interface to receive more, as the kernel counts them."""
        (found,) = json.loads(node.run("ip", "-json", "-details", "link", "show", "dev", interface))
        return int(found[shown])

    before = wanted()
    speaker = Speaker(node, reception)
    stack.callback(speaker.end)
    wait_until(lambda: wanted() == before + 1)
    node.run("ip", "link", "set", "eth0", "name", "lan7")
    wait_until(lambda: "interface renamed" in speaker.log)
    assert wanted("lan7") == before + 1
    speaker.say(ExcludedInterfaces(("^lan",)))
    wait_until(lambda: wanted("lan7") == before)
    speaker.say(ExcludedInterfaces(()))
    wait_until(lambda: wanted("lan7") == before + 1)
    speaker.process.kill()
    wait_until(lambda: wanted("lan7") == before)
