"""One JSON object per line, whatever is logged."""

from __future__ import annotations

import ipaddress
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from cluster.logs import JsonFormatter


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


def test_a_daemon_logs_to_stderr_from_info_up() -> None:
    code = (
        "import logging; from cluster import logs; logs.set_up();"
        "logging.getLogger('x').info('said', extra={'a': 1}); logging.getLogger('x').debug('not said')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["a"] == 1
