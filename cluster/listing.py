"""How a text names things of which there may be many."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5


def first_few(texts: Sequence[str]) -> str:
    """The first five of them, and how many more there are."""
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
