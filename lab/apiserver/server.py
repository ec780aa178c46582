"""HTTP: paths, queries and bodies in; objects, lists, watches and Statuses out.

Every kind has the same paths. All state is in the registry and its store, which only the event loop's thread touches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from socket import socket
from typing import Any

import msgspec
from aiohttp import web

from cluster.addresses import Family
from lab.apiserver.errors import StatusError, bad_request, details, forbidden, invalid
from lab.apiserver.faults import Asked, Faults, Rule, reason
from lab.apiserver.kinds import BUILT_IN, NAMESPACES, SERVICE_CIDRS, ServedKind, custom
from lab.apiserver.registry import Registry, Target
from lab.apiserver.selection import Selection, select
from lab.apiserver.services import ServiceNumbers
from lab.apiserver.store import Store, Stored, watch_line
from lab.apiserver.watch import ServedWatch
from lab.assets.pinned import KUBERNETES_VERSION
from lab.layout import SERVICE_NETWORKS

BODY_LIMIT = 3 * 1024 * 1024  # kube-apiserver's limit of a request's body
HISTORY = 20_000  # changes per kind that a watch can catch up on
WATCH_QUEUE = 10_000  # lines that may wait for a slow client
WATCH_TIMEOUT_S = 1800  # where the client names none: kube-apiserver's --min-request-timeout
SHUTDOWN_S = 1.0  # for answers under way when the server ends; watches are ended at once
CHUNK = 500  # initial events written at once
START_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system", "metallb-system")
FAULTS = "/lab/faults"
JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_YES = {"true", "1", "True"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)


async def serve(server: ApiServer, listeners: Sequence[socket], stop: asyncio.Event) -> None:
    """Serve on open, bound sockets until told to stop."""
    runner = web.AppRunner(
        server.application(), access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    for listener in listeners:
        await web.SockSite(runner, listener).start()
    try:
        await stop.wait()
    finally:
        await runner.cleanup()


class ApiServer:
    """The server's state, and the application that serves it. Used from one event loop's thread.

    ``service_networks``: from which Services have their ClusterIPs, that of the cluster's primary family first.
    """

    def __init__(
        self,
        *,
        history: int = HISTORY,
        watch_queue: int = WATCH_QUEUE,
        service_networks: Mapping[Family, str] = SERVICE_NETWORKS,
    ) -> None:
        self._store = Store(history)
        self._registry = Registry(self._store, ServiceNumbers(service_networks))
        self._faults = Faults()
        self._watch_queue = watch_queue
        self.version = f"v{KUBERNETES_VERSION}"
        """What it says that it is (``gitVersion``)."""
        self._watchers: dict[ServedWatch, Asked] = {}
        for name in START_NAMESPACES:
            self._registry.create(NAMESPACES, None, {"metadata": {"name": name}})
        cidr = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": list(service_networks.values())}}
        self._registry.create(SERVICE_CIDRS, None, cidr)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_LIMIT, middlewares=[self._answer])
        application.router.add_route("*", FAULTS, self._control_faults)
        application.router.add_get("/readyz", _ready)
        application.router.add_get("/version", self._say_version)
        for kind in (*BUILT_IN, *custom()):
            self._add_routes(application.router, kind)
        application.on_shutdown.append(self._end_watches)
        return application

    def _add_routes(self, router: web.UrlDispatcher, kind: ServedKind) -> None:
        collection, one = kind.path("{namespace}"), kind.path("{namespace}", "{name}")
        for path in {collection, kind.path()}:
            router.add_get(path, partial(self._list_or_watch, kind))
        router.add_post(collection, partial(self._create, kind))
        if kind is not NAMESPACES:
            router.add_delete(one, partial(self._delete, kind))
        for path in (one, *([f"{one}/{{subresource:status}}"] if kind.status else [])):
            router.add_get(path, partial(self._get, kind))
            router.add_put(path, partial(self._replace, kind))
            router.add_patch(path, partial(self._merge, kind))

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What a handler answers; refusals and failures as a Status."""
        try:
            if request.path != FAULTS:
                await self._suffer(request)
            return await handler(request)
        except StatusError as error:
            refused = error
        except web.HTTPException as error:  # an unknown path, a method that it does not have, a body over the limit
            refused = StatusError(error.status, reason(error.status), error.reason)
        except ConnectionError:
            raise
        except Exception as error:  # whatever a body contains, the server says so and goes on
            logger.exception("%s %s", request.method, request.path)
            refused = StatusError(500, "InternalError", f"Internal error occurred: {error}")
        return web.json_response(refused.status, status=refused.code, headers=refused.headers)

    async def _say_version(self, _request: web.Request) -> web.Response:
        major, minor = self.version.removeprefix("v").split(".")[:2]
        return web.json_response({"major": major, "minor": minor, "gitVersion": self.version})

    # -------------------------------------------------------------- one object

    async def _get(self, kind: ServedKind, request: web.Request) -> web.Response:
        return _object(self._registry.get(_target(kind, request)))

    async def _create(self, kind: ServedKind, request: web.Request) -> web.Response:
        body = await _body(request, JSON)
        return _object(self._registry.create(kind, request.match_info.get("namespace"), body), 201)

    async def _replace(self, kind: ServedKind, request: web.Request) -> web.Response:
        return _object(self._registry.replace(_target(kind, request), await _body(request, JSON)))

    async def _merge(self, kind: ServedKind, request: web.Request) -> web.Response:
        return _object(self._registry.merge(_target(kind, request), await _body(request, MERGE_PATCH)))

    async def _delete(self, kind: ServedKind, request: web.Request) -> web.Response:
        target, options = _target(kind, request), await _body(request, JSON) if request.can_read_body else None
        stored = self._registry.delete(target, options)
        if kind.returns_deleted:
            return _object(stored)
        about = details(kind, target.name, uid=stored.uid)
        success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}
        return web.json_response(success)

    # -------------------------------------------------------------- lists

    async def _list_or_watch(self, kind: ServedKind, request: web.Request) -> web.StreamResponse:
        selectors = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        selection = select(kind, request.match_info.get("namespace"), *selectors)
        watch = _asked(request).verb == "watch"
        return await self._watch(kind, selection, request) if watch else self._list(kind, selection, request)

    def _list(self, kind: ServedKind, selection: Selection, request: web.Request) -> web.Response:
        limit, (begun, _, after) = _whole(request, "limit"), request.query.get("continue", "").partition("/")
        version = _number("continue", begun) if begun else self._store.version
        items = self._store.snapshot(kind, version)
        items = [stored for stored in items if stored.key > after and selection.matches(stored.body)]
        meta: dict[str, Any] = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            meta["continue"], meta["remainingItemCount"] = f"{version}/{items[limit - 1].key}", len(items) - limit
            items = items[:limit]
        head = msgspec.json.encode({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta})
        body = b"".join((head[:-1], b',"items":[', b",".join(stored.json for stored in items), b"]}"))
        return web.Response(body=body, content_type=JSON)

    # -------------------------------------------------------------- watches

    async def _watch(self, kind: ServedKind, selection: Selection, request: web.Request) -> web.StreamResponse:
        bookmarks, asked = request.query.get("allowWatchBookmarks") in _YES, _asked(request)
        timeout_s = _whole(request, "timeoutSeconds") or WATCH_TIMEOUT_S
        # From here to the subscription nothing is awaited, so that no change falls between the state and the stream.
        watcher = ServedWatch(selection, self._watch_queue, lambda: self._faults.lag(asked), partial(_cut, request))
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
            await watcher.write(response, asyncio.get_running_loop().time() + timeout_s, bookmark)
            await response.write_eof()
        finally:
            watchers.discard(watcher.offer)
            del self._watchers[watcher]
        return response

    def _first_lines(
        self, request: web.Request, kind: ServedKind, selection: Selection, *, bookmarks: bool
    ) -> list[bytes]:
        """What a watch starts with: what exists, or what happened since the version that it names."""
        since, initial = _whole(request, "resourceVersion"), request.query.get("sendInitialEvents") in _YES
        if initial and request.query.get("resourceVersionMatch") != "NotOlderThan":
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise invalid(kind, "", [forbidden("resourceVersionMatch", why)])
        if initial or not since:
            present = self._store.snapshot(kind, self._store.version)
            lines = [watch_line("ADDED", stored.json) for stored in present if selection.matches(stored.body)]
            return [*lines, self._bookmark(kind, initial=True)] if initial and bookmarks else lines
        events = self._store.events_after(kind, since)
        return [line for event in events if (line := event.line(selection)) is not None]

    def _bookmark(self, kind: ServedKind, *, initial: bool = False) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
        return watch_line("BOOKMARK", msgspec.json.encode(body))

    async def _end_watches(self, _application: web.Application) -> None:
        for watcher in self._watchers:
            watcher.close()

    # -------------------------------------------------------------- faults

    async def _control_faults(self, request: web.Request) -> web.Response:
        if request.method == "DELETE":
            self._faults.clear()
        elif request.method == "POST":
            try:
                rules = msgspec.json.decode(await request.read(), type=list[Rule])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise bad_request(f"not a list of fault rules: {error}") from error
            self._faults += [rule for rule in rules if not (rule.close_watches or rule.compact)]
            for rule in rules:
                if rule.compact:
                    self._store.compact()
                for watcher, asked in self._watchers.items():
                    if rule.close_watches and rule.matches(asked):
                        watcher.close()
        for watcher in self._watchers:
            watcher.look_again()
        return web.json_response(msgspec.to_builtins(self._faults))

    async def _suffer(self, request: web.Request) -> None:
        rule = self._faults.striking(_asked(request))
        if rule is None:
            return
        await asyncio.sleep(rule.latency)
        if rule.drop:
            _cut(request)
            raise ConnectionResetError("dropped on purpose")
        if rule.status:
            raise StatusError(rule.status, reason(rule.status), "injected fault", retry_after_s=rule.retry_after)


