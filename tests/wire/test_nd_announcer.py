"""An announcer answers for IPv6 addresses on a real (virtual) wire: what clients, switches and rivals see of it.

Speakers talk to each other by both families here; whose an address is does not depend on its family.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.protocol.datagram import Authenticator
from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import PASS, assemble
from speaker.wire.ethernet import ETHERTYPE_IPV6, FrameError
from speaker.wire.nd import frames
from speaker.wire.nd.frames import READ_OCTETS, NeighbourAdvertisement
from speaker.wire.sockets import PacketSocket
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import as_speaker, mac_of, state_of
from tests.wire.speakers import CREDENTIALS, Speaker, Start, bundle

VIP, OTHER, IPV4 = (AddressText(text) for text in ("2001:db8::200", "2001:db8::201", "192.0.2.200"))
CLIENT = WireAddress.of(AddressText("2001:db8::3"))
ETH0 = LinkName("eth0")

pytestmark = pytest.mark.lab


def group_of(address: AddressText) -> str:
    return frames.solicited_node(WireAddress.of(address)).text


@contextlib.contextmanager
def ears(host: WireHost) -> Iterator[PacketSocket]:
    """A socket that receives all IPv6 frames that reach a host."""
    state = state_of(host)
    opened = as_speaker(host, lambda: PacketSocket(state.name, state.index, ETHERTYPE_IPV6, assemble((PASS,))))
    try:
        yield opened
    finally:
        opened.close()


def advertisements(opened: PacketSocket, seconds: float) -> Iterator[NeighbourAdvertisement]:
    """What is advertised until so many seconds have passed."""
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        if select.select([opened.socket], [], [], left)[0]:
            with contextlib.suppress(FrameError):
                message = frames.parse(opened.socket.recv(READ_OCTETS))
                if isinstance(message, NeighbourAdvertisement):
                    yield message


def answerers(client: WireHost, address: AddressText) -> set[str]:
    """The MACs that answer two questions to the group within a second, as ``arping`` counts them."""
    question = frames.solicit(WireAddress.of(address), CLIENT, mac_of(client)).encode()
    with ears(client) as opened:
        assert opened.send(question) == opened.send(question) == 0
        answers = [said for said in advertisements(opened, 1.0) if said.target.text == address and said.solicited]
    return {(said.target_mac or said.source).hex(":") for said in answers}


def holder_and_spare(wire: Wire, start: Start) -> tuple[Speaker, Speaker, WireHost]:
    """node-1, which holds the addresses, node-2, which may, and a client that knows node-1's MAC."""
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    wire.with_ipv6()
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, bundle("a", (VIP, IPV4), "node-1", "node-2"))
    wait_until(lambda: first.holds(VIP, IPV4) and second.ready)
    assert client.resolve(VIP) == client.resolve(IPV4) == hosts[0].mac()
    return first, second, client


def test_addresses_of_both_families_are_answered_while_they_are_planned(wire: Wire, start: Start) -> None:
    node, client = wire.host("node-1"), wire.host("client")
    wire.with_ipv6()
    wire.snoop()
    speaker = start(node)
    speaker.plan(1, bundle("a", (VIP, IPV4), "node-1"))
    wait_until(lambda: speaker.holds(VIP, IPV4))
    assert client.resolve(VIP) == client.resolve(IPV4) == node.mac()
    wait_until(lambda: wire.members(group_of(VIP)) == {"node-1"}, 10, "the switch does not know the member")
    assert answerers(client, OTHER) == set()
    client.run("ip", "address", "add", f"{VIP}/64", "dev", "eth0")
    wait_until(lambda: "dadfailed" in client.run("ip", "-6", "address", "show", "dev", "eth0"), 10, "not defended")
    client.run("ip", "address", "delete", f"{VIP}/64", "dev", "eth0")
    assert answerers(client, VIP) == {node.mac()}
    wait_until(lambda: speaker.traffic.answered.get(VIP, 0) >= 2)
    speaker.plan(2, bundle("a", (OTHER,), "node-1"))
    wait_until(lambda: speaker.holds(OTHER))
    wait_until(lambda: wire.members(group_of(OTHER)) == {"node-1"}, 10)
    wait_until(lambda: wire.members(group_of(VIP)) == set(), 10, "the group of what left the Plan is not left")
    assert answerers(client, OTHER) == {node.mac()}
    assert answerers(client, VIP) == set(), "what left the Plan is silent"
    wait_until(lambda: speaker.traffic.answered.get(OTHER, 0) >= 2)


