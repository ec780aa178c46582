"""How the announcer gets its watcher: by a fork that dies with it and keeps nothing of it but the channel.

1. The first watcher is forked before anything heavy is imported. Both processes then share the interpreter's memory,
   which a new program would not.
2. A later one, after a watcher's death, is forked from the running announcer. It lets go of what it must not have: the
   announcer's sockets, its signal handlers, its scheduling class.
3. The kernel ends a watcher whose announcer has died (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # prctl(2)
PR_SET_NAME = 15


class Child(NamedTuple):
    """A watcher, seen from the announcer."""

    pid: int
    channel: socket.socket
    """The announcer's end."""


def spawn(run: Callable[[socket.socket], int], keep: tuple[int, ...] = ()) -> Child:
    """Fork a process that calls ``run`` with its end of a new channel and exits with what that returns. Of the other
    descriptors it keeps the standard ones and ``keep``."""
    parent = os.getpid()
    ours, theirs = socket.socketpair()
    if gc.isenabled():  # an announcer that has begun must not be away for as long as this takes
        gc.collect()
    gc.freeze()  # what exists now is never collected: no reference counts of shared pages are written for it
    pid = os.fork()
    if pid == 0:
        _be_watcher(parent, theirs, run, keep)
    theirs.close()
    return Child(pid, ours)


def _be_watcher(
    parent: int, channel: socket.socket, run: Callable[[socket.socket], int], keep: tuple[int, ...]
) -> NoReturn:
    """The child: never returns into the caller's frames, whose objects still name the announcer's descriptors."""
    code = 1
    try:
        _die_with(parent)
        gc.enable()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the announcer, which ends us
        _close_all_but({0, 1, 2, channel.fileno(), *keep})
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        code = run(channel)
    except Exception:  # whatever it is, it is said, and the announcer starts another
        logger.exception("watcher failed")
    finally:
        os._exit(code)


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    libc.prctl(PR_SET_NAME, b"speaker-watcher", 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask to be told
        os._exit(1)


def _close_all_but(keep: set[int]) -> None:
    for link in list(Path("/proc/self/fd").iterdir()):
        descriptor = int(link.name)
        if descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the one that listed the directory
