"""What many addresses cost the announcers, and what they do when thousands have to be taken over at once.

    python -m bench.scale [PART…] [--services 10000] [--json FILE]

It needs root (network namespaces). Three announcers run on a wire with the rights that they have in a cluster. They are
fed with Plans as their watchers would feed them, so nothing here depends on an API server. Without a name all parts
run:

- *changes*: with 10, 1,000 and so on up to N addresses in the Plan, new bundles come one after the other. Measured is
  the CPU of each announcer per change: the claim, its frames, and its part of the heartbeats' claims.
- *growth*: N bundles come one after another, from none. Measured are seconds, CPU and peak memory of each announcer,
  and how many addresses were claimed more than once.
- *kill*: a holder's announcer is killed with SIGKILL. A client asks for a sample of its addresses. Measured are how
  long the last of them was without an answer, how many addresses were claimed (none should be: another announcer stands
  in), which speakers were believed dead and lived, and how long the longest passes of the loops were.
- *power-cut*: the same, when a holder's cable is pulled. Then each address is claimed, and should be claimed once.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from bench.probes import announcer_cpu_s, peak_mib, take_precedence
from bench.report import Figures, arguments, progress, show, write
from cluster.objects import AddressText, NodeName
from speaker.api.ranking import Rendezvous
from speaker.passes import BOUNDS_S
from speaker.plan import Bundle, BundleId, Candidate, PlanChange
from speaker.wire.addresses import WireAddress
from speaker.wire.arp import frames
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import mac_of
from tests.wire.speakers import Speaker

NODES = ("node-1", "node-2", "node-3")
SPACING_S = 0.02
"""Between two changes of a Plan; what comes meanwhile is in the next. A watcher waits longer: ``speaker.api.feed``."""
MOST_CHANGES = 200
GAP_S = 0.05
FRAMES_S = 6.0  # in which the frames of a claim are sent
SAMPLE = 100
ASK_S = 0.02
LONG_S = 600.0


def _ranking() -> Rendezvous:
    ranking = Rendezvous()
    for node in NODES:
        ranking.add(NodeName(node))
    return ranking


_RANKING = _ranking()


def made(number: int) -> Bundle:
    address = AddressText(f"10.{32 + (number >> 16)}.{number >> 8 & 255}.{number & 255}")
    id_ = BundleId(f"{number:08x}-0000-4000-8000-000000000000")
    nodes = _RANKING.order(id_)
    return Bundle(id_, (address,), (f"bench/service-{number}",), tuple(Candidate(node, 0, 0) for node in nodes))


class Fleet:
    """Three announcers, a client, and the Plan that all of them are told."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._hosts = {name: self._wire.host(name) for name in NODES}
        self.client = self._wire.host("client")
        self.speakers = {name: Speaker(host) for name, host in self._hosts.items()}
        self.bundles: list[Bundle] = []
        self._told: dict[str, int] = {}
        self._told_at: dict[str, float] = {}

    def end(self) -> None:
        for speaker in self.speakers.values():
            speaker.end()
        self._wire.end()

    def fill(self, count: int) -> None:
        """Tell every announcer a Plan of so many bundles at once, and wait until all are claimed."""
        self.bundles += [made(number) for number in range(len(self.bundles), count)]
        for name, speaker in self.speakers.items():
            speaker.plan(count, *self.bundles)
            self._told[name] = count
        self.await_claims()

    def add(self) -> None:
        self.bundles.append(made(len(self.bundles)))

    def tell(self) -> bool:
        """Send what is due, as a watcher does. Returns whether every announcer has been told everything."""
        now = time.monotonic()
        for name, speaker in self.speakers.items():
            told = self._told.get(name, 0)
            if told == len(self.bundles) or speaker.busy or now < self._told_at.get(name, 0.0) + SPACING_S:
                continue
            speaker.say(PlanChange(len(self.bundles), tuple(self.bundles[told:])))
            self._told[name], self._told_at[name] = len(self.bundles), now
        return all(told == len(self.bundles) for told in self._told.values())

    def await_claims(self) -> None:
        wait_until(lambda: len(self.claimed()) >= len(self.bundles), LONG_S, "not everything is claimed")

    def claimed(self) -> frozenset[AddressText]:
        """Addresses that some announcer claims."""
        return frozenset[AddressText]().union(*(tuple(speaker.claims) for speaker in self.speakers.values()))

    def cpu_s(self) -> dict[str, float]:
        return {name: announcer_cpu_s(speaker.process.pid) for name, speaker in self.speakers.items()}

    def counted(self, name: str) -> int:
        """A counter, over all announcers that have not ended."""
        return sum(
            speaker.stats.counters.get(name, 0) for speaker in self.speakers.values() if speaker.stats is not None
        )

    def cut(self, name: str) -> None:
        self._wire.cable(self._hosts[name], "down")

    def mac(self, name: str) -> str:
        return self._hosts[name].mac()


