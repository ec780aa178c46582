"""Objects of a lab's API, fetched whole."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.api.client import ApiError
from cluster.resources import Resource
from lab.client import Lab
from lab.errors import FailedError, LabError
from lab.objects.manifests import api_of
from lab.shipped.kinds import Whole


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
