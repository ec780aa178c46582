"""What the watcher hears of claims and decisions, whether it reads or not."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.addresses import Family
from cluster.objects import AddressText, NodeName
from speaker.api.statistics import Statistics
from speaker.channel import Claims, ClaimsChange, Holding, Stats, ToWatcher, Unheard, WatcherEnd, watcher_end
from speaker.child import Child
from speaker.link import LinkName, Mac
from speaker.passes import Passes
from speaker.protocol.effects import AnswerChange, Decision, LinkState
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import Settings
from speaker.wire.addresses import WireAddress
from speaker.wire.answering import Answering
from speaker.wire.families import RESOLUTIONS
from speaker.wire.informer import CLAIMS_AT_ONCE, CLAIMS_GAP_S, DECISIONS_PER_BURST, Informer
from speaker.wire.keeper import WatcherKeeper
from speaker.wire.responders import Responders
from tests.arp_frames import request

ETH0 = LinkName("eth0")
HERE, NOWHERE = frozenset((ETH0,)), frozenset[LinkName]()


class World:
    """An informer, and the watcher's end of the channel to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.watcher: WatcherEnd = watcher_end(theirs)
        self.answering = Answering(RESOLUTIONS)
        self.responders = Responders(RESOLUTIONS, self.answering)
        self.counters: Counter[str] = Counter()
        self.keeper = WatcherKeeper(Child(os.getpid(), ours), _no_other, 0.0)
        self.keeper.plan_revision = 1
        self.protocol = Protocol(NodeName("node-1"), 1, Settings(), random.Random(1), 0.0)
        self.informer = Informer(
            self.keeper, self.protocol, self.answering, self.responders, counters=self.counters, passes=Passes()
        )
        self.now = 0.0

    def change(self, claims: dict[AddressText, int | None], held: AnswerChange | None = None) -> None:
        if held is not None:
            self.responders.follow(self.answering.change(held))
        self.informer.change_claims(claims, held)

    def run(self, until: float = float("inf")) -> None:
        """Do what is due, for as long as something is."""
        while (deadline := self.informer.next_deadline()) <= until and deadline < float("inf"):
            self.now = max(self.now, deadline)
            self.informer.handle_timer(self.now)
            if until == float("inf") and self.keeper.channel and self.keeper.channel.waiting:
                return

    def close(self) -> None:
        self.watcher.close()
        if self.keeper.channel is not None:
            self.keeper.channel.close()


def _no_other() -> Child:
    raise OSError("there is one watcher only")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def heard(messages: list[ToWatcher]) -> dict[AddressText, Holding]:
    """What a watcher knows after these."""
    known: dict[AddressText, Holding] = {}
    suspended: tuple[LinkName, ...] = ()
    for message in messages:
        if isinstance(message, Claims | ClaimsChange):
            suspended = message.suspended
        if isinstance(message, Claims):
            known = dict(message.held)
        elif isinstance(message, ClaimsChange):
            for address, holding in message.held.items():
                known.pop(address, None)
                if holding is not None:
                    known[address] = holding
    return {
        address: Holding(holding.epoch, tuple(link for link in holding.links if link not in suspended))
        for address, holding in known.items()
    }


def many(count: int) -> list[AddressText]:
    return [AddressText(f"10.0.{n >> 8}.{n & 255}") for n in range(count)]


addresses = st.sampled_from(many(6))


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.dictionaries(addresses, st.one_of(st.none(), st.integers(1, 9)), max_size=4),
            st.dictionaries(addresses, st.sampled_from([HERE, NOWHERE]), max_size=4),
            st.just("new watcher"),
            st.floats(0.01, 0.2),
        ),
        max_size=20,
    )
)
def test_watcher_knows_in_the_end_what_is_held(steps: list[object]) -> None:
    world, epochs, links = World(), dict[AddressText, int | None](), dict[AddressText, frozenset[LinkName]]()
    received: list[ToWatcher] = []
    try:
        for step in steps:
            if step == "new watcher":
                world.informer.begin()
            elif isinstance(step, float):
                world.now += step
                world.run(until=world.now)
                received += world.watcher.receive()
            elif isinstance(step, dict) and all(isinstance(each, frozenset) for each in step.values()):
                links.update(step)
                world.change({}, AnswerChange(step))
            elif isinstance(step, dict):
                epochs.update(step)
                world.change(step)
        world.run()
        received += world.watcher.receive()
    finally:
        world.close()
    expected = {
        address: Holding(epoch, tuple(links.get(address, ()))) for address, epoch in epochs.items() if epoch is not None
    }
    assert heard(received) == expected


def test_a_watcher_hears_of_all_first_also_when_that_is_nothing(world: World) -> None:
    world.run()
    assert world.watcher.receive() == [Claims(1, {})]


def test_ten_thousand_claims_are_told_in_pieces_with_pauses(world: World) -> None:
    world.change(dict.fromkeys(many(10_000), 1))
    received: list[ToWatcher] = []
    while (deadline := world.informer.next_deadline()) < float("inf"):
        world.informer.handle_timer(deadline)
        received += world.watcher.receive()
        assert world.informer.next_deadline() >= deadline + CLAIMS_GAP_S
    assert len(received) == 10_000 / CLAIMS_AT_ONCE
    assert heard(received).keys() == set(many(10_000))


