"""How often one Service is written, whoever provokes it.

Each write is a change for every node. A tool that takes an annotation away again and again, or puts it back, would draw
one from us each time, without an end. So each Service has an allowance: so many writes at once, which no honest change
ever needs, and then one every so often. What only words would change (the condition, the annotation that names the
pool) waits longer than what changes the addresses, and goes along with them: an address that two Services show is never
left standing. Events are bounded with the writes that they go with.

A Service that waits is judged all the same, and what is written in the end is what is so by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rate:
    """An allowance. What is kept of it for each Service is one number: when it is whole again, in monotonic seconds."""

    at_once: int
    every_s: float

    def opens(self, whole_at: float) -> float:
        """From when on the next write is allowed."""
        return whole_at - (self.at_once - 1) * self.every_s

    def spent(self, whole_at: float, now: float) -> float:
        """When it is whole again after one more write."""
        return max(whole_at, now) + self.every_s


ADDRESSES: Final = Rate(20, 1.0)
"""Writes that change the addresses which a Service shows."""
WORDS: Final = Rate(6, 30.0)
"""All others."""
