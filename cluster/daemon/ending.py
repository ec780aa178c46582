"""How a daemon hears that it is to end, where its end takes locks.

A signal handler runs in the main thread, between any two of its steps. That very thread might have the lock that the
handler needs. So the signals are blocked, and a thread waits for them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from cluster.daemon.starting import ENDING


def when_told_to_end(stop: Callable[[], object]) -> None:
    """From now on SIGTERM and SIGINT call ``stop``, once, from a thread of its own."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # in every thread that is started from here on

    def wait() -> None:
        signal.sigwait(ENDING)
        stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
