"""Which speaker claims, which keeps, which steps aside: several real speakers on a quiet LAN."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from speaker.plan import Bundle, BundleId, Candidate
from speaker.protocol.conflicts import PROBE_WAIT_S
from speaker.protocol.settings import Settings
from speaker.protocol.unserved import UNSERVED_S
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.world import World, bundle_of

A, B = "10.0.9.1", "10.0.9.2"


def world_of(bundles: Iterable[Bundle], nodes: int = 3, *, start: bool = True) -> World:
    world = World(1, nodes)
    Invariants(world, owners_stay=False)
    world.set_bundles(bundles)
    if start:
        world.start_all()
        world.run(4.0)
    return world


def preferring(id_: str, address: str, **preferences: int) -> Bundle:
    ranked = sorted(preferences, key=lambda node: (-preferences[node], node))
    candidates = tuple(Candidate(NodeName(node), 0, preferences[node]) for node in ranked)
    return Bundle(BundleId(id_), (AddressText(address),), (f"default/{id_}",), candidates)


def reasons(world: World, reason: str) -> list[str]:
    return [str(decision.fields.get("why", "")) for _, _, decision in world.decisions if decision.reason == reason]


def test_the_preferred_node_claims() -> None:
    world = world_of([preferring("b1", A, n0=1, n1=50, n2=2)])
    assert world.owner(A) == "n1"


def test_a_higher_preference_takes_back_after_a_minute_and_waits_longer_the_next_time() -> None:
    world = world_of([preferring("b1", A, n0=1, n1=50, n2=2)])
    for wait in (60.0, 120.0):
        world.power_cut("n1")
        world.run(2.0)
        assert world.owner(A) == "n2"
        world.start("n1")
        world.run(wait - 2.0)
        assert world.owner(A) == "n2"
        world.run(8.0)
        assert world.owner(A) == "n1"
    assert reasons(world, "Offered") == ["preference", "preference"]


def test_a_holder_hands_over_to_a_higher_preference_when_that_ones_plan_says_so_too() -> None:
    """It claimed again at once, since the other did not, and took that for a promise that would never be kept."""
    world = World(1, 2, settings=Settings(take_back_s=1.0))
    Invariants(world, owners_stay=False)
    world.set_bundles([preferring("b1", A, n0=0, n1=50)])
    world.start_all()
    world.run(6.0)
    assert world.owner(A) == "n1"
    world.nodes["n0"].lag = 2.0
    world.set_bundles([preferring("b1", A, n0=50, n1=0)])
    world.run(10.0)
    assert world.owner(A) == "n0"
    assert set(reasons(world, "Offered")) == {"decision"}
    assert [why for why in reasons(world, "Claimed") if "handed over" in why] == ["handed over by n1"]
    assert reasons(world, "Released") == []


def test_a_later_tier_is_used_only_when_the_earlier_one_is_gone() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"], {"n0": 1, "n1": 0, "n2": 1})])
    assert world.owner(A) == "n1"
    world.power_cut("n1")
    world.run(1.0)
    assert world.owner(A) in {"n0", "n2"}


def test_becoming_less_suited_moves_nothing() -> None:
    """An API outage makes every node NotReady: opinions of the API end no claim."""
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    assert owner is not None
    world.set_bundles([bundle_of("b1", [A], ["n0", "n1", "n2"], {owner: 1})])
    world.run(100.0)
    assert world.owner(A) == owner


def test_a_holder_that_is_no_candidate_any_more_hands_over_to_one_that_is() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    others = [name for name in world.nodes if name != owner]
    world.set_bundles([bundle_of("b1", [A], others)])
    world.run(2.0)
    assert world.owner(A) in others
    assert reasons(world, "Offered") == ["no candidate any more"]


def test_a_holder_stays_while_nobody_else_is_a_candidate() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    world.set_bundles([bundle_of("b1", [A], [])])
    world.run(10.0)
    assert world.owner(A) == owner


def test_an_address_that_leaves_the_plan_is_released() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    world.set_bundles([])
    world.run(0.1)
    assert world.answerers[AddressText(A)] == frozenset()
    assert reasons(world, "Released") == ["left the Plan"]


def test_a_bundle_is_claimed_whole_and_by_one_node() -> None:
    world = world_of(bundle_of(f"b{i}", [f"10.0.9.{i}", f"10.0.8.{i}"], ["n0", "n1", "n2"]) for i in range(1, 10))
    for i in range(1, 10):
        assert world.owner(f"10.0.9.{i}") == world.owner(f"10.0.8.{i}") is not None


def test_bundles_that_are_joined_end_at_one_node() -> None:
    world = world_of([preferring("b1", A, n0=9, n1=0, n2=0), preferring("b2", B, n0=0, n1=9, n2=0)])
    assert (world.owner(A), world.owner(B)) == ("n0", "n1")
    world.set_bundles([bundle_of("b1", [A, B], ["n0", "n1", "n2"])])
    world.run(3.0)
    assert world.owner(A) == world.owner(B) is not None


def test_a_provisional_claim_moves_once_to_the_better_candidate_that_arrives() -> None:
    """At a cold start the first speaker there claims everything; one that comes within two minutes gets its share."""
    world = world_of((bundle_of(f"b{i}", [f"10.0.9.{i}"], ["n0", "n1", "n2"]) for i in range(1, 31)), start=False)
    world.start("n0")
    world.run(5.0)
    assert all(world.owner(f"10.0.9.{i}") == "n0" for i in range(1, 31))
    world.start("n1")
    world.start("n2")
    world.run(10.0)
    loads = [sum(world.owner(f"10.0.9.{i}") == name for i in range(1, 31)) for name in world.nodes]
    assert sum(loads) == 30
    assert max(loads) <= 13  # 1.25 × its fair share
    changes = len(world.owner_changes)
    world.run(150.0)
    assert len(world.owner_changes) == changes


def test_what_is_claimed_later_stays_where_it_is() -> None:
    world = world_of([], nodes=2, start=False)
    world.start("n0")
    world.run(40.0)
    bundles = [bundle_of(f"b{i}", [f"10.0.9.{i}"], ["n0", "n1"]) for i in range(1, 9)]
    world.set_bundles(bundles)
    world.run(1.0)
    world.start("n1")
    world.run(100.0)
    assert all(world.owner(f"10.0.9.{i}") == "n0" for i in range(1, 9))


def test_new_addresses_go_to_the_least_loaded_of_equals() -> None:
    nodes = ["n0", "n1", "n2"]
    world = world_of([], start=False)
    world.start_all()
    world.run(3.0)
    bundles: list[Bundle] = []
    for i in range(1, 31):
        bundles.append(bundle_of(f"b{i:02}", [f"10.0.9.{i}"], nodes))
        world.set_bundles(bundles)
        world.run(0.2)
    loads = [sum(world.owner(f"10.0.9.{i}") == name for i in range(1, 31)) for name in nodes]
    assert sum(loads) == 30
    assert max(loads) <= 13


@pytest.mark.parametrize("count", [1000])
def test_a_thousand_addresses_are_taken_over_at_once(count: int) -> None:
    world = world_of(
        bundle_of(f"b{i:04}", [f"10.0.{9 + i // 250}.{i % 250 + 1}"], ["n0", "n1", "n2"]) for i in range(count)
    )
    assert sum(len(answerers) == 1 for answerers in world.answerers.values()) == count
    world.power_cut("n1")
    world.run(0.6)
    assert sum(len(answerers) == 1 for answerers in world.answerers.values()) == count, world.story(20)


def test_a_node_on_the_addresss_own_subnet_comes_first_and_another_serves_when_it_is_gone() -> None:
    for name in ("n0", "n1", "n2"):
        world = World(1, 3)
        for other in world.nodes.values():
            if other.name != name:
                other.lan.subnet = "192.0.2.0/24"
        world.set_bundles([bundle_of("b1", [A], ["n0", "n1", "n2"])])
        world.start_all()
        world.run(4.0)
        assert world.owner(A) == name
        world.power_cut(name)
        world.run(2.0)
        assert world.owner(A) not in {None, name}


def test_who_has_no_plan_any_more_keeps_what_it_holds_and_claims_nothing() -> None:
    """The watcher of n0 is dead, and nothing else could say what has changed since."""
    ours = bundle_of("b1", [A], ["n0", "n1"], {"n0": 0, "n1": 1})
    world = world_of([ours], nodes=2)
    assert world.owner(A) == "n0"
    world.lose_watcher("n0")
    world.set_bundles(
        [bundle_of("b1", [A], ["n0", "n1"], {"n0": 0, "n1": 1}), bundle_of("b2", [B], ["n1", "n0"], {"n0": 0, "n1": 1})]
    )
    world.run(3.0)
    assert (world.owner(A), world.owner(B)) == ("n0", "n1")
    world.power_cut("n1")
    world.run(5.0)
    assert (world.owner(A), world.owner(B)) == ("n0", None)
    world.restart_watcher("n0")
    world.run(3.0)
    assert (world.owner(A), world.owner(B)) == ("n0", "n0")


def test_nobody_waits_for_a_better_candidate_without_a_plan() -> None:
    world = world_of([], nodes=3)
    world.lose_watcher("n0")
    world.run(1.0)
    world.set_bundles([bundle_of("b1", [A], ["n0", "n1", "n2"], {"n0": 0, "n1": 1, "n2": 2})])
    world.run(PROBE_WAIT_S + 0.05)
    assert world.owner(A) == "n1"


# ------------------------------------------------------------------------ without an endpoint that serves


def idle(*bundles: Bundle) -> list[Bundle]:
    return [replace(bundle, serving=False) for bundle in bundles]


def test_what_does_not_serve_is_not_claimed_until_it_does() -> None:
    bundle = bundle_of("b1", [A], ["n0", "n1", "n2"])
    world = world_of(idle(bundle))
    world.run(100.0)
    assert reasons(world, "Claimed") == []
    world.set_bundles([bundle])
    world.run(0.05)
    assert world.owner(A) == bundle.candidates[0].node
    assert reasons(world, "Claimed") == ["unowned"]


def test_what_stops_serving_is_held_for_a_minute_and_then_released_by_its_holder() -> None:
    world = world_of([bundle_of("b1", [A, B], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    world.set_bundles(idle(*world.plans[-1][1]))
    world.run(UNSERVED_S - 0.1)
    assert (world.owner(A), world.owner(B)) == (owner, owner)
    world.run(1.1)
    assert reasons(world, "Released") == ["no endpoint serves"] * 2
    world.run(300.0)
    assert world.answerers == {AddressText(A): frozenset(), AddressText(B): frozenset()}
    assert reasons(world, "Claimed") == ["unowned"] * 2


def test_what_was_released_for_want_of_endpoints_is_claimed_by_rank_once_it_serves() -> None:
    """And by nobody else: the turns of those after the first begin when it serves."""
    bundle = bundle_of("b1", [A], ["n0", "n1", "n2"])
    world = world_of([bundle])
    world.set_bundles(idle(bundle))
    world.run(UNSERVED_S + 10.0)
    claimed = len(reasons(world, "Claimed"))
    world.set_bundles([bundle])
    world.run(0.05)
    assert world.owner(A) == bundle.candidates[0].node
    world.run(10.0)
    assert len(reasons(world, "Claimed")) == claimed + 1


def test_endpoints_that_are_back_in_time_were_never_missed() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    said, changes = len(world.gratuitous), len(world.owner_changes)
    for seconds in (0.02, 5.0, UNSERVED_S - 0.5, 0.5, UNSERVED_S - 0.5):
        world.set_serving(lambda _: False)
        world.run(seconds)
        world.set_serving(lambda _: True)
        world.run(0.1)
    world.run(2 * UNSERVED_S)
    assert (len(world.gratuitous), len(world.owner_changes)) == (said, changes)
    assert reasons(world, "Released") == []


def test_a_holder_that_dies_while_no_endpoint_serves_is_replaced_and_the_successor_releases_in_its_time() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    assert owner is not None
    world.set_serving(lambda _: False)
    world.run(10.0)
    world.power_cut(owner)
    world.run(0.8)
    assert world.owner(A) not in {None, owner}
    world.run(UNSERVED_S - 12.0)
    assert world.owner(A) not in {None, owner}
    world.run(4.0)
    assert world.owner(A) is None
    assert reasons(world, "Released") == ["no endpoint serves"]


def test_a_holder_that_is_told_to_end_while_no_endpoint_serves_is_stood_in_for() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    assert owner is not None
    world.set_serving(lambda _: False)
    world.run(10.0)
    world.leave(owner)
    world.run(0.5)
    assert world.owner(A) == owner
    assert owner not in world.answerers[AddressText(A)]


def test_a_holder_that_dies_after_nothing_has_served_for_long_is_not_replaced() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    assert owner is not None
    world.set_serving(lambda _: False)
    world.run(UNSERVED_S - 2.0)
    world.power_cut(owner)
    world.run(30.0)
    assert world.owner(A) is None


def test_a_release_at_the_end_is_not_answered_by_a_speaker_whose_plan_lags() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    for node in world.nodes.values():
        node.lag = 0.0 if node.name == owner else 8.0
    world.set_serving(lambda _: False)
    world.run(3 * UNSERVED_S)
    assert reasons(world, "Claimed") == ["unowned"]
    assert reasons(world, "Released") == ["no endpoint serves"]


def test_a_speaker_that_starts_meanwhile_takes_nothing_over_that_is_released() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    world.set_serving(lambda _: False)
    other = next(name for name in world.nodes if name != owner)
    world.kill(other)
    world.run(UNSERVED_S - 10.0)
    world.start(other)
    world.run(3 * UNSERVED_S)
    assert reasons(world, "Claimed") == ["unowned"]


def test_while_every_candidate_is_not_ready_nothing_is_counted_and_a_dead_holder_is_replaced() -> None:
    """As during an outage of the API server, or two: the Plan stays as it was when it was last heard of."""
    nobody = dict.fromkeys(["n0", "n1", "n2"], 1)
    bundle = bundle_of("b1", [A], ["n0", "n1", "n2"])
    world = world_of([bundle])
    owner = world.owner(A)
    assert owner is not None
    world.set_bundles(idle(bundle))
    world.run(0.1)
    world.set_bundles(idle(bundle_of("b1", [A], ["n0", "n1", "n2"], nobody)))
    world.run(10 * UNSERVED_S)
    assert world.owner(A) == owner
    world.power_cut(owner)
    world.run(1.0)
    successor = world.owner(A)
    assert successor not in {None, owner}
    world.set_bundles(idle(bundle_of("b1", [A], ["n0", "n1", "n2"], {**nobody, owner: 0})))
    world.run(UNSERVED_S - 1.0)
    assert world.owner(A) == successor
    world.run(2.0)
    assert world.owner(A) is None
    world.set_bundles(idle(bundle_of("b1", [A], ["n0", "n1", "n2"], nobody)))
    world.run(10.0)
    assert world.owner(A) is None


def test_a_local_service_without_endpoints_stays_and_goes_where_they_come_back() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1"])])
    owner = world.owner(A)
    world.set_bundles(idle(bundle_of("b1", [A], [])))
    world.run(20.0)
    assert world.owner(A) == owner
    world.set_bundles([bundle_of("b1", [A], ["n2"])])
    world.run(2.0)
    assert world.owner(A) == "n2"


def test_a_holder_without_endpoints_does_not_step_aside() -> None:
    world = world_of([preferring("b1", A, n0=1, n1=50, n2=2)])
    world.run(70.0)
    assert world.owner(A) == "n1"
    world.set_bundles(idle(preferring("b1", A, n0=90, n1=50, n2=2)))
    world.run(UNSERVED_S - 10.0)
    assert world.owner(A) == "n1"
    world.set_bundles([preferring("b1", A, n0=90, n1=50, n2=2)])
    world.run(2.0)
    assert world.owner(A) == "n0"


def test_a_bundle_that_gets_another_name_without_endpoints_keeps_its_holder_and_its_time() -> None:
    world = world_of([bundle_of("b5", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    world.set_bundles(idle(bundle_of("b5", [A], ["n0", "n1", "n2"])))
    world.run(40.0)
    world.set_bundles(idle(bundle_of("b1", [A], ["n0", "n1", "n2"])))
    world.run(19.0)
    assert world.owner(A) == owner
    world.run(3.0)
    assert reasons(world, "Released") == ["no endpoint serves"]


def test_who_has_no_plan_any_more_does_not_release_what_last_did_not_serve() -> None:
    world = world_of([bundle_of("b1", [A], ["n0", "n1", "n2"])])
    owner = world.owner(A)
    assert owner is not None
    world.set_serving(lambda _: False)
    world.run(1.0)
    world.lose_watcher(owner)
    world.run(3 * UNSERVED_S)
    assert world.owner(A) == owner
    world.set_serving(lambda _: True)
    world.restart_watcher(owner)
    world.run(3.0)
    assert world.owner(A) == owner


def test_what_does_not_serve_is_no_load() -> None:
    """A hundred Services without endpoints must not make the share of those that have some any less even."""
    nodes = ["n0", "n1", "n2"]
    unused = idle(*(bundle_of(f"a{i:03}", [f"10.0.8.{i}"], nodes) for i in range(1, 101)))
    served = [bundle_of(f"b{i:03}", [f"10.0.9.{i}"], nodes) for i in range(1, 31)]
    world = world_of([*unused, *served])
    loads = [sum(world.owner(f"10.0.9.{i}") == name for i in range(1, 31)) for name in nodes]
    assert sum(loads) == 30
    assert max(loads) <= 13
