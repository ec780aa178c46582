"""What the log says of an API that cannot be followed: little, and never nothing."""

from __future__ import annotations

import random

import pytest

from cluster.api.errors import ApiError, Forbidden, Unreachable
from cluster.api.outages import GATHER_S, LINES, PAUSE_S, REMIND_S, Line, Outages

KINDS = ("services", "nodes", "ipaddresspools")
REFUSED = Unreachable(0, "NewConnectionError", "connection refused")
BROKEN = Unreachable(0, "ProtocolError", "connection broken")
FORBIDDEN = Forbidden(403, "Forbidden", "nodes is forbidden")


def told(line: Line | None) -> tuple[str, list[str]] | None:
    return None if line is None else (line.text, line.extra["resources"])


def test_a_server_that_is_away_for_an_hour_is_a_few_lines() -> None:
    outages = Outages()
    said = [
        (second, outages.failed(kind, kind, BROKEN if second == 0 else REFUSED, float(second)))
        for second in range(0, 3600, 5)
        for kind in KINDS
    ]
    said += [(3600, outages.works(kind, 3600.0)) for kind in KINDS]
    lines = [(at, line) for at, line in said if line is not None]
    assert [(at, told(line)) for at, line in lines[:2]] == [
        (0, ("list or watch failed", ["services"])),
        (GATHER_S, ("list or watch failed", sorted(KINDS))),
    ]
    assert len(lines) <= 3 + 3600 / REMIND_S
    assert told(lines[-1][1]) == ("lists and watches work again", sorted(KINDS))
    assert lines[-1][1].extra["seconds"] == 3600.0
    assert lines[-2][1].extra["error"] == "no answer NewConnectionError: connection refused"


def test_another_cause_is_said_at_once() -> None:
    outages = Outages()
    assert told(outages.failed(1, "services", REFUSED, 0.0)) == ("list or watch failed", ["services"])
    assert told(outages.failed(2, "nodes", FORBIDDEN, 1.0)) == ("list or watch failed", ["nodes"])
    assert outages.failed(2, "nodes", FORBIDDEN, 2.0) is None
    assert outages.works(1, 3.0) is None
    assert told(outages.works(2, 4.0)) == ("lists and watches work again", ["nodes", "services"])
    assert outages.works(2, 5.0) is None


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_lines_are_bounded_and_the_last_one_is_true(seed: int) -> None:
    rng, outages, now = random.Random(seed), Outages(), 0.0
    failing: set[int] = set()
    last: Line | None = None
    lines = 0
    for _ in range(2000):
        now += rng.expovariate(2.0)
        who = rng.randrange(9)
        if rng.random() < 0.5:
            failing.add(who)
            errors: list[ApiError] = [REFUSED, BROKEN, FORBIDDEN]
            line = outages.failed(who, f"kind-{who}", rng.choice(errors), now)
        else:
            failing.discard(who)
            line = outages.works(who, now)
        lines += line is not None
        last = line or last
    assert lines <= LINES + now / PAUSE_S
    for at in range(0, int(REMIND_S) + 60, 30):  # it goes on as it is: every kind asks again, or its watch ends
        for who in range(9):
            moment = now + PAUSE_S * LINES + at
            each = outages.failed(who, "kind", REFUSED, moment) if who in failing else outages.works(who, moment)
            last = each or last
    assert last is not None
    assert last.over is not bool(failing)
