"""Who uses an address that this node answers for, and what is done about it."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText, NodeName
from speaker.protocol.conflicts import Conflicts
from speaker.protocol.effects import Decision, NeighbourSeen, SendGratuitous
from speaker.protocol.foreign import ForeignSpeakers
from speaker.protocol.rivals import CLAIM_PATIENCE_S, Rivals
from speaker.protocol.settings import Settings
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ME, STRANGER_MAC, VIP, B, Company

GAP_S = Settings().defence_gap_s
SEEN = NeighbourSeen(ETH0, VIP, STRANGER_MAC, AddressText("10.0.0.7"), is_reply=True)
ALIVE, SUSPECT, DEAD = Standing


def rivals_of(company: Company) -> Rivals:
    return Rivals(company.roster, conflicts_of(company), ForeignSpeakers())


def conflicts_of(company: Company) -> Conflicts:
    return Conflicts(company.roster, lambda _address, _now: frozenset((ETH0,)), lambda _: True)


def kinds(company: Company) -> list[object]:
    return [effect.fields["seen"] for effect in company.effects if isinstance(effect, Decision)]


def defences(company: Company) -> int:
    return sum(effect == SendGratuitous((VIP,), defend=True) for effect in company.effects)


@pytest.mark.parametrize(
    ("times", "told"),
    [((0.0,), 1), ((0.0, 1.0, GAP_S - 0.1), 1), ((0.0, GAP_S), 2), ((0.0, GAP_S, GAP_S + 1.0), 2)],
)
def test_a_stranger_is_a_conflict_and_answered_once_in_ten_seconds(times: tuple[float, ...], told: int) -> None:
    company = Company()
    rivals = rivals_of(company)
    for now in times:
        rivals.meet(SEEN, None, frozenset(), now)
    assert kinds(company) == ["stranger"] * told
    assert defences(company) == told


def test_nothing_is_defended_on_a_link_where_this_node_may_be_the_one_that_is_cut_off() -> None:
    company = Company()
    rivals_of(company).meet(SEEN, None, frozenset((ETH0,)), 0.0)
    assert (kinds(company), defences(company)) == (["stranger"], 0)


@pytest.mark.parametrize(
    ("node", "standing", "claims", "told"),
    [
        (B, ALIVE, True, []),  # claims decide it
        (B, ALIVE, False, ["kernel"]),
        (B, SUSPECT, True, ["blocked"]),
        (B, DEAD, True, ["blocked"]),
        (B, None, False, ["blocked"]),
        (ME, None, False, ["twin"]),
    ],
)
def test_a_speaker_is_told_of_when_no_claim_comes_and_never_defended_against(
    node: NodeName, standing: Standing | None, claims: bool, told: list[str]
) -> None:
    company = Company()
    if standing is not None:
        peer = company.peer(B, eth0=standing)
        if claims:
            company.claims(peer)
    rivals = rivals_of(company)
    for now in (0.0, CLAIM_PATIENCE_S - 0.1):
        rivals.meet(SEEN, node, frozenset(), now)
    assert kinds(company) == []
    rivals.meet(SEEN, node, frozenset(), CLAIM_PATIENCE_S)
    assert (kinds(company), defences(company)) == (told, 0)


def test_a_speaker_of_another_cluster_is_named_with_it_and_defended_against() -> None:
    company, foreign = Company(), ForeignSpeakers()
    foreign.hear(STRANGER_MAC, bytes.fromhex("3598a3c588d3319f"), 0.0)
    Rivals(company.roster, conflicts_of(company), foreign).meet(SEEN, None, frozenset(), 1.0)
    (told,) = [effect for effect in company.effects if isinstance(effect, Decision)]
    assert (told.fields["seen"], told.fields["cluster"]) == ("cluster", "3598a3c588d3319f")
    assert defences(company) == 1
