"""The fork: a watcher dies with its announcer, and has nothing of it but the channel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

ANNOUNCER = """
import os, signal, socket, sys, time
from speaker import child

def watch(channel):
    {watch}

other = socket.create_server(("127.0.0.1", 0))
os.set_inheritable(other.fileno(), True)
signal.signal(signal.SIGTERM, lambda *_: None)
spawned = child.spawn(watch)
print(spawned.pid, flush=True)
{announce}
"""


@contextmanager
def an_announcer(watch: str, announce: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that spawns a watcher; both run the given lines."""
    source = ANNOUNCER.format(watch=watch, announce=announce)
    with subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watcher = int(process.stdout.readline())
        try:
            yield process, watcher
        finally:
            process.kill()
            with suppress(ProcessLookupError):
                os.kill(watcher, signal.SIGKILL)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_watcher_dies_with_its_announcer_however_that_ends() -> None:
    with an_announcer("time.sleep(60)", "time.sleep(60)") as (announcer, watcher):
        assert runs(watcher)
        announcer.send_signal(signal.SIGKILL)
        wait_until(lambda: not runs(watcher))


def test_a_watcher_has_only_the_channel_of_the_announcers_sockets() -> None:
    watch = """
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    sockets = [os.readlink(path) for path in paths if os.path.exists(path)]
    channel.sendall(str(sum(each.startswith("socket:") for each in sockets)).encode())
    return 0"""
    with an_announcer(watch, "print(spawned.channel.recv(9).decode(), flush=True)") as (announcer, _):
        assert announcer.stdout is not None
        assert announcer.stdout.readline() == "1\n"


def test_a_watcher_ends_on_sigterm_even_where_the_announcer_handles_it() -> None:
    watch = 'channel.sendall(b"."); time.sleep(60)'
    announce = "print(spawned.channel.recv(1), flush=True); print(os.waitpid(spawned.pid, 0)[1], flush=True)"
    with an_announcer(watch, announce) as (announcer, watcher):
        assert announcer.stdout is not None
        assert announcer.stdout.readline() == "b'.'\n"
        os.kill(watcher, signal.SIGTERM)
        assert announcer.stdout.readline() == f"{int(signal.SIGTERM)}\n"


@pytest.mark.parametrize(("watch", "code"), [("return 2", 2), ("return 0", 0), ("raise ValueError('a defect')", 1)])
def test_what_run_returns_is_the_exit_code_and_a_defect_is_1(watch: str, code: int) -> None:
    announce = "print(os.waitstatus_to_exitcode(os.waitpid(spawned.pid, 0)[1]), flush=True)"
    with an_announcer(watch, announce) as (announcer, _):
        assert announcer.stdout is not None
        assert announcer.stdout.readline() == f"{code}\n"


def test_the_announcer_hears_of_the_watchers_end_by_its_channel() -> None:
    with an_announcer("return 0", "print(spawned.channel.recv(9), flush=True)") as (announcer, _):
        assert announcer.stdout is not None
        assert announcer.stdout.readline() == "b''\n"


def test_what_the_two_processes_import_before_the_fork_is_little() -> None:
    """Each megabyte imported here is paid for before the first heartbeat, and by the announcer for good."""
    source = "import sys, speaker.__main__; print(*sorted(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"kubernetes", "urllib3", "ssl", "prometheus_client", "yaml", "pyroute2", "http"} & set(
        ended.stdout.split()
    )


def test_a_watcher_of_an_announcer_that_collects_no_garbage_collects_its_own() -> None:
    watch = "import gc; os.write(1, b'enabled' if gc.isenabled() else b'disabled'); time.sleep(60)"
    source = ANNOUNCER.format(watch=watch, announce="time.sleep(60)").replace(
        "spawned =", "import gc; gc.disable(); spawned ="
    )
    with subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            said = b""
            while b"abled" not in said:
                read = os.read(process.stdout.fileno(), 100)
                assert read, "it ended"
                said += read
            assert b"enabled" in said
        finally:
            process.kill()