def test_a_watcher_that_does_not_read_costs_no_queue_and_hears_what_is_so_in_the_end(world: World) -> None:
    for epoch in range(1, 200):
        world.change(dict.fromkeys(many(2000), epoch))
        world.run(until=world.now + CLAIMS_GAP_S)
        world.now += CLAIMS_GAP_S
    channel = world.keeper.channel
    assert channel is not None
    assert not world.keeper.has_read(ClaimsChange)
    world.change({many(1)[0]: None})
    received: list[ToWatcher] = []
    while world.informer.next_deadline() < float("inf") or channel.waiting:
        received += world.watcher.receive()
        channel.flush()
        world.now += CLAIMS_GAP_S
        world.informer.handle_timer(world.now)
    received += world.watcher.receive()
    assert len(received) < 20
    assert heard(received) == dict.fromkeys(many(2000)[1:], Holding(199))


def test_decisions_go_out_in_bursts_and_say_when_they_were_decided(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    before = time.time()
    world.informer.decide([Decision("Claimed", {"address": address}) for address in many(100)])
    after = time.time()
    with caplog.at_level(logging.INFO):
        world.informer.handle_timer(1.0)
        assert len(caplog.records) == DECISIONS_PER_BURST
        world.run()
    told = [message for message in world.watcher.receive() if isinstance(message, Decision)]
    assert [decision.fields["address"] for decision in told] == many(100)
    assert all(before <= decision.at <= after for decision in told)
    assert [record.created for record in caplog.records] == [decision.at for decision in told]
    assert {record.getMessage() for record in caplog.records} == {"Claimed"}
    assert world.counters["decisions:Claimed"] == 100


def test_suspending_a_link_is_told_of_the_link_and_of_no_address(world: World) -> None:
    world.change(dict.fromkeys(many(3000), 1), AnswerChange(dict.fromkeys(many(3000), HERE)))
    world.run()
    received = world.watcher.receive()
    assert set(heard(received).values()) == {Holding(1, (ETH0,))}
    for suspended, known in ((HERE, Holding(1)), (NOWHERE, Holding(1, (ETH0,)))):
        world.change({}, AnswerChange({}, suspended=suspended))
        world.run()
        told = world.watcher.receive()
        assert told == [ClaimsChange(1, {}, tuple(suspended))]
        received += told
        assert set(heard(received).values()) == {known}


def test_traffic_is_told_once_and_only_where_there_was_some(world: World) -> None:
    mac, client = Mac(bytes.fromhex("020000000001")), Mac(bytes.fromhex("0200000000aa"))
    world.responders.set_links([LinkState(ETH0, 2, mac, up=True)])
    asked, quiet, left = many(3)
    world.change(dict.fromkeys(many(3), 1), AnswerChange(dict.fromkeys(many(3), HERE)))
    traffic, told = Statistics(0.0), []
    for second in range(4):
        for address in (asked, left):
            question = request(address, AddressText("10.9.9.9"), client).encode()
            world.responders.on(ETH0)[Family.IPV4].receive(question, float(second))
            world.informer.gratuitous[WireAddress.of(address)] += 2
        if second == 2:
            world.change({left: None})
            traffic.forget(left)
        world.informer.tell_statistics(None, float(second))
        for message in (each for each in world.watcher.receive() if isinstance(each, Stats)):
            traffic.add(message)
            told.append((message.answered, message.gratuitous))
    both = {asked: 1, left: 1}, {asked: 2, left: 2}
    assert told == [both, both, ({asked: 1}, {asked: 2}), ({asked: 1}, {asked: 2})], "what is held no more is no news"
    assert traffic.totals() == ({asked: 4}, {asked: 8})
    assert quiet not in traffic.totals().answered


def test_statistics_that_are_not_read_add_up(world: World) -> None:
    address = many(1)[0]
    world.change({address: 1})
    channel = world.keeper.channel
    assert channel is not None
    sent = 0
    while world.keeper.has_read(Stats):
        world.informer.gratuitous[WireAddress.of(address)] += 1
        world.informer.tell_statistics(None, 0.0)
        sent += 1
    for _ in range(50):
        world.informer.gratuitous[WireAddress.of(address)] += 1
        world.informer.tell_statistics(None, 0.0)
    traffic = Statistics(0.0)
    for _ in range(10):
        for message in world.watcher.receive():
            if isinstance(message, Stats):
                traffic.add(message)
        channel.flush()
        world.informer.tell_statistics(None, 0.0)
    assert traffic.totals().gratuitous == {address: sent + 50}


def test_who_is_unheard_is_told_when_it_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> list[Unheard]:
        world.informer.handle_timer(0.0)
        return [message for message in world.watcher.receive() if isinstance(message, Unheard)]

    unheard = frozenset[NodeName]()
    monkeypatch.setattr(world.protocol, "unheard", lambda: unheard)
    assert told() == [], "nothing happened"
    world.informer.tell_statistics(None, 0.0)
    assert told() == [Unheard(())]
    unheard = frozenset({NodeName("node-3"), NodeName("node-2")})
    world.informer.decide([Decision("PeerSuspected")])
    assert told() == []
    world.informer.decide([Decision("PeerDead")])
    assert told() == [Unheard((NodeName("node-2"), NodeName("node-3")))]
    world.informer.tell_statistics(None, 1.0)
    assert told() == [], "nothing changed"
    unheard = frozenset()  # by something that no decision tells of
    world.informer.tell_statistics(None, 2.0)
    assert told() == [Unheard(())]
    world.informer.begin()
    world.informer.tell_statistics(None, 3.0)
    assert told() == [Unheard(())]
