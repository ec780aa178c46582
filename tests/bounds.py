"""The tables that a host on the LAN can make grow, as the security page lists them, and how much is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from speaker.protocol.protocol import Protocol
from tests.pages import ROOT, rows, section

PAGE = ROOT / "docs/security.md"
MANY = 1200  # in so large a table are addresses and claims, and no other tables
HEADING = "What the LAN can make grow"


@cache
def listed() -> Mapping[str, int | str]:
    """The most of each table, as the page says: ``Roster.peers`` -> 1024; words, where it grows with what is ours."""
    told = rows(section(PAGE, HEADING))
    numbers = {name.strip("`"): most.replace(",", "") for name, _, most, _ in told}
    return {name: int(most) if most.isdigit() else most for name, most in numbers.items()}


def filled(root: object) -> Iterator[tuple[str, int]]:
    """Every table that can be reached from an object of ours, by its name, with what is in it."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Mapping) and len(each) < MANY:
            waiting += each.values()
        elif isinstance(each, list | set | frozenset | tuple) and len(each) < MANY:
            waiting += each
        if not type(each).__module__.startswith("speaker."):
            continue
        for name, value in _attributes(each):
            if hasattr(value, "__len__") and not isinstance(value, str | bytes):
                yield f"{type(each).__name__}.{name}", len(value)
            waiting.append(value)


def assert_bounded(protocol: Protocol) -> None:
    """No table of the page's is longer than the page says."""
    for name, count in filled(protocol):
        most = listed().get(name)
        assert not isinstance(most, int) or count <= most, f"{name} has {count}"


def _attributes(of: object) -> Iterator[tuple[str, object]]:
    slots = (name for kind in type(of).__mro__ for name in getattr(kind, "__slots__", ()))
    for name in {*getattr(of, "__dict__", {}), *slots}:
        if hasattr(of, name):
            yield name, getattr(of, name)
