"""The way from outside a lab to its API server: ``python -m lab.controlplane.forwarder``.

kube-apiserver makes its listening socket itself, in the network namespace of ``cp``, which nobody outside can reach.
The forwarder inherits a socket that listens outside, runs on ``cp``, and passes octets both ways. TLS is between the
client and the API server. Where the API server does not take a connection, the client's is reset.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket

CHUNK = 65_536  # octets


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its end, which is passed on as well."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _serve_client(
    host: str, port: int, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
) -> None:
    with contextlib.suppress(OSError), contextlib.closing(to_client):
        try:
            from_server, to_server = await asyncio.open_connection(host, port)
        except OSError:
            to_client.transport.abort()
            return
        with contextlib.closing(to_server):
            ways = [
                asyncio.create_task(_pass_on(from_client, to_server)),
                asyncio.create_task(_pass_on(from_server, to_client)),
            ]
            try:
                await asyncio.gather(*ways)  # what breaks one way breaks the connection
            finally:
                for way in ways:
                    way.cancel()


async def _forward(listener: socket.socket, host: str, port: int) -> None:
    async with await asyncio.start_server(lambda r, w: _serve_client(host, port, r, w), sock=listener) as server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.controlplane.forwarder")
    parser.add_argument("--fd", type=int, required=True, help="a listening socket")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where connections go")
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    asyncio.run(_forward(socket.socket(fileno=given.fd), host, int(port)))


if __name__ == "__main__":
    main()
