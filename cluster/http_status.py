"""The small HTTP server that both daemons show their state on: ``/metrics``, ``/healthz``, ``/readyz``.

A probe is a function that returns None when all is well, or one line that says what is not; that line is the body of
the 503, so that ``kubectl describe pod`` shows it. The server reads one request per connection, bounds how long it
waits for it and how much of it it reads, and answers from its own thread.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from cluster.listen import parse_listen

__all__ = ["Probe", "StatusServer", "parse_listen"]

Probe = Callable[[], str | None]
"""None: all is well. Text: what is not."""

REQUEST_TIMEOUT_S = 5.0
"""How long a client may take to send its request; kubelet's own probes give up after 1 s."""


MAX_CLIENTS = 32
"""Requests served at a time; more are hung up on, so that nobody on the network can make threads without end."""

_Request = socket.socket | tuple[bytes, socket.socket]


class StatusServer:
    """Serves until ``stop``. ``address`` is where it listens, with the port that the system gave where 0 was asked."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, healthy: Probe, ready: Probe) -> None:
        """Bind at once, so that an address that cannot be had raises ``OSError`` here; nothing is served yet."""

        class Handler(_Handler):
            metrics: ClassVar = registry
            probes: ClassVar = {"/healthz": healthy, "/readyz": ready}

        self._server = _Server(host, port, Handler)
        bound = self._server.server_address
        self.address: tuple[str, int] = (str(bound[0]), int(bound[1]))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="status", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; returns within about 0.1 s."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(MAX_CLIENTS)
        super().__init__((host, port), handler)

    def process_request(self, request: _Request, client_address: object) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        """A client that hung up or was too slow; nobody's business here."""


class _Handler(BaseHTTPRequestHandler):
    metrics: ClassVar[CollectorRegistry]
    probes: ClassVar[dict[str, Probe]]
    timeout = REQUEST_TIMEOUT_S
    server_version = "berthlb"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.metrics))
        elif path in self.probes:
            trouble = self.probes[path]()
            self._answer(503 if trouble else 200, "text/plain; charset=utf-8", f"{trouble or 'ok'}\n".encode())
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
