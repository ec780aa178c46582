"""How a daemon begins and is told to end, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import ended

ROOT = Path(__file__).parents[3]
IMPORTING = (
    "from cluster.daemon.starting import begin; begin(); print('begun', flush=True); import time; time.sleep(600)"
)
LOCKED = """
import threading
from cluster.daemon.ending import when_told_to_end
lock, told = threading.Lock(), threading.Event()
def stop():
    with lock:
        print("told", flush=True)
    told.set()
when_told_to_end(stop)
with lock:
    print("begun", flush=True)
    input()
told.wait()
"""
WITHOUT = "from cluster.daemon.starting import begin; begin(); import socket; print(socket.socket().fileno())"


def started(source: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", source], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_still_importing_ends_at_once_when_it_is_told_to(number: int) -> None:
    with started(IMPORTING) as process:
        process.send_signal(number)
        assert ended(process) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_that_needs_a_lock_of_the_main_thread_waits_for_it_and_does_not_deadlock(number: int) -> None:
    with started(LOCKED) as process:
        process.send_signal(number)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "told\n"
        assert ended(process) == 0


def test_a_socket_never_gets_the_number_of_a_missing_standard_descriptor() -> None:
    closed = f'exec "{sys.executable}" -c "{WITHOUT}" 0<&- 2>&-'
    done = subprocess.run(["sh", "-c", closed], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) > 2
