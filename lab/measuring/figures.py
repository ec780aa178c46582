"""The figures of a fault, from what a client noticed: pure functions on the lines of ``resolve`` and ``load``.

A failover has two figures, which are kept apart: when the *address answers again* is the speakers' part; when *every
request succeeds again* also takes Kubernetes, which must take the dead node's endpoints out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from msgspec import Struct


class NeighbourAnswer(Struct, frozen=True):
    """One answer that a client got who asked for an address: an ARP Reply or a Neighbour Advertisement."""

    at: float
    address: str
    mac: str


class LateQuestion(Struct, frozen=True):
    """The client asked later than it wanted to: nobody was asked, or heard, ``late`` seconds before ``asked``."""

    asked: float
    late: float


class HttpRequest(Struct, frozen=True):
    """One HTTP request that a client made. Times in seconds of CLOCK_MONOTONIC."""

    start: float
    end: float
    ok: bool
    node: str | None = None
    error: str | None = None
    connection: int | None = None
    """The number of the connection that stays open and carried it; None: one of its own."""


class Outage(Struct, frozen=True):
    """What a fault at time 0 cost, in seconds after it."""

    answers_again_s: float | None
    """Until each address has had an answer from another MAC than before the fault; None when one has not."""
    answered_by: str | None
    """The MAC that took the last of them over."""
    silence_s: float | None
    """Longest time without an answer for an address from anybody, from the fault to the last answer; None when nobody
    answered."""
    succeeds_again_s: float
    """From the fault to the start of the first request after the last lost one; 0 when none was lost."""
    requests: int
    lost: int
    """Requests started after the fault (or under way at it) that got no answer. Each had a connection of its own."""
    broken: int
    """Connections that were open, and broke after the fault."""


def answers_again(answers: Sequence[NeighbourAnswer], fault_at: float) -> tuple[float | None, str | None]:
    """Seconds from the fault until each address has been answered for by a new MAC, and the MAC that took the last."""
    old = {answer.address: answer.mac for answer in answers if answer.at <= fault_at}
    first: dict[str, NeighbourAnswer] = {}
    for answer in answers:
        if answer.at > fault_at and answer.mac != old.get(answer.address):
            first.setdefault(answer.address, answer)
    if not first or first.keys() < old.keys():
        return None, None
    last = max(first.values(), key=lambda answer: answer.at)
    return last.at - fault_at, last.mac


def longest_silence(
    answers: Sequence[NeighbourAnswer], since: float, until: float, unasked: Sequence[LateQuestion] = ()
) -> float:
    """Longest time within [since, until] in which no answer came for an address, seconds. What the client itself was
    late by, in that time, does not count."""
    by_address: dict[str, list[float]] = {answer.address: [since] for answer in answers} or {"": [since]}
    for answer in answers:
        if since < answer.at < until:
            by_address[answer.address].append(answer.at)
    return max(
        later - earlier - _unasked_between(earlier, later, unasked)
        for times in by_address.values()
        for earlier, later in itertools.pairwise([*times, until])
    )


def _unasked_between(since: float, until: float, unasked: Sequence[LateQuestion]) -> float:
    """Seconds of these in which the client did not ask."""
    return sum(max(0.0, min(until, each.asked) - max(since, each.asked - each.late)) for each in unasked)


def answered_by_two(answers: Sequence[NeighbourAnswer], window: float) -> int:
    """Answers that came within ``window`` seconds of one by another MAC for the same address."""
    count = 0
    last: dict[str, NeighbourAnswer] = {}
    for answer in answers:
        previous = last.get(answer.address)
        if previous is not None and previous.mac != answer.mac and answer.at - previous.at < window:
            count += 1
        last[answer.address] = answer
    return count


def two_answer(answers: Sequence[NeighbourAnswer], window: float) -> float:
    """Seconds in which two MACs answered for an address; of several addresses, the most. Two answer where a MAC answers
    after another one did, and had itself answered less than ``window`` seconds before."""
    by_address: dict[str, list[NeighbourAnswer]] = {}
    for answer in answers:
        by_address.setdefault(answer.address, []).append(answer)
    return max((_contested(each, window) for each in by_address.values()), default=0.0)


def _contested(answers: Sequence[NeighbourAnswer], window: float) -> float:
    """Seconds in which two MACs answered, of the answers for one address."""
    seconds, counted = 0.0, float("-inf")
    last: dict[str, float] = {}
    changed_at = float("-inf")
    """When the MAC answered first that answers now, without another one between."""
    for earlier, answer in itertools.pairwise(answers):
        last[earlier.mac] = earlier.at
        if answer.mac == earlier.mac:
            continue
        since = last.get(answer.mac, float("-inf"))
        if since > answer.at - window:
            seconds += answer.at - max(counted, changed_at)
            counted = answer.at
        changed_at = answer.at
    return seconds


def outage(answers: Sequence[NeighbourAnswer], requests: Sequence[HttpRequest], fault_at: float) -> Outage:
    """The figures of one fault; both sequences in order of time."""
    again, by = answers_again(answers, fault_at)
    after = sorted((r for r in requests if r.end > fault_at and r.connection is None), key=lambda r: r.start)
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
        broken=sum(not r.ok for r in requests if r.end > fault_at and r.connection is not None),
    )
