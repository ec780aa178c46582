"""``python -m controller``: arguments, signals, and the order in which things start and end."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from prometheus_client import CollectorRegistry

from cluster import logs
from cluster.client import connect
from cluster.errors import ClientConfigError
from cluster.http_status import StatusServer, parse_listen
from controller.daemon import Daemon

USER_AGENT = "berthlb-controller"


class _OneLine(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _listen(text: str) -> tuple[str, int]:
    try:
        return parse_listen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f'there is no file "{text}"')
    return path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = _OneLine(
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
    daemon = Daemon(client, arguments.namespace, arguments.lb_class or None, registry)
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
