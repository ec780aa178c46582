"""Storms on the LAN, in both families at once: who answers, what it costs, and what it makes grow.

CPU is that of the announcer alone, and memory is what it alone would free, so that neither depends on what else the
machine does.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from bench import arp, nd
from bench.asking import foreign_cpu
from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.datagram import Authenticator
from speaker.protocol.heartbeat import Flag, Heartbeat, pack_heard
from speaker.wire.addresses import WireAddress
from speaker.wire.heartbeats.encapsulation import UdpFrame
from speaker.wire.heartbeats.families import ENCAPSULATIONS
from speaker.wire.heartbeats.port import HEARTBEAT_PORT
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import CREDENTIALS, Speaker, Start, bundle

IPV4, IPV6 = AddressText("192.0.2.200"), AddressText("2001:db8::200")
MEMORY_MIB = 12
"""By which a speaker may grow in a storm, its caches included."""
CPU_SHARE = 0.05
"""Of a core, for 50,000 questions a second that are none of the speaker's business."""

pytestmark = [pytest.mark.lab, pytest.mark.slow]


class Segment:
    """node-1, which holds an address of each family, node-2, which may, a client, and somebody with bad intentions."""

    def __init__(self, wire: Wire, start: Start) -> None:
        self.nodes = [wire.host(f"node-{number}") for number in (1, 2)]
        self.client, self.stranger = wire.host("client"), wire.host("stranger")
        wire.with_ipv6()
        self.holder, self.spare = (start(node) for node in self.nodes)
        for speaker in (self.holder, self.spare):
            speaker.plan(1, bundle("a", (IPV4, IPV6), "node-1", "node-2"))
        wait_until(lambda: self.holder.holds(IPV4, IPV6) and self.spare.ready)
        self.assert_client_reaches_the_holder()
        self.claims = dict(self.holder.claims)
        self.memory = [memory_mib(speaker) for speaker in (self.holder, self.spare)]

    def assert_client_reaches_the_holder(self) -> None:
        for address in (IPV4, IPV6):
            self.client.run("ip", "neigh", "flush", "dev", "eth0")
            assert self.client.resolve(address) == self.nodes[0].mac()

    def assert_nothing_came_of_it(self) -> None:
        self.assert_client_reaches_the_holder()
        assert self.holder.claims == self.claims, "the same claims, of the same epochs"
        assert not self.spare.claims
        for speaker, before in zip((self.holder, self.spare), self.memory, strict=True):
            assert speaker.process.poll() is None
            assert memory_mib(speaker) < before + MEMORY_MIB