@contextlib.contextmanager
def fleet() -> Iterator[Fleet]:
    running = Fleet()
    try:
        yield running
    finally:
        running.end()


def changes(size: int) -> Figures:
    """What one change costs while the Plan has so many addresses."""
    count = min(MOST_CHANGES, max(10, size))
    with fleet() as running:
        running.fill(size)
        time.sleep(FRAMES_S + size / 100)  # until the frames of these are sent, at 1,000 a second
        before, began = running.cpu_s(), time.monotonic()
        time.sleep(FRAMES_S)
        idle = {name: (after - before[name]) / (time.monotonic() - began) for name, after in running.cpu_s().items()}
        before, began = running.cpu_s(), time.monotonic()
        for _ in range(count):
            running.add()
            due = time.monotonic() + GAP_S
            while time.monotonic() < due:
                running.tell()
                time.sleep(0.002)
        wait_until(running.tell, LONG_S)
        running.await_claims()
        time.sleep(FRAMES_S)
        passed = time.monotonic() - began
        each = [(after - before[name] - idle[name] * passed) / count * 1000 for name, after in running.cpu_s().items()]
        return {
            f"{size}: CPU per change, ms (mean)": sum(each) / len(each),
            f"{size}: CPU per change, ms (most)": max(each),
            f"{size}: idle, % of a core (mean)": 100 * sum(idle.values()) / len(idle),
            f"{size}: peak memory, MiB (most)": max(peak_mib(s.process.pid) for s in running.speakers.values()),
        }


def growth(count: int, rate: float) -> Figures:
    """From nothing to ``count`` bundles, one after another."""
    with fleet() as running:
        running.fill(0)
        wait_until(lambda: all(s.stats is not None and s.stats.ready for s in running.speakers.values()), 30)
        before, began = running.cpu_s(), time.monotonic()
        while len(running.bundles) < count:
            while len(running.bundles) < min(count, (time.monotonic() - began) * rate):
                running.add()
            running.tell()
            time.sleep(0.002)
        wait_until(running.tell, LONG_S)
        running.await_claims()
        seconds = time.monotonic() - began
        time.sleep(FRAMES_S)
        used = [after - before[name] for name, after in running.cpu_s().items()]
        return {
            f"growth to {count} at {rate:g}/s: seconds": seconds,
            "growth: CPU seconds of an announcer (most)": max(used),
            "growth: peak memory, MiB (most)": max(peak_mib(s.process.pid) for s in running.speakers.values()),
            "growth: claims beyond one for each address": running.counted("decisions:Claimed") - count,
            **{f"growth: {name}": value for name, value in troubles(running, ()).items()},
        }


def troubles(running: Fleet, dead: Sequence[str]) -> Figures:
    """Counts of what should not happen to speakers that live."""
    alive = len(running.speakers)
    figures = {
        "false deaths": running.counted("decisions:PeerDead") - alive * len(dead),
        "late loops": running.counted("late_loops"),
        "claims withdrawn": running.counted("decisions:Withdrawn"),
    }
    return figures | {f"passes {name}": value for name, value in long_passes(running).items()}


def long_passes(running: Fleet) -> Figures:
    """How many passes of the loops were longer than some."""
    totals: Figures = {}
    for speaker in running.speakers.values():
        if speaker.stats is not None:
            for bound, count in zip((*BOUNDS_S, float("inf")), speaker.stats.passes, strict=True):
                if bound > 0.005:
                    name = f"up to {bound * 1000:g} ms"
                    totals[name] = totals.get(name, 0) + count
    return totals


