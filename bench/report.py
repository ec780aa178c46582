"""What all benchmarks have in common: their arguments, what is said while they run, and their figures.

Progress goes to the standard error and the table of figures to the standard output. ``--json FILE`` writes the same
figures for programs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

progress = Console(stderr=True)
Figures = dict[str, float]
"""A figure's name, with its unit, and its value."""


def arguments(name: str, page: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m bench.NAME``, whose help is the benchmark's docstring."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{name}", description=page, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser


def show(titles: Sequence[str], rows: Mapping[str, Sequence[float]], title: str | None = None) -> None:
    """Print a table: in each row a name and its figures."""
    table = Table(*titles, title=title, title_justify="left", box=None)
    for name, values in rows.items():
        table.add_row(name, *map(_shown, values))
    Console(width=160).print(table)


def show_side_by_side(found: Mapping[str, Figures]) -> None:
    """Print a table with a column for each measurement. All have the same figures."""
    names = next(iter(found.values()))
    show(["figure", *found], {name: [figures[name] for figures in found.values()] for name in names})


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"


def write(path: Path | None, figures: object) -> None:
    """Write all figures as JSON where ``--json`` said so."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
