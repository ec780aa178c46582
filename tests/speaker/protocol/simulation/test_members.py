"""Members that are wrong: one that says nonsense with the key, and one that is preferred and cannot serve."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from cluster.objects import NodeName
from speaker.link import LinkName
from speaker.plan import Bundle
from speaker.protocol.claims import MAX_CLAIMS
from speaker.protocol.heartbeat import LONGEST_INTERVAL_MS
from speaker.protocol.settings import Settings
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.liar import FORGOTTEN_S, Liar
from tests.speaker.protocol.simulation.scenes import (
    VIP,
    assert_each_is_answered_by_one,
    decisions_of,
    held_by,
    numbered,
    owner_of,
    protocol_of,
    seconds_until_answered,
    settled,
)
from tests.speaker.protocol.simulation.world import World, bundle_of

pytestmark = pytest.mark.slow

LIES = [(Liar.claim_more_than_there_is, 10_000), (Liar.send_parts_that_never_end, 0)]


@pytest.mark.parametrize(("lie", "believed"), LIES, ids=["claims without end", "a claim set in parts without end"])
def test_who_says_what_cannot_be_fills_and_moves_nothing_and_a_dead_holder_is_replaced(
    lie: Callable[[Liar], None], believed: int
) -> None:
    """It also says that its next heartbeat is due much later than anybody's may be: nobody waits for that."""
    world = settled(1, bundles=6)
    owners, changes = dict(world.answerers), len(world.owner_changes)
    liar = Liar(world)
    liar.lie(4.0, lambda: lie(liar), due_ms=LONGEST_INTERVAL_MS)
    world.run(3.0)
    for name in world.nodes:
        (peer,) = (each for each in protocol_of(world, name).peers() if each.node == "liar")
        assert believed <= peer.claims <= MAX_CLAIMS
    holder = owner_of(world)
    mine = held_by(world, holder)
    kept = {address: who for address, who in world.answerers.items() if address not in mine}
    assert {address: owners[address] for address in kept} == kept
    world.power_cut(holder)
    assert seconds_until_answered(world) < 1.0 + 0.6, (
        "a second more of its saying that it hears everybody, the dead too"
    )
    world.run(FORGOTTEN_S)
    for name in set(world.nodes) - {holder}:
        assert not any(peer.alive for peer in protocol_of(world, name).peers() if peer.node == "liar"), world.story()
    assert len(world.owner_changes) == changes + 2 * len(mine), world.story()


def test_who_claims_the_highest_epoch_keeps_nobody_from_claiming_after_it() -> None:
    world = settled(2, bundles=6)
    liar = Liar(world)
    liar.lie(2.0, lambda: liar.claim([numbered(i) for i in range(6)]))
    world.run(1.5)
    assert not any(world.answerers.values()), "a higher claim is a higher claim"
    world.run(0.5 + FORGOTTEN_S)
    for _ in range(2):
        assert_each_is_answered_by_one(world)
        holder = owner_of(world)
        world.power_cut(holder)
        world.run(0.8)
        assert owner_of(world) != holder, world.story()
        world.start(holder)
        world.run(5.0)
    epochs = {epoch for name in world.nodes for epoch in protocol_of(world, name).claims().values()}
    assert max(epochs) < 20, "what nobody could claim above is not kept up"


def off_the_lan(world: World, bundle: Bundle, preferred: str) -> Bundle:
    storage = world.add_network("storage", "10.1")
    for name in world.nodes:
        world.join(name, storage, "eth1")
    del world.nodes[preferred].interfaces[0]
    return bundle


def without_the_named_interface(_: World, bundle: Bundle, preferred: str) -> Bundle:
    named = (
        replace(each, interfaces=(LinkName("eth9" if each.node == preferred else "eth0"),))
        for each in bundle.candidates
    )
    return replace(bundle, candidates=tuple(named))


@pytest.mark.parametrize("cannot", [off_the_lan, without_the_named_interface])
def test_nobody_steps_aside_for_a_preferred_node_that_cannot_claim(
    cannot: Callable[[World, Bundle, str], Bundle],
) -> None:
    """The holder released at each turn, and claimed again, since the other did not."""
    world = World(3, 3, settings=Settings(take_back_s=2.0))
    Invariants(world)
    preferred = NodeName("n1")
    bundle = bundle_of("b1", [VIP], world.nodes)
    candidates = [replace(each, preference=int(each.node == preferred)) for each in bundle.candidates]
    candidates.sort(key=lambda each: -each.preference)
    world.set_bundles([cannot(world, replace(bundle, candidates=tuple(candidates)), preferred)])
    world.start_all(spread=0.3)
    world.run(60.0)
    assert world.owner(VIP) not in {None, preferred}, world.story()
    assert len(world.owner_changes) == 1, world.story()
    assert not decisions_of(world, "Released", "Offered")
