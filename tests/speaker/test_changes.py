"""A change stays a change: of the Plan from the API side to the filters, of a claim from the wire to the API side.

How much a change costs is told by how many lines of Python it runs and how much memory it takes at once. Both are the
same for three hundred addresses and for three thousand, or some part makes a whole of it.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import pytest

from cluster.objects import AddressText, NodeName
from cluster.times import NEVER
from speaker.channel import ClaimsChange, ToAnnouncer, ToWatcher, watcher_end
from speaker.child import Child
from speaker.link import LinkName, Mac
from speaker.parts import change_in_parts, plan_in_parts
from speaker.passes import Passes
from speaker.plan import Bundle, BundleId, Candidate, Plan, PlanChange
from speaker.protocol.effects import AnswerChange, LinkState, SendGratuitous
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import Settings
from speaker.wire.addresses import WireAddress
from speaker.wire.answering import Answering
from speaker.wire.families import RESOLUTIONS
from speaker.wire.gratuitous import GratuitousSchedule
from speaker.wire.informer import Informer
from speaker.wire.keeper import WatcherKeeper
from speaker.wire.responders import Responders

ETH0 = LinkName("eth0")
ME = NodeName("node-1")
FEW, MANY = 300, 3000


def bundle(number: int, *addresses: str) -> Bundle:
    each = tuple(AddressText(address) for address in addresses) or (AddressText(f"10.0.{number >> 8}.{number & 255}"),)
    return Bundle(BundleId(f"{number:06}"), each, (f"default/{number}",), (Candidate(ME, 0, 0),))


class Work(NamedTuple):
    lines: int
    octets: int
    """Of memory, at once."""


class Speaker:
    """All of an announcer that decides, with a channel to its watcher and one link; its time is set by hand."""

    def __init__(self, count: int) -> None:
        ours, theirs = socket.socketpair()
        self.watcher = watcher_end(theirs)
        self.now = 0.0
        self.keeper = WatcherKeeper(Child(os.getpid(), ours), _no_other, 0.0)
        self.protocol = Protocol(ME, 1, Settings(), random.Random(1), 0.0)
        self.answering = Answering(RESOLUTIONS)
        self.responders = Responders(RESOLUTIONS, self.answering)
        self.schedule = GratuitousSchedule(RESOLUTIONS, self.answering)
        self.informer = Informer(
            self.keeper, self.protocol, self.answering, self.responders, counters=Counter(), passes=Passes()
        )
        self.heard: list[ToWatcher] = []
        state = LinkState(ETH0, 2, Mac(b"\2\0\0\0\0\1"), True, ("10.0.0.1/16",))
        for links in (self.responders.set_links, lambda links: self.schedule.set_links(links, 0.0)):
            links([state])
        self.protocol.set_links((state,), 0.0)
        self.protocol.set_credentials("cluster", (b"k" * 32,), 0.0)
        self.say(*plan_in_parts(Plan(1, ME, tuple(bundle(number) for number in range(count)))))
        self.run(60.0)
        assert len(self.informer.claims) == count
        for responder in self.responders.on(ETH0).values():
            responder.filter.tighten()
        for change in (PlanChange(2, (bundle(9, "10.0.200.7"),)), PlanChange(3, (bundle(9),))):
            self.change(change)  # what all that was claimed at first is looked at for once
        self.heard.clear()

    def say(self, *messages: ToAnnouncer) -> None:
        """The watcher says something, and all of it arrives."""
        for message in messages:
            self.watcher.send(message)
        while self.watcher.waiting:
            self.receive()
            self.watcher.flush()
        self.receive()

    def receive(self) -> None:
        """What the watcher said takes effect, as in the announcer."""
        for message in self.keeper.receive(self.now):
            if isinstance(message, Plan):
                self.protocol.set_plan(message, self.now)
            elif isinstance(message, PlanChange):
                self.protocol.change_plan(message, self.now)
        self.obey()

    def obey(self) -> None:
        change = self.protocol.take_answers()
        if change is not None:
            self.follow(change)
        self.informer.change_claims(self.protocol.take_claims(), change)
        for effect in self.protocol.take_effects():
            if isinstance(effect, SendGratuitous):
                self.schedule.announce(map(WireAddress.of, effect.addresses), effect.defend)

    def follow(self, change: AnswerChange) -> None:
        differences = self.answering.change(change)
        self.responders.follow(differences)
        self.schedule.follow(differences, self.now)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := self.next_deadline()) < until:
            self.now = max(self.now, at) + 1e-6
            self.protocol.handle_timer(self.now)
            self.obey()
            self.schedule.handle_timer(self.now)
            self.informer.handle_timer(self.now)
            self.heard += self.watcher.receive()
        self.now = until

    def next_deadline(self) -> float:
        moments = (self.protocol.next_deadline(), self.schedule.next_deadline(), self.informer.next_deadline())
        return min(at for at in moments if at is not None)

    def change(self, change: PlanChange) -> None:
        """From the API side to the filter, and back to the API side."""
        self.say(*change_in_parts(change))
        self.run(1.0)

    def told(self) -> dict[AddressText, bool]:
        """The addresses that the API side heard of, and whether they are held."""
        changes = [message.held for message in self.heard if isinstance(message, ClaimsChange)]
        return {address: holding is not None for held in changes for address, holding in held.items()}

    def close(self) -> None:
        self.watcher.close()
        if self.keeper.channel is not None:
            self.keeper.channel.close()


def _no_other() -> Child:
    raise OSError("there is one watcher only")


@pytest.fixture(scope="module")
def speakers() -> Iterator[tuple[Speaker, Speaker]]:
    made = Speaker(FEW), Speaker(MANY)
    yield made
    for speaker in made:
        speaker.close()


def work(call: Callable[[], object]) -> Work:
    lines = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal lines
        lines += event == "line"
        return count

    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return Work(lines, peak - before)


def assert_equal_work(few: Work, many: Work) -> None:
    assert many.lines <= 1.2 * few.lines + 100
    assert many.octets <= 1.2 * few.octets + 8192, "a list of three thousand has 24 KB"


def test_changed_bundle_costs_the_same_whatever_there_is_and_is_told_alone(speakers: tuple[Speaker, Speaker]) -> None:
    another, former = AddressText("10.0.200.7"), AddressText("10.0.0.9")
    changes = PlanChange(4, (bundle(9, another),)), PlanChange(5, (bundle(9),))

    def there_and_back(speaker: Speaker) -> None:
        for change in changes:
            speaker.change(change)

    few, many = (work(partial(there_and_back, speaker)) for speaker in speakers)
    assert_equal_work(few, many)
    for speaker in speakers:
        assert speaker.told() == {another: False, former: True}
        speaker.heard.clear()


def test_suspended_link_costs_the_same_whatever_is_held_there(speakers: tuple[Speaker, Speaker]) -> None:
    def suspend_and_resume(speaker: Speaker) -> None:
        for suspended in ([ETH0], []):
            change = AnswerChange({}, suspended=frozenset(suspended))
            speaker.follow(change)
            speaker.informer.change_claims({}, change)
            while (at := speaker.informer.next_deadline()) < NEVER:
                speaker.now = max(speaker.now, at)
                speaker.informer.handle_timer(speaker.now)
                speaker.heard += speaker.watcher.receive()

    few, many = (work(partial(suspend_and_resume, speaker)) for speaker in speakers)
    assert_equal_work(few, many)
    for speaker in speakers:
        assert [message.suspended for message in speaker.heard if isinstance(message, ClaimsChange)] == [(ETH0,), ()]
        assert speaker.told() == {}
        speaker.heard.clear()
