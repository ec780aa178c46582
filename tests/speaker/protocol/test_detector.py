"""D, the silence that may be a death, from what a peer's heartbeats were like."""

from __future__ import annotations

import random

from speaker.protocol.detector import DOUBLED_S, Detector


def detection(detector: Detector, now: float = 0.0, own_lateness: float = 0.0) -> float:
    return detector.detection(now, 0.35, 3.0, own_lateness)


def steady(seconds: float = 10.0, interval: float = 0.1, jitter: float = 0.0, loss: float = 0.0) -> Detector:
    rng, now = random.Random(1), 0.0
    detector = Detector(interval, now)
    while now < seconds:
        now += interval
        if rng.random() >= loss:
            detector.heard(interval, now + rng.uniform(0.0, jitter))
    return detector


def test_a_punctual_peer_is_held_to_the_floor() -> None:
    assert detection(steady()) == 0.35


def test_an_idle_peer_has_its_announced_interval() -> None:
    assert 1.0 <= detection(steady(interval=1.0)) < 1.1


def test_jitter_makes_d_longer() -> None:
    assert detection(steady(interval=0.3, jitter=0.3)) > 0.4


def test_loss_makes_d_longer_and_the_ceiling_holds() -> None:
    assert detection(steady(interval=0.3, loss=0.3)) > 0.6
    assert detection(steady(interval=1.0, loss=0.7)) <= 3.0


def test_ones_own_late_loop_stretches_d() -> None:
    assert detection(steady(), own_lateness=0.2) == 0.35 + 0.2


def test_a_false_alarm_doubles_d_for_ten_minutes() -> None:
    detector = steady()
    detector.false_alarm(10.0)
    assert detection(detector, 10.0 + DOUBLED_S - 1) == 0.7
    assert detection(detector, 10.0 + DOUBLED_S + 1) == 0.35


def test_a_heartbeat_sent_early_to_answer_does_not_make_the_peer_look_late() -> None:
    detector = steady()
    for i in range(100):
        detector.heard(0.1, 10.0 + i * 0.02)
    assert detector.lateness < 0.001


def test_suspicion_comes_before_d_for_a_busy_peer() -> None:
    assert steady().suspicion() == 0.25


def test_heartbeats_that_did_not_come_are_counted() -> None:
    punctual = steady(jitter=0.02)
    assert punctual.heartbeats >= 100
    assert punctual.missed == 0
    lossy = steady(seconds=100.0, jitter=0.02, loss=0.2)
    due = lossy.heartbeats + lossy.missed
    assert abs(due - 1000) <= 5
    assert 0.15 < lossy.missed / due < 0.25


def test_a_gap_that_was_not_the_peers_fault_is_no_loss() -> None:
    detector = steady()
    detector.skip(0.1, 60.0)
    detector.heard(0.1, 60.1)
    assert detector.missed == 0
