"""Create, update, patch and delete: what happens to an object between the request and the store.

The same steps for every kind, as in Kubernetes' generic registry: shape, metadata, defaults, validation, preconditions,
finalizers, commit. What is special to Services and to custom kinds is called from here. Everything is synchronous: a
request is carried out whole or not at all, and no other request comes in between.
"""

from __future__ import annotations

import base64
import binascii
import copy
import random
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from lab.apiserver import schema, services
from lab.apiserver.errors import (
    Problem,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    forbidden_field,
    invalid,
    modified,
    not_found,
    required,
    unsupported,
    wrong,
)
from lab.apiserver.kinds import ENDPOINT_SLICES, EVENTS, NAMESPACES, PODS, SECRETS, SERVICES, Kind
from lab.apiserver.store import Body, Store, Stored, key_of, owners

_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_SERVICE_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # apimachinery's: no word can come of them
_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


class Registry:
    """All writes to a store."""

    def __init__(self, store: Store, numbers: services.ServiceNumbers, rng: random.Random) -> None:
        self.store = store
        self._numbers = numbers
        self._rng = rng
        self.orphaned: Callable[[], None] = lambda: None
        """Called when objects may have lost their last owner: ``collect`` is due."""
        self._owners_to_check: set[str] = set()

    # -------------------------------------------------------------- requests

    def get(self, kind: Kind, namespace: str | None, name: str) -> Stored:
        stored = self.store.get(kind, key_of(namespace, name))
        if stored is None:
            raise not_found(kind, name)
        return stored

    def create(self, kind: Kind, namespace: str | None, body: Any, *, strict: bool = False) -> Stored:
        body = _checked(kind, namespace, body)
        meta = body["metadata"]
        if meta.get("resourceVersion"):
            raise StatusError(500, "", "resourceVersion should not be set on objects to be created")
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(self._rng.choices(_SUFFIX_LETTERS, k=5))
        name = meta.get("name", "")
        if namespace is not None and self.store.get(NAMESPACES, namespace) is None:
            raise not_found(NAMESPACES, namespace)
        for field in _SERVER_OWNED:
            meta.pop(field, None)
        meta["uid"], meta["creationTimestamp"] = str(uuid.UUID(int=self._rng.getrandbits(128), version=4)), _now()
        if kind.generation:
            meta["generation"] = 1
        if kind.status and kind.resource != "nodes":  # a node registers itself with its status
            body.pop("status", None)
        problems = _name_problems(kind, meta) + self._prepare(kind, body, None, strict=strict)
        if problems:
            raise invalid(kind, name, problems)
        key = key_of(namespace, name)
        if self.store.get(kind, key) is not None:
            raise already_exists(kind, name)
        return self._commit(kind, key, body)

    def replace(
        self, kind: Kind, namespace: str | None, name: str, body: Any, *, status: bool = False, strict: bool = False
    ) -> Stored:
        body = _checked(kind, namespace, body)
        meta = body["metadata"]
        if (given := meta.setdefault("name", name)) != name:
            raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        old = self.get(kind, namespace, name)
        if not meta.get("resourceVersion") and not kind.unconditional_update:
            raise invalid(kind, name, [wrong("metadata.resourceVersion", "", "must be specified for an update")])
        return self._update(kind, old, body, status=status, strict=strict)

    def merge(
        self, kind: Kind, namespace: str | None, name: str, patch: Any, *, status: bool = False, strict: bool = False
    ) -> Stored:
        """Apply a JSON merge patch (RFC 7386)."""
        if not isinstance(patch, dict):
            raise bad_request("error decoding patch: json: cannot unmarshal into an object")
        old = self.get(kind, namespace, name)
        body = _checked(kind, namespace, merged(old.body, patch))
        if body["metadata"].get("name") != name:
            raise bad_request(f"the name of the object does not match the name on the URL ({name})")
        return self._update(kind, old, body, status=status, strict=strict)

    def delete(self, kind: Kind, namespace: str | None, name: str, options: Any) -> tuple[Stored, bool]:
        """Delete, or mark for deletion what has finalizers. Returns the last state, and whether it is gone."""
        if kind is NAMESPACES:
            raise StatusError(405, "MethodNotAllowed", "this server does not delete namespaces")
        old = self.get(kind, namespace, name)
        wanted = (options.get("preconditions") or {}) if isinstance(options, dict) else {}
        for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            has = old.body["metadata"][field]
            if wanted.get(field) and wanted[field] != has:
                why = f"Precondition failed: {label} in precondition: {wanted[field]}, {label} in object meta: {has}"
                raise conflict(kind, name, why)
        meta = old.body["metadata"]
        if not meta.get("finalizers"):
            return self._remove(kind, old), True
        if "deletionTimestamp" in meta:
            return old, False
        marked = {**meta, "deletionTimestamp": _now(), "deletionGracePeriodSeconds": 0}
        if kind.generation:
            marked["generation"] = meta["generation"] + 1
        return self._commit(kind, old.key, {**old.body, "metadata": marked}), False

    # -------------------------------------------------------------- owners

    def collect(self) -> None:
        """Delete the objects all of whose owners are gone, and so on (background propagation)."""
        while self._owners_to_check:
            for kind, key in self.store.dependents(self._owners_to_check.pop()):
                stored = self.store.get(kind, key)
                if stored is not None and not any(self.store.exists(uid) for uid in owners(stored.body)):
                    meta = stored.body["metadata"]
                    self.delete(kind, meta.get("namespace"), meta["name"], None)

    def _check_owners(self, uids: set[str]) -> None:
        if uids:
            self._owners_to_check |= uids
            self.orphaned()

    # -------------------------------------------------------------- steps

    def _update(self, kind: Kind, old: Stored, body: Body, *, status: bool, strict: bool) -> Stored:
        meta, before = body["metadata"], old.body["metadata"]
        name = before["name"]
        if meta.get("resourceVersion", before["resourceVersion"]) != before["resourceVersion"]:
            raise modified(kind, name)
        if meta.get("uid", before["uid"]) != before["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise conflict(kind, name, why)
        for field in _SERVER_OWNED:
            meta.pop(field, None)
            if field in before:
                meta[field] = before[field]
        if status:
            body = _with_status_of(kind, old.body, body)
            meta = body["metadata"]
        elif kind.status:
            body.pop("status", None)
            if "status" in old.body:
                body["status"] = copy.deepcopy(old.body["status"])
        problems = self._prepare(kind, body, old, strict=strict)
        if "deletionTimestamp" in before:
            added = set(meta.get("finalizers") or ()) - set(before.get("finalizers") or ())
            if added:
                why = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
                problems.append(forbidden_field("metadata.finalizers", why))
        if problems:
            raise invalid(kind, name, problems)
        if kind.generation and _specified(kind, body) != _specified(kind, old.body):
            meta["generation"] = before["generation"] + 1
        meta["resourceVersion"] = before["resourceVersion"]
        if body == old.body:
            return old  # nothing changed: no new version, nobody is told
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            return self._remove(kind, old)
        return self._commit(kind, old.key, body)

    def _prepare(self, kind: Kind, body: Body, old: Stored | None, *, strict: bool) -> list[Problem]:
        """Defaults, allocations and validation, in place."""
        if kind.schema is not None:
            unknown = schema.prune_object(body, kind.schema)
            if unknown and strict:
                listed = ", ".join(f'unknown field "{path}"' for path in unknown)
                raise bad_request(
                    f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                    f"strict decoding error: {listed}"
                )
            schema.fill_defaults(body, kind.schema)
            return schema.validate_object(body, kind.schema)
        if kind is SERVICES:
            return self._prepare_service(body, old)
        if kind is NAMESPACES:
            body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = body["metadata"]["name"]
            body["spec"] = {"finalizers": ["kubernetes"]}
            body.setdefault("status", {}).setdefault("phase", "Active")
        elif kind is PODS:
            body.setdefault("status", {}).setdefault("phase", "Pending")
        elif kind is SECRETS:
            return _prepare_secret(body)
        elif kind is EVENTS:
            return _event_problems(body)
        elif kind is ENDPOINT_SLICES:
            return _slice_problems(body, old)
        return []

    def _prepare_service(self, body: Body, old: Stored | None) -> list[Problem]:
        services.fill_defaults(body)
        if old is None:
            body["status"] = {"loadBalancer": {}}
        else:
            services.keep_allocated(body, old.body)
            services.drop_unneeded(body, old.body)
        problems = services.validate(body, old.body if old is not None else None)
        return problems or self._numbers.give(key_of(body["metadata"]["namespace"], body["metadata"]["name"]), body)

    def _commit(self, kind: Kind, key: str, body: Body) -> Stored:
        old = self.store.get(kind, key)
        new = self.store.commit(kind, key, body)
        if kind is SERVICES:
            self._numbers.changed(key, old.body if old is not None else None, new.body)
        self._check_owners({uid for uid in owners(new.body) if not self.store.exists(uid)})
        return new

    def _remove(self, kind: Kind, old: Stored) -> Stored:
        gone = self.store.remove(kind, old.key)
        if kind is SERVICES:
            self._numbers.changed(old.key, old.body, None)
        self._check_owners({old.uid} if self.store.dependents(old.uid) else set())
        return gone


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


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _checked(kind: Kind, namespace: str | None, body: Any) -> Body:
    """The body of a write, of the right shape for its kind, nulls left out as a typed decoder leaves them out."""
    if not isinstance(body, dict):
        raise bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: not an object')
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if (given := body.get(field) or expected) != expected:
            what = "API version" if field == "apiVersion" else "kind"
            raise bad_request(f"the {what} in the data ({given}) does not match the expected {what} ({expected})")
    meta = _without_nulls(body.get("metadata") or {})
    rest = body if kind.custom else _without_nulls(body)
    checked: Body = {"kind": kind.kind, "apiVersion": kind.api_version, **rest, "metadata": meta}
    try:
        msgspec.convert(checked, kind.shape)
    except msgspec.ValidationError as error:
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {error}'
        ) from error
    if namespace is not None and meta.setdefault("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if namespace is None and not kind.namespaced:
        meta.pop("namespace", None)
    meta.pop("managedFields", None)
    meta.pop("selfLink", None)
    return checked


def _name_problems(kind: Kind, meta: Body) -> list[Problem]:
    name = meta.get("name", "")
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    label = kind is SERVICES or kind is NAMESPACES
    if len(name) > (63 if label else 253):
        return [Problem("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": must be no more characters')]
    if kind is SERVICES and not _SERVICE_NAME.match(name):
        return [
            wrong("metadata.name", name, "a DNS-1035 label must consist of lower case alphanumeric characters or '-'")
        ]
    if not _SUBDOMAIN.match(name) or (label and "." in name):
        return [
            wrong(
                "metadata.name",
                name,
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters",
            )
        ]
    return []


def _with_status_of(kind: Kind, old: Body, body: Body) -> Body:
    """The old object with the new status. Built-in kinds take metadata through /status too, custom ones do not."""
    result: Body = copy.deepcopy({name: value for name, value in old.items() if name != "status"})
    if not kind.custom:
        result["metadata"] = body["metadata"]
    if "status" in body:
        result["status"] = body["status"]
    if kind is SERVICES:
        services.fill_defaults(result)
    return result


def _specified(kind: Kind, body: Body) -> Body:
    left_out = {"metadata", "status"} if kind.status else {"metadata"}
    return {name: value for name, value in body.items() if name not in left_out}


def _prepare_secret(body: Body) -> list[Problem]:
    body.setdefault("type", "Opaque")
    for name, text in body.pop("stringData", {}).items():
        body.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
    for value in body.get("data", {}).values():
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data: {error}'
            ) from error
    return []


def _event_problems(body: Body) -> list[Problem]:
    about = body.get("involvedObject", {}).get("namespace", "")
    own = body["metadata"]["namespace"]
    if about == own or (not about and own in {"default", "kube-system"}):
        return []
    return [wrong("involvedObject.namespace", about, "does not match event.namespace")]


def _slice_problems(body: Body, old: Stored | None) -> list[Problem]:
    address_type = body.get("addressType")
    if address_type not in {"IPv4", "IPv6", "FQDN"}:
        return [
            unsupported("addressType", address_type, ["FQDN", "IPv4", "IPv6"])
            if address_type
            else required("addressType")
        ]
    if old is not None and old.body["addressType"] != address_type:
        return [wrong("addressType", address_type, "field is immutable")]
    return [
        required(f"endpoints[{index}].addresses", "must contain at least 1 address")
        for index, endpoint in enumerate(body.get("endpoints", ()))
        if not endpoint.get("addresses")
    ]
