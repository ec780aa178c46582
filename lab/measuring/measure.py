"""What a fault costs a client: addresses are watched while something happens to the cluster.

``watching`` runs two programs on a client of the lab: ``resolve``, which asks for each address every 10 ms, and with a
URL ``load``, which makes requests at a steady rate. Their lines have times of CLOCK_MONOTONIC, which all processes of
the machine share. The time of a fault is read here just before the fault is caused, so every figure includes the time
that causing it takes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from lab.client import Command, Lab
from lab.errors import FailedError, LabError
from lab.layout import INTERFACE
from lab.measuring.figures import HttpRequest, LateQuestion, NeighbourAnswer, Outage, outage
from lab.shipped import ROOT

T = TypeVar("T")
START_S = 20.0  # for the interpreter of a watcher, on a busy machine
CLIENT = "client"
LATE = b'{"asked"'
"""How a line of ``resolve`` begins that is no answer."""


class ClientWatch:
    """Lines of the programs that watch, as far as they have come.

    Every method raises ``LabError`` where one of them has ended: it would look as if nobody answered any more.
    """

    def __init__(
        self, addresses: Sequence[str], programs: Sequence[Command], answers: IO[bytes], requests: IO[bytes] | None
    ) -> None:
        self.addresses = addresses
        self._programs = programs
        self._answers = answers
        self._requests = requests

    def ready(self) -> bool:
        """Whether all of them have begun."""
        self._check()
        return all(b"ready" in _content(f) for f in (self._answers, self._requests) if f is not None)

    def answers(self) -> list[NeighbourAnswer]:
        """Answers so far, of all addresses, in order of time."""
        self._check()
        lines = (line for line in _lines(self._answers) if not line.startswith(LATE))
        return [msgspec.json.decode(line, type=NeighbourAnswer) for line in lines]

    def late_questions(self) -> list[LateQuestion]:
        """When the client asked later than it wanted to, so far."""
        self._check()
        lines = (line for line in _lines(self._answers) if line.startswith(LATE))
        return [msgspec.json.decode(line, type=LateQuestion) for line in lines]

    def requests(self) -> list[HttpRequest]:
        """Requests that have ended so far, in order of their start."""
        self._check()
        if self._requests is None:
            return []
        return sorted((msgspec.json.decode(line, type=HttpRequest) for line in _lines(self._requests)), key=_start)

    def outage(self, fault_at: float) -> Outage:
        """The figures of a fault at that time."""
        return outage(self.answers(), self.requests(), fault_at)

    def _check(self) -> None:
        for program in self._programs:
            if (code := program.poll()) is not None:
                raise LabError(f"a program that watches has ended with {code}")


def _start(request: HttpRequest) -> float:
    return request.start


def _content(file: IO[bytes]) -> bytes:
    return Path(file.name).read_bytes()


def _lines(file: IO[bytes]) -> list[bytes]:
    """Whole lines, without the first, which says that the program is ready."""
    return _content(file).split(b"\n")[1:-1]


@contextmanager
def watching(
    lab: Lab,
    *addresses: str,
    url: str | Sequence[str] = (),
    rate: float = 50.0,
    connections: int = 0,
    timeout: float = 1.0,
) -> Iterator[ClientWatch]:
    """Watch addresses of any family for as long as the block lasts. With ``url``, which may be several, make ``rate``
    requests a second to them in turn, each of which is lost after ``timeout`` seconds, and others over so many
    ``connections`` to each that stay open.

    Raises ``LabError`` where the programs do not start.
    """
    with ExitStack() as stack:
        commands: list[Command] = []
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}

        def begin(*argv: str) -> IO[bytes]:
            lines: IO[bytes] = stack.enter_context(tempfile.NamedTemporaryFile("rb"))
            with Path(lines.name).open("ab") as writing:
                command = lab.start(CLIENT, [sys.executable, "-m", *argv], stdout=writing, environment=environment)
            commands.append(stack.enter_context(command))
            return lines

        answers = begin("lab.measuring.resolve", INTERFACE, *addresses)
        urls = [url] if isinstance(url, str) else url
        load = ("lab.measuring.load", *urls, f"--rate={rate}", f"--connections={connections}", f"--timeout={timeout}")
        requests = begin(*load) if urls else None
        watch = ClientWatch(addresses, commands, answers, requests)
        wait_for(watch.ready, START_S, "the programs that watch")
        yield watch
        for command in commands:
            command.terminate()


def wait_for(probe: Callable[[], T | None], seconds: float, what: str, every: float = 0.01) -> T:
    """The first true result of ``probe``, asked ``every`` so many seconds. Raises ``LabError`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (result := probe()):
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(every)
    return result


def steady_holder(watch: ClientWatch, seconds: float = 0.3) -> str:
    """The MAC that alone has answered for the last ``seconds``, for each of the addresses.

    Raises ``LabError``, which says who answered last, where 20 s pass without one.
    """

    def alone() -> str | None:
        since = time.monotonic() - seconds
        answers = watch.answers()
        recent = [a for a in answers if a.at > since]
        often = Counter(a.address for a in recent)
        for_so_long = {a.address for a in answers if a.at < since}
        steady = all(often[address] >= 3 and address in for_so_long for address in watch.addresses)
        return recent[0].mac if steady and len({a.mac for a in recent}) == 1 else None

    try:
        return wait_for(alone, 20.0, f"one node, and no other, answers for {' and '.join(watch.addresses)}")
    except LabError as error:
        raise FailedError(f"{error}; {_who_answers(watch)}") from error


def _who_answers(watch: ClientWatch) -> str:
    """The last answer of each MAC, in words."""
    last = {answer.mac: answer.at for answer in watch.answers()}
    now = time.monotonic()
    return ", ".join(f"{mac} answered {now - at:.1f} s ago" for mac, at in last.items()) or "nobody ever answered"


def node_of(lab: Lab, mac: str) -> str:
    """The node with this MAC. Raises ``LabError`` where none has it."""
    for host in lab.status().layout.nodes:
        if host.mac == mac:
            return host.name
    raise LabError(f"{mac} answers, and is no node's")
