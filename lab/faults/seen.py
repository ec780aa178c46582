"""What a client saw of a fault, and which promises that breaks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from msgspec import Struct

from lab.faults.fault import Movement, Promise
from lab.measuring.figures import HttpRequest, LateQuestion, NeighbourAnswer, longest_silence, outage, two_answer

TWO_WINDOW_S = 0.05
"""Two nodes answer where each does within so short a time."""


class Seen(Struct, frozen=True):
    """What a client saw of one fault, from its beginning until all was well again. Times in seconds."""

    silence_s: dict[str, float]
    """Longest time without an answer for the address, by the protocol that asks: ARP, NS."""
    succeeds_again_s: float
    requests: int
    lost: int
    broken: int
    two_answer_s: float
    moved: bool
    """Whether another node answered at some time."""
    returned: bool
    """Whether the address was where it had been in the end."""
    lasted_s: float


@dataclass(frozen=True)
class Episode:
    """One fault, from when it was caused until all was well again. Nodes are named by their MACs."""

    began: float
    over: float
    held_before: str
    held_after: str
    nodes: Collection[str]


def judge(
    episode: Episode,
    answers: Sequence[NeighbourAnswer],
    requests: Sequence[HttpRequest],
    unasked: Sequence[LateQuestion] = (),
) -> Seen:
    """The figures of one fault."""
    since = [each for each in answers if each.at > episode.began]
    cost = outage(since, requests, episode.began)
    by_address: dict[str, list[NeighbourAnswer]] = {each.address: [] for each in answers}
    for each in since:
        by_address[each.address].append(each)
    return Seen(
        silence_s={
            "NS" if ":" in address else "ARP": longest_silence(theirs, episode.began, episode.over, unasked)
            for address, theirs in sorted(by_address.items(), key=lambda each: ":" in each[0])
        },
        succeeds_again_s=cost.succeeds_again_s,
        requests=cost.requests,
        lost=cost.lost,
        broken=cost.broken,
        two_answer_s=two_answer(since, TWO_WINDOW_S),
        moved=any(each.mac in episode.nodes and each.mac != episode.held_before for each in since),
        returned=episode.held_after == episode.held_before,
        lasted_s=episode.over - episode.began,
    )


def broken_promises(promise: Promise, seen: Seen) -> list[str]:
    """The promises that what was seen breaks, in words."""
    found = []
    limits = {f"{name} unanswered": (seconds, promise.silence_s) for name, seconds in seen.silence_s.items()} | {
        "two answer": (seen.two_answer_s, promise.two_answer_s),
        "lost": (seen.lost, promise.lost),
        "broken": (seen.broken, promise.broken),
    }
    for name, (value, limit) in limits.items():
        if limit is not None and value > limit:
            found.append(f"{name}: {value:g} instead of {limit:g}")
    if promise.move is not Movement.EITHER and seen.moved is not (promise.move is Movement.MOVES):
        found.append(f"the address {'moved' if seen.moved else 'stayed'}")
    return found
