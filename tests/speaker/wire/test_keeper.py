"""The announcer's hold on its watcher, with real processes that end in every way."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.daemon.command_line import EXIT_USAGE
from speaker.channel import Credentials, WatcherEnd, watcher_end
from speaker.child import Child
from speaker.protocol.effects import Decision
from speaker.wire.keeper import LASTING_S, WatcherKeeper
from tests.waiting import wait_until

Run = Callable[[WatcherEnd], int]


def forked(run: Run) -> Child:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            ours.close()
            code = run(watcher_end(theirs))
        finally:
            os._exit(code)
    theirs.close()
    return Child(pid, ours)


def stay(channel: WatcherEnd) -> int:
    channel.send(Credentials("cluster", (b"key",)))
    signal.pause()
    return 0


def die(_: WatcherEnd) -> int:
    return 1


def refuse(_: WatcherEnd) -> int:
    return EXIT_USAGE


class Kept:
    """A keeper, its clock and every process that it was given."""

    def __init__(self, *runs: Run) -> None:
        self._runs = list(runs)
        self.children: list[int] = []
        self.now = 100.0
        self.keeper = WatcherKeeper(self._next(), self._next, self.now)

    def _next(self) -> Child:
        child = forked(self._runs.pop(0))
        self.children.append(child.pid)
        return child

    def lose(self) -> None:
        """Wait until the present watcher's end has been noticed."""

        def gone() -> bool:
            self.keeper.receive(self.now)
            return self.keeper.channel is None

        wait_until(gone)
        for lost in self.keeper.take_lost():
            lost.close()

    def pause_before_next(self) -> float:
        deadline = self.keeper.next_deadline()
        assert deadline is not None
        return deadline - self.now

    def proceed(self) -> bool:
        deadline = self.keeper.next_deadline()
        assert deadline is not None
        assert not self.keeper.handle_timer(deadline - 0.001)
        self.now = deadline
        return self.keeper.handle_timer(self.now)


@pytest.fixture
def keep() -> Iterator[Callable[..., Kept]]:
    made: list[Kept] = []

    def keep(*runs: Run) -> Kept:
        made.append(Kept(*runs))
        return made[-1]

    yield keep
    for kept in made:
        kept.keeper.end()
        for lost in kept.keeper.take_lost():
            lost.close()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_messages_pass_both_ways(keep: Callable[..., Kept]) -> None:
    kept = keep(stay)
    assert wait_until(lambda: kept.keeper.receive(kept.now)) == [Credentials("cluster", (b"key",))]
    kept.keeper.send(Decision("Claimed"), kept.now)
    assert kept.keeper.channel is not None


def test_dead_watcher_is_replaced_with_pauses_that_double(keep: Callable[..., Kept]) -> None:
    kept = keep(*[die] * 9, stay)
    pauses = []
    for _ in range(9):
        kept.lose()
        pauses.append(kept.pause_before_next())
        assert kept.proceed()
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert kept.keeper.channel is not None
    for pid in kept.children[:-1]:
        assert not is_running(pid), "each was reaped"


def test_watcher_that_lasted_is_replaced_at_once(keep: Callable[..., Kept]) -> None:
    kept = keep(die, stay, stay)
    kept.lose()
    kept.proceed()
    os.kill(kept.children[1], signal.SIGKILL)
    kept.now += LASTING_S
    kept.lose()
    assert kept.pause_before_next() == 0.0
    assert kept.keeper.handle_timer(kept.now)


def test_nothing_is_sent_and_nothing_fails_while_there_is_no_watcher(keep: Callable[..., Kept]) -> None:
    kept = keep(die)
    kept.lose()
    kept.keeper.send(Decision("Claimed"), kept.now)
    kept.keeper.flush(kept.now)
    assert kept.keeper.receive(kept.now) == []


def test_watcher_that_closed_its_channel_but_lives_is_ended_before_another_starts(keep: Callable[..., Kept]) -> None:
    def hang(channel: WatcherEnd) -> int:
        channel.close()
        time.sleep(600)
        return 0

    kept = keep(hang, stay)
    kept.lose()
    assert is_running(kept.children[0])
    kept.proceed()

    def reaped() -> bool:
        kept.keeper.handle_timer(kept.now)
        return not is_running(kept.children[0])

    wait_until(reaped)


def test_unusable_arguments_end_the_speaker_and_nothing_is_tried_again(keep: Callable[..., Kept]) -> None:
    kept = keep(refuse)
    kept.lose()

    def known() -> bool:
        kept.keeper.handle_timer(kept.now)
        return kept.keeper.unusable_arguments

    wait_until(known)
    assert not kept.keeper.handle_timer(kept.now + 1000)


def test_same_exit_code_of_a_watcher_that_had_worked_ends_nothing(keep: Callable[..., Kept]) -> None:
    def work_then_refuse(channel: WatcherEnd) -> int:
        channel.send(Credentials("cluster", (b"key",)))
        return EXIT_USAGE

    kept = keep(work_then_refuse, stay)
    kept.lose()
    assert kept.proceed()
    assert not kept.keeper.unusable_arguments
