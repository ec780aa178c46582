"""What the loop is called for, and what not any more."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial

import pytest

from speaker.wire.waiting import Waiting

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    made = Waiting()
    yield made
    made.close()


@pytest.fixture
def pairs() -> Iterator[tuple[Pair, Pair]]:
    made = socket.socketpair(), socket.socketpair()
    yield made
    for pair in made:
        for end in pair:
            end.close()


def test_socket_that_can_be_read_is_called_for_and_another_is_not(waiting: Waiting, pairs: tuple[Pair, Pair]) -> None:
    called: list[str] = []
    for name, (ours, _) in zip(("one", "two"), pairs, strict=True):
        waiting.add(ours, partial(called.append, name))
    assert waiting.wait(0.0) == []
    pairs[1][1].send(b"x")
    waiting.call(waiting.wait(5.0))
    assert called == ["two"]


def test_socket_that_another_call_closed_in_the_same_pass_is_not_called_for(
    waiting: Waiting, pairs: tuple[Pair, Pair]
) -> None:
    called: list[socket.socket] = []

    def close_the_other(mine: socket.socket, other: socket.socket) -> None:
        called.append(mine)
        waiting.remove(other)
        other.close()

    one, two = pairs[0][0], pairs[1][0]
    waiting.add(one, lambda: close_the_other(one, two))
    waiting.add(two, lambda: close_the_other(two, one))
    for _, theirs in pairs:
        theirs.send(b"x")
    ready = waiting.wait(5.0)
    assert len(ready) == 2
    waiting.call(ready)
    assert len(called) == 1


def test_socket_is_waited_for_until_it_can_be_written_only_while_something_is_to_be_written(
    waiting: Waiting, pairs: tuple[Pair, Pair]
) -> None:
    ours = pairs[0][0]
    waiting.add(ours, lambda: None, writes=True)
    assert waiting.wait(5.0)
    waiting.add(ours, lambda: None)
    assert waiting.wait(0.0) == []
    waiting.add(ours, lambda: None, writes=True)
    assert waiting.wait(5.0)
