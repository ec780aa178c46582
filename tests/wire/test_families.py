"""Speakers on LANs of IPv4, of IPv6 and of both: they hear each other by whatever there is, as one peer each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.wire.heartbeats.families import IPV6
from speaker.wire.heartbeats.sockets import Datagram, open_heartbeats
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import as_speaker, state_of
from tests.wire.speakers import Speaker, Start, bundle

ULA = "fd00:db8::"
V4, V6 = Family
VIPS = {V4: AddressText("192.0.2.200"), V6: AddressText(f"{ULA}200")}
NODES = ("node-1", "node-2", "node-3")
REPLAYED, MALFORMED = "heartbeats_dropped:replayed", "heartbeats_dropped:malformed"

pytestmark = pytest.mark.lab


class Lan:
    """Nodes that run speakers, and a client. Each node may hold the addresses.

    They are assigned once all nodes could hold them: that none was early or late decides nothing afterwards.
    """

    def __init__(self, wire: Wire, start: Start, families: Sequence[Family], nodes: Sequence[str] = NODES) -> None:
        self.wire = wire
        self.addresses = tuple(VIPS[family] for family in families)
        hosts = [wire.host(name, *families) for name in nodes]
        self.client = wire.host("client", *families)
        if V6 in families:
            wire.with_ipv6(ULA)
            wait_until(lambda: all(link_local(host) for host in hosts), 10, "no link-local address")
        self.speakers = [start(host) for host in hosts]
        for speaker in self.speakers:
            speaker.plan(1)
        self.all_hear_each_other()
        for speaker in self.speakers:
            speaker.plan(2, bundle("a", self.addresses, *nodes))

    @property
    def alive(self) -> list[Speaker]:
        return [speaker for speaker in self.speakers if speaker.process.poll() is None]

    def served(self, seconds: float = 20.0) -> tuple[Speaker, list[Speaker]]:
        """Once one of the living serves alone, as the client's kernel sees it: this one, and the others.

        The next in rank comes first, unless it stands still for longer than its turn, as on a busy machine it may.
        """

        def found() -> tuple[Speaker, list[Speaker]] | None:
            holders = [speaker for speaker in self.alive if speaker.holds(*self.addresses)]
            others = [speaker for speaker in self.alive if speaker not in holders]
            if len(holders) != 1 or any(other.claims for other in others):
                return None
            served = {self.resolved(address) for address in self.addresses} == {holders[0].host.mac()}
            return (holders[0], others) if served else None

        return wait_until(found, seconds, "not one serves alone")

    def resolved(self, address: AddressText) -> str | None:
        """The MAC that the client has for an address; it asks if it has none."""
        self.client.poke(address)
        return self.client.neighbour(address)

    def all_hear_each_other(self) -> None:
        """And are ready: each is able to hold."""
        peers = len(self.speakers) - 1
        wait_until(lambda: all(s.ready and peers_alive(s) == peers for s in self.speakers), 20, "not all are heard")

    def time_passes(self, heartbeats: int = 50) -> None:
        """Each speaker goes on for as many heartbeats of a holder, which is longer than any detection takes."""
        before = [loop_at(speaker) for speaker in self.speakers]
        wait_until(
            lambda: all(loop_at(s) > at + heartbeats / 10 for s, at in zip(self.speakers, before, strict=True)), 60
        )


def killed(speaker: Speaker) -> None:
    speaker.process.kill()
    speaker.process.wait(10)


def power_cut(wire: Wire, speaker: Speaker) -> None:
    wire.cable(speaker.host, "down")
    killed(speaker)


def loop_at(speaker: Speaker) -> float:
    return speaker.stats.loop_at if speaker.stats is not None else 0.0


def peers_alive(speaker: Speaker) -> int:
    return sum(peer.alive for peer in speaker.stats.peers) if speaker.stats is not None else 0


def decisions(speakers: Sequence[Speaker], *reasons: str) -> list[tuple[str, object]]:
    return [
        (decision.reason, decision.fields.get("proof"))
        for speaker in speakers
        for decision in speaker.decisions
        if decision.reason in reasons
    ]


@pytest.mark.parametrize("families", [(V4,), (V6,), (V4, V6)], ids=["IPv4", "IPv6", "both"])
def test_a_killed_speaker_is_stood_in_for_and_a_dead_node_replaced_on_a_lan_of(
    wire: Wire, start: Start, families: tuple[Family, ...]
) -> None:
    lan = Lan(wire, start, families)
    first, others = lan.served()
    assert not decisions(lan.speakers, "PeerDead", "DuplicateNode", "CannotSend")
    killed(first)
    wait_until(lambda: decisions(others, "StandsIn"), 10, "nobody stands in")
    assert {lan.resolved(address) for address in lan.addresses} == {first.host.mac()}
    assert not any(other.claims for other in others)
    wire.cable(first.host, "down")
    second, (third,) = lan.served()
    power_cut(wire, second)
    assert lan.served() == (third, [])


def filtered(host: WireHost, family: Family) -> None:
    """A firewall below everything, to which frames of our own are subject too."""
    protocol = {V4: "ip", V6: "ip6"}[family]
    rule = f"meta protocol {protocol} udp dport 7948 drop;"
    host.nft(f"""table netdev filtered {{
        chain in {{ type filter hook ingress device "eth0" priority 0; {rule} }}
        chain out {{ type filter hook egress device "eth0" priority 0; {rule} }}
    }}""")


@pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
def test_one_family_that_is_blocked_on_a_node_is_noticed_by_nobody(wire: Wire, start: Start, family: Family) -> None:
    lan = Lan(wire, start, (V4, V6), NODES[:2])
    first, (second,) = lan.served()
    lan.time_passes(10)
    replayed = [counted(speaker, REPLAYED) for speaker in lan.speakers]
    lan.time_passes(20)
    assert [counted(speaker, REPLAYED) for speaker in lan.speakers] == replayed, "copies make no noise"
    filtered(first.host, family)
    suspected = len(decisions(lan.speakers, "PeerSuspected"))
    lan.time_passes()
    assert first.holds(*lan.addresses)
    assert not second.claims
    assert len(decisions(lan.speakers, "PeerSuspected")) == suspected
    assert not decisions(lan.speakers, "CannotSend", "DatagramsBlocked")
    power_cut(wire, first)
    assert lan.served() == (second, [])


class Echo:
    """A host that says again, in both families, whatever it hears to the group, and the same octets turned round."""

    def __init__(self, wire: Wire) -> None:
        host = wire.host("echo")
        host.run("ip", "address", "add", "fe80::99/64", "dev", "eth0", "nodad")
        state = state_of(host, f"{wire.address(host)}/24", "fe80::99")
        self._heartbeats = as_speaker(host, lambda: open_heartbeats(state))
        self.said = 0

    def repeat(self) -> None:
        for heard_by in self._heartbeats.values():
            for heard in heard_by.receive(100):
                if isinstance(heard, Datagram):
                    for says in self._heartbeats.values():
                        assert says.send(heard.data) == says.send(heard.data[::-1]) == 0
                    self.said += 1

    def close(self) -> None:
        for each in self._heartbeats.values():
            each.close()


def test_a_host_that_repeats_every_heartbeat_in_both_families_changes_nothing(
    wire: Wire, start: Start, stack: ExitStack
) -> None:
    lan = Lan(wire, start, (V4, V6), NODES[:2])
    first, (second,) = lan.served()
    echo = Echo(wire)
    stack.callback(echo.close)
    before = [(counted(s, REPLAYED), counted(s, MALFORMED), loop_at(s)) for s in lan.speakers]

    def repeated() -> bool:
        """Long enough for any death."""
        echo.repeat()
        now = [(counted(s, REPLAYED), counted(s, MALFORMED), loop_at(s)) for s in lan.speakers]
        return all(
            replayed > replays and malformed > turned and at > began + 5
            for (replayed, malformed, at), (replays, turned, began) in zip(now, before, strict=True)
        )

    wait_until(repeated, 60)
    assert echo.said > 50
    assert first.holds(*lan.addresses)
    assert not second.claims
    assert not decisions(lan.speakers, "PeerDead", "DuplicateNode", "MemberNonsense", "DatagramsBlocked")
    assert [peers_alive(speaker) for speaker in lan.speakers] == [1, 1]
    power_cut(wire, first)

    def taken_over() -> bool:
        echo.repeat()
        return second.holds(*lan.addresses)

    wait_until(taken_over, 10, "recordings keep a dead speaker alive")


def link_local(host: WireHost) -> bool:
    """Whether the kernel uses its link-local address."""
    shown = host.run("ip", "-6", "-oneline", "address", "show", "dev", "eth0", "scope", "link")
    return "fe80:" in shown and "tentative" not in shown


def away_by_mtu(host: WireHost) -> None:
    host.run("ip", "link", "set", "eth0", "mtu", "1200")  # IPv6 needs 1280
    host.run("ip", "link", "set", "eth0", "mtu", "1500")


def away_by_switch(host: WireHost) -> None:
    host.speak_ipv6(False, "eth0")
    host.speak_ipv6(True, "eth0")


def away_by_link(host: WireHost) -> None:
    host.run("ip", "link", "set", "eth0", "down")
    host.run("ip", "link", "set", "eth0", "up")


def test_ipv6_that_comes_late_goes_and_comes_back_is_used_each_time(wire: Wire, start: Start) -> None:
    """The switch forwards what goes to a group to its members alone, as their reports say; and IPv4 is blocked at the
    end, so that IPv6 alone is left."""
    hosts = [wire.host(name) for name in NODES[:2]]
    hosts[0].speak_ipv6(False, "eth0")
    wire.snoop()
    speakers = [start(host) for host in hosts]
    for speaker in speakers:
        speaker.plan(1, bundle("a", (VIPS[V4],), *NODES[:2]))
    first, second = speakers
    wait_until(lambda: first.holds(VIPS[V4]) and peers_alive(second) == 1, 20, "IPv4 is enough")
    assert first.host.name not in wire.members(IPV6.group.text)
    hosts[0].speak_ipv6(True, "eth0")
    joined(wire, hosts)
    for away in (away_by_mtu, away_by_switch, away_by_link):
        away(hosts[0])
        joined(wire, hosts)
    wait_until(lambda: first.holds(VIPS[V4]) and peers_alive(first) == peers_alive(second) == 1, 20)
    wait_until(lambda: counted(first, "sent:heartbeats") > counted(first, "sent_heartbeats"), 10)
    suspected = len(decisions(speakers, "PeerSuspected"))
    wire.drop("ipv4", "ether type ip udp dport 7948")
    before = [loop_at(speaker) for speaker in speakers]
    wait_until(lambda: all(loop_at(s) > at + 5 for s, at in zip(speakers, before, strict=True)), 60)
    assert first.holds(VIPS[V4])
    assert not second.claims
    assert len(decisions(speakers, "PeerSuspected")) == suspected


@pytest.mark.parametrize("away", [away_by_mtu, away_by_switch, away_by_link])
def test_a_node_of_ipv6_alone_that_loses_it_for_a_moment_is_heard_again_and_one_serves(
    wire: Wire, start: Start, away: Callable[[WireHost], None]
) -> None:
    """Its addresses went with it, and come back by hand here, as a router's advertisement would bring them."""
    lan = Lan(wire, start, (V6,), NODES[:2])
    first, _ = lan.served()
    away(first.host)
    first.host.run("ip", "address", "replace", f"{ULA}1/64", "dev", "eth0", "nodad")
    wait_until(lambda: any(decision.reason == "LinkUp" for decision in first.decisions), 10, "it was not away")
    lan.all_hear_each_other()
    lan.served()


def joined(wire: Wire, hosts: Sequence[WireHost]) -> None:
    """All of them are members of the heartbeat group: in their kernels, and for the switch."""
    maddress = ("ip", "-6", "maddress", "show", "dev", "eth0")
    for host in hosts:
        wait_until(lambda host=host: IPV6.group.text in host.run(*maddress), 10, f"{host.name} has not joined")  # type: ignore[misc]  # mypy: default
    names = {host.name for host in hosts}
    wait_until(lambda: wire.members(IPV6.group.text) >= names, 10, "the switch does not know the members")


def counted(speaker: Speaker, counter: str) -> int:
    return speaker.stats.counters.get(counter, 0) if speaker.stats is not None else 0
