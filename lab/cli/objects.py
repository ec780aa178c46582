"""Commands for objects of a lab's API: ``lab apply``, ``delete``, ``get``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lab.cli.options import DEFAULT_NAME, Json, Name, Namespace, out, print_json
from lab.client import Lab
from lab.errors import LabError

app = typer.Typer()
Files = Annotated[list[Path] | None, typer.Option("--filename", "-f", metavar="FILE", help="A manifest.")]


@app.command()
def apply(
    filename: Files = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]…", help="More manifests.")] = None,
    namespace: Namespace = "default",
    name: Name = DEFAULT_NAME,
    as_json: Json = False,
) -> None:
    """Create what manifests describe, or merge them into what exists."""
    from lab.objects import manifests  # noqa: PLC0415 (the API's client is slow to import)

    files = [*(filename or ()), *(more or ())]
    if not files:
        raise LabError("apply: -f FILE is wanted")
    _tell(manifests.apply_each(manifests.api_of(Lab.connect(name)), files, namespace), as_json=as_json)


@app.command()
def delete(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="Such as service.")] = None,
    object_name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of the object.")] = None,
    *,
    filename: Files = None,
    namespace: Namespace = "default",
    name: Name = DEFAULT_NAME,
    as_json: Json = False,
) -> None:
    """Delete an object, or what manifests describe."""
    from lab.objects import manifests  # noqa: PLC0415 (the API's client is slow to import)
    from lab.shipped import kinds  # noqa: PLC0415

    if bool(filename) == bool(kind) or bool(kind) != bool(object_name):
        raise LabError("delete: either KIND NAME or -f FILE is wanted")
    api = manifests.api_of(Lab.connect(name))
    if kind and object_name:
        resource = kinds.by_word(kind)
        _tell([manifests.delete_one(api, resource, namespace, object_name)], as_json=as_json)
    else:
        _tell(manifests.delete_each(api, filename or (), namespace), as_json=as_json)


def _tell(outcomes: Any, *, as_json: bool) -> None:
    """Print what became of each object. Exits with 1 if one was refused or was not there."""
    said = []
    for outcome in outcomes:
        said.append(outcome)
        if not as_json:
            line = f"{outcome.what} {outcome.verdict}" + (f": {outcome.reason}" if outcome.reason else "")
            print(line, file=sys.stderr if outcome.verdict in {"refused", "not found"} else sys.stdout)
    if as_json:
        print_json(msgspec.to_builtins(said))
    if any(outcome.verdict in {"refused", "not found"} for outcome in said):
        raise typer.Exit(1)


@app.command()
def get(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Such as services, svc, nodes, ipaddresspools.")],
    object_name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of one object.")] = None,
    *,
    namespace: Namespace = "default",
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="json|wide|name", help="How.")] = "",
    name: Name = DEFAULT_NAME,
) -> None:
    """Show objects of a kind."""
    from lab.cli.tables import print_table  # noqa: PLC0415 (the API's client is slow to import)
    from lab.objects.fetch import fetch  # noqa: PLC0415
    from lab.shipped import kinds  # noqa: PLC0415

    if output not in {"", "json", "wide", "name"}:
        raise LabError(f"--output: {output!r} is none of json, wide, name")
    resource = kinds.by_word(kind)
    found = fetch(Lab.connect(name), resource, None if everywhere else namespace, object_name)
    if output == "json":
        print_json(found[0] if object_name else {"apiVersion": "v1", "kind": "List", "items": found})
    elif output == "name":
        for body in found:
            print(f"{resource.kind.lower()}/{body['metadata']['name']}")
    else:
        print_table(out, resource, found, wide=output == "wide", everywhere=everywhere)
