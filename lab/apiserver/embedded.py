"""The API server inside another process: in a thread, for tests."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cluster.addresses import Family
from lab.apiserver.server import HISTORY, WATCH_QUEUE, ApiServer, serve
from lab.controlplane.credentials import write_kubeconfig
from lab.layout import SERVICE_NETWORKS


class EmbeddedApi:
    """An API server on a free port of 127.0.0.1, from ``__enter__`` to ``__exit__``."""

    def __init__(
        self,
        *,
        history: int = HISTORY,
        watch_queue: int = WATCH_QUEUE,
        service_networks: Mapping[Family, str] = SERVICE_NETWORKS,
    ) -> None:
        self.server = ApiServer(history=history, watch_queue=watch_queue, service_networks=service_networks)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="embedded-api", daemon=True)
        self.host, self.port = self._listener.getsockname()
        self.url = f"http://{self.host}:{self.port}"

    def __enter__(self) -> EmbeddedApi:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serve(self.server, [self._listener], self._stop))

    def kubeconfig(self, path: Path) -> Path:
        write_kubeconfig(path, "embedded", {"server": self.url}, {})
        return path

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request; the status code and the decoded answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            encoded = None if body is None else msgspec.json.encode(body)
            connection.request(method, path, encoded, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, msgspec.json.decode(answer.read() or b"null")
        finally:
            connection.close()

    def inject(self, **rule: Any) -> None:
        """Add one fault rule (``faults``) by its JSON names: ``inject(status=429, retryAfter=1, count=2)``."""
        self.request("POST", "/lab/faults", [rule])

    def clear_faults(self) -> None:
        self.request("DELETE", "/lab/faults")
