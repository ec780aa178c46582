"""A node leaves at once, and joins after a pause that grows while it flaps."""

from __future__ import annotations

from cluster.objects import NodeName
from cluster.times import NEVER
from controller.nodeip.damping import CALM_S, LONGEST_PAUSE_S, PAUSE_S, Damping
from controller.nodeip.reasons import LeftOut

A, B = NodeName("a"), NodeName("b")


def pause_after(damping: Damping, now: float) -> float:
    """Lets the node leave, and at once be usable again; says how long it is out."""
    damping.observe(A, LeftOut.NOT_READY, now)
    damping.observe(A, None, now)
    pause = damping.next_deadline() - now
    damping.handle_timer(now + pause - 0.001)
    assert damping.absence(A) is not None
    assert damping.handle_timer(now + pause) == {A}
    return pause


def test_a_node_that_is_not_known_may_not_be_shown() -> None:
    assert Damping().absence(A) is LeftOut.NOT_READY
    assert Damping().next_deadline() == NEVER


def test_a_new_node_joins_after_the_pause() -> None:
    damping = Damping()
    damping.observe(A, None, 5.0, ready_for=4.0)
    assert damping.absence(A) is LeftOut.JOINING
    assert damping.next_deadline() == 5.0 + PAUSE_S - 4.0
    assert damping.handle_timer(5.0 + PAUSE_S - 4.1) == frozenset()
    assert damping.handle_timer(5.0 + PAUSE_S - 4.0) == {A}
    assert damping.absence(A) is None
    assert damping.next_deadline() == NEVER


def test_a_controller_that_begins_finds_the_nodes_joined_that_were_ready() -> None:
    damping = Damping()
    damping.observe(A, None, 5.0, ready_for=3600.0)
    damping.observe(B, LeftOut.EXCLUDED, 5.0, ready_for=3600.0)
    assert (damping.absence(A), damping.absence(B)) == (None, LeftOut.EXCLUDED)
    damping.observe(A, LeftOut.UNHEARD, 6.0, ready_for=3601.0)
    assert damping.absence(A) is LeftOut.UNHEARD
    damping.observe(A, None, 7.0, ready_for=3602.0)
    assert damping.next_deadline() == 7.0 + PAUSE_S


def test_a_node_leaves_at_once_and_its_latest_reason_counts() -> None:
    damping = Damping()
    damping.observe(A, None, 0.0, ready_for=3600.0)
    for reason in (LeftOut.UNHEARD, LeftOut.NOT_READY):
        damping.observe(A, reason, 1.0)
        assert damping.absence(A) is reason


def test_the_pause_doubles_while_it_flaps_and_is_short_again_after_a_calm_time() -> None:
    damping, now, pauses = Damping(), 0.0, []
    damping.observe(A, None, now, ready_for=PAUSE_S)
    for _ in range(7):
        pauses.append(pause_after(damping, now))
        now += pauses[-1] + 1
    assert pauses == [20.0, 40.0, 80.0, 160.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert pause_after(damping, now + CALM_S) == PAUSE_S


def test_a_node_that_flaps_says_so_while_it_waits() -> None:
    damping = Damping()
    damping.observe(A, None, 0.0, ready_for=PAUSE_S)
    damping.observe(A, LeftOut.NOT_READY, 1.0)
    damping.observe(A, None, 2.0)
    assert damping.absence(A) is LeftOut.FLAPPING


def test_a_break_begins_the_pause_anew_and_makes_it_no_longer() -> None:
    damping = Damping()
    for now in (0.0, 8.0, 16.0):
        damping.observe(A, LeftOut.NOT_READY, now)
        damping.observe(A, None, now)
    assert damping.next_deadline() == 16.0 + PAUSE_S


def test_making_a_node_again_is_damped_until_it_is_forgotten() -> None:
    damping = Damping()
    damping.observe(A, None, 0.0, ready_for=PAUSE_S)
    damping.gone(A, 1.0)
    assert damping.absence(A) is LeftOut.BEING_DELETED
    damping.observe(A, None, 2.0, ready_for=0.0)
    assert damping.next_deadline() == 2.0 + 2 * PAUSE_S
    damping.gone(A, 3.0)
    assert damping.next_deadline() == 3.0 + CALM_S
    assert damping.handle_timer(3.0 + CALM_S) == frozenset()
    assert damping.absence(A) is LeftOut.NOT_READY
    assert damping.next_deadline() == NEVER
    damping.observe(A, None, 1000.0, ready_for=PAUSE_S)
    assert damping.absence(A) is None
