"""Processes at the moment of their birth."""

from __future__ import annotations

import os
import signal
import subprocess

from lab.machines import processes
from lab.machines.processes import Process
from tests.waiting import ended


def test_one_that_does_not_lead_a_group_yet_gets_the_groups_signals() -> None:
    """So it is for a moment after the fork: the process that asked for a command may be gone by then."""
    newborn = subprocess.Popen(["sleep", "1000"])
    try:
        assert os.getpgid(newborn.pid) != newborn.pid
        Process("client", "exec sleep", newborn.pid).signal_group(signal.SIGKILL)
        assert ended(newborn) == -signal.SIGKILL
    finally:
        newborn.kill()
        newborn.wait()


def test_a_signal_between_fork_and_start_is_the_childs_and_not_the_parents() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    reading, writing = os.pipe()
    try:
        pid = processes.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os.write(writing, b"not yet")
            processes.reset_signals()
            os._exit(1)
        assert os.read(reading, 100) == b"not yet"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM], "the parent hears them again"
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(reading)
        os.close(writing)
