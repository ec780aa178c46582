"""HTTP: paths, queries and bodies in; objects, lists, watches and Statuses out.

Paths are parsed by hand, since every kind has the same ones. All state is in the registry and its store, and is only
touched from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from lab.apiserver import faults
from lab.apiserver.errors import (
    StatusError,
    bad_request,
    expired,
    forbidden_field,
    invalid,
    method_not_allowed,
    not_served,
    too_large,
    unsupported_media_type,
)
from lab.apiserver.faults import Asked, Faults, Rule
from lab.apiserver.kinds import BUILT_IN, NAMESPACES, Kind
from lab.apiserver.registry import Registry
from lab.apiserver.selection import Selection, select
from lab.apiserver.services import ServiceNumbers
from lab.apiserver.store import Store, Stored, watch_line
from lab.apiserver.watch import Watcher

BODY_LIMIT = 3 * 1024 * 1024  # kube-apiserver's limit of a request's body
HISTORY = 20_000  # changes per kind that a watch can catch up on
WATCH_QUEUE = 10_000  # lines that may wait for a slow client
WATCH_TIMEOUT_S = (1800, 3600)  # where the client names none: kube-apiserver's --min-request-timeout, up to twice that
INITIAL_CHUNK = 500
START_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system", "metallb-system")
MERGE_PATCH = "application/merge-patch+json"
INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Target:
    """What a path names: a collection where ``name`` is empty."""

    kind: Kind
    namespace: str | None
    name: str = ""
    subresource: str = ""


class ApiServer:
    def __init__(
        self, custom: list[Kind], *, service_cidr: str, history: int = HISTORY, watch_queue: int = WATCH_QUEUE
    ) -> None:
        rng = random.Random()
        self.store = Store(history)
        self.registry = Registry(self.store, ServiceNumbers(service_cidr, rng), rng)
        self.registry.orphaned = self._collect_soon
        self.faults = Faults()
        self._rng = rng
        self._watch_queue = watch_queue
        self._watchers: dict[Watcher, Asked] = {}
        self._kinds = {(kind.group, kind.version, kind.plural): kind for kind in (*BUILT_IN, *custom)}
        for name in START_NAMESPACES:
            self.registry.create(NAMESPACES, None, {"metadata": {"name": name}})

    def _collect_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self.registry.collect)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_LIMIT)
        application.router.add_route("*", "/{path:.*}", self.handle)
        application.on_shutdown.append(self._end_watches)
        return application

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except StatusError as refused:
            return _json(refused.status, refused.code, refused.headers)
        except web.HTTPRequestEntityTooLarge:
            return _json(too_large(BODY_LIMIT).status, 413)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/lab/faults":
            return await self._control_faults(request)
        verb = _VERBS.get(request.method, "")
        target = self._target(path) if path.startswith(("/api/", "/apis/")) else None
        if target is not None and verb == "get" and not target.name:
            verb = "watch" if request.query.get("watch") in {"true", "1", "True"} else "list"
        asked = Asked(request.headers.get("User-Agent", ""), path, verb)
        await self._suffer(request, asked)
        if target is None:
            return _fixed(path)
        if verb == "watch":
            return await self._watch(request, target, asked)
        if verb == "list":
            return self._list(request, target)
        return await self._one(request, target, verb)

    def _target(self, path: str) -> Target:
        parts = path.strip("/").split("/")
        group, parts = ("", parts[1:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[2:])
        if not parts:
            raise not_served()
        version, rest = parts[0], parts[1:]
        namespace: str | None = None
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in {"status", "finalize"}:
            namespace, rest = rest[1], rest[2:]
        if not 1 <= len(rest) <= 3:
            raise not_served()
        kind = self._kinds.get((group, version, rest[0]))
        name, subresource = (*rest[1:], "", "")[:2]
        if kind is None or (subresource and not (subresource == "status" and kind.status)):
            raise not_served()
        if (namespace is not None and not kind.namespaced) or (name and kind.namespaced and namespace is None):
            raise not_served()
        return Target(kind, namespace, name, subresource)

    # -------------------------------------------------------------- one object

    async def _one(self, request: web.Request, target: Target, verb: str) -> web.Response:
        kind, namespace, name = target.kind, target.namespace, target.name
        status, strict = target.subresource == "status", request.query.get("fieldValidation") == "Strict"
        if verb == "get":
            return _object(self.registry.get(kind, namespace, name))
        if verb == "create" and not name and (namespace is not None or not kind.namespaced):
            body = await _body(request, ("application/json",))
            return _object(self.registry.create(kind, namespace, body, strict=strict), 201)
        if verb == "update" and name:
            body = await _body(request, ("application/json",))
            return _object(self.registry.replace(kind, namespace, name, body, status=status, strict=strict))
        if verb == "patch" and name:
            body = await _body(request, (MERGE_PATCH,))
            return _object(self.registry.merge(kind, namespace, name, body, status=status, strict=strict))
        if verb == "delete" and name and not status:
            options = await _body(request, ("application/json",), empty={})
            stored, gone = self.registry.delete(kind, namespace, name, options)
            if kind.returns_deleted or not gone:
                return _object(stored)
            details = {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}
            details["uid"] = stored.uid
            success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            return _json(success, 200)
        raise method_not_allowed()

    # -------------------------------------------------------------- lists

    def _list(self, request: web.Request, target: Target) -> web.Response:
        query = request.query
        kind, selection = target.kind, self._selection(request, target)
        limit, version, after = _whole(query.get("limit", ""), "limit"), self.store.version, ""
        asked, match = (
            _whole(query.get("resourceVersion", ""), "resourceVersion"),
            query.get("resourceVersionMatch", ""),
        )
        self._check_match(kind, query.get("resourceVersion", ""), match, query.get("continue", ""))
        if query.get("continue"):
            continued, after = _decode_continue(query["continue"])
            version = continued or version
        elif match == "Exact" or (limit and asked and not match):
            version = asked
        elif asked > version:
            self.store.snapshot(kind, asked)  # refuses what is yet to come
        try:
            items = self.store.snapshot(kind, version)
        except StatusError as refused:
            if refused.code != 410 or not after:
                raise
            message = (
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter, or use the continue token in this response to retrieve the "
                "remainder of the results. Continuing with the provided token results in an inconsistent list."
            )
            raise expired(message, _encode_continue(0, after)) from refused
        items = [stored for stored in items if stored.key > after and selection.matches(stored.body)]
        meta: dict[str, Any] = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            meta["continue"] = _encode_continue(version, items[limit - 1].key)
            if not (query.get("labelSelector") or query.get("fieldSelector")):
                meta["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        head = msgspec.json.encode({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
        body = b"".join((head[:-1], b',"items":[', b",".join(stored.json for stored in items), b"]}"))
        return web.Response(body=body, content_type="application/json")

    @staticmethod
    def _check_match(kind: Kind, version: str, match: str, continue_: str) -> None:
        if not match:
            return
        if continue_:
            why = "resourceVersionMatch is forbidden when continue is provided"
        elif not version:
            why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        elif match not in {"Exact", "NotOlderThan"}:
            why = "supported values: Exact, NotOlderThan"
        elif match == "Exact" and version == "0":
            why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        else:
            return
        raise invalid(kind, "", [forbidden_field("resourceVersionMatch", why)])

    @staticmethod
    def _selection(request: web.Request, target: Target) -> Selection:
        query = request.query
        return select(target.kind, target.namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))

    # -------------------------------------------------------------- watches

    async def _watch(self, request: web.Request, target: Target, asked: Asked) -> web.StreamResponse:
        query, kind = request.query, target.kind
        selection = self._selection(request, target)
        since = _whole(query.get("resourceVersion", ""), "resourceVersion")
        bookmarks = query.get("allowWatchBookmarks") in {"true", "1", "True"}
        initial = query.get("sendInitialEvents", "")
        match = query.get("resourceVersionMatch", "")
        if initial and match != "NotOlderThan":
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise invalid(kind, "", [forbidden_field("resourceVersionMatch", why)])
        if match and not initial:
            why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            raise invalid(kind, "", [forbidden_field("resourceVersionMatch", why)])
        wants_initial = initial in {"true", "1", "True"} or (not initial and not since)
        timeout = _whole(query.get("timeoutSeconds", ""), "timeoutSeconds") or self._rng.uniform(*WATCH_TIMEOUT_S)
        deadline = asyncio.get_running_loop().time() + timeout

        # From here to the subscription nothing is awaited, so that no change falls between the state and the stream.
        watcher = Watcher(selection, self._watch_queue, lambda: self.faults.lag(asked))
        first: list[bytes] = []
        try:
            if wants_initial:
                if since > self.store.version:
                    self.store.snapshot(kind, since)  # refuses what is yet to come
                present = self.store.snapshot(kind, self.store.version)
                first = [watch_line("ADDED", stored.json) for stored in present if selection.matches(stored.body)]
                if initial and bookmarks:
                    first.append(self._bookmark(kind, INITIAL_EVENTS_END))
            elif since:
                lines = (event.line(selection) for event in self.store.events_after(kind, since))
                first = [line for line in lines if line is not None]
        except StatusError as refused:
            if refused.code != 410:
                raise
            error = watch_line("ERROR", msgspec.json.encode(refused.status))  # a watch fails from within
            return web.Response(body=error, content_type="application/json")
        collection = self.store.collection(kind)
        collection.watchers.add(watcher.offer)
        self._watchers[watcher] = asked
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            for start in range(0, len(first), INITIAL_CHUNK):
                await response.write(b"".join(first[start : start + INITIAL_CHUNK]))
            await watcher.write(response, deadline, (lambda: self._bookmark(kind)) if bookmarks else None)
            await response.write_eof()
        except ConnectionError:
            pass  # the client went away
        finally:
            collection.watchers.discard(watcher.offer)
            del self._watchers[watcher]
        return response

    def _bookmark(self, kind: Kind, annotations: dict[str, str] | None = None) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(self.store.version), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        return watch_line(
            "BOOKMARK", msgspec.json.encode({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta})
        )

    async def _end_watches(self, _application: web.Application) -> None:
        for watcher in self._watchers:
            watcher.close()

    # -------------------------------------------------------------- faults

    async def _control_faults(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            try:
                rules = msgspec.json.decode(await request.read(), type=list[Rule])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise bad_request(f"not a list of fault rules: {error}") from error
            self.faults.add(rules)
            for rule in rules:
                if rule.compact:
                    self.store.compact()
                for watcher, asked in self._watchers.items():
                    if rule.close_watches and rule.matches(asked):
                        watcher.close()
        elif request.method == "DELETE":
            self.faults.clear()
        for watcher in self._watchers:
            watcher.poke()
        return _json(self.faults.listed(), 200)

    async def _suffer(self, request: web.Request, asked: Asked) -> None:
        rule = self.faults.striking(asked)
        if rule is None:
            return
        if rule.latency:
            await asyncio.sleep(rule.latency)
        if rule.drop:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("dropped on purpose")
        if rule.status:
            headers = {"Retry-After": str(rule.retry_after)} if rule.retry_after is not None else {}
            raise StatusError(rule.status, faults.reason(rule.status), "injected fault", headers=headers)


def _fixed(path: str) -> web.Response:
    if path == "/version":
        return _json({"major": "1", "minor": "36", "gitVersion": "v1.36.0+berthlb.lab", "platform": "linux/amd64"}, 200)
    if path in {"/healthz", "/readyz", "/livez"}:
        return web.Response(text="ok")
    raise not_served()


def _json(value: Any, status: int, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _object(stored: Stored, status: int = 200) -> web.Response:
    return web.Response(body=stored.json, status=status, content_type="application/json")


async def _body(request: web.Request, accepted: tuple[str, ...], empty: Any = None) -> Any:
    raw = await request.read()
    if not raw and empty is not None:
        return empty
    if "Content-Type" in request.headers and request.content_type not in accepted:
        raise unsupported_media_type(accepted)
    if "Content-Type" not in request.headers and "application/json" not in accepted:
        raise unsupported_media_type(accepted)
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"the object provided is unrecognized (must be of type JSON): {error}") from error


def _whole(text: str, name: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise bad_request(f'invalid {name}: "{text}": must be a whole number')
    return int(text)


def _encode_continue(version: int, after: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([version, after])).decode()


def _decode_continue(token: str) -> tuple[int, str]:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[int, str])
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise bad_request("continue key is not valid") from error
