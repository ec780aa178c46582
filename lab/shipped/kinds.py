"""The kinds that a person may name on the command line or in a manifest, and where they are in the API.

They are the built-in ones that the lab's API server has, and every custom kind that ``crds/`` defines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cluster.objects import Object
from cluster.resources import Resource
from lab.errors import LabError
from lab.shipped import ROOT

CRDS = ROOT / "crds"


class Whole(Object, frozen=True):
    """An object of which only the metadata is looked at."""


@dataclass(frozen=True)
class KnownKind:
    resource: Resource[Whole]
    names: tuple[str, ...]
    """All words for it, lower case."""


def _built_in(group: str, version: str, plural: str, kind: str, *short: str, namespaced: bool = True) -> KnownKind:
    resource = Resource(group, version, plural, kind, namespaced, Whole)
    return KnownKind(resource, (plural, kind.lower(), *short))


BUILT_IN = (
    _built_in("", "v1", "namespaces", "Namespace", "ns", namespaced=False),
    _built_in("", "v1", "nodes", "Node", "no", namespaced=False),
    _built_in("", "v1", "services", "Service", "svc"),
    _built_in("", "v1", "pods", "Pod", "po"),
    _built_in("", "v1", "secrets", "Secret"),
    _built_in("", "v1", "configmaps", "ConfigMap", "cm"),
    _built_in("", "v1", "serviceaccounts", "ServiceAccount", "sa"),
    _built_in("", "v1", "events", "Event", "ev"),
    _built_in("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    _built_in("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False),
    _built_in("coordination.k8s.io", "v1", "leases", "Lease"),
)


@cache
def all_kinds() -> tuple[KnownKind, ...]:
    return (*BUILT_IN, *(kind for spec in custom_definitions(CRDS) for kind in _defined(spec)))


@cache
def custom_definitions(directory: Path) -> tuple[Mapping[str, Any], ...]:
    """The ``spec`` of each CustomResourceDefinition in a directory's YAML files."""
    documents = [each for path in sorted(directory.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    return tuple(
        each["spec"] for each in documents if isinstance(each, dict) and each.get("kind") == "CustomResourceDefinition"
    )


def _defined(spec: Mapping[str, Any]) -> list[KnownKind]:
    names = spec["names"]
    words = (names["plural"], names["kind"].lower(), *names.get("shortNames", ()))
    namespaced = spec["scope"] == "Namespaced"
    return [
        KnownKind(Resource(spec["group"], version["name"], names["plural"], names["kind"], namespaced, Whole), words)
        for version in spec["versions"]
        if version["served"] and version["storage"]
    ]


def by_word(word: str) -> Resource[Whole]:
    """The kind that a person means by ``svc``, ``service``, ``Services``. Raises ``LabError`` for a word unknown."""
    for kind in all_kinds():
        if word.lower() in kind.names:
            return kind.resource
    known = ", ".join(sorted(kind.resource.plural for kind in all_kinds()))
    raise LabError(f"no kind {word!r}; there are {known}")


def by_object(body: Mapping[str, Any]) -> Resource[Whole]:
    """The kind of a manifest's object, by its ``apiVersion`` and ``kind``. Raises ``LabError`` for one unknown."""
    version, kind = body.get("apiVersion"), body.get("kind")
    for each in all_kinds():
        if each.resource.kind == kind and each.resource.api_version == version:
            return each.resource
    raise LabError(f"no kind {kind!r} in version {version!r} here")
