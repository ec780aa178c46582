"""A workload's HTTP server, which answers each request with its node, its pod and the client's address.

The answer is ``{"node": "node-1", "pod": "web-1", "client": "172.18.0.3", "path": "/"}``. HTTP/1.1 connections persist,
as clients expect; after a request with ``Connection: close``, or of HTTP/1.0, the connection is closed. A request with
a body is answered like others, and its body skipped where its length is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Sequence
from typing import cast

LIMIT = 65_536  # octets of one request's head; more is not a request to a test server


class _Connection(asyncio.Protocol):
    """One client: heads in, answers out."""

    def __init__(self, node: str, pod: str) -> None:
        self.who = {"node": node, "pod": pod}
        self.received = b""
        self.skip = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.client = transport.get_extra_info("peername")[0]

    def data_received(self, data: bytes) -> None:
        self.received += data
        while not self.transport.is_closing():
            skipped = min(self.skip, len(self.received))
            self.received, self.skip = self.received[skipped:], self.skip - skipped
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end:
                if len(head) > LIMIT:
                    self.transport.close()
                return
            self.received = rest
            self.answer(head.decode("latin-1").split("\r\n"))

    def answer(self, head: list[str]) -> None:
        words = head[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.close()
            return
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        length = fields.get("content-length", "0")
        self.skip = int(length) if length.isdecimal() else 0
        keep = words[2] == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
        body = json.dumps(self.who | {"client": self.client, "path": words[1]}).encode() + b"\n"
        answer = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self.transport.write(answer.encode() + (b"" if words[0] == "HEAD" else body))
        if not keep:
            self.transport.close()


async def _serve(node: str, pod: str, listeners: list[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for listener in listeners:
            server = await loop.create_server(lambda: _Connection(node, pod), sock=listener)
            await stack.enter_async_context(server)
        await asyncio.get_running_loop().create_future()


def serve(node: str, pod: str, descriptors: Sequence[int]) -> None:
    """Answer on these listening sockets until killed."""
    asyncio.run(_serve(node, pod, [socket.socket(fileno=fd) for fd in descriptors]))
