"""``python -m lab.apiserver``: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from ipaddress import ip_network

from cluster.addresses import Family
from lab.apiserver.server import ApiServer, serve
from lab.layout import SERVICE_NETWORKS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.apiserver", description="A small Kubernetes API server.")
    parser.add_argument(
        "--fd", type=int, metavar="N", action="append", required=True, help="an inherited, listening socket; repeatable"
    )
    parser.add_argument(
        "--service-network",
        type=ip_network,
        metavar="CIDR",
        action="append",
        help="where Services have their ClusterIPs; one for each family, the primary one first (a lab's, of both)",
    )
    return parser.parse_args()


async def _main(given: argparse.Namespace) -> None:
    networks = {Family(network.version): str(network) for network in given.service_network or ()} or SERVICE_NETWORKS
    listeners = [socket.socket(fileno=fd) for fd in given.fd]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(ApiServer(service_networks=networks), listeners, stop)


if __name__ == "__main__":
    asyncio.run(_main(_arguments()))
