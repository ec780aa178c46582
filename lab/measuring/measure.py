"""What a fault costs a client: addresses are watched while something happens to the cluster.

``watching`` runs two programs on a client of the lab: ``resolve``, which asks for each address every 10 ms, and with a
URL ``load``, which makes requests at a steady rate. Their lines have times of CLOCK_MONOTONIC, which all processes of
the machine share. The time of a fault is read here just before the fault is caused, so every figure includes the time
that causing it takes.
"""

from __future__ import annotations

import os
import subprocess
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
_answer = msgspec.json.Decoder(NeighbourAnswer).decode
_late_question = msgspec.json.Decoder(LateQuestion).decode
_request = msgspec.json.Decoder(HttpRequest).decode


class Written:
    """The lines that a program goes on writing to a file. The first one says that it is ready."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._begun = b""
        """Of a line whose end has not come."""
        self.ready = False

    def new(self) -> list[bytes]:
        """Whole lines since the last time, without the first."""
        *lines, self._begun = (self._begun + self._file.read()).split(b"\n")
        if lines and not self.ready:
            self.ready = True
            return lines[1:]
        return lines


class ClientWatch:
    """Lines of the programs that watch, as far as they have come. Each is read once, however often one asks.

    Every method raises ``LabError`` where one of them has ended: it would look as if nobody answered any more.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        programs: Sequence[Command | subprocess.Popen[bytes]],
        answers: IO[bytes],
        requests: IO[bytes] | None,
    ) -> None:
        self.addresses = addresses
        self._programs = programs
        self._resolve = Written(answers)
        self._load = Written(requests) if requests is not None else None
        self._answers: list[NeighbourAnswer] = []
        self._late: list[LateQuestion] = []
        self._requests: list[HttpRequest] = []

    def ready(self) -> bool:
        """Whether all of them have begun."""
        self._read()
        return self._resolve.ready and (self._load is None or self._load.ready)

    def answers(self) -> list[NeighbourAnswer]:
        """Answers so far, of all addresses, in order of time."""
        self._read()
        return self._answers.copy()

    def late_questions(self) -> list[LateQuestion]:
        """When the client asked later than it wanted to, so far."""
        self._read()
        return self._late.copy()

    def requests(self) -> list[HttpRequest]:
        """Requests that have ended so far, in order of their start."""
        self._read()
        self._requests.sort(key=_start)
        return self._requests.copy()

    def _read(self) -> None:
        for program in self._programs:
            if (code := program.poll()) is not None:
                raise LabError(f"a program that watches has ended with {code}")
        for line in self._resolve.new():
            if line.startswith(LATE):
                self._late.append(_late_question(line))
            else:
                self._answers.append(_answer(line))
        if self._load is not None:
            self._requests += map(_request, self._load.new())

    def outage(self, fault_at: float) -> Outage:
        """The figures of a fault at that time."""
        return outage(self.answers(), self.requests(), fault_at)


def _start(request: HttpRequest) -> float:
    return request.start


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
