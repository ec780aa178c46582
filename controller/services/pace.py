"""How often one Service is written, whatever provokes it.

Each write is a change for every node. A tool that takes an annotation away again and again would draw a write from the
controller each time, without an end.

1. Each Service has an allowance: some writes at once, which no honest change ever needs, and then one every so often.
2. What changes the addresses has one allowance (``ADDRESSES``). What changes only words (the condition, the annotation
   that names the pool) has another, which fills more slowly (``WORDS``), and goes along with a change of addresses.
3. A Service whose allowance is used up is judged all the same. What is right when it may be written again is written.

Events are bounded with the writes that they go with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rate:
    """An allowance. Of each Service one number is kept: when its allowance is whole again, in monotonic seconds."""

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
