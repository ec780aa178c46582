"""An upgrade that rolls through the cluster, codec by codec, with a death at every stage."""

from __future__ import annotations

import pytest

from speaker.protocol.heartbeat import Authenticator, ClaimStep, Message
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
