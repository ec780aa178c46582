"""The controller's process: arguments, signals, and the order in which things start and end."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import NoReturn

from prometheus_client import CollectorRegistry

from cluster.api.client import ApiClient, connect
from cluster.api.errors import ClientConfigError
from cluster.daemon import logs
from cluster.daemon.build import this_build
from cluster.daemon.command_line import EXIT_USAGE, complain
from cluster.daemon.ending import when_told_to_end
from cluster.daemon.http_status import CannotListenError, StatusServer
from controller.daemon.loop import Daemon
from controller.daemon.observer import ControllerObserver
from controller.options import PROGRAM, ControllerOptions, parse

USER_AGENT = "berthlb-controller"

logger = logging.getLogger("controller")


def run() -> NoReturn:
    """Be the controller until SIGTERM or SIGINT."""
    options = parse(sys.argv[1:])
    logs.set_up()
    registry = CollectorRegistry()
    try:
        client = connect(options.kubeconfig, user_agent=USER_AGENT, read_only=options.observe)
        daemon = _observer(client, options, registry) if options.observe else _daemon(client, options, registry)
        status = StatusServer(options.listen, registry, daemon.trouble, daemon.not_ready)
    except (ClientConfigError, CannotListenError) as error:
        complain(PROGRAM, str(error))
        sys.exit(EXIT_USAGE)
    logger.info("starting", extra=this_build()._asdict())
    when_told_to_end(daemon.stop)
    status.start()
    logger.info("serving", extra={"listen": ", ".join(map(str, status.addresses))})
    daemon.run()
    logger.info("stopped")
    os._exit(0)  # the reflectors' threads wait for the API server; nothing that they have is lost


def _daemon(client: ApiClient, options: ControllerOptions, registry: CollectorRegistry) -> Daemon:
    return Daemon(
        client,
        options.namespace,
        options.lb_class,
        registry,
        name=options.identity or f"{socket.gethostname()}_{os.getpid()}",
        lease_s=options.lease_s,
        remember_releases=options.remember_releases,
    )


def _observer(client: ApiClient, options: ControllerOptions, registry: CollectorRegistry) -> ControllerObserver:
    return ControllerObserver(
        client, options.namespace, options.lb_class, registry, remember_releases=options.remember_releases
    )
