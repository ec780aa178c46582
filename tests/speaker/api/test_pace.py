"""How fast a speaker writes what only people read: at once where it is little, and behind others where it is much."""

from __future__ import annotations

from collections.abc import Callable

from speaker.api.pace import BURST, CROWDED_REST, HOLD_S, QUIET_S, REST, Pace

TOOK_S = 0.01


def written(pace: Pace, count: int, since: float = 0.0, before: Callable[[float], object] = lambda _: None) -> float:
    """When the last of so many writes has ended, all of which wait ``since`` then. ``before`` is called at each."""
    now = since
    for _ in range(count):
        before(now)
        now = pace.next_at(since, now)
        pace.wrote(now, now + TOOK_S)
        now += TOOK_S
    return now


def test_a_few_writes_go_out_at_once_also_while_others_wait_for_addresses() -> None:
    assert written(Pace(0.0), BURST) < 2 * BURST * TOOK_S
    crowded = Pace(0.0)
    assert written(crowded, BURST, before=crowded.crowd) < 2 * BURST * TOOK_S


def test_after_a_burst_each_write_is_followed_by_a_rest_in_proportion() -> None:
    lasted = written(Pace(0.0), 1000)
    assert 0.95 < lasted / (1000 * TOOK_S * (1 + REST)) <= 1.0


def test_while_services_get_addresses_one_write_a_second_is_made_and_the_rest_afterwards() -> None:
    pace = Pace(0.0)
    flood_s = 30.0

    def flood(now: float) -> None:
        if now < flood_s:
            pace.crowd(now)

    lasted = written(pace, BURST + 20, before=flood)
    assert 19.0 < lasted < 21.0
    lasted = written(pace, 1000, since=lasted, before=flood)
    assert flood_s + QUIET_S < lasted < flood_s + QUIET_S + 1000 * TOOK_S * (1 + REST)


def test_an_endless_stream_of_services_holds_no_write_back_for_longer_than_promised() -> None:
    pace = Pace(0.0)
    lasted = written(pace, 1000, before=pace.crowd)
    assert HOLD_S < lasted < HOLD_S + 1000 * TOOK_S * (1 + CROWDED_REST)


def test_the_allowance_grows_back_and_not_beyond_its_size() -> None:
    pace = Pace(0.0)
    written(pace, 1000)
    for later in (1000.0, 10_000.0):
        crowded_for = written(pace, BURST + 2, since=later, before=pace.crowd) - later
        assert 1.5 < crowded_for < 2.5


def test_when_the_time_has_come_it_has_come() -> None:
    """Whoever waits until then need not wait again: a rest that never quite ends would be a loop that spins."""
    pace, now = Pace(0.1), 0.1
    for number in range(300):
        pace.crowd(now)
        at = pace.next_at(now, now)
        assert pace.next_at(now, at) == at
        pace.wrote(at, at + TOOK_S / (number + 1))
        now = at + 0.3
