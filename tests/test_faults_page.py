"""The page on faults has each fault, and promises what the list of faults does."""

from __future__ import annotations

from lab.faults.fault import Movement
from lab.faults.table import FAULTS
from tests.pages import ROOT, rows, section

PAGE = ROOT / "docs/faults.md"
ADDRESS = {Movement.STAYS: "stays", Movement.MOVES: "moves", Movement.EITHER: "may move"}


def told(limit: float | None) -> str:
    return "" if limit is None else f"{limit:g}"


def test_the_page_promises_what_the_list_does() -> None:
    wanted = [
        [
            f"`{fault.name}`",
            fault.what,
            ADDRESS[fault.promise.move],
            *map(told, (fault.promise.silence_s, fault.promise.two_answer_s)),
            *map(told, (fault.promise.lost, fault.promise.broken)),
        ]
        for fault in FAULTS
    ]
    assert rows(section(PAGE, "What is promised")) == wanted
