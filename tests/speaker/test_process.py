"""What keeps the announcer on time."""

from __future__ import annotations

import os
import subprocess
import sys

_LOG_MUCH = """
import logging, sys
from speaker.process import log_without_waiting
handler = log_without_waiting()
for n in range(5000):
    logging.getLogger("speaker").info("claimed", extra={"address": "192.0.2.1", "n": n})
print(handler.dropped)
"""


def test_log_that_nobody_reads_is_dropped_and_holds_nobody_up() -> None:
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOG_MUCH], stderr=writer, stdout=subprocess.PIPE, timeout=30, check=True
        )
        assert int(done.stdout) > 4000
        lines = os.read(reader, 65536).splitlines()
        assert lines[0].startswith(b'{"time"')
        assert all(line.endswith(b"}") for line in lines), "no line is cut"
    finally:
        os.close(reader)
        os.close(writer)


def test_log_whose_reader_has_gone_holds_nobody_up_either() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", _LOG_MUCH], stderr=writer, stdout=subprocess.PIPE, timeout=30, check=True
    )
    os.close(writer)
    assert int(done.stdout) == 5000


def test_refused_priority_and_memory_are_said_and_do_no_harm() -> None:
    program = "from speaker.process import be_punctual; print(be_punctual())"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "prlimit", "--memlock=8388608",
         sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "{'scheduling': 'ordinary', 'memory': 'pageable'}"
