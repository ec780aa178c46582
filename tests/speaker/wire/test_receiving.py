"""How much is read in one pass of the loop, with a stand-in for the protocol that takes its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.wire import receiving
from speaker.wire.addresses import WireAddress
from speaker.wire.heartbeats.copies import DatagramCopies
from speaker.wire.heartbeats.sockets import Datagram
from speaker.wire.receiving import READING_S, Receiver

EACH_S = 0.006
"""A datagram with claims."""


class Queue:
    """Heartbeats of one family that wait to be read."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def receive(self, limit: int) -> Iterator[Datagram]:
        for _ in range(limit):
            if not self.waiting:
                return
            sender = WireAddress.of(AddressText("10.0.0.2"))
            yield Datagram(sender, Mac(bytes.fromhex("020000000002")), by_group=True, data=self.waiting.pop(0))


class Reading:
    """A receiver, one link with both families, and the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.heard = 0
        self.queues = {Family.IPV4: Queue(), Family.IPV6: Queue()}
        self.link: Any = SimpleNamespace(
            state=SimpleNamespace(name=LinkName("eth0")),
            heartbeats=self.queues,
            resolvers={},
            copies=DatagramCopies(),
            lost=tuple,
        )
        protocol: Any = SimpleNamespace(receive_datagram=self._receive)
        sender: Any = None
        monkeypatch.setattr(receiving, "boottime", lambda: self.now)
        self.receiver = Receiver(protocol, sender, Counter(), 0.15, lambda _: None)

    def _receive(self, *_: object, **__: object) -> bool:
        self.now += EACH_S
        self.heard += 1
        return True

    def arrive(self, count: int) -> None:
        for family, queue in self.queues.items():
            queue.waiting += [f"{family}{number}".encode() for number in range(count)]

    def begin_pass(self, elsewhere_s: float = 0.0) -> None:
        """What the loop does otherwise has taken so long."""
        self.now += elsewhere_s
        self.receiver.begin_pass(self.now)

    def read(self) -> float:
        """Both sockets, as the loop does; how long that took."""
        began = self.now
        for family in self.queues:
            self.receiver.heartbeats(self.link, family)
        return self.now - began


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(monkeypatch)


def test_a_pass_reads_heartbeats_for_so_long_whatever_the_number_of_sockets_and_of_times(reading: Reading) -> None:
    reading.arrive(50)
    reading.begin_pass()
    assert reading.read() <= READING_S + 2 * EACH_S
    assert reading.receiver.unread
    assert not reading.receiver.has_time
    reading.begin_pass()
    assert reading.receiver.has_time


def test_one_of_each_family_is_read_in_each_pass(reading: Reading) -> None:
    reading.arrive(50)
    reading.begin_pass()
    reading.read()
    assert all(len(queue.waiting) < 50 for queue in reading.queues.values())


def test_what_was_not_read_is_as_old_as_the_first_pass_that_left_something(reading: Reading) -> None:
    reading.arrive(12)
    reading.begin_pass()
    began = reading.now
    reading.read()
    assert reading.receiver.behind_s(reading.now) == reading.now - began
    reading.begin_pass(elsewhere_s=0.1)
    reading.read()
    assert reading.receiver.behind_s(reading.now) == reading.now - began
    while reading.receiver.unread:
        reading.begin_pass()
        reading.read()
    assert reading.heard == 24
    assert reading.receiver.behind_s(reading.now) == 0.0
    reading.begin_pass(elsewhere_s=1.0)
    reading.arrive(12)
    began = reading.now
    reading.read()
    assert reading.receiver.behind_s(reading.now) == reading.now - began
