"""What the lab's commands have in common: their options and arguments, and where they print."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

Name = Annotated[str, typer.Option("--name", envvar="BERTHLB_LAB", metavar="NAME", help="Which lab.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Where no other is named.")]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="Such as node-1.")]
HostName = Annotated[str, typer.Argument(metavar="HOST", help="cp, gw, client, node-1 and so on.")]
DEFAULT_NAME = "lab"

out = Console(width=1000)  # lines are as long as they are, for programs and for a terminal to fold
err = Console(stderr=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
