"""What the command lines of our programs have in common."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

EXIT_USAGE = 2
"""Of a program that cannot work with its arguments; it has said why in one line. Starting it again is of no use."""

_REFERENCE = re.compile(r"\$\((\w+)\)")


class OneLineParser(argparse.ArgumentParser):
    """Refuses with one line and ``EXIT_USAGE``, where argparse would print its usage as well."""

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """What ``parse_args`` makes of a container's arguments. One that refers to a variable which the container's
        environment does not have is refused: Kubernetes leaves it as it is (Container.args), and ``$(NODE_NAME)`` would
        be taken for a name."""
        for argument in arguments:
            if missing := _REFERENCE.search(argument):
                self.error(
                    f"{argument}: there is no {missing[1]} in the container's environment: give it one (env), as in"
                    " deploy/berthlb.yaml"
                )
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        complain(self.prog, message)
        sys.exit(EXIT_USAGE)


def complain(program: str, message: str) -> None:
    """Say something on the standard error, if there is one and somebody reads it: mostly why a program cannot begin."""
    with contextlib.suppress(AttributeError, OSError):
        sys.stderr.write(f"{program}: {message}\n")
