"""The Kubernetes API: requests out, frozen views or typed errors in.

Authentication, TLS and transport are the official client's: its ``Configuration``, and the urllib3 pool that it sets up
for one. Its models are not used, nor is its way of sending through that pool, which looks up the server and guesses at
content types for each request: a fifth of a write's CPU. Answers stay bytes until msgspec decodes them into the views
of ``cluster.objects``, which skip what nobody reads.

Every request has a connect and a read timeout, and nothing is repeated here: a failure becomes one of
``cluster.api.errors`` and the caller decides. One ``ApiClient`` serves all threads of a process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import urllib3

from cluster.api import credentials
from cluster.api.errors import (
    AlreadyExists,
    ApiError,
    ClientConfigError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    ServerError,
    Throttled,
    TimedOut,
    Unauthorized,
    Undecodable,
    Unreachable,
    refusal,
)
from cluster.api.listwatch import PAGE_SIZE, SILENCE_S
from cluster.api.outages import Outages
from cluster.objects import ListMeta, Object, RawList, RawWatchEvent, ServerVersion, decode
from cluster.resources import (
    CONFIG_MAPS,
    CONFIGURATION_STATES,
    ENDPOINT_SLICES,
    EVENTS,
    IP_ADDRESS_POOLS,
    L2_ADVERTISEMENTS,
    LEASES,
    NAMESPACES,
    NODES,
    SECRETS,
    SERVICE_L2_STATUSES,
    SERVICES,
    Resource,
)

with credentials.bare_packages("kubernetes"):
    from kubernetes.client.rest import RESTClientObject

__all__ = [
    "CONFIGURATION_STATES",
    "CONFIG_MAPS",
    "ENDPOINT_SLICES",
    "EVENTS",
    "IP_ADDRESS_POOLS",
    "L2_ADVERTISEMENTS",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "SECRETS",
    "SERVICES",
    "SERVICE_L2_STATUSES",
    "AlreadyExists",
    "ApiClient",
    "ApiError",
    "ClientConfigError",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "Page",
    "Resource",
    "ServerError",
    "Throttled",
    "TimedOut",
    "Unauthorized",
    "Undecodable",
    "Unreachable",
    "WatchStream",
    "connect",
]

CONNECT_S = 5.0  # a SYN that is lost is sent again after 1 s and 3 s
READ_S = 10.0  # one object; the server answers in milliseconds, or is in trouble
PAGE_READ_S = 30.0  # a page of 500 from a server that has just started and reads them from etcd
CONNECTIONS = (
    16  # kept open: one per watched kind and a few for writes; more are made when needed, and closed after use
)

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. ``undecodable`` names the objects that the view could not read, each with the reason."""

    items: tuple[T, ...]
    metadata: ListMeta
    undecodable: tuple[str, ...] = ()


class ReadOnlyError(Exception):
    """A write was asked of a client that only reads. A defect of whoever asked: nothing was sent."""


def connect(kubeconfig: Path | None, *, user_agent: str, read_only: bool = False) -> ApiClient:
    """A client for the cluster that ``kubeconfig`` names, or with None for the one whose pod we are. Sends nothing yet.

    A ``read_only`` one never sends anything but GET: every request passes the one place that sees to it.
    Raises ``ClientConfigError``, whose text is one line for the user.
    """
    configuration = credentials.load(kubeconfig)
    configuration.retries = False  # neither repeats nor redirects: a redirect would carry our token elsewhere
    configuration.connection_pool_maxsize = CONNECTIONS
    configuration.keep_alive = True  # the kernel notices a server that vanished under an idle watch
    return ApiClient(configuration, user_agent, read_only=read_only)


