"""Where a daemon listens, as text. Apart from the server, so that reading an argument imports no server."""

from __future__ import annotations

import argparse
from typing import NamedTuple


class Listen(NamedTuple):
    """An address of ours and a port. As text it is what ``parse_listen`` reads."""

    host: str
    """Empty: every address that this machine has, of both families."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT = Listen("127.0.0.1", 7472)
"""MetalLB's port, and nobody but this machine: what else may read the metrics is for the user to say."""


def parse_listen(text: str) -> Listen:
    """``ADDRESS:PORT``. An IPv6 address has brackets, any other may have them (``[$(POD_IP)]:7472``). No address at all
    (``:7472``) is every address of both families, as in MetalLB and Kubernetes' own programs. Nothing between brackets
    is a variable that is not set, and refused. Raises ``ValueError`` with a reason."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{text}" is not ADDRESS:PORT')
    if host == "[]":
        raise ValueError(f'"{text}" is not ADDRESS:PORT; there is nothing between the brackets')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{text}" is not ADDRESS:PORT; an IPv6 address goes in brackets')
    return Listen(host, int(port))


def add_listen(parser: argparse.ArgumentParser) -> None:
    """The option ``--listen``, which may be repeated; ``listen`` is then a list of ``Listen``, or None."""
    parser.add_argument(
        "--listen",
        type=_argument,
        action="append",
        metavar="ADDRESS:PORT",
        help=f"where /metrics, /healthz and /readyz are served; may be repeated (default: {DEFAULT})",
    )


def _argument(text: str) -> Listen:
    try:
        return parse_listen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
