"""A server that answers exactly what a test tells it to: for answers that no sound API server gives."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class ReceivedRequest:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    certificate: Any
    at: float
    """When, in monotonic seconds."""


Answer = Callable[["ScriptedConnection"], None]


class ScriptedConnection(http.server.BaseHTTPRequestHandler):
    """One client's connection, in its own thread."""

    protocol_version = "HTTP/1.1"
    server: _Listener

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        script = self.server.script
        script.asked.append(
            ReceivedRequest(self.command, self.path, dict(self.headers), body, certificate, time.monotonic())
        )
        script.answers.pop(0)(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = _handle  # noqa: N815 -- the names that http.server calls

    def log_message(self, *args: object) -> None:
        """Say nothing: the test looks at ``Script.asked``."""

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def cut(self) -> None:
        """End the connection without a word."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    script: Script

    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), ScriptedConnection)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what many of these tests are about."""


@dataclass
class Script:
    """The answers to give, in order, and what was asked."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    asked: list[ReceivedRequest] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over; answers that hang wait for it."""

    def kubeconfig(self, path: Path, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
        return write_kubeconfig(path, self.url, user, **cluster)

    def hang(self, connection: ScriptedConnection) -> None:
        """An answer: none, for as long as the test lasts."""
        self.released.wait(30)
        connection.close_connection = True


def write_kubeconfig(path: Path, server: str, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    cluster = {"server": server} | {name.replace("_", "-"): value for name, value in cluster.items()}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user or {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path


@contextmanager
def scripted(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Script]:
    """Serve on a free port of this address."""
    listener = _Listener(host)
    if tls:
        listener.socket = tls.wrap_socket(listener.socket, server_side=True)
    written = f"[{host}]" if ":" in host else host
    script = listener.script = Script(f"{'https' if tls else 'http'}://{written}:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield script
    finally:
        script.released.set()
        listener.shutdown()
        listener.server_close()


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    """An answer with a JSON body (or the very bytes)."""
    data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
    return lambda connection: connection.send(status, data, **headers)


def refusal(code: int, reason: str, message: str, **headers: str) -> Answer:
    """A ``metav1.Status``."""
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
    return answer(code, body | {"reason": reason, "message": message}, **headers)
