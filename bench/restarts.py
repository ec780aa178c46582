"""What a client notices while all speakers are restarted, or all nodes drained, one after the other.

    python -m bench.restarts [WHERE…] [--addresses 1 100 10000] [--mode release] [--drain] [--json FILE]

It needs root (network namespaces). Without a WHERE the first runs:

- *wire*: three announcers on a wire, with the rights that they have in a cluster. They are fed with Plans as their
  watchers would feed them. Half of the addresses are IPv6. Every node serves every address, as kube-proxy makes it.
- *berthlb*, *metallb*: three nodes on a real control plane, IPv4. MetalLB is built first, which takes minutes once. At
  most 1,000 addresses.

The client asks for a sample of the addresses each 10 ms, by ARP and by Neighbour Discovery, makes requests over new
connections, and keeps one connection open to each address of the sample.

Each speaker is ended by SIGTERM (``--kill``: SIGKILL), and started again when it has ended. The next one's turn comes
when the new one is ready, as with ``kubectl rollout restart``. ``--mode release`` has ours release their addresses
(``--restart-mode``).

With ``--drain`` no speaker ends. Each node in turn has the label that excludes it from load balancers, which MetalLB
knows as well, for some seconds; the next one's turn comes some seconds after it was taken away. In a cluster only.

Figures: the longest time without an answer for an address of the sample; addresses of the sample that changed their
MAC; connections that broke, requests that were lost, and how long the others took; and how long a speaker took to end.
What the client itself asked late is no time without an answer. Two calm seconds before show what the machine adds.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO, Any, Protocol

from bench.probes import take_precedence
from bench.report import Figures, arguments, progress, show, write
from cluster.api.client import IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, NODES, SERVICES, connect
from cluster.nodes import EXCLUDE_LABEL
from cluster.objects import AddressText, NodeName
from lab import launch
from lab.assets.gather import gather
from lab.assets.metallb_release import gather_metallb
from lab.layout import lay_out, url_host
from lab.measuring import measure
from lab.measuring.figures import longest_silence
from lab.metallb import PORT as METALLB_PORT
from lab.metallb import MetalLB
from lab.objects.workloads import start_workload
from lab.readiness import await_ready
from speaker.plan import Bundle, BundleId, Candidate
from speaker.protocol.settings import RestartMode
from tests.waiting import ended, wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import ROOT, Speaker

NODE_NAMES = ("node-1", "node-2", "node-3")
SAMPLE = 12
RATE = 100
"""Requests a second, each over a connection of its own."""
CALM_S = 2.0
LONG_S = 300.0
QUIET_S = 3.0
DRAINED_S = 3.0
"""Between changes of the label."""
MOST_SERVICES = 1000
POOL = "172.18.100.0/22"
"""On the lab's LAN."""
BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SUBNETS = {"10.32.0.0/11": ("-4",), "2001:db8:32::/64": ("-6",)}
_SERVE = "import sys; from lab.standins.workload import serve; serve(sys.argv[1], 'pod', [int(sys.argv[2])])"


class ThreeSpeakers(Protocol):
    """Three speakers, and what is behind them."""

    sample: Sequence[str]

    def watching(self) -> AbstractContextManager[measure.ClientWatch]:
        """A client asks for the sample and makes requests for as long as the block lasts."""

    def restart(self, node: str) -> float:
        """Returns when the new speaker is ready: the seconds that the former one took to end."""


# ------------------------------------------------------------------------------------------------ announcers on a wire


def address_of(number: int) -> AddressText:
    """Every second one is IPv6."""
    if number % 2:
        return AddressText(f"2001:db8:32::{number:x}")
    return AddressText(f"10.{32 + (number >> 16)}.{number >> 8 & 255}.{number & 255}")


def bundle_of(number: int) -> Bundle:
    first = number % len(NODE_NAMES)
    candidates = tuple(Candidate(NodeName(node), 0, 0) for node in NODE_NAMES[first:] + NODE_NAMES[:first])
    return Bundle(BundleId(f"{number:08x}"), (address_of(number),), (f"bench/{number}",), candidates)


