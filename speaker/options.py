"""The speaker's command line: what each flag means, what it may be, and what holds where it is not given.

It is read before the watcher is forked, so this module imports nothing heavy. A command line that cannot be right ends
the process with one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from cluster.daemon.command_line import OneLineParser
from cluster.daemon.listen import DEFAULT, Listen, add_listen
from cluster.objects import NodeName
from speaker.keys import BadKeyError, checked_key
from speaker.link import Reception
from speaker.protocol.settings import LEAST_GRATUITOUS_LIMIT, RestartMode

DETECTION_FLOOR_S = 0.35
DETECTION_CEILING_S = 3.0  # docs/protocol.md, rule 6
WHICH_NODE = "the name by which the cluster knows this host; a pod has it from its field spec.nodeName"
DETECTION_LOWEST_S = 0.1  # below it a heartbeat that is on time would be a death
LONGEST_NAME = 253

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""What a Node can be called (RFC 1123 subdomain)."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a speaker is told on its command line."""

    node: NodeName
    kubeconfig: Path | None = None
    """How to reach the API; None in a pod."""
    namespace: str = "metallb-system"
    """Where pools, advertisements, the key and our status objects are."""
    lb_class: str | None = None
    """Announce Services of this ``spec.loadBalancerClass`` only; None: only those without one."""
    listen: tuple[Listen, ...] = (DEFAULT,)
    """Where ``/metrics``, ``/healthz`` and ``/readyz`` are served."""
    key: bytes | None = None
    """The heartbeat key, instead of the Secret's."""
    detection_floor_s: float = DETECTION_FLOOR_S
    """Seconds of silence that are at least needed to believe a speaker dead."""
    gratuitous_limit: int | None = None
    """Gratuitous ARP frames that go out on an interface in a second at most; None: as many as there are reasons for."""
    probes: bool = True
    """Ask whether anybody has a newly assigned address, before it is announced."""
    restart_mode: RestartMode = RestartMode.STAND_IN
    """What becomes of this node's addresses when the speaker is told to end."""
    reception: Reception = Reception.FILTERED
    """What the interfaces receive while they are announced on."""
    ignore_exclude: bool = False
    """Announce also from nodes that are excluded from load balancers."""
    drain_cordoned: bool = False
    """Drain nodes that are cordoned, as those that a person drains."""
    failback: bool = False
    """Addresses go back to the node that had them, where no advertisement says otherwise."""
    rebalance: bool = False
    """Even out the load of nodes that came back."""
    liveness_only: bool = False
    """Announce nothing, and report which nodes are silent, by ordinary datagrams."""
    observe: bool = False
    """Decide what would be announced, send nothing, and say what differs from what there is."""


def parse(arguments: list[str]) -> Options:
    """The command line. Ends the process with one line and exit code 2 when it is not right."""
    reading = parser()
    given = reading.read(arguments)
    if given.node_name is None:
        reading.error(f"--node-name is missing: {WHICH_NODE}")
    if given.liveness_only and given.observe:
        reading.error("--liveness-only and --observe are given: who observes is heard by nobody")
    return Options(
        kubeconfig=given.kubeconfig,
        node=NodeName(given.node_name),
        namespace=given.namespace,
        lb_class=given.lb_class or None,
        listen=tuple(given.listen or (DEFAULT,)),
        key=given.key_file,
        detection_floor_s=given.detection_floor,
        gratuitous_limit=given.gratuitous_limit,
        probes=not given.no_address_probes,
        restart_mode=RestartMode(given.restart_mode),
        reception=Reception(given.receive),
        ignore_exclude=given.ignore_exclude_lb,
        drain_cordoned=given.drain_cordoned,
        failback=given.failback,
        rebalance=given.rebalance,
        liveness_only=given.liveness_only,
        observe=given.observe,
    )


