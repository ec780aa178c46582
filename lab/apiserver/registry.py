"""Create, update, patch and delete: what happens to an object between the request and the store.

The same steps for every kind, as in Kubernetes' generic registry: shape, metadata, defaults, validation, preconditions,
finalizers, commit. What is special to Services and to custom kinds is called from here. Everything is synchronous: a
request is carried out whole or not at all, and no other request comes in between.
"""

from __future__ import annotations

import copy
import random
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from lab.apiserver import errors, schema, services
from lab.apiserver.errors import Problem, bad_request, conflict, invalid, not_found, required, unreadable, wrong
from lab.apiserver.kinds import ENDPOINT_SLICES, EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICES, Kind
from lab.apiserver.store import Body, Store, Stored, key_of, owners

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")  # RFC 1123
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # apimachinery's: no word can come of them
_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


class Target(NamedTuple):
    """What a path names: a collection where ``name`` is empty."""

    kind: Kind
    namespace: str | None
    name: str
    subresource: str = ""
    """``status`` or nothing."""


class Registry:
    """All writes to a store. ``strict`` refuses unknown fields of custom kinds instead of dropping them."""

    def __init__(
        self, store: Store, numbers: services.ServiceNumbers, rng: random.Random, owner_gone: Callable[[], None]
    ) -> None:
        """``owner_gone`` is called when ``collect`` is due."""
        self.store = store
        self._numbers = numbers
        self._rng = rng
        self._owner_gone = owner_gone
        self._gone_owners: set[str] = set()

    # -------------------------------------------------------------- requests

    def get(self, target: Target) -> Stored:
        stored = self.store.get(target.kind, key_of(target.namespace, target.name))
        if stored is None:
            raise not_found(target.kind, target.name)
        return stored

    def create(self, kind: Kind, namespace: str | None, body: Any, *, strict: bool = False) -> Stored:
        body = _checked(kind, namespace, body)
        meta = body["metadata"]
        if meta.get("resourceVersion"):
            raise errors.StatusError(500, "", "resourceVersion should not be set on objects to be created")
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
        if kind.status and kind is not NODES:  # a node registers itself with its status
            body.pop("status", None)
        problems = _name_problems(kind, name) or self._prepare(kind, body, None, strict=strict)
        if problems:
            raise invalid(kind, name, problems)
        key = key_of(namespace, name)
        if self.store.get(kind, key) is not None:
            raise errors.already_exists(kind, name)
        return self._commit(kind, key, None, body)

    def replace(self, target: Target, body: Any, *, strict: bool = False) -> Stored:
        kind, body = target.kind, _checked(target.kind, target.namespace, body)
        if not body["metadata"].get("resourceVersion") and not kind.unconditional_update:
            raise invalid(kind, target.name, [wrong("metadata.resourceVersion", 0, "must be specified for an update")])
        return self._update(target, self.get(target), body, strict=strict)

    def merge(self, target: Target, patch: Any, *, strict: bool = False) -> Stored:
        """Apply a JSON merge patch (RFC 7386)."""
        if not isinstance(patch, dict):
            raise bad_request("error decoding patch: not a JSON object")
        old = self.get(target)
        body = _checked(target.kind, target.namespace, merged(old.body, patch))
        return self._update(target, old, body, strict=strict)

    def delete(self, target: Target, options: Any = None) -> tuple[Stored, bool]:
        """Delete, or mark for deletion what has finalizers. Returns the last state, and whether it is gone."""
        kind, old = target.kind, self.get(target)
        meta = old.body["metadata"]
        if kind is NAMESPACES:
            raise errors.method_not_allowed()
        wanted = (options.get("preconditions") or {}) if isinstance(options, dict) else {}
        for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if wanted.get(field, meta[field]) != meta[field]:
                why = f"{label} in precondition: {wanted[field]}, {label} in object meta: {meta[field]}"
                raise conflict(kind, target.name, f"Precondition failed: {why}")
        if not meta.get("finalizers"):
            return self._remove(kind, old), True
        if "deletionTimestamp" in meta:
            return old, False
        meta = {**meta, "deletionTimestamp": _now(), "deletionGracePeriodSeconds": 0}
        if kind.generation:
            meta["generation"] += 1
        return self._commit(kind, old.key, old, {**old.body, "metadata": meta}), False

    def collect(self) -> None:
        """Delete the objects all of whose owners are gone, and so on (background propagation)."""
        while self._gone_owners:
            for kind, key in self.store.dependents(self._gone_owners.pop()):
                stored = self.store.get(kind, key)
                if stored is not None and not any(self.store.exists(uid) for uid in owners(stored.body)):
                    meta = stored.body["metadata"]
                    self.delete(Target(kind, meta.get("namespace"), meta["name"]))

    # -------------------------------------------------------------- steps

    def _update(self, target: Target, old: Stored, body: Body, *, strict: bool) -> Stored:
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
        for field in _SERVER_OWNED:
            meta.pop(field, None)
            if field in before:
                meta[field] = before[field]
        if target.subresource:  # built-in kinds take metadata through /status too, custom ones do not
            given_status, body = body.get("status"), copy.deepcopy(old.body)
            body["status"] = given_status if given_status is not None else {}
            body["metadata"] = meta = body["metadata"] if kind.schema else meta
        elif kind.status:
            body.pop("status", None)
            if "status" in old.body:
                body["status"] = copy.deepcopy(old.body["status"])
        problems = self._prepare(kind, body, old, strict=strict)
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
            return self._remove(kind, old)
        return self._commit(kind, old.key, old, body)

    def _prepare(self, kind: Kind, body: Body, old: Stored | None, *, strict: bool) -> list[Problem]:
        """Defaults, allocations and validation, in place."""
        if kind.schema is not None:
            unknown = schema.prune_object(body, kind.schema)
            if unknown and strict:
                listed = ", ".join(f'unknown field "{path}"' for path in unknown)
                raise unreadable(kind, f"strict decoding error: {listed}")
            schema.fill_defaults(body, kind.schema)
            return schema.validate_object(body, kind.schema)
        if kind is SERVICES:
            services.fill_defaults(body)
            if old is not None:
                services.keep_allocated(body, old.body)
                services.drop_unneeded(body, old.body)
            problems = services.problems_of(body, old.body if old is not None else None)
            meta = body["metadata"]
            return problems or self._numbers.give(key_of(meta["namespace"], meta["name"]), body["spec"])
        if kind is NAMESPACES:
            body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = body["metadata"]["name"]
            body["spec"] = {"finalizers": ["kubernetes"]}
            body.setdefault("status", {}).setdefault("phase", "Active")
        elif kind is PODS:
            body.setdefault("status", {}).setdefault("phase", "Pending")
        elif kind is SECRETS:
            body.setdefault("type", "Opaque")
        elif kind is EVENTS:
            return _event_problems(body)
        elif kind is ENDPOINT_SLICES:
            return _slice_problems(body, old)
        return []

    def _commit(self, kind: Kind, key: str, old: Stored | None, body: Body) -> Stored:
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

    def _check_owners(self, gone: set[str]) -> None:
        if gone:
            self._gone_owners |= gone
            self._owner_gone()


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
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _checked(kind: Kind, namespace: str | None, body: Any) -> Body:
    """The body of a write, of the right shape for its kind, nulls left out as a typed decoder leaves them out."""
    if not isinstance(body, dict):
        raise unreadable(kind, "not an object")
    for field, word, expected in (("apiVersion", "API version", kind.api_version), ("kind", "kind", kind.kind)):
        given = body.get(field) or ("" if kind.schema else expected)  # what is built in, the real one fills in
        if given != expected:
            raise bad_request(f"the {word} in the data ({given}) does not match the expected {word} ({expected})")
    meta = _without_nulls(body.get("metadata") or {})
    rest = body if kind.schema else _without_nulls(body)
    checked: Body = {"kind": kind.kind, "apiVersion": kind.api_version, **rest, "metadata": meta}
    try:
        msgspec.convert(checked, kind.shape)
    except msgspec.ValidationError as error:
        raise unreadable(kind, error) from error
    if namespace is not None and meta.setdefault("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    for field in ("managedFields", "selfLink", *(() if kind.namespaced else ("namespace",))):
        meta.pop(field, None)
    return checked


def _name_problems(kind: Kind, name: str) -> list[Problem]:
    pattern, longest = (_LABEL, 63) if kind is SERVICES else (_SUBDOMAIN, 63 if kind is NAMESPACES else 253)
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if len(name) > longest:
        return [wrong("metadata.name", name, f"must be no more than {longest} characters")]
    if not pattern.fullmatch(name) or (kind is NAMESPACES and "." in name):
        why = "must consist of lower case alphanumeric characters or '-', and must start and end with one of the former"
        return [wrong("metadata.name", name, why)]
    return []


def _specified(kind: Kind, body: Body) -> Body:
    left_out = {"metadata", "status"} if kind.status else {"metadata"}
    return {name: value for name, value in body.items() if name not in left_out}


def _event_problems(body: Body) -> list[Problem]:
    about, own = body.get("involvedObject", {}).get("namespace", ""), body["metadata"]["namespace"]
    if about == own or (not about and own in {"default", "kube-system"}):
        return []
    return [wrong("involvedObject.namespace", about, "does not match event.namespace")]


def _slice_problems(body: Body, old: Stored | None) -> list[Problem]:
    kinds, address_type = ["FQDN", "IPv4", "IPv6"], body.get("addressType", "")
    if address_type not in kinds:
        return [errors.unsupported("addressType", address_type, kinds) if address_type else required("addressType")]
    if old is not None and old.body["addressType"] != address_type:
        return [wrong("addressType", address_type, "field is immutable")]
    return [
        required(f"endpoints[{index}].addresses", "must contain at least 1 address")
        for index, endpoint in enumerate(body.get("endpoints", ()))
        if not endpoint.get("addresses")
    ]
