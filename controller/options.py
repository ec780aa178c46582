"""The controller's command line. Imports nothing heavy, so that ``--help`` and a mistake are answered at once."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from cluster.daemon.command_line import OneLineParser
from cluster.daemon.listen import DEFAULT, Listen, add_listen
from controller.leadership import LEASE_S, LEAST_LEASE_S

PROGRAM = "python -m controller"
LONGEST_LEASE_S = 3600
REMEMBER_RELEASES = 64
MOST_RELEASES = 1000
"""As many as the definition of an IPAddressPool lets its status list."""


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


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What a controller is told on its command line."""

    kubeconfig: Path | None = None
    """How to reach the API; None in a pod."""
    namespace: str = "metallb-system"
    """Where pools, advertisements, the Lease and the key are."""
    lb_class: str | None = None
    """Serve Services of this ``spec.loadBalancerClass`` only; None: only those without one."""
    listen: tuple[Listen, ...] = (DEFAULT,)
    """Where ``/metrics``, ``/healthz`` and ``/readyz`` are served."""
    identity: str | None = None
    """What the Lease calls this replica; None: host and process."""
    lease_s: int = LEASE_S
    """Seconds without news of the leader after which another replica takes over."""
    remember_releases: int = REMEMBER_RELEASES
    """Deleted Services of each pool whose addresses are remembered."""
    observe: bool = False
    """Decide everything, write nothing, and say what differs from what there is."""


def parse(given: list[str]) -> ControllerOptions:
    """The command line. Ends the process with one line and exit code 2 when it is not right."""
    read = parser().read(given)
    return ControllerOptions(
        kubeconfig=read.kubeconfig,
        namespace=read.namespace,
        lb_class=read.lb_class or None,
        listen=tuple(read.listen or (DEFAULT,)),
        identity=read.identity,
        lease_s=read.lease_duration,
        remember_releases=read.remember_releases,
        observe=read.observe,
    )


def parser() -> OneLineParser:
    """All options; ``docs/reference/flags.md`` lists them."""
    arguments = OneLineParser(
        prog=PROGRAM,
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
    add_listen(arguments)
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
    arguments.add_argument(
        "--observe",
        action="store_true",
        help="write nothing, and say where another controller decides otherwise than this one would",
    )
    return arguments
