"""The kinds that are served: their paths, and how each differs from the rest.

A few built-in kinds are listed here; custom ones come from ``crds/``. What a kind may be selected by, whether its
status is a subresource and what DELETE answers follow Kubernetes' own registries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from cluster import resources
from cluster.objects import Object
from cluster.resources import Resource
from lab.shipped.kinds import CRDS, by_word, custom_definitions


@dataclass(frozen=True, eq=False)
class ServedKind(Resource[Object]):
    """A kind that is served. A body that does not fit the ``view`` is refused."""

    status: bool = False
    """Whether ``/status`` is a subresource: then the main resource cannot write status, and ``/status`` only it."""
    generation: bool = False
    """Whether ``metadata.generation`` counts changes of the specification."""
    unconditional_update: bool = True
    """Whether PUT without a resourceVersion is taken."""
    returns_deleted: bool = False
    """Whether DELETE answers with the object (or with a Status)."""
    selectable: tuple[str, ...] = ()
    """What a ``fieldSelector`` may name, besides name and namespace."""
    schema: Mapping[str, Any] | None = None
    """Structural schema of a custom kind; None for the built-in ones, whose fields are taken as they come."""


def _served(resource: Resource[Any], *selectable: str, **more: Any) -> ServedKind:
    where = {each.name: getattr(resource, each.name) for each in fields(resource)}
    return ServedKind(**where, selectable=selectable, **more)


NAMESPACES = _served(resources.NAMESPACES, status=True)
NODES = _served(resources.NODES, status=True)
SERVICES = _served(resources.SERVICES, "spec.type", status=True, returns_deleted=True)
PODS = _served(by_word("pods"), "spec.nodeName", status=True, returns_deleted=True)
SECRETS = _served(resources.SECRETS)
CONFIG_MAPS = _served(resources.CONFIG_MAPS)
SERVICE_ACCOUNTS = _served(by_word("serviceaccounts"), returns_deleted=True)
EVENTS = _served(resources.EVENTS, *(f"involvedObject.{name}" for name in ("kind", "name", "uid")), "reason", "type")
ENDPOINT_SLICES = _served(resources.ENDPOINT_SLICES, generation=True)
SERVICE_CIDRS = _served(resources.SERVICE_CIDRS, status=True)
LEASES = _served(resources.LEASES, unconditional_update=False)

BUILT_IN = (
    *(NAMESPACES, NODES, SERVICES, PODS, SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, EVENTS),
    *(ENDPOINT_SLICES, SERVICE_CIDRS, LEASES),
)


def custom() -> Iterator[ServedKind]:
    """The kinds of ``crds/``, each in its storage version (other versions are not converted here)."""
    for spec in custom_definitions(CRDS):
        for version in spec["versions"]:
            if version["served"] and version["storage"]:
                yield ServedKind(
                    group=spec["group"],
                    version=version["name"],
                    plural=spec["names"]["plural"],
                    kind=spec["names"]["kind"],
                    namespaced=spec["scope"] == "Namespaced",
                    view=Object,
                    status="status" in version.get("subresources", {}),
                    generation=True,
                    unconditional_update=False,
                    schema=version["schema"]["openAPIV3Schema"],
                )
