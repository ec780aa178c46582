"""What the programs of a watch have written, as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.client import Command
from lab.errors import LabError
from lab.measuring.figures import HttpRequest, LateQuestion, NeighbourAnswer
from lab.measuring.measure import ClientWatch

ADDRESS, MAC = "172.18.255.200", "02:00:00:00:00:01"


class Program(Command):
    """One that runs until it is said to have ended."""

    def __init__(self) -> None:
        self.code = None

    def poll(self) -> int | None:
        return self.code


class Watched:
    """A watch, and what its programs write."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.program = Program()
        files = [directory / name for name in ("answers", "requests")]
        self._writing = [stack.enter_context(file.open("w", buffering=1)) for file in files]
        reading = [stack.enter_context(file.open("rb")) for file in files]
        self.watch = ClientWatch([ADDRESS], [self.program], *reading)

    def write(self, text: str, *, by_load: bool = False) -> None:
        file = self._writing[by_load]
        file.write(text)
        file.flush()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(tmp_path, stack)


READY = '{"ready": true}\n'


def answer(at: float) -> str:
    return json.dumps({"at": at, "address": ADDRESS, "mac": MAC}) + "\n"


def test_a_watch_is_ready_when_each_program_has_said_so(watched: Watched) -> None:
    assert not watched.watch.ready()
    watched.write(READY)
    watched.write(READY[:5], by_load=True)
    assert not watched.watch.ready()
    watched.write(READY[5:], by_load=True)
    assert watched.watch.ready()
    assert (watched.watch.answers(), watched.watch.requests()) == ([], [])


def test_each_line_is_told_once_it_is_whole_and_stays(watched: Watched) -> None:
    watched.write(READY + answer(1.0) + answer(2.0)[:7])
    assert watched.watch.answers() == [NeighbourAnswer(1.0, ADDRESS, MAC)]
    watched.write(answer(2.0)[7:] + '{"asked": 2.5, "late": 0.2}\n')
    assert watched.watch.answers() == [NeighbourAnswer(at, ADDRESS, MAC) for at in (1.0, 2.0)]
    assert watched.watch.late_questions() == [LateQuestion(2.5, 0.2)]
    watched.watch.answers().clear()
    assert len(watched.watch.answers()) == 2, "what somebody does with the list is nothing to the watch"


def test_requests_are_in_order_of_their_start_whenever_they_end(watched: Watched) -> None:
    watched.write(READY + '{"start": 2, "end": 2.1, "ok": true}\n', by_load=True)
    assert watched.watch.requests() == [HttpRequest(2.0, 2.1, ok=True)]
    watched.write('{"start": 1, "end": 2.2, "ok": false, "error": "timeout"}\n', by_load=True)
    assert [each.start for each in watched.watch.requests()] == [1.0, 2.0]


def test_a_program_that_has_ended_is_an_error(watched: Watched) -> None:
    watched.program.code = 1
    with pytest.raises(LabError, match="has ended with 1"):
        watched.watch.answers()
