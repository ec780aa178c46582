"""``python -m lab.apiserver``: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket

from lab.apiserver.server import ApiServer, serve


def _listeners() -> list[socket.socket]:
    parser = argparse.ArgumentParser(prog="python -m lab.apiserver", description="A small Kubernetes API server.")
    parser.add_argument(
        "--fd", type=int, metavar="N", action="append", required=True, help="an inherited, listening socket; repeatable"
    )
    return [socket.socket(fileno=fd) for fd in parser.parse_args().fd]


async def _main(listeners: list[socket.socket]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(ApiServer(), listeners, stop)


if __name__ == "__main__":
    asyncio.run(_main(_listeners()))
