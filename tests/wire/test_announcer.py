"""An announcer on a real (virtual) wire: what clients, rivals and other speakers see of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import signal
import socket
from contextlib import ExitStack

import pytest

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.datagram import Authenticator
from speaker.protocol.settings import RestartMode
from speaker.wire.arp.frames import READ_OCTETS, ArpFrame, Operation
from speaker.wire.heartbeats.port import HEARTBEAT_PORT
from tests.arp_frames import gratuitous, request
from tests.waiting import ended, wait_until
from tests.wire.asking import Asker
from tests.wire.network import Wire, WireHost
from tests.wire.opened import arp_resolver, mac_of
from tests.wire.speakers import CREDENTIALS, Speaker, Start, bundle

VIP, OTHER = AddressText("192.0.2.200"), AddressText("192.0.2.201")
SPARES = AddressText("192.0.2.202")
"""Only the spare may hold it, and does so when it can claim, and so can stand in."""
ETH0 = LinkName("eth0")

pytestmark = pytest.mark.lab


def holder_and_spare(wire: Wire, start: Start) -> tuple[Speaker, Speaker, WireHost]:
    """node-1, which holds the address, node-2, which may, and a client that knows node-1's MAC."""
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, bundle("a", (VIP,), "node-1", "node-2"), bundle("b", (SPARES,), "node-2"))
    wait_until(lambda: first.holds(VIP) and second.holds(SPARES), message="not both of them can claim")
    for speaker in (first, second):
        speaker.plan(2, bundle("a", (VIP,), "node-1", "node-2"))
    wait_until(lambda: not second.claims and decided(second, "Released"))
    second.decisions.clear()
    assert client.resolve(VIP) == hosts[0].mac()
    return first, second, client


def test_lone_speaker_claims_what_is_planned_and_answers(wire: Wire, start: Start) -> None:
    node, client = wire.host("node-1"), wire.host("client")
    speaker = start(node)
    speaker.plan(1, bundle("a", (VIP,), "node-1"))
    wait_until(lambda: speaker.holds(VIP))
    assert client.resolve(VIP) == node.mac()
    assert client.answerers(OTHER) == set()
    speaker.plan(2, bundle("a", (OTHER,), "node-1"))
    wait_until(lambda: speaker.holds(OTHER))
    assert client.answerers(OTHER) == {node.mac()}
    assert client.answerers(VIP) == set(), "what left the Plan is silent"


