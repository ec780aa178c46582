"""Processes on the hosts of a lab, which the keeper starts and reaps.

Each process has a mount and a UTS namespace of its own: /sys shows its host's interfaces, and its host name is the
host's. The keeper has one thread and therefore may fork. A workload is a fork that executes no program, and shares
nearly all of its memory with the keeper.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.machines.container import confine
from lab.machines.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWUTS,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    enter_network,
    mount,
    set_host_name,
    unshare,
)
from lab.shipped import ROOT
from lab.shipped.rights import Rights

_ENDING = (signal.SIGTERM, signal.SIGINT)
NOT_STARTED = 127  # the shells' exit code for a command that could not be run


@dataclass
class Process:
    """One process that the keeper started, running or ended."""

    host: str
    name: str
    pid: int
    code: int | None = None
    """Exit code, or minus the number of the signal that ended it; None while it runs."""
    on_end: Callable[[int], None] | None = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        return self.code is None

    def signal(self, number: int) -> None:
        """Send a signal to the process itself. An ended one gets none: its id may be another's by now."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to it and all that it started; to itself where it has just been forked and leads no group."""
        if self.running:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                self.signal(number)


def run_program(
    host: str,
    namespace: int,
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    streams: tuple[int, int, int],
    keep: Sequence[int] = (),
    directory: str = "/",
    terminal: bool = False,
    rights: Rights | None = None,
) -> int:
    """Start a program on a host, as leader of a session of its own, with ``rights`` or all that the lab has. Returns
    its process id.

    What goes wrong from here on is written to its standard error, and it ends with code 127.
    """
    pid = fork()
    if pid:
        return pid
    try:
        _become(host, namespace, streams)
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for fd in keep:
            os.set_inheritable(fd, True)
        with contextlib.suppress(OSError):  # a directory that only the caller sees
            os.chdir(directory)
        if rights is not None:
            confine(rights)
        os.execvpe(argv[0], list(argv), dict(environment))  # noqa: S606 (no shell is wanted)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        os.write(2, f"{argv[0]}: {where}{error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def run_function(
    host: str,
    namespace: int,
    *,
    streams: tuple[int, int, int],
    keep: Sequence[int],
    main: Callable[[Sequence[int]], None],
) -> int:
    """Fork a process on a host that runs ``main(descriptors)`` and holds none but these and its streams.

    Returns its process id. The descriptors have other numbers there.
    """
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        _become(host, namespace, streams)
        first = 3 + len(keep)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, first) for fd in keep]
        for target, fd in enumerate(high, start=3):
            os.dup2(fd, target)
        os.closerange(first, 1 << 20)
        main(range(3, first))
        code = 0
    except BaseException as error:  # noqa: BLE001 (nothing may return into the keeper's code in this process)
        os.write(2, f"{error!r}\n".encode())
    finally:
        os._exit(code)


def fork() -> int:
    """Fork. In the child the signals that end it wait for ``reset_signals``: until then they would be taken as the
    parent's, whose handlers it has."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid:  # the parent, also where there is no child
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    return pid


def reset_signals() -> None:
    """In a child: signals do what they do by default, also those that came since the fork."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGCHLD, *_ENDING):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _become(host: str, namespace: int, streams: tuple[int, int, int]) -> None:
    os.setsid()
    reset_signals()
    for target, source in enumerate([os.dup(fd) for fd in streams]):
        os.dup2(source, target)
        os.close(source)
    enter_network(namespace)
    unshare(CLONE_NEWNS | CLONE_NEWUTS)
    set_host_name(host)
    with contextlib.suppress(OSError):  # refused in some containers; then /sys shows the machine's interfaces
        mount("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def python_path() -> str:
    """For PYTHONPATH: where our programs are, before whatever is there already."""
    ours, given = str(ROOT), os.environ.get("PYTHONPATH", "")
    return given if given.split(":")[0] == ours else f"{ours}:{given}".rstrip(":")


def reap() -> dict[int, int]:
    """Collect whatever has ended: process id to exit code. As first process of the lab, orphans are ours as well."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def kill_all_in(namespace: int) -> None:
    """SIGKILL every process whose network namespace this is, again until there is none.

    Gives up on those that the kernel does not let go within two seconds: the keeper must stay responsive.
    """
    wanted = os.fstat(namespace)
    deadline = time.monotonic() + 2.0
    while found := [pid for pid in _process_ids() if _is_in(pid, wanted)]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(0.001)


def _is_in(pid: int, namespace: os.stat_result) -> bool:
    """Whether a process is in a namespace. One that is ending, or has ended, is in none."""
    try:
        return os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), namespace)
    except OSError:
        return False


def _process_ids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and entry.name != "1"]


def children_of(pid: int) -> list[int]:
    """The process ids of a process' children, oldest first."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def memory_of(pid: int) -> int | None:
    """Proportional set size, KiB; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), None)