def _cut(request: web.Request) -> None:
    """Break the connection at once."""
    if request.transport is not None:
        request.transport.abort()


async def _ready(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


def _asked(request: web.Request) -> Asked:
    verb = _VERBS.get(request.method, "")
    if verb == "get" and "name" not in request.match_info:
        verb = "watch" if request.query.get("watch") in _YES else "list"
    return Asked(request.headers.get("User-Agent", ""), request.path, verb)


def _target(kind: ServedKind, request: web.Request) -> Target:
    names = request.match_info
    return Target(kind, names.get("namespace"), names["name"], names.get("subresource", ""))


def _object(stored: Stored, status: int = 200) -> web.Response:
    return web.Response(body=stored.json, status=status, content_type=JSON)


async def _body(request: web.Request, accepted: str) -> Any:
    raw = await request.read()
    given = request.content_type if "Content-Type" in request.headers else JSON
    if given != accepted:
        raise StatusError(415, "UnsupportedMediaType", f"the body's format is unknown here: it must be {accepted}")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the object provided is unrecognized (must be of type JSON): {error}") from error


def _whole(request: web.Request, name: str) -> int:
    """A whole number of the query; 0 where there is none."""
    return _number(name, request.query.get(name) or "0")


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise bad_request(f'invalid {name}: "{text}": must be a whole number')
    return int(text)
