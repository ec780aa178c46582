"""What the announcer asks of the kernel and of the interpreter for itself, so that it is on time.

- Real-time priority and locked memory are asked for. Both are refused to a container that has NET_RAW only; nothing
  depends on them, and one log line says what was granted.
- Garbage collection may not hold the loop up: what exists at the start is never looked at again, and the rest in steps
  of a millisecond or two.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import socket
import time
from pathlib import Path

YOUNG_OBJECTS = 10_000
_FIFO_PRIORITY = 1  # ahead of every ordinary process, behind every other real-time one
_NICE = -10
_MCL_CURRENT = 1
_CAP_IPC_LOCK = 14  # linux/capability.h


def boottime() -> float:
    """CLOCK_BOOTTIME in seconds: monotonic, and it goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def be_punctual() -> dict[str, str]:
    """Ask for priority and for memory that is never paged out; what was granted."""
    return {"scheduling": _priority(), "memory": _memory()}


def why_no_raw_sockets() -> str | None:
    """Why this process can never have the sockets that frames go through, and what to do; None: nothing is against it.

    A process gets no capability that it was not started with: waiting would not help.
    """
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()  # protocol 0: nothing is received
    except OSError as error:
        if error.errno in {errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT}:
            return (
                f"raw sockets are refused ({error.strerror}): the container has to run as user 0 with the capability"
                " NET_RAW (securityContext: runAsUser: 0, capabilities: {add: [NET_RAW]}), as in deploy/berthlb.yaml"
            )
    return None


def freeze_garbage() -> None:
    """Take what exists now out of garbage collection for good."""
    gc.disable()
    gc.freeze()


def collect_garbage() -> None:
    """Look for garbage among what was made since the last time, once that is much, and among nothing older: it takes a
    millisecond or two. To be called often."""
    if gc.get_count()[0] > YOUNG_OBJECTS:
        gc.collect(1)


def _priority() -> str:
    # A watcher that is forked later starts with ordinary priority again.
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_FIFO_PRIORITY))
    except OSError:
        pass
    else:
        return "real-time"
    try:
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    except OSError:
        return "ordinary"
    return "raised"


def _memory() -> str:
    # Only without a limit, and only what is there now: future allocations that hit a limit end in MemoryError.
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY and not _has_ipc_lock():
        return "pageable"
    return "pageable" if ctypes.CDLL(None).mlockall(_MCL_CURRENT) else "locked"


def _has_ipc_lock() -> bool:
    """Whether no limit of locked memory holds for us (mlock(2))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> _CAP_IPC_LOCK & 1)
    return False
