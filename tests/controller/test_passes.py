"""How much one pass takes on, as tables: what is waited for, and how much is decided."""

from __future__ import annotations

import pytest

from controller.passes import (
    AHEAD,
    ENOUGH,
    GATHER_S,
    IDLE_S,
    JUDGED,
    RESTORE_POLL_S,
    Gathering,
    Load,
    Room,
    gathering,
    room,
)

NOW = 1000.0
STANDBY = Load()


def new_leader(seconds: float) -> Load:
    return Load(leading_since=NOW - seconds)


def leader(before_writers: int = 0, backlog: int = 0, deadline: float | None = None) -> Load:
    return Load(NOW - 500.0, True, before_writers, backlog, deadline)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        pytest.param(STANDBY, Gathering(wait_s=IDLE_S), id="a standby waits for what is observed"),
        pytest.param(new_leader(0.0), Gathering(wait_s=RESTORE_POLL_S), id="a new leader looks for its lists at once"),
        pytest.param(new_leader(10.0), Gathering(wait_s=0.2), id="and more seldom where they do not come"),
        pytest.param(new_leader(3600.0), Gathering(wait_s=IDLE_S), id="but never more seldom than a standby"),
        pytest.param(leader(), Gathering(wait_s=IDLE_S), id="nothing to do"),
        pytest.param(leader(deadline=NOW + 0.25), Gathering(wait_s=0.25), id="until something is due"),
        pytest.param(leader(deadline=NOW - 5.0), Gathering(), id="something is overdue"),
        pytest.param(leader(deadline=NOW + 60.0), Gathering(wait_s=IDLE_S), id="something is due much later"),
        pytest.param(leader(backlog=1), Gathering(), id="a Service is still to be judged"),
        pytest.param(leader(backlog=1, deadline=NOW + 9.0), Gathering(), id="that does not wait for a deadline"),
        pytest.param(leader(ENOUGH, backlog=1), Gathering(), id="the writers have work, but not enough"),
        pytest.param(leader(ENOUGH + 1, backlog=1), Gathering(pause_s=GATHER_S), id="they have enough"),
        pytest.param(leader(ENOUGH + 1, deadline=NOW - 5.0), Gathering(pause_s=GATHER_S), id="whatever is due"),
    ],
)
def test_what_a_pass_waits_for(load: Load, expected: Gathering) -> None:
    assert gathering(load, NOW) == expected


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        pytest.param(STANDBY, None, id="a standby decides nothing"),
        pytest.param(Load(restored=True), None, id="nor does one that has just lost the lead"),
        pytest.param(new_leader(10.0), None, id="nor a leader that does not know yet what Services have"),
        pytest.param(leader(), Room(AHEAD, JUDGED), id="a leader decides"),
        pytest.param(leader(ENOUGH), Room(AHEAD, JUDGED), id="while its writers are not busy"),
        pytest.param(leader(ENOUGH + 1, backlog=5000), None, id="and leaves them to it when they are"),
    ],
)
def test_how_much_a_pass_decides(load: Load, expected: Room | None) -> None:
    assert room(load) == expected


@pytest.mark.parametrize("waiting", [leader(), STANDBY, new_leader(0.0), leader(ENOUGH + 1), leader(deadline=NOW + 1)])
def test_where_nothing_is_to_be_done_a_pass_takes_some_time(waiting: Load) -> None:
    """Else the thread would spin."""
    how = gathering(waiting, NOW)
    assert how.pause_s + how.wait_s >= GATHER_S
