"""The thread that writes."""

from __future__ import annotations

import threading

from cluster.api.errors import ServerError
from speaker.api.writer import Writer
from tests.waiting import wait_until

BUSY = ServerError(503, "ServiceUnavailable", "later")


def test_the_thread_repeats_what_failed_and_survives_a_defect() -> None:
    writer = Writer()
    done = threading.Event()
    answers = iter([BUSY, KeyError("a defect")])

    def write() -> None:
        if (error := next(answers, None)) is not None:
            raise error
        done.set()

    writer.start()
    try:
        writer.submit("a", write)
        wait_until(lambda: writer.errors == 2)
        writer.submit("a", write)
        assert done.wait(5)
        wait_until(lambda: writer.writes == 1 and writer.lag.writes == 0)
    finally:
        writer.stop()