def test_power_cut_moves_the_address_and_the_clients_entry(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    wire.cable(first.host, "down")
    first.process.kill()
    wait_until(lambda: client.neighbour(VIP) == second.host.mac(), 5, "the client still knows the dead node's MAC")
    assert client.answerers(VIP) == {second.host.mac()}


def test_killed_announcer_is_stood_in_for_until_its_node_dies_too(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    first.process.kill()
    wait_until(lambda: decided(second, "StandsIn"), 10, "nobody stands in")
    wait_until(lambda: answers_from(client, VIP) == {(mac_of(second.host), mac_of(first.host))})
    assert not second.claims
    wire.cable(first.host, "down")
    wait_until(lambda: client.neighbour(VIP) == second.host.mac(), 10, "the node is dead, and stood in for still")
    wait_until(lambda: client.answerers(VIP) == {second.host.mac()})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_restarted_announcer_leaves_no_question_open_and_moves_nothing(
    wire: Wire, start: Start, number: signal.Signals
) -> None:
    first, second, client = holder_and_spare(wire, start)
    epoch = first.claims[VIP].epoch
    asker = Asker(client, VIP)
    first.signal(number)
    assert ended(first.process) == 0
    wait_until(lambda: answers_from(client, VIP) == {(mac_of(second.host), mac_of(first.host))})
    again = start(first.host)
    again.plan(1, bundle("a", (VIP,), "node-1", "node-2"))
    wait_until(lambda: again.holds(VIP) and decided(second, "StandsInNoMore"), 20, "it did not take its address back")
    wait_until(lambda: answers_from(client, VIP) == {(mac_of(first.host), mac_of(first.host))})
    answers = asker.end()
    assert {answer.mac for answer in answers} == {first.host.mac()}
    pauses = [after.at - before.at for before, after in itertools.pairwise(answers)]
    print(f"longest pause between answers: {max(pauses) * 1000:.1f} ms of questions each 10 ms")  # noqa: T201
    assert again.claims[VIP].epoch == epoch
    assert not second.claims


def test_announcer_that_is_to_release_does_so_and_exits_with_zero(wire: Wire, stack: ExitStack) -> None:
    hosts, client = [wire.host("node-1"), wire.host("node-2")], wire.host("client")
    first, second = (Speaker(host, restart_mode=RestartMode.RELEASE) for host in hosts)
    for speaker in (first, second):
        stack.callback(speaker.end)
        speaker.plan(1, bundle("a", (VIP,), "node-1", "node-2"))
    wait_until(lambda: first.holds(VIP) and second.ready)
    assert client.resolve(VIP) == hosts[0].mac()
    first.signal(signal.SIGTERM)
    assert ended(first.process, 2.0) == 0
    wait_until(lambda: client.neighbour(VIP) == hosts[1].mac(), 2)


def decided(speaker: Speaker, reason: str) -> bool:
    return any(decision.reason == reason for decision in speaker.decisions)


def answers_from(client: WireHost, address: AddressText) -> set[tuple[Mac, Mac]]:
    """The Ethernet source of each answer, and the MAC that it names."""
    with client.listening() as heard:
        client.answerers(address)
    answers = [frame for frame in heard if frame.operation is Operation.REPLY and frame.sender.text == address]
    return {(frame.source, frame.sender_mac) for frame in answers}


def test_holder_hands_over_and_answers_until_its_successor_does(wire: Wire, start: Start) -> None:
    """Questions go on all the while; a gap would be longer where the holder released first and the other lagged."""
    first, second, client = holder_and_spare(wire, start)
    asker = Asker(client, VIP)
    for speaker in (first, second):
        speaker.plan(2, bundle("a", (VIP,), "node-2"))
    wait_until(lambda: second.holds(VIP) and first.holds(), 5, "nothing was handed over")
    wait_until(lambda: client.neighbour(VIP) == second.host.mac(), 5)
    answers = asker.end()
    assert {answer.mac for answer in answers} == {first.host.mac(), second.host.mac()}
    pauses = [after.at - before.at for before, after in itertools.pairwise(answers)]
    print(f"longest pause between answers: {max(pauses) * 1000:.1f} ms of questions each 10 ms")  # noqa: T201
    made = {decision.reason for decision in first.decisions}
    assert made >= {"Offered", "Withdrawn"}
    assert not made & {"Released", "NotTaken"}
    (claimed,) = [decision for decision in second.decisions if decision.reason == "Claimed"]
    assert claimed.fields["why"] == "handed over by node-1"
    assert client.answerers(VIP) == {second.host.mac()}


def test_paused_announcer_answers_nothing_that_was_asked_meanwhile(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    first.signal(signal.SIGSTOP)
    wait_until(lambda: second.holds(VIP), 5)
    assert client.answerers(VIP) == {second.host.mac()}, "and these questions wait in node-1's socket"
    with client.listening() as replies:
        first.signal(signal.SIGCONT)
        wait_until(lambda: first.has_told and not any(h.links for h in first.claims.values()), 5)
        client.answerers(VIP)
    assert first.host.mac() not in {reply.sender_mac.hex(":") for reply in replies if reply.sender.text == VIP}

    def said_once() -> bool:
        late = first.stats.counters.get("late_loops", 0) if first.stats else 0
        return late > 0 and sum("late" in line.lower() for line in first.log.splitlines()) == late

    wait_until(said_once, 10, "a late loop is one line")


def test_pulled_cable_moves_the_address_and_back_in_there_is_one_answerer(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    wire.cable(first.host, "down")
    wait_until(lambda: client.neighbour(VIP) == second.host.mac(), 5)
    wire.cable(first.host, "up")
    wait_until(lambda: not first.claims, 10, "the isolated node gives its claim up")
    assert client.answerers(VIP) == {second.host.mac()}


def test_cable_that_was_out_for_a_moment_suspends_the_answering_until_a_peer_is_heard(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    wire.cable(first.host, "down")
    wire.cable(first.host, "up")
    wait_until(lambda: any(decision.reason == "LinkUp" for decision in first.decisions))
    wait_until(lambda: first.holds(VIP) != second.holds(VIP), 10)
    wait_until(lambda: len(client.answerers(VIP)) == 1, 10)


def test_flood_of_questions_and_forged_heartbeats_moves_nothing(wire: Wire, stack: ExitStack) -> None:
    """Whoever floods wants the processor as well: a death takes longer here than a speaker may wait for its turn."""

    def start(host: WireHost) -> Speaker:
        speaker = Speaker(host, detection_floor_s=2.0)
        stack.callback(speaker.end)
        return speaker

    first, second, client = holder_and_spare(wire, start)
    claims = dict(first.claims)
    question = request(VIP, AddressText("192.0.2.3"), mac_of(client)).encode()

    def flood() -> None:
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as arp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        ):
            arp.bind(("eth0", 0))
            datagrams.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
            for _ in range(60_000):
                with contextlib.suppress(OSError):
                    arp.send(question)
                    datagrams.sendto(bytes(1400), (wire.address(first.host), HEARTBEAT_PORT))

    client.call(flood)
    assert first.process.poll() is None
    wait_until(lambda: first.traffic.answered.get(VIP, 0) > 1000)
    assert first.claims == claims, "the same claim, of the same epoch"
    assert not second.claims


def test_host_firewall_that_drops_heartbeats_in_both_directions_moves_nothing(wire: Wire, start: Start) -> None:
    """The holder's firewall, reloaded with a rule that nobody thought through: its speaker lives and answers."""
    first, second, client = holder_and_spare(wire, start)
    claims = dict(first.claims)
    first.host.nft("""table ip closed {
        chain in { type filter hook input priority 0; udp dport 7948 drop; }
        chain out { type filter hook output priority 0; udp dport 7948 drop; }
    }""")  # fmt: skip
    stays_so_while_the_other_speaks(first, second)
    assert first.claims == claims, "the same claim, of the same epoch"
    assert not second.claims
    assert client.answerers(VIP) == {first.host.mac()}
    assert all("PeerSuspected" not in speaker.log for speaker in (first, second))


def test_question_with_a_nonce_is_answered_with_a_proof_that_only_a_speaker_can_make(
    wire: Wire, start: Start, stack: ExitStack
) -> None:
    first, _, client = holder_and_spare(wire, start)
    first.host.run("ip", "address", "add", f"{OTHER}/32", "dev", "eth0")  # which its kernel answers for
    resolver = arp_resolver(client)
    stack.callback(resolver.close)
    asker, answers = resolver.questions, resolver.answers

    def asked(target: AddressText, nonce: bytes = b"") -> ArpFrame:
        question = request(target, wire.address(client), mac_of(client), mac_of(first.host), nonce)
        assert asker.send(question.encode()) == 0
        select.select([answers.socket], [], [], 5)
        return ArpFrame.parse(answers.socket.recv(READ_OCTETS))

    members, nonce = Authenticator(CREDENTIALS.cluster, CREDENTIALS.keys), b"a nonce!"
    proof = asked(VIP, nonce).proof
    assert members.proves(proof, nonce, mac_of(first.host), VIP)
    assert not members.proves(proof, b"another!", mac_of(first.host), VIP)
    assert not Authenticator(CREDENTIALS.cluster, (b"k" * 32,)).proves(proof, nonce, mac_of(first.host), VIP)
    assert asked(VIP).proof == b"", "an ordinary question has an ordinary answer"
    assert asked(OTHER, nonce).proof == b"", "a kernel answers too, and proves nothing"


def stays_so_while_the_other_speaks(first: Speaker, second: Speaker) -> None:
    """Time passes: each speaker sends heartbeats for longer than any detection takes."""
    spoken = [sent_heartbeats(speaker) for speaker in (first, second)]
    wait_until(lambda: sent_heartbeats(first) > spoken[0] + 50 and sent_heartbeats(second) > spoken[1] + 5, 30)


def sent_heartbeats(speaker: Speaker) -> int:
    return speaker.stats.counters.get("sent_heartbeats", 0) if speaker.stats is not None else 0


def test_announcer_goes_on_without_its_watcher(wire: Wire, start: Start) -> None:
    first, _, client = holder_and_spare(wire, start)
    first.lose_watcher()
    wait_until(lambda: "watcher lost" in first.log)
    assert client.answerers(VIP) == {first.host.mac()}
    assert first.process.poll() is None


def test_clients_learn_the_new_mac_of_the_holders_interface_unasked(wire: Wire, start: Start) -> None:
    first, _, client = holder_and_spare(wire, start)
    first.host.run("ip", "link", "set", "eth0", "address", "02:00:5e:00:53:01")
    wait_until(lambda: client.neighbour(VIP) == "02:00:5e:00:53:01", 5)
    assert client.answerers(VIP) == {"02:00:5e:00:53:01"}


def test_interface_that_is_switched_off_and_on_answers_again(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    first.host.run("ip", "link", "set", "eth0", "down")
    wait_until(lambda: client.neighbour(VIP) == second.host.mac(), 5)
    first.host.run("ip", "link", "set", "eth0", "up")
    wait_until(lambda: not first.claims, 10)
    wire.cable(second.host, "down")
    wait_until(lambda: client.answerers(VIP) == {first.host.mac()}, 10)


def test_interface_with_a_new_name_goes_on_answering(wire: Wire, start: Start) -> None:
    first, second, client = holder_and_spare(wire, start)
    first.host.run("ip", "link", "set", "eth0", "name", "lan7")
    wait_until(lambda: first.answers_on(VIP) == ("lan7",))
    assert client.answerers(VIP) == {first.host.mac("lan7")}
    stays_so_while_the_other_speaks(first, second)
    assert not second.claims
    assert "interface renamed" in first.log
    assert "no longer announced" not in first.log


def test_interface_that_appears_is_announced_and_one_that_vanishes_does_no_harm(wire: Wire, start: Start) -> None:
    first, _, client = holder_and_spare(wire, start)
    wire.plug(first.host, "lan1", "192.0.2.77/24")
    wait_until(lambda: first.stats is not None and first.stats.links == ("eth0", "lan1"))
    assert client.answerers(VIP) == {first.host.mac()}, "of two interfaces on one LAN one answers"
    wire.cable(first.host, "down")
    wait_until(lambda: client.neighbour(VIP) == first.host.mac("lan1"), 5, "the other interface does not take over")
    assert client.answerers(VIP) == {first.host.mac("lan1")}
    wire.cable(first.host, "up")
    wait_until(lambda: client.answerers(VIP) == {first.host.mac()}, 10)
    first.host.run("ip", "link", "delete", "lan1")
    wait_until(lambda: first.answers_on(VIP) == ("eth0",))
    assert client.answerers(VIP) == {first.host.mac()}
    wait_until(lambda: first.stats is not None and first.stats.links == ("eth0",))


def test_interface_whose_port_somebody_else_has_is_told_of_and_announced_once_it_is_free(
    wire: Wire, start: Start
) -> None:
    """The second attempt ended the process."""

    def taken() -> socket.socket:
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("", HEARTBEAT_PORT))
        return other

    node, client = wire.host("node-1"), wire.host("client")
    with node.call(taken):
        speaker = start(node)
        speaker.plan(1, bundle("a", (VIP,), "node-1"))
        wait_until(lambda: speaker.stats is not None and "in use" in speaker.stats.refused.get(ETH0, ""))
        told = speaker.stats.loop_at if speaker.stats else 0.0
        wait_until(lambda: speaker.stats is not None and speaker.stats.loop_at > told + 2.0)
        assert speaker.stats is not None
        assert speaker.stats.links == ()
    wait_until(lambda: speaker.holds(VIP), 20)
    assert client.resolve(VIP) == node.mac()
    assert speaker.stats.refused == {}


def test_container_networks_bridge_ports_and_interfaces_without_address_are_left_alone(
    wire: Wire, start: Start
) -> None:
    node = wire.host("node-1")
    node.run("ip", "link", "add", "br7", "type", "bridge")
    for name in ("docker0", "lan2", "lan3"):
        wire.plug(node, name, None if name == "lan2" else "192.0.2.78/24")
    node.run("ip", "link", "set", "lan3", "master", "br7")
    node.speak_ipv6(False, "lan2")  # with which it has a link-local address a second later
    speaker = start(node)
    wait_until(lambda: "interface announced" in speaker.log)
    wait_until(lambda: speaker.stats)
    for name in ("docker0", "lan2", "lan3", "br7", '"lo"'):
        assert name not in speaker.log


def test_node_without_a_usable_interface_says_so_in_one_line_and_why(wire: Wire, start: Start) -> None:
    node, client = wire.host("node-1"), wire.host("client")
    node.run("ip", "address", "flush", "dev", "eth0")
    node.run("ip", "link", "add", "docker0", "type", "veth", "peer", "name", "other")
    speaker = start(node)
    speaker.plan(1, bundle("a", (VIP,), "node-1"))
    without = "has no IPv4 and no link-local IPv6 address"
    reasons = {
        "eth0": without,
        "other": without,
        "docker0": "is excluded by its name (^docker.*)",
    }
    wait_until(lambda: speaker.stats is not None and speaker.stats.unusable == reasons)
    assert speaker.stats is not None
    assert speaker.stats.links == ()
    node.run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
    wait_until(lambda: speaker.holds(VIP), 20)
    assert client.answerers(VIP) == {node.mac()}
    said = [json.loads(line) for line in speaker.log.splitlines() if "usable" in line]
    assert [(line["message"], line.get("interfaces")) for line in said] == [
        ("no usable interface", reasons),
        ("interface usable again", None),
    ]
    node.run("ip", "link", "set", "eth0", "down")
    wait_until(lambda: speaker.log.count("no usable interface") == 2)
    wait_until(lambda: speaker.stats is not None and speaker.stats.unusable.get(ETH0) == "has no carrier")


def test_strangers_claim_is_reported_with_its_mac_and_answered(wire: Wire, start: Start, stack: ExitStack) -> None:
    first, _, client = holder_and_spare(wire, start)
    stranger = wire.host("stranger")
    resolver = arp_resolver(stranger)
    stack.callback(resolver.close)
    arp = resolver.questions
    mac = mac_of(stranger)
    arp.send(gratuitous(Operation.REQUEST, VIP, mac).encode())
    decision = wait_until(lambda: next((n for n in first.decisions if n.reason == "AddressConflict"), None))
    assert decision is not None
    assert (decision.fields["address"], decision.fields["mac"]) == (VIP, stranger.mac())
    wait_until(lambda: client.neighbour(VIP) == first.host.mac(), 5, "the client was not told again")


def test_every_claim_fits_a_link_with_the_least_mtu_that_ipv6_needs(wire: Wire, start: Start) -> None:
    hosts = [wire.host("node-1"), wire.host("node-2")]
    for host in hosts:
        host.run("ip", "link", "set", "eth0", "mtu", "1280")
    many = tuple(AddressText(f"198.51.100.{n}") for n in range(200))
    first, second = (start(host) for host in hosts)
    for speaker in (first, second):
        speaker.plan(1, *(bundle(address, (address,), "node-1", "node-2") for address in many))
    wait_until(lambda: set(first.claims) | set(second.claims) == set(many), 30)
    stays_so_while_the_other_speaks(first, second)
    assert not set(first.claims) & set(second.claims)
    for speaker in (first, second):
        assert speaker.stats is not None
        assert "sends_failed:heartbeats" not in speaker.stats.counters


def test_heartbeats_that_the_kernel_does_not_take_are_said_with_the_reason_and_counted(
    wire: Wire, start: Start
) -> None:
    first, _, _ = holder_and_spare(wire, start)
    first.host.run("ip", "link", "set", "eth0", "mtu", "100")
    wait_until(lambda: first.stats is not None and first.stats.counters.get("sends_failed:heartbeats", 0) > 30)
    said = [json.loads(line) for line in first.log.splitlines() if "not sent" in line]
    assert [(line["link"], line["what"], line["reason"]) for line in said] == [
        ("eth0", "heartbeats", "EMSGSIZE: Message too long")
    ]


def test_heartbeats_that_found_the_queue_full_are_counted(wire: Wire, start: Start) -> None:
    first, second, _ = holder_and_spare(wire, start)
    assert first.stats is not None
    assert "frames_lost:heartbeats" not in first.stats.counters
    first.signal(signal.SIGSTOP)
    wait_until(lambda: second.holds(VIP))

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for _ in range(3000):
                datagrams.sendto(bytes(1400), (wire.address(first.host), HEARTBEAT_PORT))

    wire.hosts[-1].call(flood)
    first.signal(signal.SIGCONT)
    wait_until(lambda: first.stats is not None and first.stats.counters.get("frames_lost:heartbeats", 0) > 1000)


def test_requests_and_gratuitous_frames_are_counted_per_address(wire: Wire, start: Start) -> None:
    first, _, client = holder_and_spare(wire, start)
    before = first.traffic.answered.get(VIP, 0)
    client.answerers(VIP)
    wait_until(lambda: first.traffic.answered.get(VIP, 0) >= before + 2)
    wait_until(lambda: first.traffic.gratuitous.get(VIP, 0) >= 9, 10)
    assert first.traffic.gratuitous[VIP] == 9, "one Request at once, then four times a Request and a Reply"
