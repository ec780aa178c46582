"""How long moves took, as the decisions tell: tables of decisions, and a cluster in which each kind happens."""

from __future__ import annotations

import pytest

from speaker.durations import BOUNDS_S, Durations
from speaker.protocol.crowd import MAX_PEERS
from speaker.protocol.effects import Decision
from speaker.protocol.giving import PROVISIONAL, RETURNED
from speaker.protocol.moving import APART, DECISION, ENDING, FAILBACK, PREFERENCE
from speaker.protocol.rebalancing import BALANCE
from speaker.protocol.timings import HANDOVERS, Timings
from tests.speaker.protocol.simulation.scenes import VIP, owner_of, settled
from tests.speaker.protocol.simulation.world import World

Told = list[tuple[float, Decision]]


def dead(node: str, proof: str, silent_ms: int) -> Decision:
    return Decision("PeerDead", {"node": node, "link": "eth0", "proof": proof, "silent_ms": silent_ms})


def claimed(why: str, after_ms: int = 0, address: str = "a") -> Decision:
    return Decision("Claimed", {"address": address, "epoch": 4, "why": why, "after_ms": after_ms})


def offered(why: str, address: str = "a") -> Decision:
    return Decision("Offered", {"address": address, "to": "n2", "why": why})


def withdrawn(address: str = "a") -> Decision:
    return Decision("Withdrawn", {"address": address, "to": "n2", "epoch": 4, "their_epoch": 6})


def stands_in(begins: bool, why: str = "it restarts") -> Decision:
    return Decision("StandsIn" if begins else "StandsInNoMore", {"node": "n1", "why": why})


def taken(told: Told) -> dict[str, float]:
    """The seconds of each kind."""
    timings = Timings()
    for at, decision in told:
        timings.note(decision, at)
    return {key: round(durations.seconds, 3) for key, durations in timings.taken.items()}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(
            [(10.0, dead("n1", "peer n2", 360)), (10.01, claimed("death of n1", 10))],
            {"detection:death": 0.36, "takeover:death": 0.37},
            id="a death counts from the last sign of life",
        ),
        pytest.param(
            [(0, dead("n1", "left", 20)), (0, claimed("death of n1", 3))], {"takeover:left": 0.003}, id="left"
        ),
        pytest.param(
            [(0, Decision("PeerDead", {"node": "n1", "proof": "new session"})), (0, claimed("death of n1", 5))],
            {"takeover:restart": 0.005},
            id="a new session",
        ),
        pytest.param(
            [(0, dead("n1", "lost its link", 2)), (0, claimed("death of n1", 1))],
            {"takeover:link": 0.001},
            id="a lost link",
        ),
        pytest.param([(0, claimed("released by n1", 7))], {"takeover:released": 0.007}, id="released"),
        pytest.param([(0, claimed("handed over by n1", 4))], {"takeover:handed_over": 0.004}, id="handed over"),
        pytest.param([(0, claimed("unowned", 1400))], {"takeover:unowned": 1.4}, id="nobody had it"),
        pytest.param([(0, claimed("the moon is full", 9))], {"takeover:other": 0.009}, id="no cause that is known"),
        pytest.param([(5.0, offered("drained")), (5.002, withdrawn())], {"handover:drained": 0.002}, id="a hand-over"),
        pytest.param(
            [
                (5.0, offered("drained")),
                (5.3, Decision("NotTaken", {"address": "a", "to": "n2"})),
                (5.3, offered("drained")),
                (5.31, withdrawn()),
            ],
            {"handover:drained": 0.31},
            id="it counts from the first offer",
        ),
        pytest.param(
            [(5.0, offered("drained")), (5.1, Decision("Released", {"address": "a"})), (9.0, withdrawn())],
            {},
            id="what was released was not handed over",
        ),
        pytest.param([(0, withdrawn())], {}, id="a higher claim alone is no hand-over"),
        pytest.param(
            [(0, dead("n1", "nobody stands in for it", 0)), (0, claimed("death of n1", 2))],
            {"takeover:ended": 0.002},
            id="a speaker that ended is no silence",
        ),
        pytest.param(
            [(0, Decision("Claimed", {"address": "a", "epoch": 4, "why": "resumed"}))],
            {},
            id="what is resumed was not taken over",
        ),
        pytest.param(
            [(5.0, stands_in(True)), (8.0, stands_in(False, "it is back"))], {"stand_in:back": 3.0}, id="a restart"
        ),
        pytest.param(
            [(5.0, stands_in(True)), (65.0, stands_in(False, "it did not come back"))],
            {"stand_in:gone": 60.0},
            id="it did not come back",
        ),
        pytest.param(
            [
                (5.0, stands_in(True)),
                (7.0, Decision("NodeDead", {"node": "n1", "link": "eth0", "silent_ms": 400})),
                (7.0, stands_in(False, "it is absent no more")),
                (7.0, claimed("death of n1", 10)),
            ],
            {"stand_in:death": 2.0, "detection:death": 0.4, "takeover:death": 0.41},
            id="the node died while this one stood in",
        ),
    ],
)
def test_what_decisions_tell_of_how_long_moves_took(told: Told, expected: dict[str, float]) -> None:
    assert taken(told) == expected


def test_each_reason_to_hand_over_has_a_cause_of_its_own() -> None:
    assert {PREFERENCE, DECISION, FAILBACK, APART, ENDING, BALANCE, PROVISIONAL, RETURNED} <= HANDOVERS.keys()
    assert len(set(HANDOVERS.values())) == len(HANDOVERS)


def test_peers_that_died_long_ago_are_forgotten() -> None:
    timings = Timings()
    for number in range(2 * MAX_PEERS):
        timings.note(dead(f"n{number}", "carrier", 400), 0.0)
    timings.note(claimed("death of n0", 10), 0.0)
    assert round(timings.taken["takeover:death"].seconds, 3) == 0.01
    assert len(timings.taken) == 2


def test_what_is_as_long_as_a_bound_counts_up_to_it() -> None:
    durations = Durations().with_one(BOUNDS_S[2]).with_one(2 * BOUNDS_S[-1])
    assert durations.counts == (0, 0, 1, *(0,) * (len(BOUNDS_S) - 3), 1)
    assert durations.seconds == BOUNDS_S[2] + 2 * BOUNDS_S[-1]


def taken_in(world: World) -> dict[str, Durations]:
    """What all speakers of a world have counted, each by itself."""
    timings: dict[str, Timings] = {name: Timings() for name in world.nodes}
    for at, node, decision in world.decisions:
        timings[node].note(decision, at)
    return {key: durations for each in timings.values() for key, durations in each.taken.items()}


@pytest.mark.slow
def test_what_speakers_count_is_what_a_client_waited() -> None:
    world = settled(3, 3)
    old = owner_of(world)
    world.power_cut(old)
    cut = world.now
    world.run(2.0)
    answered = next(at for at, address, who in world.owner_changes if at > cut and address == VIP and who)
    counted = taken_in(world)["takeover:death"]
    assert sum(counted.counts) == 1
    assert counted.seconds == pytest.approx(answered - cut, abs=0.11), (
        "its last heartbeat was not quite its last moment"
    )
