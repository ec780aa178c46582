"""The tables in modules' docstrings, to hold the code against."""

from __future__ import annotations

from types import ModuleType


def table_of(module: ModuleType) -> dict[tuple[str, str], tuple[str, frozenset[str]]]:
    """The first table in the docstring: (row, column) -> what a cell says before its semicolon, and the words after."""
    lines = [line for line in (module.__doc__ or "").splitlines() if line.startswith("|")]
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    cells: dict[tuple[str, str], tuple[str, frozenset[str]]] = {}
    for row, *rest in rows:
        for column, cell in zip(columns[1:], rest, strict=True):
            after, _, done = cell.partition(";")
            cells[row, column] = after.strip(), frozenset(done.replace(" and ", " ").split())
    return cells
