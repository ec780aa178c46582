"""Logs: one JSON object per line on the standard error, one line per decision.

Nothing that happens to the log may end a daemon or stop it for long. The descriptor may be closed, and its reader may
have gone or stand still.

1. Each line is a single write that fits into a pipe as a whole, so that two processes can share one.
2. A line that cannot be written within the daemon's patience is dropped, and so are all that follow until one can be
   written again. That one says how many are missing.

Example: ``logger.info("assigned", extra={"service": "dev/web", "address": "172.18.255.200"})`` becomes
``{"time": "2026-01-02T03:04:05.678Z", "level": "info", "logger": "controller.daemon", "message": "assigned",
"service": "dev/web", "address": "172.18.255.200"}``. A traceback is one string, ``traceback``.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import msgspec

STDERR = 2
PATIENCE_S = 1.0
"""Seconds for which a thread that logs waits for a reader who does not keep up."""
LINE_OCTETS = 4095
"""With its end a line has PIPE_BUF octets: what a pipe takes at once, unmixed with others' lines, when poll(2) calls it
writable (pipe(7))."""
SHORT = 16
"""Characters of a value that are not halved again."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; what the caller passed as ``extra`` becomes fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD and key not in line})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        encoded = msgspec.json.encode(line, enc_hook=str)
        while len(encoded) > LINE_OCTETS and _shorten(line):
            encoded = msgspec.json.encode(line, enc_hook=str)
        return encoded.decode()


def _shorten(line: dict[str, Any]) -> bool:
    """Halve the longest value, if it is worth it. Of a traceback the end stays, where it says what went wrong."""
    longest = max(line, key=lambda key: len(str(line[key])))
    text = str(line[longest])
    half = len(text) // 2
    line[longest] = f"… {text[-half:]}" if longest == "traceback" else f"{text[:half]} …"
    return half >= SHORT


class StderrHandler(logging.Handler):
    """Writes each record as a line to the standard error, and waits ``patience_s`` for a reader who stands still."""

    def __init__(self, patience_s: float) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._patience_ms = round(patience_s * 1000)
        self._poll = select.poll()
        self._poll.register(STDERR, select.POLLOUT)
        self._missing = 0
        """Lines dropped since the last that was written."""
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._missing and self._write(_of_ours("log lines lost", lines=self._missing)):
            self._missing = 0
        if self._missing or not self._write(record):
            self._missing += 1
            self.dropped += 1

    def _write(self, record: logging.LogRecord) -> bool:
        ready = self._poll.poll(0 if self._missing else self._patience_ms)
        if not ready or not ready[0][1] & select.POLLOUT:
            return False
        try:
            os.write(STDERR, self._line(record).encode() + b"\n")
        except OSError:  # nobody will ever read it
            return False
        return True

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:  # noqa: BLE001  # a value that cannot be shown must not end who wanted to show it
            return self.format(_of_ours("cannot be logged", by=record.name, error=type(error).__name__))


def _of_ours(message: str, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": __name__, "levelname": "WARNING", "msg": message, **fields})


def set_up(patience_s: float = PATIENCE_S) -> StderrHandler:
    """Send every log record of this process from INFO up to the standard error, in JSON, instead of wherever they went,
    and what ends a thread or the process as well. ``patience_s``: see ``StderrHandler``."""
    handler = StderrHandler(patience_s)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings repeat what our typed errors already say
    sys.excepthook = lambda *raised: _say_uncaught(raised, "MainThread")
    threading.excepthook = lambda args: _say_uncaught(
        (args.exc_type, args.exc_value, args.exc_traceback), args.thread.name if args.thread else ""
    )
    return handler


def _say_uncaught(raised: Any, thread: str) -> None:
    logging.getLogger(__name__).critical("ended by a defect", exc_info=raised, extra={"in_thread": thread})
