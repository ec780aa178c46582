"""What judges the daemons uses nothing of theirs: a judge that asks the code under test what is right cannot fail."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PRODUCTION = {"cli", "cluster", "controller", "lab", "speaker"}
LABELS = {"AddressText", "Family", "LinkName", "PoolName"}
"""Names for texts and numbers, which decide nothing."""
MAY_USE = {
    "controller/validity.py": LABELS,
    "speaker/protocol/simulation/invariants.py": LABELS | {"Bundle"},  # what it was told
    "speaker/protocol/simulation/taking.py": LABELS | {"Decision"},  # and what it said
    "speaker/protocol/simulation/course.py": LABELS | {"Decision"},
    "speaker/protocol/simulation/hearing.py": LABELS,
    "speaker/protocol/simulation/knowledge.py": LABELS | {"Bundle"},
}


def imported(file: Path) -> list[tuple[str, str]]:
    """(module, name) of all imports, wherever they stand."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(each.name, "") for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", each.name) for each in node.names]
    return found


@pytest.mark.parametrize("file", sorted((HERE / "oracle").glob("*.py")), ids=lambda file: file.stem)
def test_the_oracle_stands_on_the_standard_library_alone(file: Path) -> None:
    for module, _ in imported(file):
        assert module.partition(".")[0] in sys.stdlib_module_names or module.startswith("tests.oracle."), module


@pytest.mark.parametrize("name", MAY_USE)
def test_a_judge_uses_no_code_that_decides(name: str) -> None:
    used = {what for module, what in imported(HERE / name) if module.partition(".")[0] in PRODUCTION}
    assert used <= MAY_USE[name]
