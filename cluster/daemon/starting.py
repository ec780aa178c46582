"""What a daemon does before all else, while nothing is imported that takes long.

1. It makes the signals to end work. A container is ended by a signal to its first process, and the kernel drops one
   to that process for which it has no handler (pid_namespaces(7)). A daemon that is still importing would not hear it,
   and would be killed when its grace period is over. One that has said and claimed nothing can end at once.
2. It opens missing standard descriptors (``2>&-``). The next socket would get the free number, and what is written to
   the standard error would go out on the wire.

Not promised: a signal in the hundredths of a second of CPU until the interpreter gets here. It is lost.
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
