"""The kinds that are served: what their paths are called and how each differs from the rest.

A few built-in kinds are listed here; custom ones come from CustomResourceDefinition files. What a kind may be selected
by, whether its status is a subresource and what DELETE answers follow Kubernetes' own registries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster import objects

Selectable = Mapping[str, tuple[str, ...]]
"""Field labels a ``fieldSelector`` may use, and where their values are in the object."""

METADATA_FIELDS: Selectable = {"metadata.name": ("metadata", "name"), "metadata.namespace": ("metadata", "namespace")}


@dataclass(frozen=True, eq=False)
class Kind:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False
    """Whether ``/status`` is a subresource: then the main resource cannot write status, and ``/status`` only it."""
    generation: bool = False
    """Whether ``metadata.generation`` counts changes of the specification."""
    unconditional_update: bool = True
    """Whether PUT without a resourceVersion is taken."""
    returns_deleted: bool = False
    """Whether DELETE answers with the object (or with a Status)."""
    fields: Selectable = field(default_factory=lambda: METADATA_FIELDS)
    shape: type[objects.Object] = objects.Object
    """What the body must at least look like: fields that have another JSON type are refused."""
    schema: Mapping[str, Any] | None = None
    """Structural schema of a custom kind; None for the built-in ones, whose fields are taken as they come."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """``services``, ``leases.coordination.k8s.io``: how messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def custom(self) -> bool:
        return self.schema is not None


def _fields(*labels: str) -> Selectable:
    return {**METADATA_FIELDS, **{label: tuple(label.split(".")) for label in labels}}


NAMESPACES = Kind("", "v1", "namespaces", "Namespace", namespaced=False, status=True, fields=_fields("status.phase"))
NODES = Kind(
    "", "v1", "nodes", "Node", namespaced=False, status=True, fields=_fields("spec.unschedulable"), shape=objects.Node
)
SERVICES = Kind(
    "",
    "v1",
    "services",
    "Service",
    status=True,
    returns_deleted=True,
    fields=_fields("spec.type", "spec.clusterIP"),
    shape=objects.Service,
)
PODS = Kind("", "v1", "pods", "Pod", status=True, returns_deleted=True, fields=_fields("spec.nodeName", "status.phase"))
SECRETS = Kind("", "v1", "secrets", "Secret", fields=_fields("type"), shape=objects.Secret)
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS = Kind("", "v1", "serviceaccounts", "ServiceAccount", returns_deleted=True)
EVENTS = Kind(
    "",
    "v1",
    "events",
    "Event",
    fields={
        **_fields(
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "type",
        ),
        "source": ("source", "component"),
        "reportingComponent": ("reportingComponent",),
    },
)
ENDPOINT_SLICES = Kind(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True, shape=objects.EndpointSlice
)
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease", unconditional_update=False)

BUILT_IN = (
    NAMESPACES,
    NODES,
    SERVICES,
    PODS,
    SECRETS,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    EVENTS,
    ENDPOINT_SLICES,
    LEASES,
)


def from_definition(definition: Mapping[str, Any]) -> Iterable[Kind]:
    """The kinds of one CustomResourceDefinition: its storage version (other versions are not converted here)."""
    spec = definition["spec"]
    for version in spec["versions"]:
        if not (version["served"] and version["storage"]):
            continue
        selectable = {
            entry["jsonPath"].lstrip("."): tuple(entry["jsonPath"].strip(".").split("."))
            for entry in version.get("selectableFields", ())
        }
        yield Kind(
            group=spec["group"],
            version=version["name"],
            plural=spec["names"]["plural"],
            kind=spec["names"]["kind"],
            namespaced=spec["scope"] == "Namespaced",
            status="status" in version.get("subresources", {}),
            generation=True,
            unconditional_update=False,
            fields={**METADATA_FIELDS, **selectable},
            schema=version["schema"]["openAPIV3Schema"],
        )


def load_definitions(directory: Path) -> list[Kind]:
    """The custom kinds that the YAML files of a directory define. ``ValueError`` names a file that is no definition."""
    kinds: list[Kind] = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            documents = [document for document in yaml.safe_load_all(path.read_text()) if isinstance(document, dict)]
            for document in documents:
                if document.get("kind") == "CustomResourceDefinition":
                    kinds.extend(from_definition(document))
        except (yaml.YAMLError, KeyError) as error:
            raise ValueError(f"{path}: not a CustomResourceDefinition: {error}") from error
    return kinds
