"""What benchmarks ask of running processes: CPU, memory and counters, on this machine and on a lab's hosts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from cluster.api.client import IP_ADDRESS_POOLS, ApiClient
from lab.client import Lab
from lab.layout import STATUS_PORT
from lab.measuring.measure import wait_for

POOL = "10.32.0.0/14"
LONG_S = 3600.0


def announcer_cpu_s(pid: int) -> float:
    """CPU seconds of a process with one thread, which an announcer is, counted in nanoseconds (schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, MiB (VmHWM)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def cpu_in_lab_s(lab: Lab, host: str, pid: int) -> float:
    """CPU seconds of all threads of a process on a lab's host."""
    stat = lab.run(host, ["cat", f"/proc/{pid}/stat"], check=True).output
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counter(lab: Lab, host: str, metric: str) -> int:
    """A counter of the daemon that answers on a host's own address; 0 where it is not shown."""
    shown = lab.run(host, ["curl", "--silent", f"http://127.0.0.1:{STATUS_PORT}/metrics"]).output
    return int(sum(float(line.split()[-1]) for line in shown.splitlines() if line.startswith(metric)))


def await_quiet(used_s: Callable[[], float], window_s: float, share: float) -> None:
    """Wait until less than this share of a core is used over a window; ``used_s`` gives CPU seconds so far."""

    def idle() -> bool:
        before = used_s()
        time.sleep(window_s)
        return used_s() - before < share * window_s

    wait_for(idle, LONG_S, "quiet")


def make_pool(api: ApiClient) -> None:
    """A pool that is large enough for every benchmark."""
    body = {"metadata": {"name": "bench"}, "spec": {"addresses": [POOL], "avoidBuggyIPs": True}}
    api.create(IP_ADDRESS_POOLS, "metallb-system", body)


def take_precedence() -> None:
    """Have what measures run before what is measured, where that is allowed."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
