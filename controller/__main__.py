"""``python -m controller``: arguments, signals, and the order in which things start and end."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from prometheus_client import CollectorRegistry

from cluster import logs
from cluster.client import connect
from cluster.command_line import OneLineParser
from cluster.errors import ClientConfigError
from cluster.http_status import StatusServer, parse_listen
from controller.daemon import Daemon
from controller.leadership import LEASE_S, LEAST_LEASE_S

USER_AGENT = "berthlb-controller"
LONGEST_LEASE_S = 3600
REMEMBER_RELEASES = 64
MOST_RELEASES = 1000
"""As many as the definition of an IPAddressPool lets its status list."""


def _listen(text: str) -> tuple[str, int]:
    try:
        return parse_listen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _lease_duration(text: str) -> int:
    if not text.isdecimal() or not LEAST_LEASE_S <= int(text) <= LONGEST_LEASE_S:
        raise argparse.ArgumentTypeError(
            f'"{text}" is no whole number of seconds, {LEAST_LEASE_S} to {LONGEST_LEASE_S}'
        )
    return int(text)


def _number_of_releases(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_RELEASES:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 0 to {MOST_RELEASES}')
    return int(text)


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f'there is no file "{text}"')
    return path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = OneLineParser(
        prog="python -m controller",
        description="Gives addresses from IPAddressPools to Services of type LoadBalancer.",
    )
    arguments.add_argument(
        "--kubeconfig", type=_file, metavar="FILE", help="how to reach the API; without it, as a pod of the cluster"
    )
    arguments.add_argument(
        "--namespace",
        default="metallb-system",
        help="where the pools and advertisements are (default: %(default)s)",
    )
    arguments.add_argument(
        "--lb-class",
        metavar="CLASS",
        help="serve the Services with exactly this spec.loadBalancerClass; without it, those with none",
    )
    arguments.add_argument(
        "--listen",
        type=_listen,
        default=("0.0.0.0", 7472),
        metavar="ADDRESS:PORT",
        help="where /metrics, /healthz and /readyz are served (default: 0.0.0.0:7472)",
    )
    arguments.add_argument(
        "--identity",
        metavar="NAME",
        help="what the Lease calls this replica, with something random behind it (default: HOSTNAME_PID)",
    )
    arguments.add_argument(
        "--lease-duration",
        type=_lease_duration,
        default=LEASE_S,
        metavar="SECONDS",
        help="after how long without news of the leader another replica takes over (default: %(default)s)",
    )
    arguments.add_argument(
        "--remember-releases",
        type=_number_of_releases,
        default=REMEMBER_RELEASES,
        metavar="N",
        help="how many deleted Services of each pool are remembered, to get their addresses back when they are "
        "created again; 0 for none (default: %(default)s)",
    )
    return arguments


def main() -> NoReturn:
    command_line = parser()
    arguments = command_line.parse_args()
    logs.set_up()
    registry = CollectorRegistry()
    try:
        client = connect(arguments.kubeconfig, user_agent=USER_AGENT)
    except ClientConfigError as error:
        command_line.error(str(error))
    daemon = Daemon(
        client,
        arguments.namespace,
        arguments.lb_class or None,
        registry,
        name=arguments.identity or f"{socket.gethostname()}_{os.getpid()}",
        lease_s=arguments.lease_duration,
        remember_releases=arguments.remember_releases,
    )
    host, port = arguments.listen
    try:
        status = StatusServer(host, port, registry, daemon.trouble, daemon.not_ready)
    except OSError as error:
        command_line.error(f"cannot listen on {host}:{port}: {error.strerror}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    status.start()
    logging.getLogger("controller").info("serving", extra={"listen": f"{status.address[0]}:{status.address[1]}"})
    daemon.run()
    logging.getLogger("controller").info("stopped")
    logging.shutdown()
    sys.stderr.flush()
    os._exit(0)  # the reflectors' threads wait for the API server; nothing that they hold is lost


if __name__ == "__main__":
    main()
