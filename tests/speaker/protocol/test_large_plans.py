"""Thousands of bundles: no call takes long, whatever changes, and the end is what it would have been at once.

How long a call takes is told by how many Python functions it calls, which is the same on every machine.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable

import pytest

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import Bundle, BundleId, Candidate, Plan, PlanChange
from speaker.protocol.datagram import Authenticator
from speaker.protocol.effects import Decision, Effect, LinkState
from speaker.protocol.heartbeat import Flag, Heartbeat, pack_heard
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import Settings

MANY = 3000
CLUSTER, KEYS = "cluster", (b"k" * 32,)
ETH0 = LinkName("eth0")
ME = NodeName("a")


def bundle(id_: str, *numbers: int) -> Bundle:
    addresses = tuple(AddressText(f"10.0.{10 + n // 250}.{n % 250}") for n in numbers)
    candidates = tuple(Candidate(NodeName(node), 0, 0) for node in ("a", "b"))
    return Bundle(BundleId(id_), addresses, (f"default/{id_}",), candidates)


class Speaker:
    """One that nobody else is heard by, and what it decides."""

    def __init__(self, bundles: Iterable[Bundle] = ()) -> None:
        self.now = 0.0
        self.decisions: list[Decision] = []
        self.most = 0
        """Functions called by one call of the protocol, at most."""
        self.protocol = Protocol(ME, 1, Settings(), random.Random(1), 0.0)
        state = LinkState(ETH0, 2, Mac(b"\2\0\0\0\0\1"), True, ("10.0.0.1/16",))
        self.do(lambda: self.protocol.set_links((state,), 0.0))
        self.do(lambda: self.protocol.set_credentials(CLUSTER, KEYS, 0.0))
        self.set_plan(bundles)

    def set_plan(self, bundles: Iterable[Bundle]) -> None:
        plan = Plan(1, ME, tuple(bundles))
        self.do(lambda: self.protocol.set_plan(plan, self.now))

    def do(self, call: Callable[[], object]) -> None:
        """Make a call, and carry out what follows from it."""
        calls = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            call()
            self.protocol.take_answers()
            self.protocol.take_claims()
            effects: list[Effect] = self.protocol.take_effects()
        finally:
            sys.setprofile(None)
        self.most = max(self.most, calls)
        self.decisions += [effect for effect in effects if isinstance(effect, Decision)]

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while (deadline := self.protocol.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.do(lambda: self.protocol.handle_timer(self.now))
        self.now = until

    def hear(self, session: int, sequence: int, prefix: str) -> None:
        heard = pack_heard([(1, 0)])
        message = Heartbeat("z", 100, int(Flag.ABLE), "eth0", b"\2\0\0\0\0\x09", (prefix,), (), heard, 0, 0, ())
        data = Authenticator(CLUSTER, KEYS).encode(session, sequence, message)
        source = AddressText(prefix.partition("/")[0])
        self.do(lambda: self.protocol.receive_datagram(ETH0, source, data, self.now))

    def begin_to_count(self) -> None:
        self.most = 0
        self.decisions.clear()

    def told(self, reason: str) -> int:
        return sum(decision.reason == reason for decision in self.decisions)


@pytest.fixture
def holder() -> Speaker:
    """It holds everything."""
    speaker = Speaker(bundle(f"b{i:04}", i) for i in range(MANY))
    speaker.run(5.0)
    assert len(speaker.protocol.claims()) == MANY
    return speaker


def test_a_plan_of_thousands_is_taken_over_and_let_go_in_bounded_pieces(holder: Speaker) -> None:
    limit = 20 * MANY  # a few dozen functions for each bundle would be four times as many
    assert holder.most < limit
    holder.begin_to_count()
    holder.set_plan(())
    assert holder.told("Released") <= 500
    holder.run(0.5)
    assert holder.told("Released") == MANY
    assert not holder.protocol.claims()
    assert holder.most < limit


def test_claims_outlive_other_names_of_their_bundles_whatever_the_pieces(holder: Speaker) -> None:
    """An address that left the Plan with one bundle and is there with another never left it."""
    before = dict(holder.protocol.claims())
    holder.begin_to_count()
    holder.set_plan(bundle(f"c{MANY - i:04}", i) for i in range(MANY))
    holder.set_plan(bundle(f"d{i // 2:04}", i, i + 1) for i in range(0, MANY, 2))
    holder.run(3.0)
    assert holder.protocol.claims() == before
    assert not holder.told("Released")


def test_what_leaves_the_plan_while_it_is_still_taken_over_is_not_claimed_in_the_end(holder: Speaker) -> None:
    other = [bundle(f"b{i:04}", i) for i in range(MANY, 2 * MANY)]
    holder.set_plan(other)
    gone = tuple(each.id for each in other[:100])
    change = PlanChange(2, (), gone)
    holder.do(lambda: holder.protocol.change_plan(change, holder.now))
    holder.run(3.0)
    assert set(holder.protocol.claims()) == {address for each in other[100:] for address in each.addresses}


def test_a_peer_that_starts_anew_makes_nobody_look_at_all_addresses(holder: Speaker) -> None:
    """It says of the subnets what it said before."""
    holder.hear(9, 1, "10.0.0.9/16")
    holder.run(2.0)
    holder.begin_to_count()
    holder.hear(10, 1, "10.0.0.9/16")
    holder.hear(11, 1, "10.0.0.10/16")
    holder.run(0.05)
    assert holder.most < MANY


def test_a_member_that_says_other_subnets_each_time_keeps_nobody_from_claiming(holder: Speaker) -> None:
    holder.hear(9, 1, "10.0.0.9/16")
    added = bundle("x", MANY)
    change = PlanChange(2, (added,))
    holder.do(lambda: holder.protocol.change_plan(change, holder.now))
    for sequence in range(2, 200):
        holder.hear(9, sequence, f"10.{sequence}.0.9/16")
        holder.run(0.01)
    assert added.addresses[0] in holder.protocol.claims()


def test_links_that_change_are_followed_in_bounded_pieces(holder: Speaker) -> None:
    holder.begin_to_count()
    state = LinkState(LinkName("lan7"), 2, Mac(b"\2\0\0\0\0\1"), True, ("10.0.0.1/16",))
    holder.do(lambda: holder.protocol.set_links((state,), holder.now))
    holder.run(0.5)
    assert holder.most < 20 * MANY
    assert set(holder.protocol.answered().values()) == {frozenset({"lan7"})}
    assert len(holder.protocol.answered()) == MANY