class Asking:
    """A client that goes on asking for some addresses, and the answers with their times."""

    def __init__(self, client: WireHost, addresses: Sequence[AddressText]) -> None:
        mac = mac_of(client)
        asker = WireAddress.of(AddressText("192.0.2.4"))
        self._questions = [frames.request(WireAddress.of(address), asker, mac).encode() for address in addresses]
        self._socket = client.call(_arp_socket)
        self.answers: dict[bytes, list[tuple[float, str]]] = {WireAddress.of(each): [] for each in addresses}
        self._next = time.monotonic()

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not done():
            if time.monotonic() >= self._next:
                self._next = max(self._next + ASK_S, time.monotonic())
                for question in self._questions:
                    self._socket.send(question)
            select.select([self._socket], [], [], 0.002)
            with contextlib.suppress(BlockingIOError):
                for _ in range(1000):
                    frame = self._socket.recv(64)
                    if frame[20:22] == b"\0\2" and frame[28:32] in self.answers:
                        self.answers[frame[28:32]].append((time.monotonic(), frame[6:12].hex(":")))

    def silences(self, since: float, dead: str) -> list[float]:
        """For each address how long nobody but the dead answered; infinite where nobody ever did."""
        return [
            next((at - since for at, mac in answers if at > since and mac != dead), float("inf"))
            for answers in self.answers.values()
        ]

    def by_two(self, since: float, dead: str) -> int:
        """Addresses that more than one of the living answered for."""
        return sum(
            len({mac for at, mac in answers if at > since and mac != dead}) > 1 for answers in self.answers.values()
        )


def _arp_socket() -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    opened.bind(("eth0", frames.ETHERTYPE_ARP))
    return opened


def mass_takeover(count: int, what: str, cause: Callable[[Fleet, str], None], *, moves: bool) -> Figures:
    """``moves``: the addresses are claimed by others, and not only answered for in the dead announcer's name."""
    with fleet() as running:
        running.fill(count)
        time.sleep(FRAMES_S + count / 100)
        victim = max(running.speakers, key=lambda name: len(running.speakers[name].claims))
        theirs = sorted(running.speakers[victim].claims)
        chosen = theirs[:: max(1, len(theirs) // SAMPLE)][:SAMPLE]
        dead_mac = running.mac(victim)
        asking = Asking(running.client, chosen)
        asking.run(1.0)
        at = time.monotonic()
        cause(running, victim)
        gone = running.speakers.pop(victim)
        claims, before = running.counted("decisions:Claimed"), troubles(running, ())
        try:
            taken = frozenset(theirs if moves else ())
            asking.run(60.0, lambda: max(asking.silences(at, dead_mac)) < float("inf") and taken <= running.claimed())
            asking.run(3.0)
            time.sleep(2.0)  # for the last statistics
            silences = asking.silences(at, dead_mac)
            after = troubles(running, (victim,))
            return {
                f"{what} of {len(theirs)} of {count}: seconds without an answer (median)": sorted(silences)[
                    len(silences) // 2
                ],
                f"{what}: seconds without an answer (most)": max(silences),
                f"{what}: addresses of {len(chosen)} asked for that two answered": asking.by_two(at, dead_mac),
                f"{what}: claims beyond one for each address": running.counted("decisions:Claimed")
                - claims
                - len(taken),
                **{f"{what}: {name}": value - before.get(name, 0) for name, value in after.items()},
            }
        finally:
            gone.end()


def all_changes(count: int) -> Figures:
    figures: Figures = {}
    for size in (10, 1000, 10_000):
        if size <= count:
            progress.print(f"  at {size}")
            figures |= changes(size)
    return figures


PARTS: dict[str, Callable[[int, float], Figures]] = {
    "changes": lambda count, _: all_changes(count),
    "growth": growth,
    "kill": lambda count, _: mass_takeover(
        count, "kill -9", lambda f, name: f.speakers[name].signal(signal.SIGKILL), moves=False
    ),
    "power-cut": lambda count, _: mass_takeover(count, "power cut", lambda f, name: f.cut(name), moves=True),
}


def main() -> None:
    parser = arguments("scale", __doc__)
    parser.add_argument("part", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--services", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=100.0, metavar="N", help="of growth, bundles a second")
    given = parser.parse_args()
    unknown = [each for each in given.part if each not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    take_precedence()
    figures: Figures = {}
    for name in given.part or PARTS:
        progress.print(name)
        figures |= PARTS[name](given.services, given.rate)
    show(["figure", "value"], {name: [value] for name, value in figures.items()})
    write(given.json, figures)


if __name__ == "__main__":
    main()
