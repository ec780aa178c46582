"""The small HTTP server on which both daemons show their state: ``/metrics``, ``/healthz``, ``/readyz``.

A probe is a function that returns None when all is well, or one line that says what is not. That line is the body of
the 503, so ``kubectl describe pod`` shows it. What is wrong with a daemon that is ready all the same is said behind the
``ok``.

The server listens at one address or several and answers from its own thread. It reads one request per connection, and
bounds how long it waits for it and how much of it it reads.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from cluster.daemon.listen import Listen

Probe = Callable[[], str | None]
"""None: all is well. Text: what is not."""

REQUEST_TIMEOUT_S = 5.0
"""How long a client may take to send its request; kubelet's own probes give up after 1 s."""


MAX_CLIENTS = 32
"""Requests served at a time at each address; more are hung up on, so that nobody on the network can make threads
without end."""

NO_CLIENT_S = 0.1
"""Seconds to the next attempt where a client could not be accepted."""

logger = logging.getLogger(__name__)

_Request = socket.socket | tuple[bytes, socket.socket]


class CannotListenError(Exception):
    """An address that somebody else has, or that this machine has not; the text says which and why."""


class StatusServer:
    """Serves from ``start`` to ``stop``, at every address of ``listen``. ``addresses`` are these, with the port that
    the system gave where 0 was asked."""

    def __init__(
        self,
        listen: Iterable[Listen],
        registry: CollectorRegistry,
        healthy: Probe,
        ready: Probe,
        remarks: Probe = lambda: None,
    ) -> None:
        """Bind at once; nothing is served yet. Raises ``CannotListenError`` for an address that cannot be had.
        ``remarks`` are for ``/readyz``."""

        class Handler(_Handler):
            metrics: ClassVar = registry
            probes: ClassVar = {"/healthz": (healthy, lambda: None), "/readyz": (ready, remarks)}

        self._servers: list[_Server] = []
        for each in listen:
            try:
                self._servers.append(_Server(each, Handler))
            except OSError as error:
                self._close()
                raise CannotListenError(f"cannot listen on {each}: {error.strerror}") from error
        bound = [server.socket.getsockname() for server in self._servers]
        self.addresses = tuple(Listen(host, port) for host, port, *_ in bound)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="status", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. Once."""
        os.eventfd_write(self._stop, 1)
        if self._thread.is_alive():
            self._thread.join()
        self._close()
        os.close(self._stop)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ)
            for server in self._servers:
                selector.register(server, selectors.EVENT_READ, server)
            while True:
                ready = [key.data for key, _ in selector.select()]
                if None in ready:
                    return
                for server in ready:
                    server.handle_request()

    def _close(self) -> None:
        for server in self._servers:
            server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    """One listening socket. What is served at a time is bounded for each: whoever exhausts what the network may use
    does not keep the node's own probes out."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, listen: Listen, handler: type[BaseHTTPRequestHandler]) -> None:
        host = listen.host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(MAX_CLIENTS)
        super().__init__((host, listen.port), handler)
        self.socket.setblocking(False)  # a client may hang up before it is accepted

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:  # "::" takes IPv4's clients too, also with net.ipv6.bindv6only
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except BlockingIOError:
            raise
        except OSError:  # such as no descriptor to be had: the client goes on waiting, and we must not spin meanwhile
            time.sleep(NO_CLIENT_S)
            raise

    def process_request(self, request: _Request, client_address: object) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._free.release()
            raise

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: _Request, client_address: object) -> None:  # noqa: ARG002 (as socketserver calls it)
        """A client that hung up or was too slow is nobody's business. Anything else is an error of ours, which a client
        sees as a connection that is closed without an answer."""
        if not isinstance(sys.exc_info()[1], OSError):
            logger.exception("request not answered")


class _Handler(BaseHTTPRequestHandler):
    metrics: ClassVar[CollectorRegistry]
    probes: ClassVar[dict[str, tuple[Probe, Probe]]]
    """By path what makes the answer a 503, and what is to be said all the same."""
    timeout = REQUEST_TIMEOUT_S
    server_version = "berthlb"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.metrics))
        elif path in self.probes:
            probe, remarks = self.probes[path]
            trouble, remark = probe(), remarks()
            text = trouble or (f"ok, but: {remark}" if remark else "ok")
            self._answer(503 if trouble else 200, "text/plain; charset=utf-8", f"{text}\n".encode())
        else:
            self._answer(404, "text/plain; charset=utf-8", b"try /metrics, /healthz or /readyz\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that http.server uses
        """Probes come every second; their log lines would drown the decisions."""
