"""``python -m lab.apiserver``: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import socket
import sys
from pathlib import Path

from lab.apiserver.embedded import CRDS, SERVICE_CIDR, serve
from lab.apiserver.kinds import load_definitions
from lab.apiserver.server import ApiServer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.apiserver", description="A small Kubernetes API server.")
    parser.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:0", help="plain HTTP; port 0: a free one")
    parser.add_argument(
        "--fd",
        type=int,
        metavar="N",
        action="append",
        help="a listening socket, instead of --listen; repeatable",
    )
    parser.add_argument("--port-file", type=Path, help="where to write the port once it listens")
    parser.add_argument("--crds", type=Path, default=CRDS, metavar="DIR", help="CustomResourceDefinitions to serve")
    parser.add_argument("--service-cidr", default=SERVICE_CIDR, metavar="CIDR", help="where ClusterIPs come from")
    return parser.parse_args()


def _listeners(arguments: argparse.Namespace) -> list[socket.socket]:
    if arguments.fd is not None:
        return [socket.socket(fileno=fd) for fd in arguments.fd]
    host, _, port = arguments.listen.rpartition(":")
    return [socket.create_server((host.strip("[]"), int(port)), backlog=1024)]


async def _main(arguments: argparse.Namespace, listeners: list[socket.socket]) -> None:
    server = ApiServer(load_definitions(arguments.crds), service_cidr=arguments.service_cidr)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if arguments.port_file is not None:
        arguments.port_file.write_text(f"{listeners[0].getsockname()[1]}\n")
    await serve(server, listeners, stop)


def main() -> int:
    arguments = _arguments()
    try:
        ipaddress.IPv4Network(arguments.service_cidr)
        listeners = _listeners(arguments)
        asyncio.run(_main(arguments, listeners))
    except (ValueError, OSError) as error:
        print(f"python -m lab.apiserver: {error}", file=sys.stderr)  # what the user reads
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
