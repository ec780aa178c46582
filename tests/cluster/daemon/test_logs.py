"""One JSON object per line, whatever is logged."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.daemon.logs import JsonFormatter


def logged(message: str, *arguments: Any, level: int = logging.INFO, **more: Any) -> dict[str, Any]:
    record = logging.getLogger("part").makeRecord(
        "part", level, "file", 1, message, arguments, None, extra=more or None
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    decoded = json.loads(line)
    assert isinstance(decoded, dict)
    return decoded


def test_a_decision_is_one_line_with_its_fields() -> None:
    line = logged("assigned", service="dev/web", port=80)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "logger": "part", "message": "assigned", "service": "dev/web", "port": 80}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
        ("two\nlines", "two\nlines"),
        (None, None),
        (float("nan"), None),
        ({"a": frozenset({1})}, {"a": [1]}),
        ({1: 2}, {"1": 2}),
        (b"\xff", "/w=="),
        (ValueError("x"), "x"),
    ],
)
def test_any_value_can_be_logged(value: Any, written: Any) -> None:
    assert logged("m", value=value)["value"] == written


def test_arguments_are_filled_in() -> None:
    assert logged("%s of %d", "a", 2)["message"] == "a of 2"


def test_a_field_cannot_hide_the_level_or_the_message() -> None:
    assert logged("m", level_="x")["level"] == "info"


def test_a_traceback_is_part_of_its_line() -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info(), "levelname": "ERROR"})
    line = json.loads(JsonFormatter().format(record))
    assert "KeyError: 'lost'" in line["traceback"]


def test_a_long_line_is_shortened_where_it_is_longest() -> None:
    """What has more octets than a pipe takes at once would be mixed with another process's lines."""
    line = logged("m", service="dev/web", reason="é" * 3000, list=["x" * 3000])
    assert len(json.dumps(line, ensure_ascii=False).encode()) <= select.PIPE_BUF
    assert line["reason"].startswith("é" * 500)
    assert (line["message"], line["service"]) == ("m", "dev/web")


def test_of_a_long_traceback_the_end_stays() -> None:
    try:
        raise KeyError("x" * 5000 + "lost")
    except KeyError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info(), "levelname": "ERROR"})
    assert json.loads(JsonFormatter().format(record))["traceback"].endswith("lost'")


def test_a_daemon_logs_to_stderr_from_info_up() -> None:
    code = (
        "import logging; from cluster.daemon import logs; logs.set_up();"
        "logging.getLogger('x').info('said', extra={'a': 1}); logging.getLogger('x').debug('not said')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["a"] == 1


# ------------------------------------------------------------------------ readers that are there, slow or gone

LOG_MUCH = """
import logging, sys
from cluster.daemon import logs
handler = logs.set_up({patience})
for n in range(5000):
    logging.getLogger("speaker").info("claimed", extra={{"address": "192.0.2.1", "n": n}})
print(handler.dropped, flush=True)
sys.stdin.readline()
logging.getLogger("speaker").info("released")
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A reader and a writer."""
    reader, writer = os.pipe()
    yield reader, writer
    for each in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(each)


@pytest.mark.parametrize("patience", ["0.0", "0.1"])
def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: tuple[int, int], patience: str) -> None:
    """The second waits once for the reader, and not five thousand times."""
    reader, writer = pipe
    with subprocess.Popen(
        [sys.executable, "-c", LOG_MUCH.format(patience=patience)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writer,
    ) as process:
        os.close(writer)
        assert process.stdin is not None
        assert process.stdout is not None
        dropped = int(process.stdout.readline())
        assert dropped > 4000
        lines = os.read(reader, 1 << 20).splitlines()
        assert [json.loads(line)["n"] for line in lines] == list(range(5000 - dropped)), "no line is cut"
        process.stdin.close()
        process.wait(60)  # it has said what it had to say
        lost, last = (json.loads(line) for line in os.read(reader, 1 << 20).splitlines())
        assert (lost["message"], lost["lines"]) == ("log lines lost", dropped)
        assert last["message"] == "released"


def test_a_log_whose_reader_has_gone_ends_nobody(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", LOG_MUCH.format(patience="1.0")],
        input=b"\n",
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=60,
        check=True,
    )
    assert int(done.stdout) == 5000


def test_what_ends_a_thread_or_the_process_is_one_line_and_waits_for_nobody(pipe: tuple[int, int]) -> None:
    source = """
import threading
from cluster.daemon import logs

def fail():
    raise KeyError("lost")

logs.set_up()
thread = threading.Thread(target=fail, name="lease")
thread.start()
thread.join()
fail()
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["message"], line["in_thread"]) for line in lines] == [
        ("ended by a defect", "lease"),
        ("ended by a defect", "MainThread"),
    ]
    assert all("KeyError: 'lost'" in line["traceback"] for line in lines)

    _, writer = pipe
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    assert subprocess.run([sys.executable, "-c", source], stderr=writer, timeout=30, check=False).returncode == 1


def test_a_value_that_cannot_be_shown_ends_nobody() -> None:
    source = """
import logging
from cluster.daemon import logs

class Unshowable:
    def __str__(self):
        raise ValueError("a defect")

logs.set_up()
logging.getLogger("x").info("%d", "no number")
logging.getLogger("x").info("said", extra={"a": Unshowable()})
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["message"], line["error"]) for line in lines] == [
        ("cannot be logged", "TypeError"),
        ("cannot be logged", "ValueError"),
    ]
