"""What a daemon does before all else, while nothing is imported that takes long.

A container is ended by a signal to its first process, and the kernel drops a signal to that process for which it has no
handler (pid_namespaces(7)): who is told to end while it still imports would not hear it, and be killed when its grace
period is over. A daemon that has said and claimed nothing can end at once. It takes some hundredths of a second of CPU
until the interpreter gets here; in these a signal is lost.

A daemon may be started without a standard descriptor (``2>&-``). The next socket would get the free number, and what is
written to the standard error would go out on the wire.
"""

from __future__ import annotations

import os
import signal

ENDING = (signal.SIGTERM, signal.SIGINT)
"""The signals by which somebody asks a daemon to end."""


def begin() -> None:
    """Until the daemon has another way to end, it ends at once, with exit code 0, on SIGTERM and SIGINT. Standard
    descriptors that are missing lead nowhere from now on."""
    for number in ENDING:
        signal.signal(number, lambda *_: os._exit(0))
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
