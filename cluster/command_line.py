"""The command lines of our programs: what they have in common."""

from __future__ import annotations

import argparse
from typing import NoReturn

EXIT_USAGE = 2
"""Of a program that cannot work with its arguments; it has said why in one line. Starting it again is of no use."""


class OneLineParser(argparse.ArgumentParser):
    """Refuses with one line and ``EXIT_USAGE``, where argparse would print its usage as well."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")
