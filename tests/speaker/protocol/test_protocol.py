"""What the announcer sees of the protocol: links, starting, ending, tables that the LAN cannot grow."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol.datagram import Authenticator
from speaker.protocol.effects import Decision, Effect, LinkState, NeighbourSeen, SendHeartbeat, SendUnicast
from speaker.protocol.heartbeat import Flag, Heartbeat, pack_heard
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import RestartMode, Settings

CLUSTER, KEYS = "cluster", (b"k" * 32,)
ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")
NODES = ("a", "b")


def bundle(id_: str, *addresses: str, interfaces: tuple[str, ...] = ()) -> Bundle:
    return Bundle(
        BundleId(id_),
        tuple(AddressText(address) for address in addresses),
        (f"default/{id_}",),
        tuple(Candidate(NodeName(node), 0, 0) for node in NODES),
        tuple(LinkName(name) for name in interfaces),
    )


def link(name: LinkName, node: int, *prefixes: str, up: bool = True) -> LinkState:
    return LinkState(name, 2 + (name == ETH1), Mac(bytes([2, 0, 0, 0, name == ETH1, node])), up, prefixes)


class Pair:
    """Two speakers with two links each, on a wire that loses nothing."""

    def __init__(self, *bundles: Bundle, settings: Settings | None = None) -> None:
        self.now = 100.0
        self.decisions: list[Decision] = []
        self.down: set[tuple[str, LinkName]] = set()
        self.alive = set(NODES)
        self.speakers: dict[str, Protocol] = {}
        for i, node in enumerate(NODES):
            speaker = Protocol(NodeName(node), i + 1, settings or Settings(), random.Random(i), self.now)
            speaker.set_links(self.links(node), self.now)
            speaker.set_credentials(CLUSTER, KEYS, self.now)
            speaker.set_plan(Plan(1, NodeName(node), bundles), self.now)
            self.speakers[node] = speaker

    def links(self, node: str) -> tuple[LinkState, ...]:
        i = NODES.index(node) + 1
        return (
            link(ETH0, i, f"10.0.0.{i}/16", up=(node, ETH0) not in self.down),
            link(ETH1, i, f"10.1.0.{i}/16", up=(node, ETH1) not in self.down),
        )

    def unplug(self, node: str, name: LinkName) -> None:
        self.down.add((node, name))
        self.speakers[node].set_links(self.links(node), self.now)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.005
            for node in sorted(self.alive):
                speaker = self.speakers[node]
                deadline = speaker.next_deadline()
                if deadline is not None and deadline <= self.now:
                    speaker.handle_timer(self.now)
                self.carry_out(node, speaker.take_effects())

    def carry_out(self, node: str, effects: Iterable[Effect]) -> None:
        (other,) = set(NODES) - {node}
        for effect in effects:
            if isinstance(effect, Decision):
                self.decisions.append(effect)
            elif (
                isinstance(effect, SendHeartbeat | SendUnicast)
                and other in self.alive
                and self.down.isdisjoint({(node, effect.link), (other, effect.link)})
            ):
                source = AddressText(f"10.{int(effect.link == ETH1)}.0.{NODES.index(node) + 1}")
                self.speakers[other].receive_datagram(effect.link, source, effect.data, self.now)

    def answering(self, address: str, name: LinkName) -> list[str]:
        held = {node: self.speakers[node].answered() for node in sorted(self.alive)}
        return [node for node, links in held.items() if name in links.get(AddressText(address), ())]


# ------------------------------------------------------------------------------------------------ links


def test_an_address_is_answered_on_the_links_whose_prefix_contains_it() -> None:
    pair = Pair(bundle("b1", "10.0.9.1"), bundle("b2", "10.1.9.1"), bundle("b3", "192.0.2.1"))
    pair.run(2.0)
    assert len(pair.answering("10.0.9.1", ETH0)) == len(pair.answering("10.1.9.1", ETH1)) == 1
    assert pair.answering("10.0.9.1", ETH1) == pair.answering("10.1.9.1", ETH0) == []
    assert pair.answering("192.0.2.1", ETH0) == pair.answering("192.0.2.1", ETH1) != []


def test_an_address_is_answered_only_on_the_interfaces_that_its_bundle_names() -> None:
    pair = Pair(bundle("b1", "192.0.2.1", interfaces=("eth1",)))
    pair.run(2.0)
    assert pair.answering("192.0.2.1", ETH0) == []
    assert len(pair.answering("192.0.2.1", ETH1)) == 1


def test_named_means_named_whatever_the_subnets() -> None:
    pair = Pair(bundle("b1", "10.0.9.1", interfaces=("eth0", "eth1")))
    pair.run(2.0)
    assert len(pair.answering("10.0.9.1", ETH0)) == len(pair.answering("10.0.9.1", ETH1)) == 1


def test_a_link_that_breaks_moves_what_is_answered_there_and_nothing_else() -> None:
    pair = Pair(bundle("b1", "10.0.9.1"), bundle("b2", "10.1.9.1"))
    pair.run(2.0)
    (holder,) = pair.answering("10.0.9.1", ETH0)
    (other,) = set(NODES) - {holder}
    stays = pair.answering("10.1.9.1", ETH1)
    pair.unplug(holder, ETH0)
    pair.run(1.0)
    assert pair.answering("10.0.9.1", ETH0) == [other]
    assert pair.answering("10.1.9.1", ETH1) == stays
    assert AddressText("10.0.9.1") not in pair.speakers[holder].claims()  # heard over the other link


def test_an_address_of_both_links_goes_to_a_node_that_has_both_when_its_holder_loses_one() -> None:
    """Ownership is per link: where the holder does not live, nobody would answer although it lives on the other."""
    pair = Pair(bundle("b1", "192.0.2.1"))
    pair.run(2.0)
    (holder,) = pair.answering("192.0.2.1", ETH0)
    (other,) = set(NODES) - {holder}
    pair.unplug(holder, ETH0)
    pair.run(2.0)
    assert pair.answering("192.0.2.1", ETH0) == pair.answering("192.0.2.1", ETH1) == [other]


# ------------------------------------------------------------------------------------------------ starting and ending


def test_nothing_is_said_or_answered_without_a_key() -> None:
    speaker = Protocol(NodeName("a"), 1, Settings(), random.Random(1), 0.0)
    speaker.set_links((link(ETH0, 1, "10.0.0.1/16"),), 0.0)
    speaker.set_plan(Plan(1, NodeName("a"), (bundle("b1", "10.0.9.1"),)), 0.0)
    for tenth in range(100):
        speaker.handle_timer(tenth / 10)
    assert not speaker.ready
    assert not any(isinstance(effect, SendHeartbeat) for effect in speaker.take_effects())
    assert not speaker.answered()


def test_nothing_is_answered_before_the_start_up_wait_is_over() -> None:
    pair = Pair(bundle("b1", "10.0.9.1"))
    pair.run(1.25)
    assert not pair.answering("10.0.9.1", ETH0)
    pair.run(0.3)
    assert pair.answering("10.0.9.1", ETH0)


def test_a_lone_speaker_claims_when_the_wait_is_over() -> None:
    pair = Pair(bundle("b1", "10.0.9.1"))
    pair.alive = {"b"}
    pair.run(1.5)
    assert pair.answering("10.0.9.1", ETH0) == ["b"]


def test_release_is_said_three_times_and_nothing_is_claimed_after_it() -> None:
    pair = Pair(bundle("b1", "10.0.9.1"), settings=Settings(restart_mode=RestartMode.RELEASE))
    pair.run(2.0)
    (holder,) = pair.answering("10.0.9.1", ETH0)
    speaker = pair.speakers[holder]
    speaker.end(pair.now)
    assert not speaker.claims()
    assert not speaker.answered()
    pair.run(0.2)
    assert speaker.ended
    pair.run(2.0)
    assert not speaker.claims()
    assert pair.answering("10.0.9.1", ETH0) == sorted(set(NODES) - {holder})


# ------------------------------------------------------------------------------------------------ strangers


def said_by(session: int, sequence: int, node: str, names: Iterable[int] = ()) -> bytes:
    heard = pack_heard((other, 0) for other in names)
    message = Heartbeat(node, 100, int(Flag.ABLE), "eth0", b"\2\0\0\0\0\x09", (), (), heard, 0, 0, ())
    return Authenticator(CLUSTER, KEYS).encode(session, sequence, message)


def lone() -> Protocol:
    speaker = Protocol(NodeName("a"), 1, Settings(), random.Random(1), 0.0)
    speaker.set_links((link(ETH0, 1, "10.0.0.1/16"),), 0.0)
    speaker.set_credentials(CLUSTER, KEYS, 0.0)
    return speaker


def test_a_session_counts_only_once_it_names_ours() -> None:
    speaker, source = lone(), AddressText("10.0.0.9")
    speaker.receive_datagram(ETH0, source, said_by(9, 1, "z"), 1.0)
    assert not speaker.peers()
    speaker.receive_datagram(ETH0, source, said_by(9, 2, "z", names=[1]), 1.1)
    assert [peer.node for peer in speaker.peers()] == ["z"]


def test_a_retired_session_never_counts_again() -> None:
    speaker, source = lone(), AddressText("10.0.0.9")
    speaker.receive_datagram(ETH0, source, said_by(9, 1, "z", names=[1]), 1.0)
    speaker.receive_datagram(ETH0, source, said_by(10, 1, "z", names=[1]), 1.1)
    speaker.receive_datagram(ETH0, source, said_by(9, 50, "z", names=[1]), 1.2)
    assert speaker.counters()["heartbeats_dropped:replayed"] == 1


def test_only_what_a_member_says_now_counts() -> None:
    speaker, source = lone(), AddressText("10.0.0.9")
    said = said_by(9, 1, "z", names=[1])
    changed = said[:-1] + bytes((said[-1] ^ 1,))
    told = [speaker.receive_datagram(ETH0, source, data, 1.0) for data in (changed, said, said, said_by(1, 2, "a"))]
    assert told == [False, True, False, False], "forged; said; said again; our own"
    assert speaker.counters()["heartbeats_dropped:replayed"] == 1


def test_another_speaker_under_our_name_is_reported_and_is_no_peer() -> None:
    speaker = lone()
    speaker.receive_datagram(ETH0, AddressText("10.0.0.9"), said_by(9, 1, "a", names=[1]), 1.0)
    decisions = [effect.reason for effect in speaker.take_effects() if isinstance(effect, Decision)]
    assert decisions == ["DuplicateNode"]
    assert not speaker.peers()


def test_the_lan_cannot_grow_our_tables() -> None:
    speaker = lone()
    for i in range(2000):
        source = AddressText(f"10.0.{i // 250}.{i % 250}")
        speaker.receive_datagram(ETH0, source, said_by(1000 + i, 1, f"n{i}", names=[1]), 1.0)
        speaker.receive_datagram(ETH0, source, said_by(5000 + i, 1, f"m{i}"), 1.0)
        seen = NeighbourSeen(ETH0, source, Mac(i.to_bytes(6, "big")), AddressText("10.0.9.1"), False)
        speaker.receive_neighbour(seen, 1.0)
    assert len(speaker.peers()) <= 1024
    assert len(speaker._roster.pending) <= 1024
    assert len(speaker._roster.links[ETH0].neighbours) <= 8
    assert speaker.counters()["heartbeats_dropped:table_full"] > 1000


def test_a_heartbeat_with_many_peers_still_fits_a_datagram() -> None:
    speaker = lone()
    for i in range(250):
        speaker.receive_datagram(ETH0, AddressText("10.0.0.9"), said_by(1000 + i, 1, f"n{i}", names=[1]), 1.0)
    speaker.handle_timer(1.0)
    sizes = [len(effect.data) for effect in speaker.take_effects() if isinstance(effect, SendHeartbeat)]
    assert sizes
    assert max(sizes) <= 1400


def test_thousands_of_addresses_are_claimed_in_bounded_pieces_and_then_nothing_is_due() -> None:
    """A deadline that stays in the past would keep the caller's loop busy for ever."""
    bundles = tuple(bundle(f"b{i:04}", f"10.0.{i // 250}.{i % 250 + 1}") for i in range(2500))
    speaker = Protocol(NodeName("a"), 1, Settings(), random.Random(1), 0.0)
    speaker.set_links((link(ETH0, 1, "10.0.0.1/16"),), 0.0)
    speaker.set_credentials(CLUSTER, KEYS, 0.0)
    speaker.set_plan(Plan(1, NodeName("a"), bundles), 0.0)
    most = calls = 0
    for hundredth in range(1, 500):
        now, claimed = hundredth / 100, len(speaker.claims())
        while (deadline := speaker.next_deadline()) is not None and deadline <= now:
            speaker.handle_timer(now)
            speaker.take_answers()
            speaker.take_effects()
            most = max(most, len(speaker.claims()) - claimed)
            claimed, calls = len(speaker.claims()), calls + 1
            assert calls < 5000
    assert len(speaker.claims()) == 2500
    assert 0 < most <= 200


