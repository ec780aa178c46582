"""An upgrade that rolls through the cluster, codec by codec, with a death at every stage."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.protocol.datagram import Authenticator
from speaker.protocol.heartbeat import ClaimStep, Message
from tests.speaker.protocol.simulation.both_families import BOTH, IPV4
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.scenes import VIP, numbered, owner_of, protocol_of, seconds_until_answered
from tests.speaker.protocol.simulation.world import World, bundle_of
from tests.speaker.protocol.versions import MISSING, LastAuthenticator, NextAuthenticator

Codec = type[Authenticator]


def start(world: World, node: str, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("speaker.protocol.protocol.Authenticator", codec)
        world.start(node)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LastAuthenticator, Authenticator),
        (Authenticator, LastAuthenticator),
        (Authenticator, NextAuthenticator),
        (NextAuthenticator, Authenticator),
    ],
)
def test_speakers_of_two_releases_are_one_cluster(before: Codec, after: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(7, 4)
    Invariants(world, owners_stay=False)
    world.set_bundles(bundle_of(f"b{i:02}", [numbered(i)], world.nodes) for i in range(12))
    for node in world.nodes:
        start(world, node, before, monkeypatch)
    world.run(6.0)
    for node in list(world.nodes):
        world.leave(node)
        world.run(1.0)
        start(world, node, after, monkeypatch)
        world.run(4.0)
        assert all(len(world.answerers[numbered(i)]) == 1 for i in range(12)), world.story()
        dead = owner_of(world)
        codec = after if list(world.nodes).index(dead) <= list(world.nodes).index(node) else before
        world.kill(dead)
        assert seconds_until_answered(world) < 1.0
        start(world, dead, codec, monkeypatch)
        world.run(4.0)
        assert all(len(world.answerers[numbered(i)]) == 1 for i in range(12)), world.story()
    for node in world.nodes:
        counters = protocol_of(world, node).counters()
        dropped = {name for name in counters if name.startswith("heartbeats_dropped:")}
        assert not dropped & {f"heartbeats_dropped:{why}" for why in ("malformed", "nonsense", "other_version")}


@pytest.mark.parametrize("back", [False, True])
def test_dual_stack_services_through_an_upgrade_and_back(monkeypatch: pytest.MonkeyPatch, *, back: bool) -> None:
    """The last release answers IPv4 alone, and says nothing of families."""
    world = World(7, 4)
    world.speak(world.network, BOTH, "fd10")
    Invariants(world, owners_stay=False)
    pairs = {numbered(i): AddressText(f"fd10::9:{i + 1:x}") for i in range(12)}
    world.set_bundles(bundle_of(f"b{i:02}", pair, world.nodes) for i, pair in enumerate(pairs.items()))
    releases = [(LastAuthenticator, IPV4), (Authenticator, BOTH)]
    (before, former), (after, latter) = reversed(releases) if back else releases

    def begin(node: str, codec: Codec, families: frozenset[Family]) -> None:
        world.nodes[node].lan.speak(families)
        start(world, node, codec, monkeypatch)

    for node in world.nodes:
        begin(node, before, former)
    world.run(6.0)
    for number, node in enumerate(world.nodes):
        world.leave(node)
        world.run(1.0)
        begin(node, after, latter)
        world.run(5.0)
        newer = len(world.nodes) - number - 1 if back else number + 1
        for v4, v6 in pairs.items():
            assert world.owner(v4) is not None, world.story()
            assert world.owner(v6) == (world.owner(v4) if newer else None), world.story()
    world.run(40.0)
    loads = Counter(world.owner(v4) for v4 in pairs)
    there = 3 if back else 4  # a node that comes back takes nothing back
    assert max(loads.values()) <= ceil(1.25 * 12 / there), f"{loads}\n{world.story()}"


class Marking(Authenticator):
    """A release to come, whose claims on one address need a feature that this one lacks."""

    def encode(self, session: int, sequence: int, message: Message) -> bytes:
        if isinstance(message, ClaimStep):
            marks = tuple((place, MISSING) for place in range(len(message.claims)))
            message = ClaimStep(message.version, message.claims, marks)
        return super().encode(session, sequence, message)


def test_a_claim_that_needs_what_we_lack_is_counted_and_keeps_nobody_from_claiming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(3, 2)
    world.set_bundles([bundle_of("b", [VIP], world.nodes)])
    first, second = world.nodes
    start(world, first, Marking, monkeypatch)
    world.run(4.0)
    assert owner_of(world) == first
    start(world, second, Authenticator, monkeypatch)
    world.run(4.0)
    assert VIP in protocol_of(world, second).claims()
    assert protocol_of(world, second).counters()["claims_refused:unknown_feature"] >= 1
