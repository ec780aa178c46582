"""Create, update, patch and delete: what happens to an object between the request and the store.

Every kind goes through the same steps, as in Kubernetes' generic registry: shape, metadata, defaults, validation,
preconditions, finalizers, commit. The registry calls what is special to Services and to custom kinds. Everything is
synchronous: a request is carried out whole or not at all, and no other request comes in between.
"""

from __future__ import annotations

import copy
import re
import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from lab.apiserver import errors, schema, services
from lab.apiserver.errors import FieldProblem, bad_request, conflict, invalid, not_found, required, unreadable, wrong
from lab.apiserver.kinds import NAMESPACES, NODES, PODS, SECRETS, SERVICES, ServedKind
from lab.apiserver.store import Body, Key, Store, Stored, key_of, owners

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")  # RFC 1123
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035
_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


class Target(NamedTuple):
    """What a path names: a collection where ``name`` is empty."""

    kind: ServedKind
    namespace: str | None
    name: str
    subresource: str = ""
    """``status`` or nothing."""


class Registry:
    """All writes to a store."""

    def __init__(self, store: Store, numbers: services.ServiceNumbers) -> None:
        self.store = store
        self._numbers = numbers

    # -------------------------------------------------------------- requests

    def get(self, target: Target) -> Stored:
        stored = self.store.get(target.kind, key_of(target.namespace, target.name))
        if stored is None:
            raise not_found(target.kind, target.name)
        return stored

    def create(self, kind: ServedKind, namespace: str | None, body: Any) -> Stored:
        body = _checked(kind, namespace, body)
        meta = body["metadata"]
        name = meta.get("name", "")
        if namespace is not None and self.store.get(NAMESPACES, namespace) is None:
            raise not_found(NAMESPACES, namespace)
        _keep_own(meta, {"uid": str(uuid.uuid4()), "creationTimestamp": _now()})
        if kind.generation:
            meta["generation"] = 1
        if kind.status and kind is not NODES:  # a node registers itself with its status
            body.pop("status", None)
        problems = _name_problems(kind, name) or self._prepare(kind, body, None)
        if problems:
            raise invalid(kind, name, problems)
        key = key_of(namespace, name)
        if self.store.get(kind, key) is not None:
            raise errors.already_exists(kind, name)
        return self._commit(kind, key, None, body)

    def replace(self, target: Target, body: Any) -> Stored:
        kind, body = target.kind, _checked(target.kind, target.namespace, body)
        if not body["metadata"].get("resourceVersion") and not kind.unconditional_update:
            raise invalid(kind, target.name, [wrong("metadata.resourceVersion", 0, "must be specified for an update")])
        return self._update(target, self.get(target), body)

    def merge(self, target: Target, patch: Any) -> Stored:
        """Apply a JSON merge patch (RFC 7386)."""
        if not isinstance(patch, dict):
            raise bad_request("error decoding patch: not a JSON object")
        old = self.get(target)
        return self._update(target, old, _checked(target.kind, target.namespace, merged(old.body, patch)))

    def delete(self, target: Target, options: Any = None) -> Stored:
        """Delete, or mark for deletion what has finalizers. Returns the last state."""
        kind, old = target.kind, self.get(target)
        meta = old.body["metadata"]
        wanted = (options.get("preconditions") or {}) if isinstance(options, dict) else {}
        for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if wanted.get(field, meta[field]) != meta[field]:
                why = f"{label} in precondition: {wanted[field]}, {label} in object meta: {meta[field]}"
                raise conflict(kind, target.name, f"Precondition failed: {why}")
        if not meta.get("finalizers"):
            self._remove(kind, old)
        elif "deletionTimestamp" not in meta:
            meta = {**meta, "deletionTimestamp": _now(), "deletionGracePeriodSeconds": 0}
            if kind.generation:
                meta["generation"] += 1
            return self._commit(kind, old.key, old, {**old.body, "metadata": meta})
        return old

    # -------------------------------------------------------------- steps

    def _update(self, target: Target, old: Stored, body: Body) -> Stored:
        kind, name, meta, before = target.kind, target.name, body["metadata"], old.body["metadata"]
        if (given := meta.setdefault("name", name)) != name:
            raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        if (meta.get("resourceVersion") or before["resourceVersion"]) != before["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise conflict(kind, name, why)
        if (meta.get("uid") or before["uid"]) != before["uid"]:
            why = f"UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise conflict(kind, name, f"Precondition failed: {why}")
        meta["resourceVersion"] = before["resourceVersion"]
        _keep_own(meta, before)
        if target.subresource:  # built-in kinds take metadata through /status too, custom ones do not
            given_status, body = body.get("status"), copy.deepcopy(old.body)
            body["status"] = given_status if given_status is not None else {}
            body["metadata"] = meta = body["metadata"] if kind.schema else meta
        elif kind.status:
            body.pop("status", None)
            if "status" in old.body:
                body["status"] = copy.deepcopy(old.body["status"])
        problems = self._prepare(kind, body, old)
        added = set(meta.get("finalizers", ())) - set(before.get("finalizers", ()))
        if added and "deletionTimestamp" in before:
            why = f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
            problems.append(errors.forbidden("metadata.finalizers", why))
        if problems:
            raise invalid(kind, name, problems)
        if kind.generation and _specified(kind, body) != _specified(kind, old.body):
            meta["generation"] += 1
        if body == old.body:
            return old  # nothing changed: no new version, nobody is told
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            self._remove(kind, old)
            return old
        return self._commit(kind, old.key, old, body)

    def _prepare(self, kind: ServedKind, body: Body, old: Stored | None) -> list[FieldProblem]:
        """Defaults, allocations and validation, in place."""
        meta = body["metadata"]
        if kind.schema is not None:
            return schema.conform(body, kind.schema)
        if kind is SERVICES:
            problems = services.prepare(body, old.body if old is not None else None)
            before = old.body["spec"] if old is not None else None
            return problems or self._numbers.give(key_of(meta["namespace"], meta["name"]), body["spec"], before)
        if kind is NAMESPACES:
            meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
            body.setdefault("status", {}).setdefault("phase", "Active")
        elif kind is PODS:
            body.setdefault("status", {}).setdefault("phase", "Pending")
        elif kind is SECRETS:
            body.setdefault("type", "Opaque")
        return []

    def _commit(self, kind: ServedKind, key: Key, old: Stored | None, body: Body) -> Stored:
        new = self.store.commit(kind, key, body)
        if kind is SERVICES:
            self._numbers.changed(key, old.body if old is not None else None, new.body)
        self._collect(kind, key)
        return new

    def _remove(self, kind: ServedKind, old: Stored) -> None:
        self.store.remove(kind, old.key)
        if kind is SERVICES:
            self._numbers.changed(old.key, old.body, None)
        for dependent in self.store.dependents(old.uid):
            self._collect(*dependent)

    def _collect(self, kind: ServedKind, key: Key) -> None:
        """Delete an object that has owners, all of which are gone (background propagation, without the wait)."""
        stored = self.store.get(kind, key)
        named = owners(stored.body) if stored is not None else set()
        if stored is not None and named and not any(self.store.exists(uid) for uid in named):
            meta = stored.body["metadata"]
            self.delete(Target(kind, meta.get("namespace"), meta["name"]))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2; the result shares nothing with the target."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _keep_own(meta: Body, own: Body) -> None:
    """Whatever the client says of them, some fields are the server's."""
    for field in _SERVER_OWNED:
        meta.pop(field, None)
        if field in own:
            meta[field] = own[field]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _checked(kind: ServedKind, namespace: str | None, body: Any) -> Body:
    """The body of a write, of the right shape for its kind, nulls left out as a typed decoder leaves them out."""
    if not isinstance(body, dict):
        raise unreadable(kind, "not an object")
    for field, word, expected in (("apiVersion", "API version", kind.api_version), ("kind", "kind", kind.kind)):
        given = body.get(field) or expected
        if given != expected:
            raise bad_request(f"the {word} in the data ({given}) does not match the expected {word} ({expected})")
    checked: Body = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {}, **_without_nulls(body)}
    try:
        msgspec.convert(checked, kind.view)
    except msgspec.ValidationError as error:
        raise unreadable(kind, error) from error
    meta = checked["metadata"]
    if namespace is not None and meta.setdefault("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    for field in ("managedFields", *(() if kind.namespaced else ("namespace",))):
        meta.pop(field, None)
    return checked


def _name_problems(kind: ServedKind, name: str) -> list[FieldProblem]:
    pattern, longest = (_LABEL, 63) if kind is SERVICES else (_SUBDOMAIN, 253)
    if not name:
        return [required("metadata.name")]
    if len(name) <= longest and pattern.fullmatch(name):
        return []
    why = f"must be at most {longest} lower case letters, digits and '-', and begin and end with a letter or digit"
    return [wrong("metadata.name", name, why)]


def _specified(kind: ServedKind, body: Body) -> Body:
    left_out = {"metadata", "status"} if kind.status else {"metadata"}
    return {name: value for name, value in body.items() if name not in left_out}
