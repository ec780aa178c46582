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


def _fields(labels: str = "") -> Selectable:
    return {label: tuple(label.split(".")) for label in f"metadata.name metadata.namespace {labels}".split()}


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
    fields: Selectable = field(default_factory=_fields)
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


def _core(plural: str, kind: str, fields: str = "", **more: Any) -> Kind:
    return Kind("", "v1", plural, kind, fields=_fields(fields), **more)


NAMESPACES = _core("namespaces", "Namespace", "status.phase", namespaced=False, status=True)
NODES = _core("nodes", "Node", "spec.unschedulable", namespaced=False, status=True, shape=objects.Node)
SERVICES = _core(
    "services", "Service", "spec.type spec.clusterIP", status=True, returns_deleted=True, shape=objects.Service
)
PODS = _core("pods", "Pod", "spec.nodeName status.phase", status=True, returns_deleted=True)
SECRETS = _core("secrets", "Secret", "type", shape=objects.Secret)
CONFIG_MAPS = _core("configmaps", "ConfigMap")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount", returns_deleted=True)
EVENTS = _core(
    "events",
    "Event",
    "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid reason type",
)
ENDPOINT_SLICES = Kind(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True, shape=objects.EndpointSlice
)
SERVICE_CIDRS = Kind(
    "networking.k8s.io",
    "v1",
    "servicecidrs",
    "ServiceCIDR",
    namespaced=False,
    status=True,
    shape=objects.ServiceCIDR,
)
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease", unconditional_update=False)

BUILT_IN = (
    *(NAMESPACES, NODES, SERVICES, PODS, SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, EVENTS),
    *(ENDPOINT_SLICES, SERVICE_CIDRS, LEASES),
)


def from_definition(definition: Mapping[str, Any]) -> Iterable[Kind]:
    """The kind of a CustomResourceDefinition, in its storage version (other versions are not converted here)."""
    spec = definition["spec"]
    for version in spec["versions"]:
        if version["served"] and version["storage"]:
            yield Kind(
                group=spec["group"],
                version=version["name"],
                plural=spec["names"]["plural"],
                kind=spec["names"]["kind"],
                namespaced=spec["scope"] == "Namespaced",
                status="status" in version.get("subresources", {}),
                generation=True,
                unconditional_update=False,
                schema=version["schema"]["openAPIV3Schema"],
            )


def load_definitions(directory: Path) -> list[Kind]:
    """The custom kinds that the YAML files of a directory define. ``ValueError`` names a file that is no definition."""
    if not directory.is_dir():
        raise ValueError(f"{directory}: not a directory")
    kinds: list[Kind] = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            for definition in yaml.safe_load_all(path.read_text()):
                kinds += from_definition(definition)
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a CustomResourceDefinition: {' '.join(str(error).split())}") from error
    return kinds
