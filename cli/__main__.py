"""``berthlb``, also ``python -m cli``: one command so far.

Standard output has the result and nothing else, standard error one line for each remark or for the mistake. Exit code
2: the command or its input is wrong, or nothing came out; 1: the result could not be written.

argparse, as the daemons have it, since this is to run wherever they do: typer and rich come with the lab.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cli import migrate
from cli.convert import DEFAULT_NAMESPACE, ConversionError, convert
from cli.yaml_text import written
from cluster.command_line import OneLineParser


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = OneLineParser(prog="berthlb", description="What a person runs beside a cluster with BerthLB.")
    commands = arguments.add_subparsers(required=True, metavar="COMMAND")
    converting = commands.add_parser(
        "convert",
        help="turn MetalLB's configuration of versions up to 0.12 into custom resources",
        description="Writes IPAddressPools and L2Advertisements for the layer2 pools of MetalLB's old configuration, "
        "ready for kubectl apply. Whatever has no counterpart is named on standard error.",
    )
    converting.add_argument(
        "file",
        metavar="FILE",
        help="the ConfigMap, Helm values, a HelmRelease, an Application, AddressPools, or the configuration alone; "
        '"-" reads standard input',
    )
    converting.add_argument("--namespace", help=f"of the objects (default: the input's, or else {DEFAULT_NAMESPACE})")
    migrate.add_to(commands)
    return arguments


def main(command_line: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    arguments = parser().parse_args(command_line)
    if whole := getattr(arguments, "whole", None):  # a command that says all by itself, the exit code too
        sys.exit(whole(arguments))
    shown = "standard input" if arguments.file == "-" else arguments.file
    try:
        source = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
        result = convert(source, arguments.namespace)
    except OSError as error:
        _fail(2, f"{shown}: {error.strerror}")
    except ConversionError as error:
        _fail(2, f"{shown}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    for remark in result.remarks:
        print(f"berthlb convert: {shown}: {remark}", file=sys.stderr)
    if not result.documents:
        sys.exit(2)
    try:
        print(written(result.documents), end="", flush=True)
    except OSError as error:  # `| head`, a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter tries again, and complains, at its end
        _fail(1, f"cannot write the result: {error.strerror}")
    sys.exit(0)


def _fail(code: int, message: str) -> NoReturn:
    print(f"berthlb convert: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
