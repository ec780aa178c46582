"""Labs for tests: each of its own name, gone at the end whatever happened."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from lab import launch
from lab.client import Lab
from lab.directory import is_alive
from lab.launch import Wanted
from lab.layout import lay_out
from tests.real import real_assets

_numbers = itertools.count(1)
MakeLab = Callable[..., Lab]


def new_name() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


def make(**wanted: object) -> Lab:
    """A lab of two nodes, without daemons unless asked for."""
    if wanted.pop("control_plane", "embedded") == "kubernetes":
        wanted["assets"] = real_assets()
    layout = lay_out(int(str(wanted.pop("nodes", 2))), gateway=bool(wanted.pop("gateway", True)))
    return launch.up(Wanted(new_name(), layout, **{"daemons": False, **wanted})).release()  # type: ignore[arg-type]


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