class OnTheWire:
    """Announcers that are told one Plan, servers, and a client."""

    def __init__(self, count: int, mode: RestartMode, number: int, stack: ExitStack) -> None:
        wire = Wire()
        stack.callback(wire.end)
        self._hosts = {name: wire.host(name) for name in NODE_NAMES}
        self._client = wire.host("client")
        wire.with_ipv6()
        self._mode, self._signal = mode, number
        self._bundles = [bundle_of(number) for number in range(count)]
        step = max(1, count // SAMPLE) | 1  # an odd one: both families are in the sample
        self.sample: Sequence[str] = [address_of(number) for number in range(0, count, step)][:SAMPLE]
        for name, host in self._hosts.items():
            stack.enter_context(serving(name, host, self.sample))
        for subnet, family in SUBNETS.items():
            self._client.run("ip", *family, "route", "add", subnet, "dev", "eth0")
        self._decided = -1
        self._speakers: dict[str, Speaker] = {}
        stack.callback(self._end)
        for name in NODE_NAMES:
            self._start(name)
        wait_until(lambda: all(speaker.ready for speaker in self._speakers.values()), LONG_S)
        wait_until(lambda: self._claimed() >= count, LONG_S, "not everything is claimed")
        wait_until(self._nothing_moves, LONG_S, "addresses go on moving", every=QUIET_S)

    def _start(self, name: str) -> None:
        self._speakers[name] = Speaker(self._hosts[name], restart_mode=self._mode)
        self._speakers[name].plan(1, *self._bundles)

    def _end(self) -> None:
        for speaker in self._speakers.values():
            speaker.end()

    def _claimed(self) -> int:
        return sum(len(speaker.claims) for speaker in self._speakers.values())

    def _nothing_moves(self) -> bool:
        """What was claimed while they all started has gone where it belongs."""
        before, self._decided = self._decided, sum(len(speaker.decisions) for speaker in self._speakers.values())
        return before == self._decided

    def restart(self, node: str) -> float:
        at = time.monotonic()
        self._speakers[node].signal(self._signal)
        ended(self._speakers[node].process, LONG_S)
        took = time.monotonic() - at
        self._speakers[node].end()
        self._start(node)
        wait_until(lambda: self._speakers[node].ready, LONG_S)
        return took

    @contextlib.contextmanager
    def watching(self) -> Iterator[measure.ClientWatch]:
        load = ("lab.measuring.load", *urls(self.sample), f"--rate={RATE}", "--connections=1")
        with ExitStack() as stack:
            programs: list[subprocess.Popen[bytes]] = []

            def begin(*argv: str) -> IO[bytes]:
                lines: IO[bytes] = stack.enter_context(tempfile.NamedTemporaryFile("rb"))
                with Path(lines.name).open("ab") as writing:
                    program = self._client.start(sys.executable, "-m", *argv, cwd=ROOT, stdout=writing)
                programs.append(program)
                stack.callback(program.wait, 10)
                stack.callback(program.terminate)
                return lines

            answers = begin("lab.measuring.resolve", "eth0", *self.sample)
            watch = measure.ClientWatch(self.sample, programs, answers, begin(*load))
            wait_until(watch.ready, 60)
            yield watch


@contextlib.contextmanager
def serving(name: str, host: WireHost, addresses: Sequence[str]) -> Iterator[None]:
    """The node has the addresses where its kernel does not answer for them, and serves HTTP at them."""
    host.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")
    for address in addresses:
        host.run("ip", "address", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo")
    listening = host.call(socket_at_80)
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE, name, str(listening.fileno())], pass_fds=(listening.fileno(),), cwd=ROOT
    )
    listening.close()
    try:
        yield
    finally:
        server.kill()
        server.wait(10)


def socket_at_80() -> socket.socket:
    return socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)


def urls(sample: Sequence[str]) -> list[str]:
    return [f"http://{url_host(address)}/" for address in sample]


