"""The reference pages list every flag, every Event and every condition that the code has, and no other."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache

import pytest
import typer
import yaml

import cli.__main__
import controller.options
import lab.cli.main
import lab.cli.options
import speaker.options
from cluster.record import ADDRESS_ASSIGNED
from cluster.taken import ADDRESS_CONFLICT, RIVAL, WITHHELD
from controller.allocation.reserved import Use
from controller.changes import NOT_DELIVERED
from controller.nodeip.companion import DELIVERED, Obstacle
from speaker.api.events import ON_NODE, ON_SERVICES
from speaker.api.records import CONFIGURATION, HEALTH
from speaker.protocol.drops import STRANGE
from speaker.protocol.handing import MAX_ON_OFFER, OFFER_S
from speaker.protocol.heartbeat import LONGEST_SAID
from speaker.protocol.knocking import LATE_S
from speaker.protocol.mirrors import MAX_ALL_CLAIMS
from speaker.protocol.settings import Settings
from tests.pages import ROOT, rows, section

REFERENCE = ROOT / "docs/reference"
PROGRAMS = ("controller", "speaker", "cluster")


# ------------------------------------------------------------------------ flags

Flags = list[tuple[str, str]]
"""A flag as it is written, with its unit, and its default."""


def flags_of(parser: argparse.ArgumentParser) -> Flags:
    formatter = parser._get_formatter()  # the one that knows how argparse writes an option
    found = []
    for action in parser._actions:
        if not action.option_strings or "--help" in action.option_strings:
            continue
        told = re.search(r"default: (.+?)\)?$", formatter._expand_help(action)) if action.help else None
        default = told[1] if told else "off" if action.nargs == 0 else str(action.default or "")
        found.append((formatter._format_action_invocation(action).split(", ")[-1], default))
    return found


def berthlb(*command: str) -> argparse.ArgumentParser:
    parser = cli.__main__.parser()
    for word in command:
        (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
        parser = commands.choices[word]
    return parser


@pytest.mark.parametrize(
    ("program", "parser"),
    [
        ("python -m controller", controller.options.parser()),
        ("python -m speaker", speaker.options.parser()),
        ("berthlb convert", berthlb("convert")),
        ("berthlb migrate check", berthlb("migrate", "check")),
        ("berthlb kind-pool", berthlb("kind-pool")),
    ],
)
def test_the_page_lists_every_flag_of_a_program(program: str, parser: argparse.ArgumentParser) -> None:
    told = rows(section(REFERENCE / "flags.md", f"`{program}`"))
    assert [(flag.strip("`"), default) for flag, default, _ in told] == flags_of(parser)
    assert all(meaning.endswith(".") for _, _, meaning in told)


def lab_commands(command: typer.core.TyperCommand, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str]]:
    for name, each in getattr(command, "commands", {}).items():
        yield from lab_commands(each, (*path, name))
    for parameter in command.params if path and not hasattr(command, "commands") else ():
        names = "/".join([*parameter.opts, *parameter.secondary_opts])
        if (names, parameter.default) == ("--name", lab.cli.options.DEFAULT_NAME):
            continue  # told once for all
        default = parameter.default
        shown = ("on" if default else "off") if isinstance(default, bool) else f"{default or ''}".removesuffix(".0")
        is_flag = names.startswith("--")
        written = " ".join(filter(None, (names if is_flag else "", parameter.metavar or "")))
        yield f"`{' '.join(path)}`", f"`{written}`", shown if is_flag else ""


def test_the_page_lists_every_flag_of_the_lab() -> None:
    told = rows(section(REFERENCE / "flags.md", "`python -m lab`"))
    assert sorted(tuple(row[:3]) for row in told) == sorted(lab_commands(typer.main.get_command(lab.cli.main.app)))  # type: ignore[arg-type]


# ------------------------------------------------------------------------ what the code says


@cache
def calls() -> list[tuple[str, ast.Call]]:
    """Every call in the daemons' code, with the place where it stands."""
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for program in PROGRAMS
        for path in sorted((ROOT / program).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def named(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def words(where: str, node: ast.expr, computed: dict[str, Iterable[str]]) -> set[str]:
    """What an expression can be: a literal, or what ``computed`` says of its text. The text of a call is its function,
    that of an attribute begins with the dot: what a variable is called does not matter."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    text = f"{named(node)}()" if isinstance(node, ast.Call) else re.sub(r"^\w+(?=\.)", "", ast.unparse(node))
    assert text in computed, f"{where}: what can {text} be? Say so in this test, and on the page"
    return set(computed[text])


def troubles() -> set[str]:
    """The reasons of those that follow from facts; the others are the keys of ``ON_NODE``."""
    found = (call.args[0] for _, call in calls() if named(call) == "Trouble")
    return {str(node.value) for node in found if isinstance(node, ast.Constant)}


# ------------------------------------------------------------------------ Events

TOLD_OF_A_NODE = {*ON_NODE, *troubles()}
EVENTS: dict[str, Iterable[str]] = {
    ".reason.value": {"Contested"},
    "reason": (),  # in Publisher.warn and tell_of_node: their callers are looked at
    ".reason": {*ON_SERVICES, *TOLD_OF_A_NODE},
    ".obstacle.value": {each.value for each in Obstacle},
}
"""The reasons of Events that are no literals, by their expression."""


def events_of(program: str) -> set[tuple[str, str]]:
    """Type and reason of each Event that the program can record."""
    found: set[tuple[str, str]] = set()
    for where, call in calls():
        if not where.startswith(program):
            continue
        for type_, reason in zip(call.args, call.args[1:], strict=False):
            if isinstance(type_, ast.Constant) and type_.value in {"Normal", "Warning"}:
                found |= {(type_.value, word) for word in words(where, reason, EVENTS)}
        if named(call) == "warn" and len(call.args) > 1:
            found |= {("Warning", word) for word in words(where, call.args[1], EVENTS)}
        if named(call) == "tell_of_node":
            found |= {("Normal", word) for word in words(where, call.args[0], EVENTS)}
        if named(call) == "warn_of_node":
            found |= {("Warning", word) for word in words(where, call.args[0], EVENTS)}
    return found


@pytest.mark.parametrize(
    ("program", "heading"), [("controller", "From the controller"), ("speaker", "From the speakers")]
)
def test_the_page_lists_every_event_and_no_other(program: str, heading: str) -> None:
    told = rows(section(REFERENCE / "events.md", heading))
    assert sorted((type_, reason.strip("`")) for reason, type_, *_ in told) == sorted(events_of(program))


def test_what_a_speaker_says_on_a_node_is_said_to_be_there() -> None:
    told = rows(section(REFERENCE / "events.md", "From the speakers"))
    assert {row[0].strip("`") for row in told if row[1:3] == ["Warning", "Node"]} == TOLD_OF_A_NODE


def test_what_keeps_a_speaker_from_its_part_is_explained() -> None:
    told = rows(section(REFERENCE / "custom-resources.md", "What keeps a speaker from doing its part"))
    assert {row[0].strip("`") for row in told} == TOLD_OF_A_NODE


DECISIONS: dict[str, Iterable[str]] = {
    "STRANGE[error.reason]": set(STRANGE.values()),
    "reason": (),  # in what makes a decision of its arguments; the callers are looked at
    "why": (),
    ".reason": (),
}


def test_the_page_lists_every_decision_of_a_speaker_and_no_other() -> None:
    told = rows(section(REFERENCE / "events.md", "A speaker's decisions"))
    makers = {"report", "Decision", "_report", "_fenced"}
    found: set[str] = set()
    for where, call in calls():
        if where.startswith(("speaker/protocol", "speaker/wire")) and named(call) in makers:
            found |= words(where, call.args[0], DECISIONS)
    assert sorted(row[0].strip("`") for row in told) == sorted(found)


# ------------------------------------------------------------------------ conditions

TYPES: dict[str, Iterable[str]] = {
    "CONFIGURATION": {CONFIGURATION},
    "HEALTH": {HEALTH},
    "ADDRESS_ASSIGNED": {ADDRESS_ASSIGNED},
    "ADDRESS_CONFLICT": {ADDRESS_CONFLICT},
    "NOT_DELIVERED": {NOT_DELIVERED},
    "DELIVERED": {DELIVERED},
    ".type": (),  # of one that was made before
    "type_": {CONFIGURATION, "poolReconcilerValid"},
}
REASONS: dict[str, Iterable[str]] = {
    ".use.value": {use.value for use in Use},
    ".word": {"Invalid", "Overlap"},
    "reason": {"ConfigurationError", "Reconciled"},
    ".obstacle.value": {each.value for each in Obstacle},
    ".troubles[0].reason": (),  # listed on the same page, and tested above
    ".reason.value": (),  # listed in docs/allocation.md, and tested
    "_reason()": (),
    "WITHHELD if withheld else RIVAL": {WITHHELD, RIVAL},
}


def conditions() -> dict[str, set[str]]:
    """The types of conditions that are written, each with its reasons."""
    found: dict[str, set[str]] = {}
    for where, call in calls():
        if named(call) != "Condition" or len(call.args) < 3:
            continue
        for type_ in words(where, call.args[0], TYPES):
            found.setdefault(type_, set()).update(words(where, call.args[2], REASONS))
    for path in (ROOT / "crds").glob("*.yaml"):
        for version in yaml.safe_load(path.read_text())["spec"]["versions"]:
            status = version["schema"]["openAPIV3Schema"]["properties"].get("status", {})
            for each in status.get("default", {}).get("conditions", ()):
                found.setdefault(each["type"], set()).add(each["reason"])
    return found


def test_the_page_lists_every_condition_with_its_reasons_and_no_other() -> None:
    told: dict[str, set[str]] = {}
    page = (REFERENCE / "custom-resources.md").read_text()
    for table in re.findall(r"^\| condition \| it says \| reasons \|\n(?:\|.*\n)+", page, re.MULTILINE):
        for condition, _, reasons in rows(table):
            told.setdefault(condition.strip("`"), set()).update(re.findall(r"`(\w+)`", reasons))
    assert told == conditions()


# ------------------------------------------------------------------------ constants


def test_the_page_on_the_protocol_has_the_constants_of_the_code() -> None:
    used = Settings()
    told = {name: value for name, value, _ in rows(section(ROOT / "docs/protocol.md", "The rules"))}
    assert told == {
        "heartbeat interval": f"{used.interval_s * 1000:g} ms; {used.idle_interval_s:g} s idle",
        "idle, with a NodeIPPool": f"{used.brisk_interval_s * 1000:g} ms",
        "D, floor": f"{used.detection_floor_s * 1000:g} ms",
        "D, ceiling": f"{used.detection_ceiling_s:g} s",
        "knock": f"{LATE_S * 1000:g} ms after a heartbeat was due",
        "turn": f"{used.rank_delay_s * 1000:g} ms",
        "left to a former holder": f"{used.former_s:g} s",
        "more for a cold address": f"{used.plan_lag_s * 1000:g} ms",
        "start-up wait": f"{used.start_wait_s:g} s and three intervals",
        "listening on a new link": f"{used.listening_s:g} s",
        "silence on a link that came up": f"{used.link_silence_s:g} s",
        "offer": f"{OFFER_S * 1000:g} ms",
        "addresses on offer": f"{MAX_ON_OFFER}",
        "datagram": f"{LONGEST_SAID:,} octets",
        "claims of all peers": f"{MAX_ALL_CLAIMS:,}",
    }
