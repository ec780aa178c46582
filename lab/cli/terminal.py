"""A command on a lab's host at a person's own terminal, by way of a pseudo-terminal there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

from lab.client import Command, Lab


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def run_at_terminal(lab: Lab, host: str, argv: Sequence[str]) -> int:
    """Run a command with a terminal of its own. Its exit code, as ``Command.wait`` gives it."""
    ours, theirs = os.openpty()
    try:
        _copy_size(ours)
        try:
            command = lab.start(host, argv, stdin=theirs, stdout=theirs, stderr=theirs, terminal=True)
        finally:
            os.close(theirs)
        signal.signal(signal.SIGWINCH, lambda *_: _copy_size(ours))
        with command, _raw():
            _pass_on(ours, command)
            return command.wait()
    finally:
        os.close(ours)


def _pass_on(ours: int, command: Command) -> None:
    """Bytes both ways until the command has ended and nothing more comes from its terminal."""
    sources = [0, ours, command.fileno()]
    while True:
        readable, _, _ = select.select(sources, [], [], 0.0 if command.fileno() not in sources else None)
        if ours in readable:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                return
            _write_all(1, data)
        elif 0 in readable:
            data = os.read(0, 65536)
            if data:
                _write_all(ours, data)
            else:
                sources.remove(0)
        elif command.fileno() in readable:
            sources.remove(command.fileno())
        else:
            return


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _copy_size(to: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(to, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is not lost
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