# ------------------------------------------------------------------------------------------------ in a cluster


class InACluster:
    """Our daemons or MetalLB's on a real control plane, with so many Services of one Deployment."""

    def __init__(self, count: int, mode: RestartMode, stack: ExitStack, *, metallb: bool) -> None:
        name = "metallb" if metallb else "berthlb"
        recipe = launch.Recipe(
            f"restarts-{name}",
            lay_out(len(NODE_NAMES)),
            daemons=not metallb,
            assets=gather(),
            speaker_args=(f"--restart-mode={mode.value}",),
        )
        self._lab = stack.enter_context(launch.up(recipe))
        self._metallb: MetalLB | None = None
        if metallb:
            self._metallb = MetalLB(self._lab, gather_metallb(progress.print))
            self._metallb.install()
            self._metallb.start()
            stack.callback(self._metallb.stop)
        start_workload(self._lab, "web", replicas=len(NODE_NAMES), port=80)
        self._api = api = connect(self._lab.kubeconfig, user_agent="berthlb-bench")
        api.create(
            IP_ADDRESS_POOLS,
            "metallb-system",
            {"metadata": {"name": "bench"}, "spec": {"addresses": [POOL], "avoidBuggyIPs": True}},
        )
        api.create(L2_ADVERTISEMENTS, "metallb-system", {"metadata": {"name": "bench"}, "spec": {}})
        for number in range(count):
            api.create(SERVICES, "default", service(number))

        def addresses() -> list[str]:
            found = (each for page in api.list_pages(SERVICES, "default") for each in page.items)
            return [ingress.ip for each in found for ingress in each.status.load_balancer.ingress]

        wait_until(lambda: len(addresses()) == count, LONG_S, "not every Service has an address", every=0.5)
        self.sample: Sequence[str] = addresses()[:: max(1, count // SAMPLE)][:SAMPLE]
        wait_until(self._all_serve, LONG_S, "not every address serves", every=0.5)

    def _all_serve(self) -> bool:
        return all(self._lab.run("client", ["curl", "-sf", "-m", "2", url]).code == 0 for url in urls(self.sample))

    def restart(self, node: str) -> float:
        at = time.monotonic()
        if self._metallb is None:
            self._lab.speaker(node, "stop")
            took = time.monotonic() - at
            self._lab.speaker(node, "start")
            await_ready(self._lab)
        else:
            self._metallb.stop(node)
            took = time.monotonic() - at
            self._metallb.start_speaker(node)
            wait_until(lambda: self._is_ready(node), LONG_S, "MetalLB's speaker is not ready")
        return took

    def drain(self, node: str) -> None:
        """Returns some seconds after the node was taken back."""
        for value in ("", None):
            self._api.patch(NODES, "", node, {"metadata": {"labels": {EXCLUDE_LABEL: value}}})
            time.sleep(DRAINED_S)

    def _is_ready(self, node: str) -> bool:
        """As its readiness probe asks."""
        (host,) = [each for each in self._lab.status().layout.nodes if each.name == node]
        return self._lab.run(node, ["curl", "-sf", f"http://{host.address}:{METALLB_PORT}/metrics"]).code == 0

    def watching(self) -> AbstractContextManager[measure.ClientWatch]:
        return measure.watching(self._lab, *self.sample, url=urls(self.sample), rate=RATE, connections=1)


def service(number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": f"web-{number:05}"},
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": False,
            "selector": {"app": "web"},
            "ports": [{"port": 80}],
        },
    }


# ------------------------------------------------------------------------------------------------ what is measured


def rollout(fleet: ThreeSpeakers, count: int) -> Figures:
    """All speakers are restarted."""
    took: list[float] = []
    figures = noticed(fleet, count, lambda node: took.append(fleet.restart(node)))
    return {"a speaker ends, s (most)": max(took), **figures}


def noticed(fleet: ThreeSpeakers, count: int, disturb: Callable[[str], None]) -> Figures:
    """What the client notices while each node in turn is disturbed."""
    time.sleep(CALM_S + count / 300)  # for the gratuitous frames of so many claims
    with fleet.watching() as watch:
        time.sleep(1.0)  # every address is resolved, and every connection open
        calm = time.monotonic()
        time.sleep(CALM_S)
        began = time.monotonic()
        for name in NODE_NAMES:
            disturb(name)
        over = time.monotonic()
        time.sleep(CALM_S)
        answers, requests, late = watch.answers(), watch.requests(), watch.late_questions()
    macs: dict[str, set[str]] = {address: set() for address in fleet.sample}
    for answer in answers:
        macs[answer.address].add(answer.mac)
    new = [each for each in requests if each.connection is None and each.start > calm]
    kept = [each for each in requests if each.connection is not None]
    times = sorted(1000 * (each.end - each.start) for each in new if each.ok)
    within = Counter(next((bound for bound in BOUNDS_MS if took_ms <= bound), 0) for took_ms in times)
    before, silence = (longest_silence(answers, *span, late) for span in ((calm, began), (began, over)))
    return {
        "seconds": over - began,
        "without an answer, ms (most)": 1000 * silence,
        "without an answer before, ms (most)": 1000 * before,
        "addresses that changed their MAC": sum(len(each) > 1 for each in macs.values()),
        "addresses that nobody answered": sum(not each for each in macs.values()),
        "connections that broke": sum(not each.ok for each in kept),
        "connections": len({each.connection for each in kept}),
        "requests that were lost": sum(not each.ok for each in new),
        "requests": len(new),
        "request, ms (median)": times[len(times) // 2],
        "request, ms (99%)": times[len(times) * 99 // 100],
        "request, ms (most)": times[-1],
        **{f"requests within {bound} ms": within[bound] for bound in BOUNDS_MS if within[bound]},
    }


Made = Callable[[int, RestartMode, int, ExitStack], ThreeSpeakers]
FLEETS: dict[str, Made] = {
    "wire": OnTheWire,
    "berthlb": lambda count, mode, _, stack: InACluster(count, mode, stack, metallb=False),
    "metallb": lambda count, mode, _, stack: InACluster(count, mode, stack, metallb=True),
}


def main() -> None:
    parser = arguments("restarts", __doc__)
    parser.add_argument("where", nargs="*", metavar="WHERE", help=f"of {', '.join(FLEETS)}; default: wire")
    parser.add_argument("--addresses", type=int, nargs="+", default=[1, 100, 10_000], help="default: %(default)s")
    parser.add_argument("--mode", type=RestartMode, default=RestartMode.STAND_IN, help="stand-in or release")
    parser.add_argument("--kill", action="store_true", help="SIGKILL instead of SIGTERM; on the wire alone")
    parser.add_argument("--drain", action="store_true", help="the nodes, instead; in a cluster only")
    given = parser.parse_args()
    if unknown := set(given.where) - set(FLEETS):
        parser.error(f"no such fleet: {', '.join(unknown)}")
    if given.drain and "wire" in (given.where or ["wire"]):
        parser.error("a drain needs a cluster: berthlb, metallb")
    take_precedence()
    number = signal.SIGKILL if given.kill else signal.SIGTERM
    figures: dict[str, Figures] = {}
    for where in given.where or ["wire"]:
        for count in given.addresses:
            if where != "wire" and count > MOST_SERVICES:
                continue
            progress.print(f"{where}, {count} addresses")
            with ExitStack() as stack:
                fleet = FLEETS[where](count, given.mode, number, stack)
                if given.drain and isinstance(fleet, InACluster):
                    found = noticed(fleet, count, fleet.drain)
                else:
                    found = rollout(fleet, count)
            figures[f"{where} {count}"] = found
            progress.print(json.dumps(found))
    names = dict.fromkeys(name for each in figures.values() for name in each)
    show(["figure", *figures], {name: [each.get(name, 0) for each in figures.values()] for name in names})
    write(given.json, figures)


if __name__ == "__main__":
    main()
