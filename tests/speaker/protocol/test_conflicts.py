"""Who else has an address: when it is asked for again, when that is over, and what is bounded."""

from __future__ import annotations

import itertools

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.objects import AddressText
from cluster.times import NEVER
from speaker.link import Mac
from speaker.protocol.conflicts import (
    ASKED_AT_ONCE,
    FIRST_GAP_S,
    LONGEST_GAP_S,
    PROBE_WAIT_S,
    Conflicts,
    ConflictState,
)
from speaker.protocol.effects import Decision, NeighbourSeen, ProbeAddress
from speaker.protocol.foreign import MAX_FOREIGN, REMEMBERED_S, ForeignSpeakers
from tests.speaker.protocol.company import ETH0, STRANGER_MAC, VIP, B, Company

STEPS = ("find", "rival", "hear", "forget", "time", "stall", "lose")
ANSWER = NeighbourSeen(ETH0, VIP, STRANGER_MAC, AddressText("10.0.0.7"), is_reply=True)


class Table:
    """A table of conflicts, on one link that works."""

    def __init__(self) -> None:
        self.company = Company()
        self.company.link(ETH0, "10.0.0.1/16")
        self.claimed: set[AddressText] = set()
        self.made = Conflicts(self.company.roster, lambda _address, _now: frozenset((ETH0,)), self.claimed.__contains__)

    def find(self, address: AddressText = VIP, now: float = 0.0, *, withheld: bool) -> None:
        if not withheld:
            self.claimed.add(address)
        conflict = ConflictState(ETH0, STRANGER_MAC, "stranger", None, "", withheld=withheld, told=True)
        self.made.find(address, conflict, now)

    def probes(self) -> int:
        return sum(isinstance(effect, ProbeAddress) for effect in self.company.effects)

    def over(self) -> bool:
        return any(isinstance(effect, Decision) and effect.reason == "ConflictOver" for effect in self.company.effects)


@pytest.mark.parametrize(("withheld", "probes"), [(True, 1), (False, 2)])
def test_a_conflict_ends_when_probes_are_not_answered(withheld: bool, probes: int) -> None:
    table = Table()
    table.find(withheld=withheld)
    free = []
    while (at := table.made.next_deadline) < NEVER:
        free += list(table.made.check(at))
    assert table.probes() == probes
    assert at == NEVER
    assert (free, table.over(), len(table.made)) == ([VIP] if withheld else [], True, 0)


def test_who_answers_is_asked_again_ever_more_seldom() -> None:
    table = Table()
    table.find(withheld=True)
    asked_at: list[float] = []
    while len(asked_at) < 8:
        at = table.made.next_deadline
        before = table.probes()
        assert not list(table.made.check(at))
        if table.probes() > before:
            asked_at.append(at)
            table.made.hear(ANSWER, None, at + 0.001)
    gaps = [later - at for at, later in itertools.pairwise(asked_at)]
    assert asked_at[0] == FIRST_GAP_S
    assert gaps == pytest.approx([2.0, 4.0, 8.0, 16.0, *[LONGEST_GAP_S] * 3], abs=0.01)
    assert table.made.is_withheld(VIP)


def test_a_kernel_of_ours_keeps_no_address_withheld() -> None:
    table = Table()
    table.find(withheld=True)
    list(table.made.check(FIRST_GAP_S))
    table.made.hear(ANSWER, B, FIRST_GAP_S + 0.01)
    assert list(table.made.check(FIRST_GAP_S + PROBE_WAIT_S)) == [VIP]


def test_an_address_that_this_node_claims_no_more_is_forgotten_in_silence() -> None:
    table = Table()
    table.find(withheld=False)
    table.claimed.clear()
    assert not list(table.made.check(FIRST_GAP_S))
    assert (table.probes(), table.over(), len(table.made)) == (0, False, 0)


def test_work_is_bounded() -> None:
    table = Table()
    for i in range(3 * ASKED_AT_ONCE):
        table.find(AddressText(f"10.0.{i // 250}.{i % 250}"), withheld=True)
    list(table.made.check(FIRST_GAP_S))
    assert table.probes() == ASKED_AT_ONCE
    assert table.made.next_deadline <= FIRST_GAP_S, "the rest is due"


@hypothesis.settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5))))
def test_whatever_happens_every_conflict_is_asked_for_again_or_ends(steps: list[tuple[str, int]]) -> None:
    table, now = Table(), 0.0
    for what, number in steps:
        address = AddressText(f"10.0.9.{number}")
        match what:
            case "find" | "rival":
                table.find(address, now, withheld=what == "find")
            case "hear":
                table.made.hear(NeighbourSeen(ETH0, address, STRANGER_MAC, VIP, is_reply=True), None, now)
            case "forget":
                table.made.forget(address)
            case "stall":
                table.made.discard_answers(now)
            case "lose":
                table.claimed.discard(address)
            case _:
                now += 2.0**number / 10
                list(table.made.check(now))
        assert len(table.made) <= 6
        assert (len(table.made) == 0) or table.made.next_deadline <= now + LONGEST_GAP_S
    for _ in range(100):
        now += LONGEST_GAP_S
        list(table.made.check(now))
    assert len(table.made) == 0


# ------------------------------------------------------------------------ speakers of other clusters


def test_only_so_many_foreign_speakers_are_remembered_and_not_for_ever() -> None:
    foreign = ForeignSpeakers()
    for i in range(10 * MAX_FOREIGN):
        foreign.hear(Mac(i.to_bytes(6, "big")), bytes(8), 0.0)
        assert len(foreign) <= MAX_FOREIGN
    latest = Mac((10 * MAX_FOREIGN - 1).to_bytes(6, "big"))
    assert foreign.cluster_of(latest, REMEMBERED_S - 1.0) == "00" * 8
    assert foreign.cluster_of(latest, REMEMBERED_S) == ""
    assert foreign.cluster_of(Mac(bytes(6)), 0.0) == ""
