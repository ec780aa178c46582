"""A place that one process has at a time, by the kernel's word."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from controller.daemon import place

HOLD = """
import sys, time
from controller.daemon import place
taken = place.take(sys.argv[1], time.monotonic)
print(taken.place.name if taken else "none", flush=True)
time.sleep(60)
"""


class Holder:
    """Another process that tries to take a place, and stays."""

    def __init__(self, purpose: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", HOLD, purpose], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def purpose(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{request.node.name} {tmp_path_factory.getbasetemp()}"  # other runs are on this machine, too


def test_the_place_of_a_process_that_was_killed_is_free_and_is_the_same(purpose: str) -> None:
    holder = Holder(purpose)
    assert holder.said != "none"
    assert place.take(purpose, time.monotonic) is None, "it is not dead"
    holder.process.send_signal(signal.SIGSTOP)
    assert place.take(purpose, time.monotonic) is None, "nor is it when it stands still"
    holder.kill()
    before = time.monotonic()
    taken = place.take(purpose, time.monotonic)
    assert taken is not None
    assert taken.place.name == holder.said
    assert before <= taken.place.since <= time.monotonic()
    taken.held_by.close()


def test_with_another_purpose_it_is_another_place(purpose: str) -> None:
    one, other = place.take(purpose, time.monotonic), place.take(purpose + "!", time.monotonic)
    assert one is not None
    assert other is not None
    assert one.place.name != other.place.name
    for each in (one, other):
        assert " " not in each.place.name
        each.held_by.close()


@pytest.mark.lab
def test_in_another_network_namespace_it_is_another_place(purpose: str) -> None:
    """As in another pod: both can have it, and neither proves anything of the other."""
    mine = place.take(purpose, time.monotonic)
    assert mine is not None
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", HOLD, purpose]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as elsewhere:
        assert elsewhere.stdout is not None
        said = elsewhere.stdout.readline().strip()
        elsewhere.kill()
    assert said not in {"none", mine.place.name}
    mine.held_by.close()