def test_what_is_due_is_said_before_anybody_is_judged() -> None:
    speaker = lone()
    speaker.receive_datagram(ETH0, AddressText("10.0.0.2"), said_by(2, 1, "b", names=[1]), 1.0)
    speaker.handle_timer(1.0)
    speaker.take_effects()
    speaker.speak(9.0)
    said = speaker.take_effects()
    assert any(isinstance(effect, SendHeartbeat) for effect in said)
    assert not any(isinstance(effect, Decision) for effect in said)
    speaker.handle_timer(9.0)
    told = [effect.reason for effect in speaker.take_effects() if isinstance(effect, Decision)]
    assert "PeerSuspected" in told


@pytest.mark.parametrize(("behind_s", "lateness"), [(0.0, 0.0), (0.3, 0.3), (60.0, 0.5)])
def test_what_was_not_read_counts_as_lateness_of_our_own_up_to_a_full_queue(behind_s: float, lateness: float) -> None:
    """A speaker that took over thousands of addresses had another's heartbeats in its socket, and took it for dead."""
    speaker = lone()
    speaker.handle_timer(speaker.next_deadline() or 0.0)
    speaker.handle_timer(speaker.next_deadline() or 0.0, behind_s)
    assert speaker.lateness == lateness


def test_another_version_of_the_protocol_is_told_once_for_each_sender() -> None:
    speaker, data = lone(), bytearray(said_by(2, 1, "b"))
    data[3:4] = b"2"
    for sender in ("10.0.0.2", "10.0.0.2", "10.0.0.3"):
        speaker.receive_datagram(ETH0, AddressText(sender), bytes(data), 5.0)
    told = [effect for effect in speaker.take_effects() if isinstance(effect, Decision)]
    assert [(each.reason, each.fields["address"]) for each in told] == [
        ("OtherVersion", "10.0.0.2"),
        ("OtherVersion", "10.0.0.3"),
    ]


def test_a_heartbeat_names_each_subnet_though_an_interface_has_many_addresses_on_one() -> None:
    """A host makes itself temporary IPv6 addresses, up to ten a day (RFC 8981): they pushed other subnets out."""
    temporary = tuple(f"fd10::{i:x}/64" for i in range(1, 12))
    speaker = Protocol(NodeName("a"), 1, Settings(), random.Random(1), 0.0)
    state = link(ETH0, 1, "10.0.0.1/16", *temporary, "fd11::1/64")
    speaker.set_links((state, link(ETH1, 1, *temporary, "10.1.0.1/16")), 0.0)
    speaker.set_credentials(CLUSTER, KEYS, 0.0)
    speaker.handle_timer(0.0)
    said = [effect for effect in speaker.take_effects() if isinstance(effect, SendHeartbeat) and effect.link == ETH0]
    message = Authenticator(CLUSTER, KEYS).parse(said[0].data).message
    assert isinstance(message, Heartbeat)
    assert message.prefixes == ("10.0.0.1/16", "fd10::1/64", "fd11::1/64")
    assert message.elsewhere == ("fd10::1/64", "10.1.0.1/16")
