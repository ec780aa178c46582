"""The pages that people read, and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/kind/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def commands(page: Path) -> list[str]:
    """Each line of the page's ``console`` blocks."""
    return [line for block in blocks(page) for line in block]


def blocks(page: Path) -> list[list[str]]:
    """The lines of each ``console`` block."""
    found = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    return [[line for line in block.splitlines() if line] for block in found]


def block_with(page: Path, words: str) -> list[str]:
    """The lines of the ``console`` block that has these words in it."""
    (found,) = (block for block in blocks(page) if any(words in line for line in block))
    return found


def section(page: Path, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section {heading}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The tables' rows, without their headings; ``\\|`` is a bar within a cell."""
    tables = re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    lines = [line for table in tables for line in table.splitlines()]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
