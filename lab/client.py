"""A lab from outside: requests to its keeper, for the command line, the demo and the tests.

``Lab.connect(name)`` finds a lab that is up; ``lab.launch.up`` makes one. Every method is one request to the keeper. It
raises ``LabError``, whose text is one line, where the keeper refuses. Each request has a connection of its own, so
several threads may use one ``Lab``.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from lab.control import channel, directory, messages
from lab.control.messages import Action, AnyAnswer, LabStatus, SpeakerProcess, ToKeeper
from lab.errors import LabError
from lab.machines import wall_clock

ANSWER_S = 10.0  # the keeper answers in milliseconds; a speaker has 5 s to stop
DOWN_S = 10.0

T = TypeVar("T")
Stream = int | IO[Any] | None
"""As for ``subprocess``: None for one's own, a descriptor, ``subprocess.PIPE`` or ``DEVNULL``, or a file."""


@dataclass(frozen=True)
class Completed:
    """A command that has ended. ``code`` is its exit code, or minus the number of the signal that ended it."""

    code: int
    output: str
    errors: str


class Command:
    """A command that runs on a host. Closing it kills what still runs; a ``with`` block does so at its end."""

    def __init__(self, connection: socket.socket, pid: int, pipes: Mapping[str, IO[bytes]]) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self.pid = pid
        """Process id inside the lab."""
        self.stdin, self.stdout, self.stderr = pipes.get("stdin"), pipes.get("stdout"), pipes.get("stderr")
        self.code: int | None = None
        """As ``Completed.code``; None until ``poll`` or ``wait`` has seen the end."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.code is None and select.select([self], [], [], 0.0)[0]:
            self.wait()
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return its exit code. Raises ``TimeoutError`` after ``timeout`` seconds."""
        if self.code is None:
            self._connection.settimeout(timeout)
            try:
                self.code = _checked(_receive(self._connection, "the command"), messages.Ended).code
            finally:
                self._connection.settimeout(None)
        return self.code

    def send_signal(self, number: int) -> None:
        """Send a signal to its process group."""
        with self._sending:
            channel.send(self._connection, messages.Signal(number))

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def fileno(self) -> int:
        """A descriptor that is readable when the command has ended, for ``select``."""
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lab:
    """A lab that is up."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.directory = path

    @classmethod
    def connect(cls, name: str) -> Lab:
        """The lab of this name. Raises ``LabError`` where it is not up."""
        lab = cls(name, directory.lab_directory(name))
        if not directory.is_alive(lab.directory):
            raise LabError(f"lab {name} is not up; `lab up --name {name}` makes it, `lab list` shows those that are")
        return lab

    def status(self, *, memory: bool = False) -> LabStatus:
        """Everything there is to know: hosts, addresses, processes (with their memory where asked)."""
        return self._ask(messages.GetStatus(memory=memory), LabStatus)

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig for programs outside the lab."""
        return self.directory / "kubeconfig"

    def log(self, host: str, process: str) -> Path:
        """Where a process of a host writes its output: ``speaker``, ``controller``, ``apiserver``, ``stand-ins``."""
        return self.directory / "logs" / host / f"{process}.log"

    # -------------------------------------------------------------------- commands on hosts

    def start(
        self,
        host: str,
        argv: Sequence[str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        environment: Mapping[str, str] | None = None,
        terminal: bool = False,
    ) -> Command:
        """Start a command on a host, in the current directory and environment (``KUBECONFIG`` is the lab's)."""
        pipes: dict[str, IO[bytes]] = {}
        theirs: list[int] = []
        opened: list[int] = []
        connection = self._open()
        try:
            for number, (name, stream) in enumerate((("stdin", stdin), ("stdout", stdout), ("stderr", stderr))):
                if stream is None:
                    theirs.append(number)
                elif stream == subprocess.PIPE:
                    reading, writing = os.pipe()
                    mine, his = (writing, reading) if number == 0 else (reading, writing)
                    pipes[name] = os.fdopen(mine, "wb" if number == 0 else "rb", buffering=0 if number == 0 else -1)
                    theirs.append(his)
                    opened.append(his)
                elif stream == subprocess.DEVNULL:
                    theirs.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                    opened.append(theirs[-1])
                else:
                    theirs.append(stream if isinstance(stream, int) else stream.fileno())
            request = messages.Exec(
                host, tuple(argv), dict(os.environ if environment is None else environment), str(Path.cwd()), terminal
            )
            channel.send(connection, request, theirs)
            answer = _checked(_receive(connection, self.name), messages.Started)
        except BaseException:
            connection.close()
            for pipe in pipes.values():
                pipe.close()
            raise
        finally:
            for fd in opened:
                os.close(fd)
        connection.settimeout(None)
        return Command(connection, answer.pid, pipes)

    def run(
        self,
        host: str,
        argv: Sequence[str],
        *,
        input: str = "",  # noqa: A002 (subprocess.run's own word)
        timeout: float = 60.0,
        check: bool = False,
    ) -> Completed:
        """Run a command on a host and collect its output.

        Raises ``TimeoutError`` (it is killed then), and with ``check`` ``LabError`` where it did not end with 0.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(input.encode())
            given.seek(0)
            with self.start(host, argv, stdin=given, stdout=out, stderr=err) as command:
                code = command.wait(timeout)
            out.seek(0)
            err.seek(0)
            completed = Completed(code, out.read().decode(errors="replace"), err.read().decode(errors="replace"))
        if check and code != 0:
            said = (completed.errors or completed.output).strip().splitlines()[-1:] or ["it said nothing"]
            raise LabError(f"{host}: {argv[0]} ended with {code}: {said[0]}")
        return completed

    def open_socket(
        self,
        host: str,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,  # noqa: A002 (the socket module's own word)
        protocol: int = 0,
    ) -> socket.socket:
        """A socket in a host's network namespace: what it sends, the host sends.

        Packet sockets as well; ``protocol`` is in network order then, as for ``socket.socket``.
        """
        answer, descriptors = self._ask_for(messages.Socket(host, family, type, protocol))
        _checked(answer, messages.Done)
        return socket.socket(family, type, protocol, fileno=descriptors[0])

    # -------------------------------------------------------------------- faults

    def stop_node(self, node: str) -> None:
        """Cut a node's power. On return nothing of it is left."""
        self._ask(messages.Power(node, on=False), messages.Done)

    def start_node(self, node: str) -> None:
        """Switch a node on: it has a fresh kernel and its speaker on return, and its workloads a moment later."""
        self._ask(messages.Power(node, on=True), messages.Done)

    def pull_link(self, host: str) -> None:
        self._ask(messages.Cable(host, up=False), messages.Done)

    def plug_link(self, host: str) -> None:
        self._ask(messages.Cable(host, up=True), messages.Done)

    def drop(self, *frames: str) -> None:
        """Have the LAN's switch drop these frames, and no others any more: rules of nftables without their verdict.

        ``iifname "node-1"`` is all that this host sends, ``oifname "gw"`` all that is sent to that one, and ``numgen
        random mod 100 < 5`` one frame of twenty. ``drop()`` drops nothing.
        """
        self._ask(messages.DropFrames(frames), messages.Done)

    def step_clock(self, host: str, seconds: float) -> None:
        """Set the wall clock of our daemons on a host so much ahead of the machine's, or behind it."""
        wall_clock.step(self.directory, host, seconds)

    def speaker(
        self, node: str, action: Action, process: SpeakerProcess = "both", seconds: float | None = None
    ) -> None:
        """Act on a node's speaker: ``stop`` (SIGTERM) returns when it has ended; ``kill`` ends announcer, watcher or
        both with SIGKILL; ``pause`` stops them until ``resume``, or for ``seconds``."""
        self._ask(messages.Act(node, messages.SPEAKER, action, process, seconds), messages.Done)

    def process(self, host: str, process: str, action: Action, seconds: float | None = None) -> None:
        """Act likewise on any process that ``status`` shows, and start again one of the lab's own that has ended."""
        self._ask(messages.Act(host, process, action, seconds=seconds), messages.Done)

    def down(self) -> None:
        """End the lab. On return nothing of it is left."""
        try:
            self._ask(messages.Down(), messages.Done)
        except LabError:
            if directory.is_alive(self.directory):
                raise
        deadline = time.monotonic() + DOWN_S
        while directory.is_alive(self.directory):
            if time.monotonic() > deadline:
                raise LabError(f"lab {self.name} does not end; kill its keeper")
            time.sleep(0.005)

    # -------------------------------------------------------------------- one request

    def _open(self) -> socket.socket:
        try:
            connection = directory.connect_control(self.directory)
        except OSError as error:
            raise LabError(f"lab {self.name} is not up ({error.strerror})") from error
        connection.settimeout(ANSWER_S)
        return connection

    def _ask(self, request: ToKeeper, kind: type[T]) -> T:
        return _checked(self._ask_for(request)[0], kind)

    def _ask_for(self, request: ToKeeper) -> tuple[AnyAnswer, list[int]]:
        with self._open() as connection:
            try:
                channel.send(connection, request)
                received = channel.receive(connection, messages.ANSWERS)
            except (OSError, channel.MessageError) as error:
                raise LabError(f"lab {self.name} does not answer: {error}") from error
        if received is None:
            raise LabError(f"lab {self.name} has ended")
        return received


def _receive(connection: socket.socket, who: str) -> AnyAnswer:
    try:
        received = channel.receive(connection, messages.ANSWERS)
    except TimeoutError:
        raise
    except (OSError, channel.MessageError) as error:
        raise LabError(f"{who}: {error}") from error
    if received is None:
        raise LabError(f"{who} ended with its lab")
    return received[0]


def _checked(answer: AnyAnswer, kind: type[T]) -> T:
    if isinstance(answer, messages.Declined):
        raise LabError(answer.reason)
    if not isinstance(answer, kind):
        raise LabError(f"unexpected answer: {answer}")
    return answer
