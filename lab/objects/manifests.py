"""Manifests applied to a lab's API, and deleted again: ``lab apply`` and ``lab delete -f``.

Each document is created, or merged into the object that exists (RFC 7386: a list is replaced whole, and what the
manifest does not mention stays). A namespace that a document names is made where it is missing, so that tutorials'
manifests work unchanged. An object that the API refuses does not stop the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from cluster.api.client import AlreadyExists, ApiClient, ApiError, NotFound, connect
from cluster.api.errors import ClientConfigError
from cluster.resources import NAMESPACES, Resource
from lab.client import Lab
from lab.errors import LabError
from lab.shipped import ROOT
from lab.shipped.kinds import Whole, by_object

DEFAULT_NAMESPACE = "default"
SEEDS = ROOT / "examples" / "seeds"
"""Tutorials' manifests, as they were found."""
Verdict = Literal["created", "configured", "unchanged", "deleted", "not found", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What became of one document."""

    what: str
    """``service dev/web``, or where in which file it stands if it cannot be named."""
    verdict: Verdict
    reason: str = ""
    """Of a refusal: the API's own words, which name the field."""


@dataclass(frozen=True)
class Document:
    """One object of a manifest."""

    origin: str
    resource: Resource[Whole]
    namespace: str | None
    body: dict[str, Any]

    @property
    def name(self) -> str:
        name: str = self.body["metadata"]["name"]
        return name

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.resource.kind.lower()} {where}"


def api_of(lab: Lab) -> ApiClient:
    """A client for a lab's API server."""
    try:
        return connect(lab.kubeconfig, user_agent="berthlb-lab")
    except ClientConfigError as error:
        raise LabError(str(error)) from error


def apply_files(lab: Lab, files: Iterable[Path], namespace: str = DEFAULT_NAMESPACE) -> list[Outcome]:
    """Apply every document of these files. Raises ``LabError`` that names each object that was refused."""
    return _none_refused(apply_each(api_of(lab), files, namespace))


def apply_bodies(lab: Lab, objects: Iterable[Any], namespace: str = DEFAULT_NAMESPACE) -> list[Outcome]:
    """Apply objects as ``apply_files`` does."""
    documents = (_document(f"object {number}", body, namespace) for number, body in enumerate(objects, start=1))
    return _none_refused(_apply_documents(api_of(lab), documents))


def _none_refused(told: Iterable[Outcome]) -> list[Outcome]:
    outcomes = list(told)
    refused = [f"{outcome.what}: {outcome.reason}" for outcome in outcomes if outcome.verdict == "refused"]
    if refused:
        raise LabError("; ".join(refused))
    return outcomes


def apply_each(api: ApiClient, files: Iterable[Path], namespace: str) -> Iterator[Outcome]:
    """Apply document after document, telling what became of each. Raises ``LabError`` for a file that is unreadable."""
    return _apply_documents(api, _read(files, namespace))


def _apply_documents(api: ApiClient, documents: Iterable[Document | Outcome]) -> Iterator[Outcome]:
    for document in documents:
        if isinstance(document, Outcome):
            yield document
            continue
        try:
            yield Outcome(str(document), _apply(api, document))
        except ApiError as error:
            yield Outcome(str(document), "refused", f"{error.reason}: {error.message}")


def delete_each(api: ApiClient, files: Iterable[Path], namespace: str) -> Iterator[Outcome]:
    """Delete the objects that these files name."""
    for document in _read(files, namespace):
        if isinstance(document, Outcome):
            yield document
            continue
        yield delete_one(api, document.resource, document.namespace, document.name)


def delete_one(api: ApiClient, resource: Resource[Whole], namespace: str | None, name: str) -> Outcome:
    where = f"{namespace}/{name}" if resource.namespaced else name
    what = f"{resource.kind.lower()} {where}"
    try:
        api.delete(resource, namespace, name)
    except NotFound:
        return Outcome(what, "not found")
    except ApiError as error:
        return Outcome(what, "refused", f"{error.reason}: {error.message}")
    return Outcome(what, "deleted")


def ensure_namespace(api: ApiClient, name: str) -> None:
    try:
        api.get(NAMESPACES, None, name)
    except NotFound:
        try:
            api.create(NAMESPACES, None, {"metadata": {"name": name}})
        except AlreadyExists:
            return


def _apply(api: ApiClient, document: Document) -> Verdict:
    resource, namespace, name = document.resource, document.namespace, document.name
    if namespace is not None:
        ensure_namespace(api, namespace)
    try:
        before = api.get(resource, namespace, name)
    except NotFound:
        api.create(resource, namespace, document.body)
        return "created"
    after = api.patch(resource, namespace, name, document.body)
    return "unchanged" if after.metadata.resource_version == before.metadata.resource_version else "configured"


def _read(files: Iterable[Path], namespace: str) -> Iterator[Document | Outcome]:
    """The objects of these files, and refusals of what is none."""
    for path in files:
        for number, body in enumerate(bodies(path), start=1):
            yield _document(f"{path}, document {number}", body, namespace)


def bodies(path: Path) -> list[Any]:
    """What a file has: its documents, and the items of lists. Raises ``LabError`` where it is unreadable."""
    try:
        parts = list(yaml.safe_load_all(path.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise LabError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    found: list[Any] = []
    for part in parts:
        is_list = isinstance(part, dict) and part.get("kind") == "List"
        found += (part.get("items") or []) if is_list else [part]
    return [body for body in found if body is not None]


def _document(origin: str, body: Any, namespace: str) -> Document | Outcome:
    if not isinstance(body, dict):
        return Outcome(origin, "refused", "not an object")
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        return Outcome(origin, "refused", "metadata.name: required")
    try:
        resource = by_object(body)
    except LabError as error:
        return Outcome(origin, "refused", str(error))
    own = metadata.get("namespace") or namespace
    return Document(origin, resource, own if resource.namespaced else None, body)
