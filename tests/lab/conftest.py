"""Labs for tests: each of its own name, gone at the end whatever happened."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from datetime import datetime

import pytest

from lab import launch
from lab.client import Lab
from lab.control.directory import is_alive
from lab.launch import Recipe
from lab.layout import DEFAULT_LAN, Families, lay_out
from tests.real import real_assets

_numbers = itertools.count(1)
MakeLab = Callable[..., Lab]


SHOWN = 40
"""Log lines beside a test that failed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure, what the daemons of its lab last said: the lab is gone when somebody reads it."""
    report = yield
    if report.when == "call" and report.failed:
        labs = [each for each in getattr(item, "funcargs", {}).values() if isinstance(each, Lab)]
        report.sections += [(f"lab {lab.name}", "\n".join(last_said(lab))) for lab in labs if is_alive(lab.directory)]
    return report


def last_said(lab: Lab) -> list[str]:
    """The last log lines of our daemons on all hosts, each with its age in seconds."""
    now = time.time()
    lines = []
    logs = lab.directory / "logs"
    for log in (*logs.glob("*/speaker.log"), *logs.glob("*/controller*.log")):
        for line in log.read_text(errors="replace").splitlines()[-SHOWN:]:
            with suppress(ValueError, KeyError, AttributeError):  # a line that is none of ours
                said = json.loads(line)
                age = now - datetime.fromisoformat(said.pop("time")).timestamp()
                lines.append((age, f"{-age:8.3f} {log.parent.name} {' '.join(map(str, said.values()))}"))
    return [line[:200] for _, line in sorted(lines, reverse=True)[-SHOWN:]]


def new_name() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


def make(**wanted: object) -> Lab:
    """A lab of two nodes, without daemons unless asked for."""
    if wanted.pop("control_plane", "embedded") == "kubernetes":
        wanted["assets"] = real_assets()
    families = Families(str(wanted.pop("families", Families.IPV4)))
    gateway, nat = bool(wanted.pop("gateway", True)), bool(wanted.pop("nat", False))
    nodes, lan = int(str(wanted.pop("nodes", 2))), str(wanted.pop("lan", DEFAULT_LAN))
    layout = lay_out(nodes, gateway=gateway, lan=lan, families=families, nat=nat)
    return launch.up(Recipe(new_name(), layout, **{"daemons": False, **wanted})).release()  # type: ignore[arg-type]


def end(lab: Lab) -> None:
    if is_alive(lab.directory):
        lab.down()


@pytest.fixture
def make_lab() -> Iterator[MakeLab]:
    """Makes labs: ``make_lab(nodes=2, gateway=True, daemons=False, …)``."""
    made: list[Lab] = []

    def make_one(**wanted: object) -> Lab:
        made.append(make(**wanted))
        return made[-1]

    yield make_one
    for lab in made:
        end(lab)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab of two nodes and a short grace period for a module's tests."""
    made = make(node_grace=0.5)
    yield made
    end(made)
