"""The command lines of our programs: what they have in common."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import NoReturn

EXIT_USAGE = 2
"""Of a program that cannot work with its arguments; it has said why in one line. Starting it again is of no use."""


class OneLineParser(argparse.ArgumentParser):
    """Refuses with one line and ``EXIT_USAGE``, where argparse would print its usage as well."""

    def error(self, message: str) -> NoReturn:
        complain(self.prog, message)
        sys.exit(EXIT_USAGE)


def complain(program: str, message: str) -> None:
    """Say on the standard error why a program cannot begin, if there is one and somebody reads it."""
    with contextlib.suppress(AttributeError, OSError):
        sys.stderr.write(f"{program}: {message}\n")