def parser() -> OneLineParser:
    """All options; ``docs/reference/flags.md`` lists them."""
    arguments = OneLineParser(prog="speaker", description="Answers for Service addresses on the local network.")
    arguments.add_argument(
        "--kubeconfig", type=_readable, metavar="FILE", help="how to reach the API; without it, as a pod"
    )
    arguments.add_argument(
        "--node-name", type=_name, metavar="NODE", help="the Node that this host is; has to be given"
    )
    arguments.add_argument(
        "--namespace",
        default="metallb-system",
        help="where the pools and advertisements are (default: %(default)s)",
    )
    arguments.add_argument("--lb-class", metavar="CLASS", help="announce Services of this loadBalancerClass only")
    add_listen(arguments)
    arguments.add_argument("--key-file", type=_key, metavar="FILE", help="heartbeat key, instead of the Secret's")
    arguments.add_argument(
        "--detection-floor",
        type=_detection_floor,
        default=DETECTION_FLOOR_S,
        metavar="SECONDS",
        help="silence that is at least needed to believe a speaker dead (default: %(default)s)",
    )
    arguments.add_argument(
        "--gratuitous-limit",
        type=_gratuitous_limit,
        metavar="FRAMES",
        help="gratuitous ARP frames a second on an interface at most, for switches that count them; without it, any",
    )
    arguments.add_argument(
        "--no-address-probes",
        action="store_true",
        help="announce newly assigned addresses at once, without asking first whether somebody on the LAN has them",
    )
    arguments.add_argument(
        "--restart-mode",
        choices=[each.value for each in RestartMode],
        default=RestartMode.STAND_IN.value,
        help="while it restarts, others answer with its node's MAC, or its addresses move (default: %(default)s)",
    )
    arguments.add_argument(
        "--receive",
        choices=[each.value for each in Reception],
        default=Reception.FILTERED.value,
        help="what interfaces let pass, where WiFi or a hypervisor filters too much (default: %(default)s)",
    )
    arguments.add_argument(
        "--ignore-exclude-lb",
        action="store_true",
        help="announce from nodes labelled node.kubernetes.io/exclude-from-external-load-balancers too",
    )
    arguments.add_argument(
        "--drain-cordoned",
        action="store_true",
        help="move addresses away from nodes that are cordoned too, as from those with the annotation berthlb.io/drain",
    )
    arguments.add_argument(
        "--failback",
        action="store_true",
        help="give addresses back to the node that had them, as MetalLB does, where no advertisement says otherwise",
    )
    arguments.add_argument(
        "--rebalance",
        action="store_true",
        help="even out the nodes' numbers of addresses after nodes came back, by one move in ten seconds",
    )
    arguments.add_argument(
        "--liveness-only",
        action="store_true",
        help="announce nothing, need no capability, and report which nodes are silent: for pools of node addresses",
    )
    arguments.add_argument(
        "--observe",
        action="store_true",
        help="send and write nothing, and say where another announcer does otherwise than this one would",
    )
    return arguments


def _readable(text: str) -> Path:
    path = Path(text)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise argparse.ArgumentTypeError(f"{text} is empty")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from error
    return path


def _key(text: str) -> bytes:
    try:
        return checked_key(_readable(text).read_bytes())
    except BadKeyError as error:
        raise argparse.ArgumentTypeError(f"{text} {error}") from error


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError(f"is empty; it is {WHICH_NODE}")
    if len(text) > LONGEST_NAME or not _SUBDOMAIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f'no Node can be called "{text}"; it is {WHICH_NODE}')
    return text


def _detection_floor(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of seconds') from error
    if not DETECTION_LOWEST_S <= seconds <= DETECTION_CEILING_S:
        raise argparse.ArgumentTypeError(f"{text} is not between {DETECTION_LOWEST_S} and {DETECTION_CEILING_S}")
    return seconds


def _gratuitous_limit(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of frames')
    if int(text) < LEAST_GRATUITOUS_LIMIT:
        raise argparse.ArgumentTypeError(f"{text} is less than {LEAST_GRATUITOUS_LIMIT}, a Request and a Reply at once")
    return int(text)
