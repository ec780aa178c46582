"""The channel between the speaker's two processes: framing, bounds, and that nobody ever waits."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.objects import AddressText, NodeName
from speaker.channel import (
    MAX_MESSAGE,
    MAX_QUEUED,
    AnnouncerEnd,
    ChannelClosedError,
    ChannelError,
    Claims,
    ClaimsChange,
    Credentials,
    Decoder,
    Holding,
    Stats,
    ToAnnouncer,
    ToWatcher,
    WatcherEnd,
    WholePlan,
    announcer_end,
    encode,
    watcher_end,
)
from speaker.link import LinkName
from speaker.plan import Bundle, BundleId, Candidate, Plan, PlanChange
from speaker.protocol.effects import Decision, PeerView

BUNDLE = Bundle(
    BundleId("uid-1"),
    (AddressText("192.0.2.1"),),
    ("default/web",),
    (Candidate(NodeName("node-1"), 0, 10), Candidate(NodeName("node-2"), 1, 0)),
)
MESSAGES: tuple[ToAnnouncer | ToWatcher, ...] = (
    Credentials("cluster-uid", (b"k" * 32, b"p" * 32)),
    WholePlan(Plan(1, NodeName("node-1"), (BUNDLE,))),
    PlanChange(2, (BUNDLE,), (BundleId("uid-0"),)),
    Claims(2, {AddressText("192.0.2.1"): Holding(7, (LinkName("eth0"),))}),
    ClaimsChange(3, {AddressText("192.0.2.1"): None, AddressText("192.0.2.2"): Holding(8)}),
    Stats(12.5, True, {"claims": 3}, peers=(PeerView(NodeName("node-2"), True, 0.35, 0.001, 4),)),
    Decision("AddressConflict", {"address": "192.0.2.1", "mac": "02:00:00:00:00:01"}, 1764339590.25),
)


def everything() -> Decoder[ToAnnouncer | ToWatcher]:
    return Decoder(ToAnnouncer | ToWatcher)  # type: ignore[arg-type]  # a union is a type to msgspec, but not to mypy


@pytest.fixture
def ends() -> Iterator[tuple[AnnouncerEnd, WatcherEnd]]:
    one, other = socket.socketpair()
    with one, other:
        yield announcer_end(one), watcher_end(other)


@given(st.lists(st.sampled_from(MESSAGES), max_size=8), st.data())
def test_messages_survive_any_split_of_the_bytes(messages: list[ToAnnouncer | ToWatcher], data: st.DataObject) -> None:
    stream = b"".join(encode(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = everything()
    received: list[ToAnnouncer | ToWatcher] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[start:end])
    assert received == messages


def test_a_message_beyond_the_bound_is_refused_before_its_body_comes() -> None:
    with pytest.raises(ChannelError, match=str(MAX_MESSAGE + 1)):
        everything().feed(struct.pack(">I", MAX_MESSAGE + 1))


@given(st.binary(max_size=64))
def test_bytes_that_are_no_message_are_an_error_or_incomplete(junk: bytes) -> None:
    framed = struct.pack(">I", len(junk)) + junk
    try:
        messages = everything().feed(framed)
    except ChannelError:
        return
    assert msgspec.msgpack.encode(messages[0])


def test_what_one_end_sends_the_other_receives_in_order(ends: tuple[AnnouncerEnd, WatcherEnd]) -> None:
    announcer, watcher = ends
    change = PlanChange(2, (BUNDLE,), ())
    watcher.send(WholePlan(Plan(1, NodeName("node-1"))))
    watcher.send(change)
    announcer.send(Claims(1, {}))
    assert announcer.receive() == [WholePlan(Plan(1, NodeName("node-1"))), change]
    assert watcher.receive() == [Claims(1, {})]
    assert announcer.receive() == []


def test_a_plan_larger_than_the_socket_buffer_arrives_whole(ends: tuple[AnnouncerEnd, WatcherEnd]) -> None:
    announcer, watcher = ends
    bundles = tuple(
        Bundle(BundleId(f"uid-{i:05}"), (AddressText(f"10.0.{i // 256}.{i % 256}"),), (f"default/service-{i}",), ())
        for i in range(20_000)
    )
    plan = WholePlan(Plan(1, NodeName("node-1"), bundles))
    watcher.send(plan)
    assert watcher.waiting
    received: list[ToAnnouncer] = []
    while not received:
        received += announcer.receive()
        watcher.flush()
    assert received == [plan]
    assert not watcher.waiting


def test_a_reader_that_sleeps_costs_a_bounded_queue_and_loses_the_oldest_notices(
    ends: tuple[AnnouncerEnd, WatcherEnd],
) -> None:
    announcer, watcher = ends
    filler = "x" * 4096
    for i in range(4 * MAX_QUEUED):
        announcer.send(Decision("AddressConflict", {"filler": filler, "n": i}))
        if not announcer.waits_for(Stats):
            announcer.send(Stats(float(i), True, {}))
    assert announcer.dropped > 0
    assert announcer.waits_for(Claims, Stats)
    assert not announcer.waits_for(Claims)
    received: list[ToWatcher] = []
    while announcer.waiting:
        received += watcher.receive()
        announcer.flush()
    received += watcher.receive()
    assert not announcer.waits_for(Stats)
    decisions = [message.fields["n"] for message in received if isinstance(message, Decision)]
    assert decisions == sorted(decisions)
    assert decisions[-1] == 4 * MAX_QUEUED - 1
    assert any(isinstance(message, Stats) for message in received)
    assert len(received) < 3 * MAX_QUEUED


def test_the_other_ends_death_is_told_after_its_last_words(ends: tuple[AnnouncerEnd, WatcherEnd]) -> None:
    announcer, watcher = ends
    watcher.send(PlanChange(2))
    watcher.close()
    assert announcer.receive() == [PlanChange(2)]
    with pytest.raises(ChannelClosedError):
        announcer.receive()
    with pytest.raises(ChannelClosedError):
        announcer.send(Claims(2, {}))