def test_power_cut_moves_the_address_and_the_clients_entry(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    wire.snoop()
    wait_until(lambda: wire.members(group_of(VIP)) == {"node-1"}, 10)
    with ears(client) as opened:
        wire.cable(first.host, "down")
        first.process.kill()
        wait_until(lambda: client.neighbour(VIP) == second.host.mac(), 5, "the client still knows the dead node's MAC")
        assert client.neighbour(IPV4) == second.host.mac(), "both families of a Service move together"
        assert answerers(client, VIP) == {second.host.mac()}
        wait_until(lambda: wire.members(group_of(VIP)) == {"node-2"}, 10, "the switch asks the dead node")
        unasked = [said for said in advertisements(opened, 2.0) if said.to == frames.ALL_NODES]
    own, vip = mac_of(second.host), WireAddress.of(VIP)
    assert len(unasked) >= 2, "at once, and again"
    assert set(unasked) == {frames.unsolicited(vip, own)}


def test_interface_that_was_without_ipv6_for_a_moment_is_asked_again(wire: Wire, start: Start) -> None:
    """Nobody else can hold the address, so that it is where it was."""
    node, client = wire.host("node-1"), wire.host("client")
    wire.with_ipv6()
    first = start(node)
    first.plan(1, bundle("a", (VIP, IPV4), "node-1"))
    wait_until(lambda: first.holds(VIP, IPV4))
    for mtu in ("1200", "1500"):  # IPv6 needs 1280
        first.host.run("ip", "link", "set", "eth0", "mtu", mtu)
    joined = "ip -6 maddress show dev eth0"
    assert group_of(VIP) not in first.host.run(*joined.split()), "the kernel lost it"
    spoken = sent_heartbeats(first)
    wait_until(lambda: sent_heartbeats(first) > spoken + 12, 10, "it has looked at its links since, and told so")
    first.host.run("ip", "address", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
    wait_until(lambda: group_of(VIP) in first.host.run(*joined.split()), 5, "the group is not joined again")
    assert answerers(client, VIP) == {first.host.mac()}


def test_bundle_of_both_families_leaves_a_node_on_which_ipv6_is_switched_off(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    first.host.run("sysctl", "-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=1")
    wait_until(lambda: second.holds(VIP, IPV4), 10, "the other node speaks both families")
    wait_until(lambda: client.neighbour(VIP) == client.neighbour(IPV4) == second.host.mac(), 5)
    assert answerers(client, VIP) == {second.host.mac()}


def sent_heartbeats(speaker: Speaker) -> int:
    return speaker.stats.counters.get("sent_heartbeats", 0) if speaker.stats is not None else 0


def test_rival_is_answered_and_the_client_returns(wire: Wire, start: Start, stack: ExitStack) -> None:
    first, _, client = holder_and_spare(wire, start)
    rival = wire.host("rival")
    opened = stack.enter_context(ears(rival))
    assert opened.send(frames.unsolicited(WireAddress.of(VIP), mac_of(rival)).encode()) == 0
    wait_until(lambda: decided(first, "AddressConflict"), 5)
    wait_until(lambda: client.neighbour(VIP) == first.host.mac(), 5, "the client goes on with the rival")


def test_holder_whose_datagrams_are_blocked_proves_by_neighbour_discovery_that_it_answers(
    wire: Wire, start: Start
) -> None:
    """It holds an IPv6 address only, so that nothing else can prove it."""
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    wire.with_ipv6()
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, bundle("a", (VIP,), "node-1", "node-2"))
    wait_until(lambda: first.holds(VIP) and second.ready)
    wire.drop("closed", 'iifname "node-1-eth0" udp dport 7948')
    wait_until(lambda: decided(second, "DatagramsBlocked"), 10, "nothing proved that the suspect answers")
    assert first.holds(VIP)
    assert not second.claims
    assert not decided(second, "PeerDead")
    wire.cable(hosts[0], "down")
    first.process.kill()
    wait_until(lambda: second.holds(VIP), 10, "the holder proves nothing any more")
    assert client.resolve(VIP) == hosts[1].mac()


def decided(speaker: Speaker, reason: str) -> bool:
    return any(decision.reason == reason for decision in speaker.decisions)


def test_question_with_a_nonce_is_answered_with_a_proof_that_only_a_speaker_can_make(
    wire: Wire, start: Start, stack: ExitStack
) -> None:
    first, _, client = holder_and_spare(wire, start)
    opened = stack.enter_context(ears(client))
    members = Authenticator(CREDENTIALS.cluster, CREDENTIALS.keys)
    vip, own, nonce = WireAddress.of(VIP), mac_of(client), b"a nonce!"
    assert opened.send(frames.solicit(vip, CLIENT, own, nonce=nonce).encode()) == 0
    answer = next(said for said in advertisements(opened, 5.0) if said.target == vip and said.solicited)
    assert members.proves(answer.proof, nonce, mac_of(first.host), VIP)
    assert not Authenticator(CREDENTIALS.cluster, (b"k" * 32,)).proves(answer.proof, nonce, mac_of(first.host), VIP)
