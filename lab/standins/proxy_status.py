"""What kube-proxy says of itself on its node, said by its stand-in: the mode, and whether its rules are installed.

The ports, paths and answers are kube-proxy's. The mode is nftables, after which the stand-in's rules are made.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from lab.controlplane.commands import PROXY_HEALTH_PORT, PROXY_MODE_PORT

ASK_S = 2.0  # for a client to send its question
LONGEST_QUESTION = 4096  # octets

Says = Callable[[], tuple[str, str]]
"""The status line's end, and the body."""


class ProxyStatus:
    """Answers in the network namespace of the thread that makes it, until it is closed."""

    def __init__(self, installed: threading.Event) -> None:
        def health() -> tuple[str, str]:
            return ("200 OK", "{}") if installed.is_set() else ("503 Service Unavailable", "{}")

        says: dict[str, tuple[int, Says]] = {
            "/proxyMode": (PROXY_MODE_PORT, lambda: ("200 OK", "nftables")),
            "/healthz": (PROXY_HEALTH_PORT, health),
        }
        self._listeners = [_answer_at(port, path, said) for path, (port, said) in says.items()]

    def close(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()


def _answer_at(port: int, path: str, says: Says) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=_answer, args=(listener, path, says), name=f"proxy{path}", daemon=True).start()
    return listener


def _answer(listener: socket.socket, path: str, says: Says) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, contextlib.suppress(OSError):
            client.settimeout(ASK_S)
            words = client.recv(LONGEST_QUESTION).split(b" ")
            status, body = says() if words[1:2] == [path.encode()] else ("404 Not Found", "")
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            client.sendall((head + body).encode())
