"""``berthlb``, also ``python -m cli``: the commands that a person runs beside a cluster.

Standard output has the result and nothing else. Standard error has one line for each remark, or for the mistake. Exit
code 2: the command or its input is wrong, or nothing came out; 1: the result could not be written.

It uses argparse, as the daemons do, since it is to run wherever they do: typer and rich come with the lab only.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from cli import migrate
from cli.convert import DEFAULT_NAMESPACE, ConversionError, convert
from cli.engine import EngineError, surroundings
from cli.kind_pool import NothingFree, derive, manifest
from cli.networks import AnswerError
from cli.yaml_text import written
from cluster.daemon.command_line import EXIT_USAGE, OneLineParser, complain


class CommandError(Exception):
    """Nothing comes out; the message is one line and says why."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = OneLineParser(prog="berthlb", description="What a person runs beside a cluster with BerthLB.")
    commands = arguments.add_subparsers(required=True, metavar="COMMAND", dest="command")
    converting = commands.add_parser(
        "convert",
        help="turn MetalLB's configuration of versions up to 0.12 into custom resources",
        description="Writes IPAddressPools and L2Advertisements for the layer2 pools of MetalLB's old configuration, "
        "ready for kubectl apply. Whatever has no counterpart is named on standard error.",
    )
    converting.set_defaults(run=partial(_print_manifests, _convert))
    converting.add_argument(
        "file",
        metavar="FILE",
        help="the ConfigMap, Helm values, a HelmRelease, an Application, AddressPools, or the configuration alone; "
        '"-" reads standard input',
    )
    converting.add_argument("--namespace", help=f"of the objects (default: the input's, or else {DEFAULT_NAMESPACE})")
    migrate.add_to(commands)
    pooling = commands.add_parser(
        "kind-pool",
        help="find addresses for the Services of a kind cluster",
        description="Writes an IPAddressPool and its L2Advertisement for a kind cluster, ready for kubectl apply: "
        "addresses of the container network that no container, no gateway and no other kind cluster has.",
    )
    pooling.set_defaults(run=partial(_print_manifests, _kind_pool))
    pooling.add_argument(
        "--cluster",
        default=os.environ.get("KIND_CLUSTER_NAME") or "kind",
        help="whose pool it is (default: $KIND_CLUSTER_NAME, or kind)",
    )
    pooling.add_argument(
        "--network", help="the clusters' network (default: $KIND_EXPERIMENTAL_DOCKER_NETWORK or its like, or kind)"
    )
    pooling.add_argument("--engine", choices=("docker", "podman"), default="docker", help="default: docker")
    pooling.add_argument("--namespace", default=DEFAULT_NAMESPACE, help=f"default: {DEFAULT_NAMESPACE}")
    return arguments


def main(command_line: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    arguments = parser().parse_args(command_line)
    try:
        sys.exit(arguments.run(arguments))
    except KeyboardInterrupt:
        sys.exit(130)


Outcome = tuple[Sequence[dict[str, Any]], Iterable[str]]
"""Manifests, and remarks."""


def _print_manifests(make: Callable[[argparse.Namespace], Outcome], arguments: argparse.Namespace) -> int:
    """Run a command that makes manifests; the exit code."""
    name = f"berthlb {arguments.command}"
    try:
        documents, remarks = make(arguments)
    except CommandError as error:
        complain(name, str(error))
        return EXIT_USAGE
    for remark in remarks:
        complain(name, remark)
    if not documents:
        return EXIT_USAGE
    try:
        print(written(documents), end="", flush=True)
    except OSError as error:  # `| head`, a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter tries again, and complains, at its end
        complain(name, f"cannot write the result: {error.strerror}")
        return 1
    return 0


def _convert(arguments: argparse.Namespace) -> Outcome:
    shown = "standard input" if arguments.file == "-" else arguments.file
    try:
        source = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
        result = convert(source, arguments.namespace)
    except OSError as error:
        raise CommandError(f"{shown}: {error.strerror}") from error
    except ConversionError as error:
        raise CommandError(f"{shown}: {error}") from error
    return result.documents, [f"{shown}: {remark}" for remark in result.remarks]


def _kind_pool(arguments: argparse.Namespace) -> Outcome:
    variable = f"KIND_EXPERIMENTAL_{arguments.engine.upper()}_NETWORK"
    network = arguments.network or os.environ.get(variable) or "kind"
    try:
        around = surroundings(arguments.engine, network)
        derived = derive(around, arguments.cluster, arguments.namespace)
    except (EngineError, AnswerError) as error:
        raise CommandError(str(error)) from error
    if isinstance(derived, NothingFree):
        raise CommandError(derived.reason)
    return manifest(derived.ranges, arguments.namespace), derived.remarks


if __name__ == "__main__":
    main()
