"""Limits count seconds of an idle machine: what else runs makes them longer, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from tests.waiting import MOST_CROWDED, Stopwatch, assert_stays, crowd, ended, wait_until, within

BUSY = "while True: pass"


def test_a_second_counts_for_less_beside_busy_processes() -> None:
    cores = len(os.sched_getaffinity(0))
    with ExitStack() as running:
        for _ in range(3 * cores):
            process = running.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            running.callback(process.kill)
        wait_until(lambda: crowd() > 2.0)
        watch, began = Stopwatch(), time.monotonic()
        wait_until(lambda: watch.look() > 0.2)
        assert time.monotonic() - began > 0.2
    assert 1.0 <= crowd() <= MOST_CROWDED


def test_what_does_not_come_is_given_up_and_its_last_answer_told() -> None:
    with pytest.raises(AssertionError, match=r"not so within 0\.05 s; last answer: 0"):
        wait_until(lambda: 0, 0.05)


def test_what_ceases_to_be_so_is_noticed() -> None:
    answers = iter([True, True, False])
    with pytest.raises(AssertionError, match="it ceased"):
        assert_stays(lambda: next(answers), 60.0, "it ceased")
    assert_stays(lambda: True, 0.02)


def test_a_block_that_takes_too_long_is_told() -> None:
    watch = Stopwatch()
    with pytest.raises(AssertionError, match="took"), within(0.02):
        wait_until(lambda: watch.look() > 0.1)
    with within(10.0):
        pass


def test_the_end_of_a_process_is_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as process:
        assert ended(process) == 3
