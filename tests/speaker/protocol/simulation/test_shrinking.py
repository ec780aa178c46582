"""A broken rule is found by random schedules, shrunk to what matters, and told in plain words."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.protocol.handing import HandOvers
from speaker.protocol.owners import Owners
from speaker.protocol.ownership import Ownership
from tests.speaker.protocol.simulation.shrinking import Failure, Script, run, shrink

pytestmark = pytest.mark.slow

SEEDS = range(40)


def first_failure(kind: str) -> Failure:
    found = (run(Script(kind, seed)) for seed in SEEDS)
    return next(failure for failure in found if failure is not None)


def test_a_holder_that_does_not_withdraw_is_found_and_shrunk_to_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    def held_on(owners: Owners, address: AddressText, now: float) -> frozenset[LinkName]:
        return owners.links_of(address, now) if address in owners._log.claims else frozenset()

    monkeypatch.setattr(Ownership, "_withdraw", lambda *_: None)
    monkeypatch.setattr(Owners, "held_on", held_on)
    failure = first_failure("usual")
    smallest = shrink(failure, runs=150)
    assert smallest.promise == failure.promise == "G1"
    left = smallest.script.schedule()
    assert left.faults - len(smallest.script.without.steps) <= 2
    assert len(smallest.world.nodes) <= 3
    page = str(smallest)
    assert "G1 is broken: at most one of two speakers that hear each other answers for an address" in page
    assert "!!!" in page.splitlines()[-1]
    assert "claims 10.0.9." in page
    assert "answered by" in page
    assert f"--again '{smallest.script}'" in page
    again = run(Script.parse(str(smallest.script)))
    assert again is not None
    assert again.what == smallest.what, "what is printed can be run again"


def test_what_a_speaker_raises_is_shrunk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(HandOvers, "begin", fail)
    failure = first_failure("usual")
    smallest = shrink(failure, runs=100)
    assert (smallest.promise, smallest.what) == ("ValueError", "planted")
    assert "planted" in str(smallest)


def test_a_script_is_read_as_it_is_written() -> None:
    for text in (
        "usual 7",
        "strange 12 steps=1,5 nodes=n0,n3 bundles=2 weather=1 luck=2",
        "families 3 lags=1 spread=1",
    ):
        assert str(Script.parse(text)) == text
