"""Announcers on a test's wire, each in a process of its own, with the test as their watcher.

The test speaks the channel's messages over a Unix socket: what a watcher would have read from the API is what the test
says, and what the announcer holds is read from what it tells.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cluster.objects import AddressText, NodeName
from lab.machines.container import confined
from lab.shipped.installed import LIVENESS_ONLY
from lab.shipped.rights import rights_of
from speaker.api.statistics import Statistics, Totals
from speaker.channel import (
    ChannelError,
    Claims,
    ClaimsChange,
    Credentials,
    Holding,
    Stats,
    ToAnnouncer,
    Unheard,
    watcher_end,
)
from speaker.link import LinkName, Reception
from speaker.parts import plan_in_parts
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol.effects import Decision
from speaker.protocol.settings import RestartMode, Settings
from tests.wire.network import WireHost

ROOT = Path(__file__).parents[2]
RIGHTS, LIVENESS_RIGHTS = rights_of("speaker"), rights_of("speaker", LIVENESS_ONLY)
SETTINGS = Settings()
CREDENTIALS = Credentials("0c1d2e3f-cluster", (bytes(range(32)),))

_PROGRAM = """
import os, socket, sys
from cluster.objects import NodeName
from speaker.child import Child

channel = socket.socket(fileno=int(sys.argv[2]))
ends_with_us, ours = os.pipe()
stands_for_watcher = os.fork()
if stands_for_watcher == 0:
    os.close(ours)
    channel.close()
    os.read(ends_with_us, 1)
    os._exit(0)

from speaker.link import Reception
from speaker.protocol.settings import RestartMode, Settings
from speaker.wire import announcer

def spawn():
    raise OSError("this test has one watcher only")

settings = Settings(
    reception=Reception(sys.argv[3]),
    restart_mode=RestartMode(sys.argv[4]),
    detection_floor_s=float(sys.argv[5]),
)
watcher = Child(stands_for_watcher, channel)
liveness_only = "liveness-only" in sys.argv
sys.exit(announcer.run(NodeName(sys.argv[1]), settings, watcher, spawn, liveness_only=liveness_only))
"""


class Speaker:
    """One announcer, with the rights of its container, and the test's end of its channel."""

    def __init__(
        self,
        host: WireHost,
        reception: Reception = Reception.FILTERED,
        *,
        restart_mode: RestartMode = RestartMode.STAND_IN,
        detection_floor_s: float = SETTINGS.detection_floor_s,
        liveness_only: bool = False,
    ) -> None:
        self.host = host
        self.node = NodeName(host.name)
        self._told: dict[AddressText, Holding] = {}
        self._suspended: frozenset[LinkName] = frozenset()
        self.has_told = False
        """It has told of its claims at all."""
        self.stats: Stats | None = None
        self._traffic = Statistics(0.0)
        self.decisions: list[Decision] = []
        self.unheard: tuple[NodeName, ...] | None = None
        """Whom it does not hear, as it told last."""
        ours, theirs = socket.socketpair()
        self._channel = watcher_end(ours)
        self._lock = threading.Lock()
        self.process = host.start(
            *confined(LIVENESS_RIGHTS if liveness_only else RIGHTS),
            sys.executable, "-c", _PROGRAM, self.node, str(theirs.fileno()), reception.value, restart_mode.value,
            str(detection_floor_s),
            *(("liveness-only",) if liveness_only else ()),
            pass_fds=(theirs.fileno(),),
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        theirs.close()
        self._done = threading.Event()
        self._log: list[bytes] = []
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_log)]
        for thread in self._threads:
            thread.start()

    @property
    def log(self) -> str:
        return b"".join(self._log).decode()

    def say(self, *messages: ToAnnouncer) -> None:
        with self._lock:
            for message in messages:
                self._channel.send(message)

    def plan(self, revision: int, *bundles: Bundle) -> None:
        self.say(CREDENTIALS, *plan_in_parts(Plan(revision, self.node, bundles)))

    @property
    def ready(self) -> bool:
        """Whether it could hold an address, as it told last."""
        return self.stats is not None and self.stats.ready

    @property
    def claims(self) -> dict[AddressText, Holding]:
        """What it holds, as it told last, and the links on which it answers for it now."""
        suspended = self._suspended
        if not suspended:
            return self._told.copy()
        return {
            address: Holding(holding.epoch, tuple(link for link in holding.links if link not in suspended))
            for address, holding in self._told.copy().items()
        }

    def holds(self, *addresses: AddressText) -> bool:
        """Whether it answers for these and no others."""
        claims = dict(self.claims)
        return self.has_told and {address for address in claims if claims[address].links} == set(addresses)

    def answers_on(self, address: AddressText) -> tuple[LinkName, ...]:
        holding = self.claims.get(address)
        return holding.links if holding is not None else ()

    @property
    def traffic(self) -> Totals:
        """ARP by address, as it told last."""
        return self._traffic.totals()

    @property
    def busy(self) -> bool:
        """It has not read all that was said to it."""
        return self._channel.waiting

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def lose_watcher(self) -> None:
        """The channel breaks, as when the watcher dies."""
        self._done.set()
        self._threads[0].join()
        self._channel.close()

    def end(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        sys.stdout.write(f"What {self.node} logged:\n{self.log}")  # pytest shows it where a test fails

    def _read(self) -> None:
        while not self._done.is_set():
            if not select.select([self._channel], [], [], 0.05)[0]:
                continue
            try:
                with self._lock:
                    messages = self._channel.receive()
                    self._channel.flush()
            except ChannelError:
                return
            for message in messages:
                match message:
                    case Claims(_, held, suspended):
                        self._told, self._suspended, self.has_told = dict(held), frozenset(suspended), True
                    case ClaimsChange(_, held, suspended):
                        self._suspended = frozenset(suspended)
                        self._change_claims(held)
                    case Stats():
                        self._traffic.add(message)
                        self.stats = message
                    case Unheard(nodes):
                        self.unheard = nodes
                    case Decision():
                        self.decisions.append(message)

    def _change_claims(self, changes: dict[AddressText, Holding | None]) -> None:
        for address, holding in changes.items():
            if holding is None:
                self._told.pop(address, None)
            else:
                self._told[address] = holding

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        while data := os.read(self.process.stderr.fileno(), 65536):
            self._log.append(data)


def bundle(name: str, addresses: tuple[AddressText, ...], *nodes: str) -> Bundle:
    """A bundle whose candidates are these nodes in this order."""
    candidates = tuple(Candidate(NodeName(node), 0, 0) for node in nodes)
    return Bundle(BundleId(name), addresses, (f"test/{name}",), candidates)


Start = Callable[[WireHost], Speaker]
"""Starts a speaker on a host, which ends with the test (the fixture ``start``)."""
