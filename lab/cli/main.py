"""The command line: ``python -m lab``.

A refusal is one line on standard error. Exit code 2 says that the command was wrong or cannot run here, and 1 that
something in the lab is not as it was asked to be.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from lab.cli import faults, life, objects, on_hosts
from lab.errors import FailedError, LabError
from lab.layout import LayoutError

app = typer.Typer(
    name="lab",
    help="A whole cluster on one machine, made of network namespaces: nodes, a LAN, clients, an API server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _commands in (life, on_hosts, faults, objects):
    app.add_typer(_commands.app)


def main() -> NoReturn:
    """Run one command and exit."""
    try:
        code = app(standalone_mode=False)
    except (LabError, LayoutError) as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, FailedError) else 2)
    except typer.TyperException as error:
        print(f"lab: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:  # `lab get … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