class ApiClient:
    """See the module's docstring. Made by ``connect``.

    Every method may raise any ``ApiError``; those named are the ones to expect.
    """

    def __init__(self, configuration: Any, user_agent: str, *, read_only: bool = False) -> None:
        self._read_only = read_only
        self._authorization = credentials.Authorization(configuration)
        pools: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
        self._connections = pools.connection_from_url(configuration.host)
        server = urlsplit(configuration.host)
        whole_urls = pools.proxy is not None and server.scheme == "http"  # with TLS a proxy is no more than a tunnel
        self._before_path = configuration.host if whole_urls else server.path
        self.server: str = configuration.host
        """Where it is, as it was configured."""
        self._user_agent = user_agent
        self._field_manager = user_agent.partition("/")[0]
        """Under this name ``metadata.managedFields`` lists what we write."""
        self._outages = Outages()
        self._outages_lock = threading.Lock()

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()

    def note_failure(self, who: Hashable, kind: str, error: ApiError | str) -> None:
        """Whoever follows a kind says here that a request of his has failed, for the log."""
        with self._outages_lock:
            line = self._outages.failed(who, kind, error, time.monotonic())
        if line is not None:
            logger.warning(line.text, extra=line.extra)

    def note_working(self, who: Hashable) -> None:
        """And here that one has worked."""
        with self._outages_lock:
            line = self._outages.works(who, time.monotonic())
        if line is not None:
            logger.info(line.text, extra=line.extra)

    # -------------------------------------------------------------------- reading

    def check_ready(self) -> None:
        """Return if the server says that it is ready (``/readyz``). Raises ``ServerError`` where it is not yet."""
        self._ask("GET", "/readyz")

    def server_version(self) -> str:
        """As ``/version`` tells it (``gitVersion``), for example ``v1.36.3``."""
        body = self._ask("GET", "/version")
        try:
            return decode(body, ServerVersion).git_version
        except msgspec.DecodeError as error:
            raise Undecodable(200, "NotAVersion", str(error)) from error

    def get(self, resource: Resource[T], namespace: str | None, name: str, *, limit_s: float | None = None) -> T:
        """The object as it is now, given up after ``limit_s`` seconds. Raises ``NotFound``."""
        return self._decode(resource, self._ask("GET", resource.path(namespace, quote(name, safe="")), limit_s=limit_s))

    def list_page(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = PAGE_SIZE,
        continue_: str = "",
    ) -> RawList:
        """One page, its items undecoded; ``limit`` 0 asks for everything at once.

        Raises ``Gone`` when the ``continue_`` token is older than the server's history.
        """
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": str(limit) if limit else None,
            "continue": continue_ or None,
        }
        body = self._ask("GET", resource.path(namespace), query, read_s=PAGE_READ_S)
        try:
            return decode(body, RawList)
        except msgspec.DecodeError as error:
            raise Undecodable(200, "NotAList", f"{resource.plural}: {error}") from error

    def list_pages(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = PAGE_SIZE,
    ) -> Iterator[Page[T]]:
        """Everything, page by page, all from one moment. Raises ``Gone`` in the middle if that takes over five minutes:
        start again."""
        continue_ = ""
        while True:
            raw = self.list_page(
                resource,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                limit=limit,
                continue_=continue_,
            )
            items: list[T] = []
            undecodable: list[str] = []
            for item in raw.items:
                try:
                    items.append(decode(item, resource.view))
                except msgspec.DecodeError as error:
                    undecodable.append(f"{describe(item)}: {error}")
            yield Page(tuple(items), raw.metadata, tuple(undecodable))
            continue_ = raw.metadata.continue_
            if not continue_:
                return

    def watch(
        self,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str = "",
        initial_events: bool = False,
        timeout_s: int = 300,
        silence_s: float = SILENCE_S,
    ) -> WatchStream:
        """The changes after ``resource_version``, with bookmarks, for ``timeout_s`` seconds (the server ends it then).

        ``initial_events`` has the server send all that exists first, closed by a bookmark (``sendInitialEvents``).
        Nothing heard for ``silence_s`` seconds ends the stream with ``TimedOut``. Raises ``Gone`` when the server's
        history does not reach back to ``resource_version``, ``Invalid`` when it does not know ``sendInitialEvents``.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "resourceVersion": resource_version or None,
            "sendInitialEvents": "true" if initial_events else None,
            "resourceVersionMatch": "NotOlderThan" if initial_events else None,
            "timeoutSeconds": str(timeout_s),
        }
        response = self._open("GET", resource.path(namespace), query, read_s=silence_s)
        if response.status >= 300:
            self._refuse(response)
        return WatchStream(response)

    # -------------------------------------------------------------------- writing

    def create(self, resource: Resource[T], namespace: str | None, body: Body, *, limit_s: float | None = None) -> T:
        """Make an object; ``apiVersion`` and ``kind`` are filled in. ``limit_s`` as for ``patch``. Raises
        ``AlreadyExists``, ``Invalid``."""
        typed = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return self._decode(resource, self._ask("POST", resource.path(namespace), body=typed, limit_s=limit_s))

    def replace(
        self, resource: Resource[T], namespace: str | None, name: str, body: Body, *, subresource: str | None = None
    ) -> T:
        """Write the whole object (or its subresource). With ``metadata.resourceVersion`` in ``body``, only if nobody
        wrote since. Raises ``NotFound``, ``Conflict``, ``Invalid``."""
        typed = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        path = resource.path(namespace, quote(name, safe=""), subresource)
        return self._decode(resource, self._ask("PUT", path, body=typed))

    def patch(
        self,
        resource: Resource[T],
        namespace: str | None,
        name: str,
        body: Body,
        *,
        subresource: str | None = None,
        limit_s: float | None = None,
    ) -> T:
        """Merge ``body`` into the object (RFC 7386: null removes, lists are replaced whole). With
        ``metadata.resourceVersion`` in ``body``, only if nobody wrote since.

        ``limit_s`` is after how many seconds at the latest the request has taken effect or never will: by then we have
        given up, and so has the server, which is told the limit. Raises ``NotFound``, ``Conflict``, ``Invalid``."""
        path = resource.path(namespace, quote(name, safe=""), subresource)
        answer = self._ask("PATCH", path, body=body, content_type="application/merge-patch+json", limit_s=limit_s)
        return self._decode(resource, answer)

    def delete(
        self,
        resource: Resource[T],
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_s: int | None = None,
        limit_s: float | None = None,
    ) -> None:
        """Delete the object; finalizers may keep it for a while, and a pod's kubelet for ``grace_period_s`` (by default
        as the pod says). ``limit_s`` as for ``patch``. Raises ``NotFound``, and ``Conflict`` where ``uid`` or
        ``resource_version`` is given and the object has another."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {key: value for key, value in preconditions.items() if value},
        }
        if grace_period_s is not None:
            body["gracePeriodSeconds"] = grace_period_s
        self._ask("DELETE", resource.path(namespace, quote(name, safe="")), body=body, limit_s=limit_s)

    # -------------------------------------------------------------------- one request

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None] | None = None,
        *,
        body: Body | None = None,
        content_type: str = "application/json",
        read_s: float = READ_S,
        limit_s: float | None = None,
    ) -> bytes:
        """The body of a successful answer."""
        connect_s, query = CONNECT_S, query or {}
        if method in {"POST", "PUT", "PATCH"}:
            query = {**query, "fieldManager": self._field_manager}
        if limit_s is not None:
            connect_s = min(connect_s, limit_s / 3)
            read_s = min(read_s, limit_s - connect_s)
            query = {**query, "timeout": f"{read_s:.3f}s"}
        response = self._open(
            method, path, query, body=body, content_type=content_type, read_s=read_s, connect_s=connect_s
        )
        if response.status >= 300:
            self._refuse(response)
        return _read(response)

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None],
        *,
        read_s: float,
        connect_s: float = CONNECT_S,
        body: Body | None = None,
        content_type: str = "application/json",
    ) -> urllib3.HTTPResponse:
        """Send a request and read the answer's head."""
        if self._read_only and method != "GET":
            raise ReadOnlyError(f"{method} {path}")
        asked = urlencode({key: value for key, value in query.items() if value is not None})
        url = f"{self._before_path}{path}" + (f"?{asked}" if asked else "")
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if body is not None:
            headers["Content-Type"] = content_type
        authorization = self._authorization.header()
        if authorization:
            headers["Authorization"] = authorization
        try:
            return self._connections.urlopen(  # type: ignore[return-value]  # which it is, but for the base class's name
                method,
                url,
                headers=headers,
                body=None if body is None else msgspec.json.encode(body),
                timeout=urllib3.Timeout(connect=connect_s, read=read_s),
                redirect=False,
                assert_same_host=False,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise _transport_error(error) from error

    @staticmethod
    def _refuse(response: urllib3.HTTPResponse) -> NoReturn:
        raise refusal(response.status, _read(response), response.headers.get("Retry-After"))

    @staticmethod
    def _decode(resource: Resource[T], body: bytes) -> T:
        try:
            return decode(body, resource.view)
        except msgspec.DecodeError as error:
            raise Undecodable(200, "NotAnObject", f"{describe(body)}: {error}") from error


class WatchStream:
    """An open watch: iterate over its events. Ends when the server ends it, or after ``interrupt``.

    Iterating raises ``TimedOut`` after silence, ``Unreachable`` when the connection breaks, ``Undecodable`` when a
    line is no watch event. Close it, or use it as a context manager: the connection cannot be used again.
    """

    def __init__(self, response: urllib3.HTTPResponse) -> None:
        self._response = response

    def __enter__(self) -> WatchStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[RawWatchEvent]:
        rest = b""
        while True:
            try:
                received = self._response.read1(1 << 16)
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # ValueError: closed meanwhile
                raise _transport_error(error) from error
            if not received:
                return
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                if line.strip():
                    yield _event(line)

    def interrupt(self) -> None:
        """End the iteration, from another thread, at once."""
        with suppress(OSError, RuntimeError, ValueError):  # it has ended already
            self._response.shutdown()

    def close(self) -> None:
        """Give up the connection."""
        self._response.close()


def _event(line: bytes) -> RawWatchEvent:
    try:
        return decode(line, RawWatchEvent)
    except msgspec.DecodeError as error:
        raise Undecodable(200, "NotAnEvent", f"{line[:200]!r}: {error}") from error


def _read(response: urllib3.HTTPResponse) -> bytes:
    """The whole body; the connection goes back to the pool."""
    try:
        body: bytes = response.data
    except (urllib3.exceptions.HTTPError, OSError) as error:
        response.close()
        raise _transport_error(error) from error
    return body


def _transport_error(error: Exception) -> Unreachable:
    silent = isinstance(error, urllib3.exceptions.TimeoutError)
    return (TimedOut if silent else Unreachable)(0, type(error).__name__, " ".join(str(error).split()))


def describe(raw: bytes | msgspec.Raw) -> str:
    """``namespace/name`` of an object that its view cannot read, for the log."""
    try:
        return decode(raw, Object).key
    except msgspec.DecodeError:
        return "an object without readable metadata"
