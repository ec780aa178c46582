"""A name means one thing in the whole tree: what is read in one package may be looked for in all of them."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "cli", "cluster", "controller", "lab", "speaker")


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict[str, list[str]](list)
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert places, "the packages are elsewhere"
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
