"""What an announcer costs among many others, on a real wire, while nothing changes.

    python -m bench.company [--nodes 3 10 50] [--services 1000] [--seconds 20] [--json FILE]

It needs root (network namespaces). One announcer runs with the rights that it has in a cluster, and holds its share of
the addresses. All others are made up by this process: each has its MAC, its address and its claims, and says its
heartbeats in frames of its own. They hear the one that is measured, and not each other, which would take more cores
than there are: so each lists one speaker as heard, where ``bench.load`` has whole lists. Measured are CPU and peak
memory of the announcer (its watcher's are in ``bench.growth``), and how many heartbeats reached it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import select
import socket
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from bench.probes import announcer_cpu_s, peak_mib, take_precedence
from bench.report import Figures, arguments, progress, show_side_by_side, write
from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol.effects import LinkState, SendHeartbeat, SendUnicast
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import Settings
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import FrameError
from speaker.wire.heartbeats.encapsulation import UdpFrame
from speaker.wire.heartbeats.families import IPV4
from speaker.wire.heartbeats.filter import heartbeat_code
from speaker.wire.heartbeats.port import HEARTBEAT_PORT
from speaker.wire.heartbeats.sockets import ON_LINK_HOPS
from speaker.wire.process import boottime
from speaker.wire.sockets import PacketSocket
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import CREDENTIALS, Speaker

LINK = LinkName("eth0")
FIRST = 10  # the last octet of the first made-up address; hosts of the wire come before
LONGEST_FRAME = 2048
LONG_S = 120.0
SETTLE_S = 15.0  # until the frames of new claims are sent


class MadeUp:
    """One speaker without a process of its own."""

    def __init__(self, number: int, node: NodeName, bundles: Sequence[Bundle]) -> None:
        """It is the only candidate of the bundles that it knows, and claims nothing else whoever dies."""
        now, alone = boottime(), (Candidate(node, 0, 0),)
        self.address = AddressText(f"192.0.2.{FIRST + number}")
        self.mac = Mac(b"\2\0\0\0\0" + bytes([FIRST + number]))
        self.protocol = Protocol(node, number + 1, Settings(probes=False), random.Random(number), now)
        self.protocol.set_links((LinkState(LINK, 2, self.mac, True, (f"{self.address}/24",)),), now)
        self.protocol.set_credentials(CREDENTIALS.cluster, CREDENTIALS.keys, now)
        self.protocol.set_plan(Plan(1, node, tuple(replace(each, candidates=alone) for each in bundles)), now)
        self.turn = 0


class Company:
    """The made-up speakers, behind one interface."""

    def __init__(self, host: WireHost, speakers: Sequence[MadeUp]) -> None:
        self._by_mac = {each.mac: each for each in speakers}
        own = (IPV4.group, *(WireAddress.of(each.address) for each in speakers))
        code = heartbeat_code(IPV4.layout, own, HEARTBEAT_PORT, LONGEST_FRAME)
        self._packets = host.call(lambda: PacketSocket(LINK, socket.if_nametoindex(LINK), IPV4.ethertype, code))
        self._turns: list[tuple[float, int, MadeUp, int]] = []
        self._order = itertools.count()
        self.said = 0
        for each in speakers:
            self._obey(each)

    def close(self) -> None:
        self._packets.close()

    def claimed(self) -> int:
        return sum(len(each.protocol.claims()) for each in self._by_mac.values())

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Live for so long, or until it is ``done``."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not done():
            rests = self._turns[0][0] - boottime() if self._turns else 1.0
            if select.select([self._packets.socket], [], [], min(max(rests, 0.0), 0.1))[0]:
                self._hear()
            while self._turns and self._turns[0][0] <= boottime():
                _, _, each, turn = heapq.heappop(self._turns)
                if turn == each.turn:
                    each.protocol.handle_timer(boottime())
                    self._obey(each)

    def _hear(self) -> None:
        try:
            packet = IPV4.parse(self._packets.socket.recv(LONGEST_FRAME))
        except (BlockingIOError, FrameError):
            return
        if not isinstance(packet, UdpFrame):
            return
        by_group = packet.to == IPV4.group
        for each in self._by_mac.values() if by_group else filter(None, [self._by_mac.get(packet.to_mac)]):
            each.protocol.receive_datagram(
                LINK, packet.source.text, packet.data, boottime(), by_group=by_group, mac=packet.mac
            )
            self._obey(each)

    def _obey(self, each: MadeUp) -> None:
        each.protocol.take_answers()
        for effect in each.protocol.take_effects():
            if isinstance(effect, SendHeartbeat):
                self.said += 1
                self._send(each, IPV4.group_mac, IPV4.group, effect.data)
            elif isinstance(effect, SendUnicast):
                self._send(each, effect.mac, WireAddress.of(effect.to), effect.data)
        each.turn += 1
        deadline = each.protocol.next_deadline()
        if deadline is not None:
            heapq.heappush(self._turns, (deadline, next(self._order), each, each.turn))

    def _send(self, each: MadeUp, mac: Mac, to: WireAddress, data: bytes) -> None:
        source = WireAddress.of(each.address)
        frame = UdpFrame(mac, each.mac, to, source, HEARTBEAT_PORT, HEARTBEAT_PORT, ON_LINK_HOPS, data)
        self._packets.send(IPV4.encode(frame))


def made(names: Sequence[NodeName], services: int) -> list[Bundle]:
    """Bundles that are shared out among the nodes; the others are candidates, too."""
    candidates = [Candidate(name, 0, 0) for name in names]
    return [
        Bundle(
            BundleId(f"{number:08x}-0000-4000-8000-000000000000"),
            (AddressText(f"10.32.{number >> 8}.{number & 255}"),),
            (f"bench/service-{number}",),
            (*candidates[number % len(names) :], *candidates[: number % len(names)]),
        )
        for number in range(services)
    ]


def measure(nodes: int, services: int, seconds: float) -> Figures:
    names = [NodeName(f"node-{number}") for number in range(1, nodes + 1)]
    bundles = made(names, services)
    theirs = [[bundle for bundle in bundles if bundle.candidates[0].node == name] for name in names]
    with contextlib.ExitStack() as stack:
        lan = Wire()
        stack.callback(lan.end)
        measured, host = lan.host(names[0]), lan.host("company")
        company = Company(host, [MadeUp(number, names[number], theirs[number]) for number in range(1, nodes)])
        stack.callback(company.close)
        company.run(LONG_S, lambda: company.claimed() == services - len(theirs[0]))
        speaker = Speaker(measured)
        stack.callback(speaker.end)
        speaker.plan(1, *bundles)
        company.run(LONG_S, lambda: speaker.ready and len(speaker.claims) == len(theirs[0]))
        if len(speaker.claims) != len(theirs[0]):
            raise SystemExit(f"{len(speaker.claims)} of {len(theirs[0])} addresses are held: {speaker.log[-2000:]}")
        company.run(SETTLE_S)
        pid, said, began = speaker.process.pid, company.said, time.monotonic()
        before = announcer_cpu_s(pid)
        company.run(seconds)
        passed = time.monotonic() - began
        return {
            "addresses held": len(speaker.claims),
            "heartbeats heard/s": (company.said - said) / passed,
            "CPU, % of a core": 100 * (announcer_cpu_s(pid) - before) / passed,
            "peak memory, MiB": peak_mib(pid),
            "taken for dead": sum(decision.reason == "PeerDead" for decision in speaker.decisions),
        }


def main() -> None:
    parser = arguments("company", __doc__)
    parser.add_argument(
        "--nodes", type=int, nargs="+", default=[3, 10, 50], metavar="N", help="%(default)s; 200 at most"
    )
    parser.add_argument("--services", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="default: %(default)s")
    given = parser.parse_args()
    take_precedence()
    found: dict[str, Figures] = {}
    for nodes in given.nodes:
        found[f"{nodes} nodes"] = measure(nodes, given.services, given.seconds)
        progress.print(f"{nodes} nodes: done")
    show_side_by_side(found)
    write(given.json, found)


if __name__ == "__main__":
    main()
