"""``berthlb migrate check``: reads the cluster, writes nothing to it, and prints what ``migration`` finds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from cli.migration import WEIGHTS, Finding, judge
from cli.surveying import survey
from cluster.api.client import ClientConfigError, connect
from cluster.api.errors import ApiError
from cluster.daemon.command_line import EXIT_USAGE, OneLineParser, complain
from cluster.listing import first_few

PROGRAM = "berthlb migrate check"
NOTHING_FOUND = "nothing is in the way, and nothing changes"
CHANGES, BLOCKED = 1, 3
"""Exit codes. 0 is for steps alone, and 2 for what could not be looked at."""
HEADINGS = {"blocks": "Blocks the migration", "changes": "Changes, for you to decide", "step": "To do on the way"}


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command and its options."""
    migrating = commands.add_parser("migrate", help="from MetalLB, in place").add_subparsers(
        required=True, metavar="COMMAND"
    )
    checking = migrating.add_parser(
        "check",
        help="say what blocks a migration from MetalLB, what would change, and what there is to do",
        description="Reads the cluster and writes nothing. Exit code 0: follow the documented steps; 1: something "
        "changes that you should decide about; 3: something blocks; 2: the cluster could not be read.",
    )
    checking.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: $KUBECONFIG, or ~/.kube/config")
    checking.add_argument(
        "--namespace", default="metallb-system", help="MetalLB's, which will be BerthLB's (default: %(default)s)"
    )
    checking.add_argument("--json", action="store_true", help="for programs")
    checking.set_defaults(run=check)


def check(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    try:
        client = connect(arguments.kubeconfig or _kubeconfig(), user_agent="berthlb-migrate", read_only=True)
        found, unread = survey(client)
    except (ClientConfigError, ApiError) as error:
        complain(PROGRAM, str(error))
        return EXIT_USAGE
    if unread:
        complain(PROGRAM, f"not allowed to list {', '.join(unread)}: without them the check would say too little")
        return EXIT_USAGE
    findings = judge(found, arguments.namespace)
    sys.stdout.write(_as_json(findings) if arguments.json else _as_text(findings))
    weights = {each.weight for each in findings}
    return BLOCKED if "blocks" in weights else CHANGES if "changes" in weights else 0


def _kubeconfig() -> Path:
    """Where kubectl looks; of several files the first that exists."""
    given = [Path(each) for each in os.environ.get("KUBECONFIG", "").split(":") if each]
    there = (each for each in given if each.exists())
    return next(there, given[0] if given else Path.home() / ".kube" / "config")


def _as_text(findings: list[Finding]) -> str:
    lines = []
    for weight in WEIGHTS:
        of_weight = [each for each in findings if each.weight == weight]
        if of_weight:
            lines.append(f"{HEADINGS[weight]}:")
            for each in of_weight:
                about = f"{first_few(each.objects)}: " if each.objects else ""
                lines.append(f"  {each.reason}: {about}{each.text}")
    return "\n".join(lines or [NOTHING_FOUND]) + "\n"


def _as_json(findings: list[Finding]) -> str:
    return json.dumps({"findings": [each._asdict() for each in findings]}, indent=2) + "\n"
