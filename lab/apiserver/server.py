"""HTTP: paths, queries and bodies in; objects, lists, watches and Statuses out.

Paths are parsed by hand, since every kind has the same ones. All state is in the registry and its store, and is only
touched from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from typing import Any

import msgspec
from aiohttp import web

from lab.apiserver import errors
from lab.apiserver.errors import StatusError, bad_request, details, forbidden, invalid, not_served
from lab.apiserver.faults import Asked, Faults, Rule, reason
from lab.apiserver.kinds import BUILT_IN, NAMESPACES, SERVICE_CIDRS, Kind
from lab.apiserver.registry import Registry, Target
from lab.apiserver.selection import select
from lab.apiserver.services import ServiceNumbers
from lab.apiserver.store import Store, Stored, watch_line
from lab.apiserver.watch import Watcher

BODY_LIMIT = 3 * 1024 * 1024  # kube-apiserver's limit of a request's body
HISTORY = 20_000  # changes per kind that a watch can catch up on
WATCH_QUEUE = 10_000  # lines that may wait for a slow client
WATCH_TIMEOUT_S = (1800, 3600)  # where the client names none: kube-apiserver's --min-request-timeout, up to twice that
CHUNK = 500  # initial events written at once
START_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system", "metallb-system")
JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_YES = {"true", "1", "True"}
_MATCHES = {("Exact", True), ("NotOlderThan", True), ("NotOlderThan", False)}

logger = logging.getLogger(__name__)


class ApiServer:
    """The server's state, and the application that serves it. Used from one event loop's thread."""

    def __init__(
        self, custom: list[Kind], *, service_cidr: str, history: int = HISTORY, watch_queue: int = WATCH_QUEUE
    ) -> None:
        self._rng = random.Random()
        self._store = Store(history)
        numbers = ServiceNumbers(service_cidr, self._rng)
        self._registry = Registry(self._store, numbers, self._rng, self._collect_soon)
        self._faults = Faults()
        self._watch_queue = watch_queue
        self._watchers: dict[Watcher, Asked] = {}
        self._kinds = {(kind.group, kind.version, kind.plural): kind for kind in (*BUILT_IN, *custom)}
        for name in START_NAMESPACES:
            self._registry.create(NAMESPACES, None, {"metadata": {"name": name}})
        self._registry.create(
            SERVICE_CIDRS, None, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [service_cidr]}}
        )

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_LIMIT)
        application.router.add_route("*", "/{path:.*}", self._handle)
        application.on_shutdown.append(self._end_watches)
        return application

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except StatusError as error:
            refused = error
        except web.HTTPRequestEntityTooLarge:
            refused = StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {BODY_LIMIT}")
        except ConnectionError:
            raise
        except Exception as error:  # whatever a body contains, the server says so and goes on
            logger.exception("%s %s", request.method, request.path)
            refused = StatusError(500, "InternalError", f"Internal error occurred: {error}")
        return _json(refused.status, refused.code, refused.headers)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, verb = request.path, _VERBS.get(request.method, "")
        if path == "/lab/faults":
            return await self._control_faults(request)
        target = self._target(path) if path.startswith(("/api/", "/apis/")) else None
        if target is not None and verb == "get" and not target.name:
            verb = "watch" if request.query.get("watch") in _YES else "list"
        asked = Asked(request.headers.get("User-Agent", ""), path, verb)
        await self._suffer(request, asked)
        if target is None:
            return _fixed(path)
        if verb == "watch":
            return await self._watch(request, target, asked)
        return self._list(request, target) if verb == "list" else await self._one(request, target, verb)

    def _target(self, path: str) -> Target:
        _, root, *parts = path.rstrip("/").split("/")
        group = parts.pop(0) if root == "apis" and parts else ""
        version, *rest = parts or [""]
        namespace: str | None = None
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in {"status", "finalize"}:
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource, *more = (*rest, "", "", "")
        kind = self._kinds.get((group, version, plural))
        if kind is None or any(more) or subresource not in {"", "status" if kind.status else ""}:
            raise not_served()
        if (namespace is not None and not kind.namespaced) or (name and kind.namespaced and namespace is None):
            raise not_served()
        return Target(kind, namespace, name, subresource)

    # -------------------------------------------------------------- one object

    async def _one(self, request: web.Request, target: Target, verb: str) -> web.Response:
        kind, name, strict = target.kind, target.name, request.query.get("fieldValidation") == "Strict"
        if verb == "get":
            return _object(self._registry.get(target))
        if verb == "create" and not name and (target.namespace is not None or not kind.namespaced):
            body = await _body(request, JSON)
            return _object(self._registry.create(kind, target.namespace, body, strict=strict), 201)
        if verb == "update" and name:
            return _object(self._registry.replace(target, await _body(request, JSON), strict=strict))
        if verb == "patch" and name:
            return _object(self._registry.merge(target, await _body(request, MERGE_PATCH), strict=strict))
        if verb == "delete" and name and not target.subresource:
            stored, gone = self._registry.delete(target, await _body(request, JSON) if request.can_read_body else None)
            if kind.returns_deleted or not gone:
                return _object(stored)
            success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            return _json({**success, "details": details(kind, name, uid=stored.uid)})
        raise errors.method_not_allowed()

    # -------------------------------------------------------------- lists

    def _list(self, request: web.Request, target: Target) -> web.Response:
        kind, query, version, after = target.kind, request.query, self._store.version, ""
        selectors = query.get("labelSelector", ""), query.get("fieldSelector", "")
        selection = select(kind, target.namespace, *selectors)
        limit, asked = _whole(request, "limit"), _whole(request, "resourceVersion")
        match, token = query.get("resourceVersionMatch", ""), query.get("continue", "")
        if match and (token or not query.get("resourceVersion") or (match, asked > 0) not in _MATCHES):
            why = "needs a resourceVersion (but for Exact not 0), no continue, and is either Exact or NotOlderThan"
            raise invalid(kind, "", [forbidden("resourceVersionMatch", why)])
        if token:
            version, after = _decode_continue(token)
        elif match == "Exact" or asked > version or (limit and asked and not match):
            version = asked
        items = self._store.snapshot(kind, version)
        items = [stored for stored in items if stored.key > after and selection.matches(stored.body)]
        meta: dict[str, Any] = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            meta["continue"] = _encode_continue(version, items[limit - 1].key)
            if not any(selectors):
                meta["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        head = msgspec.json.encode({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
        body = b"".join((head[:-1], b',"items":[', b",".join(stored.json for stored in items), b"]}"))
        return web.Response(body=body, content_type=JSON)

    # -------------------------------------------------------------- watches

    async def _watch(self, request: web.Request, target: Target, asked: Asked) -> web.StreamResponse:
        kind, query, loop = target.kind, request.query, asyncio.get_running_loop()
        bookmarks = query.get("allowWatchBookmarks") in _YES
        timeout_s = _whole(request, "timeoutSeconds") or self._rng.uniform(*WATCH_TIMEOUT_S)
        selection = select(kind, target.namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))

        def cut() -> None:
            if request.transport is not None:
                request.transport.abort()

        # From here to the subscription nothing is awaited, so that no change falls between the state and the stream.
        watcher = Watcher(selection, self._watch_queue, lambda: self._faults.lag(asked), cut)
        try:
            first = self._first_lines(request, kind, selection, bookmarks=bookmarks)
        except StatusError as error:
            if error.code != 410:
                raise
            return web.Response(body=watch_line("ERROR", msgspec.json.encode(error.status)), content_type=JSON)
        watchers = self._store.collection(kind).watchers
        watchers.add(watcher.offer)
        self._watchers[watcher] = asked
        try:
            response = web.StreamResponse(headers={"Content-Type": JSON, "Cache-Control": "no-cache, private"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            for start in range(0, len(first), CHUNK):
                await response.write(b"".join(first[start : start + CHUNK]))
            bookmark = (lambda: self._bookmark(kind)) if bookmarks else None
            await watcher.write(response, loop.time() + timeout_s, bookmark)
            await response.write_eof()
        finally:
            watchers.discard(watcher.offer)
            del self._watchers[watcher]
        return response

    def _first_lines(self, request: web.Request, kind: Kind, selection: Any, *, bookmarks: bool) -> list[bytes]:
        """What a watch starts with: what exists, or what happened since the version that it names."""
        since, initial = _whole(request, "resourceVersion"), request.query.get("sendInitialEvents", "")
        if request.query.get("resourceVersionMatch", "") != ("NotOlderThan" if initial else ""):
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, which is for nothing else"
            raise invalid(kind, "", [forbidden("resourceVersionMatch", why)])
        if initial in _YES or (not initial and not since):
            present = self._store.snapshot(kind, max(since, self._store.version))
            lines = [watch_line("ADDED", stored.json) for stored in present if selection.matches(stored.body)]
            return [*lines, self._bookmark(kind, initial=True)] if initial and bookmarks else lines
        events = self._store.events_after(kind, since) if since else []
        return [line for event in events if (line := event.line(selection)) is not None]

    def _bookmark(self, kind: Kind, *, initial: bool = False) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
        return watch_line("BOOKMARK", msgspec.json.encode(body))

    async def _end_watches(self, _application: web.Application) -> None:
        for watcher in self._watchers:
            watcher.close()

    def _collect_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._registry.collect)

    # -------------------------------------------------------------- faults

    async def _control_faults(self, request: web.Request) -> web.Response:
        if request.method == "DELETE":
            self._faults.clear()
        elif request.method == "POST":
            try:
                rules = msgspec.json.decode(await request.read(), type=list[Rule])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise bad_request(f"not a list of fault rules: {error}") from error
            self._faults.add(rules)
            for rule in rules:
                if rule.compact:
                    self._store.compact()
                for watcher, asked in self._watchers.items():
                    if rule.close_watches and rule.matches(asked):
                        watcher.close()
        for watcher in self._watchers:
            watcher.look_again()
        return _json(self._faults.listed())

    async def _suffer(self, request: web.Request, asked: Asked) -> None:
        rule = self._faults.striking(asked)
        if rule is None:
            return
        await asyncio.sleep(rule.latency)
        if rule.drop:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("dropped on purpose")
        if rule.status:
            raise StatusError(rule.status, reason(rule.status), "injected fault", retry_after_s=rule.retry_after)


def _fixed(path: str) -> web.Response:
    if path == "/version":
        return _json({"major": "1", "minor": "36", "gitVersion": "v1.36.0+berthlb.lab", "platform": "linux/amd64"})
    if path in {"/healthz", "/readyz", "/livez"}:
        return web.Response(text="ok")
    raise not_served()


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=JSON, headers=headers)


def _object(stored: Stored, status: int = 200) -> web.Response:
    return web.Response(body=stored.json, status=status, content_type=JSON)


async def _body(request: web.Request, accepted: str) -> Any:
    raw = await request.read()
    given = request.content_type if "Content-Type" in request.headers else JSON
    if given != accepted:
        raise errors.unsupported_media_type(accepted)
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the object provided is unrecognized (must be of type JSON): {error}") from error


def _whole(request: web.Request, name: str) -> int:
    text = request.query.get(name, "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise bad_request(f'invalid {name}: "{text}": must be a whole number')
    return int(text)


def _encode_continue(version: int, after: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([version, after])).decode()


def _decode_continue(token: str) -> tuple[int, str]:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[int, str])
    except (msgspec.DecodeError, ValueError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
