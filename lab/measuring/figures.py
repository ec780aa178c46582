"""The figures of a fault, from what a client noticed: pure functions on the lines of ``arpwatch`` and ``load``.

A failover has two figures, which are kept apart: when the *address answers again* is the speakers' part; when *every
request succeeds again* also takes Kubernetes, which must take the dead node's endpoints out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from msgspec import Struct


class ArpReply(Struct, frozen=True):
    """One ARP Reply that a client saw."""

    at: float
    address: str
    mac: str


class HttpRequest(Struct, frozen=True):
    """One HTTP request that a client made. Times in seconds of CLOCK_MONOTONIC."""

    start: float
    end: float
    ok: bool
    node: str | None = None
    error: str | None = None


class Outage(Struct, frozen=True):
    """What a fault at time 0 cost, in seconds after it."""

    answers_again_s: float | None
    """First ARP Reply from another MAC than the one before the fault; None when nobody answered."""
    answered_by: str | None
    """That MAC."""
    silence_s: float | None
    """Longest time without an answer from anybody, from the fault to the last answer; None when nobody answered."""
    succeeds_again_s: float
    """From the fault to the start of the first request after the last lost one; 0 when none was lost."""
    requests: int
    lost: int
    """Requests started after the fault (or under way at it) that got no answer."""


def answers_again(answers: Sequence[ArpReply], fault_at: float) -> tuple[float | None, str | None]:
    """Seconds from the fault to the first answer of a new MAC, and that MAC."""
    before = [a for a in answers if a.at <= fault_at]
    old = before[-1].mac if before else None
    for answer in answers:
        if answer.at > fault_at and answer.mac != old:
            return answer.at - fault_at, answer.mac
    return None, None


def longest_silence(answers: Sequence[ArpReply], since: float, until: float) -> float:
    """Longest time within [since, until] in which no answer came, seconds."""
    times = [since, *(a.at for a in answers if since < a.at < until), until]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


def answered_by_two(answers: Sequence[ArpReply], window: float) -> int:
    """Answers that came within ``window`` seconds of one by another MAC for the same address."""
    count = 0
    last: dict[str, ArpReply] = {}
    for answer in answers:
        previous = last.get(answer.address)
        if previous is not None and previous.mac != answer.mac and answer.at - previous.at < window:
            count += 1
        last[answer.address] = answer
    return count


def outage(answers: Sequence[ArpReply], requests: Sequence[HttpRequest], fault_at: float) -> Outage:
    """The figures of one fault; both sequences in order of time."""
    again, by = answers_again(answers, fault_at)
    after = sorted((r for r in requests if r.end > fault_at), key=lambda r: r.start)
    lost = [r for r in after if not r.ok]
    succeeds = 0.0
    if lost:
        later = [r.start for r in after if r.start > lost[-1].start]
        succeeds = (later[0] if later else lost[-1].end) - fault_at
    silence = longest_silence(answers, fault_at, answers[-1].at) if answers and answers[-1].at > fault_at else None
    return Outage(
        answers_again_s=again,
        answered_by=by,
        silence_s=silence,
        succeeds_again_s=max(0.0, succeeds),
        requests=len(after),
        lost=len(lost),
    )
