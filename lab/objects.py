"""Objects of a lab's API, fetched whole and shown as a table: ``lab get``."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from cluster.api.client import ApiError
from cluster.resources import Resource
from lab.client import Lab
from lab.errors import FailedError, LabError
from lab.kinds import Whole
from lab.manifests import api_of
from lab.tables import age, columns_of


def fetch(lab: Lab, resource: Resource[Whole], namespace: str | None, name: str | None) -> list[dict[str, Any]]:
    """The objects of a kind, or the one of that name. Raises ``LabError``, also where there is none of that name."""
    api = api_of(lab)
    selector = f"metadata.name={name}" if name else None
    found: list[dict[str, Any]] = []
    continue_ = ""
    try:
        while True:
            page = api.list_page(resource, namespace=namespace, field_selector=selector, continue_=continue_)
            found += [msgspec.json.decode(item) for item in page.items]
            continue_ = page.metadata.continue_
            if not continue_:
                break
    except ApiError as error:
        raise LabError(f"{error.reason}: {error.message}") from error
    if name and not found:
        where = f"{namespace}/{name}" if resource.namespaced and namespace else name
        raise FailedError(f"{resource.kind.lower()} {where} not found")
    return found


def print_table(
    console: Console, resource: Resource[Whole], bodies: list[dict[str, Any]], *, wide: bool, everywhere: bool
) -> None:
    columns = columns_of(resource, wide=wide)
    with_namespace = everywhere and resource.namespaced
    titles = [*(["NAMESPACE"] if with_namespace else []), "NAME", *(title.upper() for title, _ in columns), "AGE"]
    table = Table(*titles, box=None, pad_edge=False)
    for body in bodies:
        meta = body["metadata"]
        cells = [*([meta.get("namespace", "")] if with_namespace else []), meta["name"]]
        table.add_row(*cells, *(fill(body) for _, fill in columns), age(body))
    if bodies:
        console.print(table)
    else:
        console.print(f"no {resource.plural}")
