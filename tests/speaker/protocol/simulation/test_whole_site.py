"""Power failures of the whole site: all speakers start, nobody holds anything, and the records say who did."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from msgspec.structs import replace

from cluster.l2status import EPOCH_ANNOTATION, NODE_LABEL
from cluster.objects import AddressText, ObjectMeta, ServiceL2Status
from speaker.plan import DRAINED_TIER, Bundle
from tests.speaker.protocol.simulation.registry import Registry
from tests.speaker.protocol.simulation.scenes import (
    assert_each_is_answered_by_one,
    assert_nothing_moves,
    decisions_of,
    numbered,
    protocol_of,
    settle,
)
from tests.speaker.protocol.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

BUNDLES = 24
FORMER_S = 5.0  # a node that is able leaves a bundle to its former holder for so long
STALE_S = 51.0  # after which a Lease that nobody renews says nothing
START_S = 1.5  # until a node that starts is able


def placed(seed: int, nodes: int = 4) -> tuple[World, Registry, dict[AddressText, str]]:
    """A world that has lived: nodes died and came back, so that nothing is where the ranking has it first. And who
    answers for what in it."""
    world = World(seed, nodes)
    registry = Registry(world)
    settle(world, BUNDLES, owners_stay=False)
    for name in list(world.nodes)[: nodes - 1]:
        world.power_cut(name)
        world.run(4.0)
        world.start(name)
        world.run(4.0)
    before = answerers(world)
    first = {bundle.addresses[0]: bundle.candidates[0].node for bundle in world.plans[-1][1]}
    assert sum(before[address] != node for address, node in first.items()) > BUNDLES / 3, "the ranking would do"
    return world, registry, before


def answerers(world: World) -> dict[AddressText, str]:
    return {numbered(i): world.owner(numbered(i)) or "nobody" for i in range(BUNDLES)}


def black_out(world: World) -> None:
    for name in world.nodes:
        world.power_cut(name)
    world.run(60.0)


def start(world: World, names: Iterable[str], spread: float) -> None:
    for name in names:
        world.clock.after(world.rng.uniform(0.0, spread), lambda name=name: world.start(name))  # type: ignore[misc]


def moves_since(world: World, began: float) -> int:
    """How many times an address came to be answered by somebody else, who was not the first."""
    later = [(address, who) for at, address, who in world.owner_changes if at >= began and len(who) == 1]
    return sum(1 for i, (address, who) in enumerate(later) if any(a == address and w != who for a, w in later[:i]))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_every_address_comes_back_where_it_was(seed: int, spread: float) -> None:
    world, _, before = placed(seed)
    black_out(world)
    began = world.now
    start(world, world.nodes, spread)
    world.run(spread + START_S + 0.5)
    assert answerers(world) == before, world.story()
    assert moves_since(world, began) == 0, world.story()
    assert_nothing_moves(world, 40.0)


def test_epochs_go_on_above_those_that_were_recorded() -> None:
    world, registry, _ = placed(1)
    recorded = {id_: int(record.metadata.annotations[EPOCH_ANNOTATION]) for id_, record in registry.records.items()}
    black_out(world)
    start(world, world.nodes, 0.0)
    world.run(START_S + 0.5)
    for name in world.nodes:
        for address, epoch in protocol_of(world, name).claims().items():
            id_ = next(bundle.id for bundle in world.plans[-1][1] if address in bundle.addresses)
            assert epoch > recorded[id_]


@pytest.mark.parametrize(("seed", "wait_s"), [(0, STALE_S), (1, FORMER_S), (2, FORMER_S)])
def test_a_node_that_comes_minutes_after_the_others_gets_back_what_it_had(seed: int, wait_s: float) -> None:
    """The others leave it alone as long as its Lease is fresh, and for some seconds anyway. Then they answer for it,
    until it is there."""
    world, registry, before = placed(seed)
    late = max(world.nodes, key=list(before.values()).count)
    theirs = {address for address, node in before.items() if node == late}
    black_out(world)
    if wait_s == FORMER_S:
        registry.remove(late)
    start(world, [name for name in world.nodes if name != late], 0.0)
    world.run(START_S + FORMER_S - 1.0)
    assert {a for a, node in answerers(world).items() if node == "nobody"} == theirs, world.story()
    world.run(wait_s - FORMER_S + 3.0)
    meanwhile = answerers(world)
    assert "nobody" not in meanwhile.values(), world.story()
    assert {a: node for a, node in meanwhile.items() if a not in theirs} == {
        a: node for a, node in before.items() if a not in theirs
    }
    world.run(60.0)
    assert answerers(world) == meanwhile, "nobody else is given what the late one had"
    world.start(late)
    world.run(START_S + 4.0)
    assert answerers(world) == before, world.story()
    assert_each_is_answered_by_one(world)
    assert_nothing_moves(world, 60.0)


def test_what_a_node_had_that_does_not_come_back_is_shared_among_the_others() -> None:
    world, _, before = placed(2)
    gone = max(world.nodes, key=list(before.values()).count)
    black_out(world)
    start(world, [name for name in world.nodes if name != gone], 2.0)
    world.run(START_S + STALE_S + 4.0)
    assert "nobody" not in answerers(world).values(), world.story()
    world.run(160.0)
    after = answerers(world)
    assert {a: n for a, n in after.items() if before[a] != gone} == {a: n for a, n in before.items() if n != gone}
    assert_each_is_answered_by_one(world)
    assert_nothing_moves(world, 30.0)


def as_record(node: str, epoch: str) -> ServiceL2Status:
    annotations = {EPOCH_ANNOTATION: epoch} if epoch else {}
    return ServiceL2Status(ObjectMeta(name="", labels={NODE_LABEL: node}, annotations=annotations))


def without_epochs(registry: Registry) -> None:
    """As an earlier release wrote them."""
    registry.records = {i: as_record(r.metadata.labels[NODE_LABEL], "") for i, r in registry.records.items()}


def of_a_node_that_is_gone(registry: Registry) -> None:
    registry.records = {id_: as_record("scrapped", "8") for id_ in registry.records}


def with_the_highest_epochs(registry: Registry) -> None:
    registry.records = {i: as_record(r.metadata.labels[NODE_LABEL], "9" * 10) for i, r in registry.records.items()}


def removed(registry: Registry) -> None:
    registry.records = {}


@pytest.mark.parametrize(
    ("change", "same"),
    [(without_epochs, True), (with_the_highest_epochs, True), (of_a_node_that_is_gone, False), (removed, False)],
)
def test_records_of_other_kinds(change: Callable[[Registry], None], same: bool) -> None:
    """What names nobody who may hold the bundle keeps nobody waiting."""
    world, registry, before = placed(3)
    black_out(world)
    change(registry)
    start(world, world.nodes, 0.0)
    world.run(START_S + 1.0)
    after = answerers(world)
    assert "nobody" not in after.values(), world.story()
    assert (after == before) is same, world.story()
    assert_each_is_answered_by_one(world)


def drained(bundle: Bundle, node: str) -> Bundle:
    candidates = (replace(each, tier=DRAINED_TIER) if each.node == node else each for each in bundle.candidates)
    return replace(bundle, candidates=tuple(sorted(candidates, key=lambda each: each.tier)))


def without(bundle: Bundle, node: str) -> Bundle:
    return replace(bundle, candidates=tuple(each for each in bundle.candidates if each.node != node))


def with_another_preferred(bundle: Bundle, node: str) -> Bundle:
    preferred = (replace(each, preference=10 if each.node != node else 0) for each in bundle.candidates)
    return replace(bundle, candidates=tuple(sorted(preferred, key=lambda each: -each.preference)))


@pytest.mark.parametrize("change", [drained, without, with_another_preferred])
def test_what_people_decided_meanwhile_counts_for_more_than_the_record(change: Callable[[Bundle, str], Bundle]) -> None:
    world, _, before = placed(4)
    named = max(world.nodes, key=list(before.values()).count)
    black_out(world)
    world.set_bundles(change(bundle, named) for bundle in world.plans[-1][1])
    start(world, world.nodes, 0.0)
    world.run(START_S + 1.0)
    after = answerers(world)
    assert "nobody" not in after.values(), "nobody waits for it either"
    assert named not in after.values(), world.story()
    assert {a: n for a, n in after.items() if before[a] != named} == {a: n for a, n in before.items() if n != named}


def test_a_node_that_the_api_does_not_call_ready_yet_has_its_addresses_again_all_the_same() -> None:
    world, _, before = placed(5)
    slow = max(world.nodes, key=list(before.values()).count)
    black_out(world)
    tiers = {slow: 1}
    world.set_bundles(bundle_of(b.id, b.addresses, world.nodes, tiers) for b in world.plans[-1][1])
    start(world, world.nodes, 0.0)
    world.run(START_S + 0.5)
    assert answerers(world) == before, world.story()


def test_endpoints_that_come_back_minutes_later_find_the_address_where_it_was() -> None:
    world, _, before = placed(6)
    black_out(world)
    world.set_serving(lambda _: False)
    start(world, world.nodes, 1.0)
    world.run(100.0)
    assert set(answerers(world).values()) == {"nobody"}
    world.set_serving(lambda _: True)
    world.run(2.0)
    assert answerers(world) == before, world.story()


def test_a_speaker_that_could_not_read_the_records_takes_nothing_that_another_has_claimed() -> None:
    world, registry, before = placed(7)
    black_out(world)
    blind, records = next(iter(world.nodes)), registry.records
    registry.records = {}
    world.start(blind)
    world.run(0.06)
    registry.records = records
    start(world, [name for name in world.nodes if name != blind], 0.0)
    world.run(START_S + FORMER_S + 2.0)
    assert_each_is_answered_by_one(world)
    assert not decisions_of(world, "Withdrawn", since=world.now - 4.0), "nobody fights about it"
    assert before.keys() == answerers(world).keys()


def test_a_node_on_its_own_power_that_was_cut_off_gives_way_to_what_was_claimed_meanwhile() -> None:
    """It has held its addresses all the while, and nobody heard it. The others read its epochs, and claimed above."""
    world, _, before = placed(8)
    island = max(world.nodes, key=list(before.values()).count)
    world.unplug(island)
    for name in world.nodes:
        if name != island:
            world.power_cut(name)
    world.run(20.0)
    start(world, [name for name in world.nodes if name != island], 0.0)
    world.run(START_S + STALE_S + 3.0)
    epochs = {a: e for n in world.nodes if n != island for a, e in protocol_of(world, n).claims().items()}
    assert epochs.keys() == before.keys()
    world.plug(island)
    world.run(0.5)
    assert island not in answerers(world).values(), world.story()
    assert_each_is_answered_by_one(world)
    world.run(5.0)
    assert answerers(world) == before, "it is back within two minutes"