def memory_mib(speaker: Speaker) -> float:
    """PSS: what is shared with others counts by its part."""
    lines = Path(f"/proc/{speaker.process.pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) / 1024


def flood(host: WireHost, frames: Iterable[bytes]) -> None:
    """Send all, as fast as they go."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for frame in frames:
                with contextlib.suppress(OSError):
                    raw.send(frame)

    host.call(send)


def recorded(host: WireHost, count: int) -> list[bytes]:
    """Heartbeats that were heard, of both families."""

    def hear() -> list[bytes]:
        found: list[bytes] = []
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
            raw.bind(("eth0", 3))
            while len(found) < count and select.select([raw], [], [], 30)[0]:
                frame = raw.recv(2048)
                if heartbeat_of(frame) is not None:
                    found.append(frame)
        return found

    found = host.call(hear)
    assert len(found) == count
    return found


def heartbeat_of(frame: bytes) -> bytes | None:
    for ip in ENCAPSULATIONS.values():
        with contextlib.suppress(ValueError):
            packet = ip.parse(frame)
            if isinstance(packet, UdpFrame) and packet.to_port == HEARTBEAT_PORT:
                return packet.data
    return None


def heartbeat_frames(data: Sequence[bytes]) -> list[bytes]:
    """Datagrams to the group, in one family after the other."""
    sources = {Family.IPV4: "192.0.2.99", Family.IPV6: "fe80::99"}
    mac = Mac(b"\2\0\0\0\0\x99")
    made = []
    for each, ip in zip(data, itertools.cycle(ENCAPSULATIONS.values())):
        source = WireAddress.of(AddressText(sources[ip.family]))
        frame = UdpFrame(ip.group_mac, mac, ip.group, source, HEARTBEAT_PORT, HEARTBEAT_PORT, 255, each)
        made.append(ip.encode(frame))
    return made


def said(by: Authenticator, count: int) -> list[bytes]:
    """Heartbeats of a node that claims to be able, sealed by these members."""
    session = random.Random(1).getrandbits(63)
    message = Heartbeat(
        node="node-9",
        due_ms=100,
        flags=int(Flag.ABLE),
        link="eth0",
        mac=b"\2\0\0\0\0\x99",
        prefixes=("192.0.2.99/24",),
        elsewhere=(),
        heard=pack_heard([(session, 0)]),
        version=0,
        digest=0,
        asks=(),
    )
    return [by.encode(session, sequence, message) for sequence in range(1, count + 1)]


def test_storm_of_foreign_questions_costs_a_twentieth_of_a_core(wire: Wire, start: Start) -> None:
    segment = Segment(wire, start)
    pid = segment.holder.process.pid
    for foreign in (arp.foreign_questions(), nd.foreign_questions()):
        idle, _ = foreign_cpu(segment.stranger, pid, foreign, 0, 2.0)
        share, _ = foreign_cpu(segment.stranger, pid, foreign, 50_000, 2.0)
        assert share - idle < CPU_SHARE
    segment.assert_nothing_came_of_it()


def test_storm_of_ten_thousand_senders_and_forged_heartbeats_moves_and_grows_nothing(wire: Wire, start: Start) -> None:
    segment = Segment(wire, start)
    recordings = recorded(segment.stranger, 40)
    strangers = [
        *said(Authenticator(CREDENTIALS.cluster, (b"another key" * 3,)), 100),
        *said(Authenticator("another cluster", CREDENTIALS.keys), 100),
    ]
    truncated = [frame[: 60 + at % 100] for at, frame in enumerate(recordings)]
    datagrams = [*recordings, *truncated, *heartbeat_frames(strangers)]
    questions = [*arp.questions([IPV4], 10_000, 10_000), *nd.questions([IPV6], 10_000, 10_000)]
    random.Random(2).shuffle(questions)
    mixed = (
        frame for question, datagram in zip(questions * 2, itertools.cycle(datagrams)) for frame in (question, datagram)
    )
    flood(segment.stranger, mixed)
    segment.assert_nothing_came_of_it()
    wait_until(lambda: all(segment.holder.traffic.answered.get(each, 0) > 1000 for each in (IPV4, IPV6)))
    counters = segment.spare.stats.counters if segment.spare.stats is not None else {}
    assert {"heartbeats_dropped:wrong_key", "heartbeats_dropped:other_cluster"} <= counters.keys()
    assert counters.get("heartbeats_dropped:replayed", 0) > 0


def test_member_that_speaks_ten_thousand_times_a_second_moves_and_grows_nothing(wire: Wire, start: Start) -> None:
    """It says other subnets, another name and another session each time, and that it hears nobody."""
    segment = Segment(wire, start)
    members = Authenticator(CREDENTIALS.cluster, CREDENTIALS.keys)
    sessions = [members.parse(heartbeat_of(frame) or b"").session for frame in recorded(segment.stranger, 10)]
    heard = pack_heard((session, 0) for session in dict.fromkeys(sessions))
    chance = random.Random(3)

    def lie(turn: int) -> bytes:
        kind = turn % 4
        message = Heartbeat(
            node=f"liar-{turn}" if kind == 1 else "node-9",
            due_ms=100,
            flags=int(Flag.ABLE) if turn % 8 < 4 else 0,
            link="eth0",
            mac=b"\2\1" + (turn if kind == 3 else 0).to_bytes(4, "big"),
            prefixes=(f"10.{chance.randrange(256)}.{chance.randrange(256)}.9/24",),
            elsewhere=(f"10.{chance.randrange(256)}.{chance.randrange(256)}.9/24",),
            heard=b"" if kind == 0 else heard,
            version=0,
            digest=0,
            asks=(),
        )
        session = 9 if kind in {0, 3} else 1000 + turn
        return members.encode(session, turn, message)

    flood(segment.stranger, heartbeat_frames([lie(turn) for turn in range(1, 20_001)]))
    segment.assert_nothing_came_of_it()
