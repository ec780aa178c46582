"""Moves that are planned: a holder hands over to the successor that it names, and nobody on the LAN notices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest
from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from speaker.plan import DRAINED_TIER, Bundle
from speaker.protocol.datagram import Authenticator
from speaker.protocol.handing import ANSWER_S, ASK_S, MAX_ON_OFFER, OFFER_S, UNANSWERED
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.scenes import (
    VIP,
    assert_each_is_answered_by_one,
    decisions_of,
    held_by,
    owner_of,
    seconds_until_answered,
    settled,
    with_storage,
)
from tests.speaker.protocol.simulation.world import World, bundle_of
from tests.speaker.protocol.versions import LastAuthenticator

SEEDS = range(tries(4, 20))
ROUND_TRIP_S = 0.002  # of frames in this world, at the longest
LOOP_S = 0.003
"""For two loops to do what is due."""


def without(bundle: Bundle, *nodes: str) -> Bundle:
    """As when these nodes are excluded."""
    return replace(bundle, candidates=tuple(each for each in bundle.candidates if each.node not in nodes))


def preferring(bundle: Bundle, node: str, preference: int = 1) -> Bundle:
    candidates = [replace(each, preference=preference * (each.node == node)) for each in bundle.candidates]
    return replace(bundle, candidates=tuple(sorted(candidates, key=lambda each: -each.preference)))


def change(world: World, to: Callable[[Bundle], Bundle]) -> None:
    world.set_bundles([to(bundle) for bundle in world.plans[-1][1]])


def overlaps(world: World, since: float, addresses: Iterable[AddressText] = (VIP,)) -> list[float]:
    """For how long two answered for an address, each time; fails if nobody did for a moment, or three."""
    found: list[float] = []
    for address in addresses:
        changes = [(at, who) for at, what, who in world.owner_changes if what == address and at >= since]
        assert all(1 <= len(who) <= 2 for _, who in changes), world.story()
        found += [then - at for (at, who), (then, _) in itertools.pairwise(changes) if len(who) == 2]
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_move_leaves_nobody_without_an_answer_and_two_answer_for_a_round_trip(seed: int) -> None:
    world = settled(seed)
    holder, since = owner_of(world), world.now
    change(world, lambda bundle: without(bundle, holder))
    world.run(2.0)
    assert owner_of(world) != holder
    assert len(overlaps(world, since)) == 1
    assert max(overlaps(world, since)) < ROUND_TRIP_S + LOOP_S, world.story()
    (offered,) = decisions_of(world, "Offered", since=since)
    assert (offered.fields["to"], offered.fields["why"]) == (owner_of(world), "no candidate any more")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_move_under_loss_leaves_nobody_without_an_answer(seed: int) -> None:
    world = settled(seed)
    world.network.weather.loss = 0.2
    holder, since = owner_of(world), world.now
    change(world, lambda bundle: without(bundle, holder))
    world.run(6.0)
    world.network.weather.loss = 0.0
    world.run(2.0)
    assert owner_of(world) != holder, world.story()
    if not decisions_of(world, "PeerDead", since=since):
        assert max(overlaps(world, since)) < ASK_S, world.story()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_successor_whose_plan_lags_is_replaced_by_the_next(seed: int) -> None:
    """By its own Plan it may not have the address. The holder goes on, and asks the next one."""
    world = settled(seed, 4)
    holder = owner_of(world)
    lagging, *others = (node for node in world.nodes if node != holder)
    change(world, lambda bundle: without(bundle, lagging))
    world.run(3.0)
    world.nodes[lagging].lag = 60.0
    since = world.now
    change(world, lambda _: preferring(without(bundle_of("b0000", [VIP], world.nodes), holder), lagging))
    world.run(3.0)
    assert owner_of(world) in others, world.story()
    offered = [decision.fields["to"] for decision in decisions_of(world, "Offered", since=since)]
    assert offered[0] == lagging
    assert [decision.fields["to"] for decision in decisions_of(world, "NotTaken", since=since)] == [lagging]
    assert max(overlaps(world, since)) < ROUND_TRIP_S + LOOP_S, world.story()


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_is_named_in_vain_is_named_again_and_takes_it_when_its_plan_has_come(seed: int) -> None:
    world = settled(seed, 2)
    holder = owner_of(world)
    (other,) = (node for node in world.nodes if node != holder)
    change(world, lambda bundle: without(bundle, other))
    world.run(3.0)
    world.nodes[other].lag, since = 4.0, world.now
    change(world, lambda _: without(bundle_of("b0000", [VIP], world.nodes), holder))
    world.run(3.9)
    assert owner_of(world) == holder, world.story()
    world.run(5.0)
    assert owner_of(world) == other, world.story()
    assert max(overlaps(world, since)) < ROUND_TRIP_S + LOOP_S
    assert len(decisions_of(world, "NotTaken", since=since)) <= 4, "it asks again and again"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_successor_that_claims_and_is_not_heard_is_asked_and_answers(seed: int) -> None:
    """Its datagrams do not arrive from the moment on at which it is named; ARP passes."""
    world = settled(seed)
    holder, since = owner_of(world), world.now
    change(world, lambda bundle: without(bundle, holder))
    while not decisions_of(world, "Offered", since=since):
        world.run(0.0005)
    (offered,) = decisions_of(world, "Offered", since=since)
    at, successor = world.now, str(offered.fields["to"])
    world.network.firewalled.add((successor, holder))
    world.fault("the successor is not heard any more")
    world.run(ASK_S + 0.5)
    assert holder not in world.answerers[VIP], world.story()
    gone_at = next(when for when, what, who in world.owner_changes if what == VIP and when > at and holder not in who)
    assert gone_at - at < ASK_S + 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_successor_known_by_its_answers_alone_keeps_what_it_took_until_it_answers_no_more(seed: int) -> None:
    """The former holder is a candidate still, and would take the address back since it hears nobody claim it. It hears
    nothing at all."""
    world = settled(seed)
    holder = owner_of(world)
    change(world, lambda bundle: drained(bundle, holder))
    while not decisions_of(world, "Offered"):
        world.run(0.0005)
    successor = str(decisions_of(world, "Offered")[0].fields["to"])
    world.network.firewalled |= {(other, holder) for other in world.nodes if other != holder}
    world.fault("the holder hears nobody any more")
    world.run(ASK_S + 0.5)
    assert world.answerers[VIP] == {successor}, world.story()
    world.run(20.0)
    assert world.answerers[VIP] == {successor}, world.story()
    for name in world.nodes:
        if name != holder:
            world.power_cut(name)
    assert seconds_until_answered(world) < UNANSWERED * ANSWER_S + 1.5, world.story()


@pytest.mark.parametrize("who", ["holder", "successor"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_death_in_the_middle_of_a_move_costs_what_a_death_costs(seed: int, who: str) -> None:
    world = settled(seed)
    holder, since = owner_of(world), world.now
    change(world, lambda bundle: without(bundle, holder))
    while not decisions_of(world, "Offered", since=since):
        world.run(0.0005)
    (offered,) = decisions_of(world, "Offered", since=since)
    world.run(world.rng.choice((0.0, 0.0005, 0.001, 0.01)))
    world.power_cut(holder if who == "holder" else str(offered.fields["to"]))
    seconds_until_answered(world, 0.7)
    world.run(4.0)
    assert_each_is_answered_by_one(world)
    assert owner_of(world) != holder


def test_a_node_with_many_addresses_hands_them_over_in_pieces_and_spreads_them() -> None:
    world = settled(1, 4, bundles=1200)
    world.run(35.0)
    holder, since = owner_of(world), world.now
    had = held_by(world, holder)
    assert len(had) > 200
    change(world, lambda bundle: without(bundle, holder))
    open_, most = 0, 0
    world.run(6.0)
    for at, _, decision in world.decisions:
        if at >= since:
            open_ += (decision.reason == "Offered") - (decision.reason == "Withdrawn")
            most = max(most, open_)
    assert not held_by(world, holder), world.story()
    assert most <= MAX_ON_OFFER
    assert not decisions_of(world, "Released", since=since)
    assert max(overlaps(world, since, had)) < OFFER_S
    loads = [len(held_by(world, node)) for node in world.nodes if node != holder]
    assert max(loads) <= 1.25 * 1200 / 3


def test_both_addresses_of_a_bundle_on_two_networks_are_handed_over_together() -> None:
    for seed in SEEDS:
        world, storage = with_storage(seed)
        mine, other = AddressText("10.0.9.1"), AddressText("10.1.9.1")
        world.set_bundles([bundle_of("b", [mine, other], world.nodes)])
        world.start_all()
        world.run(5.0)
        holder, since = owner_of(world), world.now
        assert owner_of(world, other, storage) == holder
        change(world, lambda bundle, holder=holder: without(bundle, holder))  # type: ignore[misc]
        world.run(2.0)
        assert owner_of(world) == owner_of(world, other, storage) != holder, world.story()
        assert not decisions_of(world, "Released", since=since)


@pytest.mark.parametrize("codec", [Authenticator, LastAuthenticator])
def test_a_holder_steps_aside_for_a_successor_whose_release_takes_no_offers(
    codec: type[Authenticator], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = settled(3, 2)
    holder = owner_of(world)
    (other,) = (node for node in world.nodes if node != holder)
    world.kill(other)
    with monkeypatch.context() as patched:
        patched.setattr("speaker.protocol.protocol.Authenticator", codec)
        world.start(other)
    world.run(4.0)
    since = world.now
    change(world, lambda bundle: without(bundle, holder))
    world.run(2.0)
    assert owner_of(world) == other
    made = "Offered" if codec is Authenticator else "Released"
    assert [each.fields["why"] for each in decisions_of(world, made, since=since)] == ["no candidate any more"]


# ------------------------------------------------------------------------ what people decide, and what comes back


def unfit(bundle: Bundle, *nodes: str) -> Bundle:
    """As when these nodes lack an endpoint or a network."""
    return replace(without(bundle, *nodes), unfit=tuple(NodeName(node) for node in nodes))


def not_ready(bundle: Bundle, *nodes: str) -> Bundle:
    candidates = [replace(each, tier=int(each.node in nodes)) for each in bundle.candidates]
    return replace(bundle, candidates=tuple(sorted(candidates, key=lambda each: (each.tier, -each.preference))))


ALL = bundle_of("b0000", [VIP], ["n0", "n1", "n2"])
PREFERRED = preferring(ALL, "n1", 50)
ACTS_S = 1.0
"""For a decision to act; two are promised, with what the API takes."""
EXCLUDED, UNPREFERRED, OTHERS_PREFERRED, ELSEWHERE = (
    without(PREFERRED, "n1"),
    ALL,
    preferring(ALL, "n2", 60),
    replace(PREFERRED, candidates=tuple(replace(each, interfaces=()) for each in preferring(ALL, "n0").candidates)),
)


@pytest.mark.parametrize(
    "meanwhile",
    [EXCLUDED, UNPREFERRED, OTHERS_PREFERRED, ELSEWHERE],
    ids=["excluded", "not preferred", "another preferred more", "another preferred alone"],
)
@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_what_a_person_decides_acts_at_once_each_time_both_ways(seed: int, meanwhile: Bundle) -> None:
    world = settled(seed)
    world.set_bundles([PREFERRED])
    world.run(ACTS_S)
    assert owner_of(world) == "n1", world.story()
    for _ in range(4):
        since = world.now
        world.set_bundles([meanwhile])
        world.run(ACTS_S)
        holder = owner_of(world)
        assert holder == meanwhile.candidates[0].node if meanwhile is not ALL else holder == "n1", world.story()
        world.set_bundles([PREFERRED])
        world.run(ACTS_S)
        assert owner_of(world) == "n1", world.story()
        assert max(overlaps(world, since), default=0.0) < ROUND_TRIP_S + LOOP_S


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_of_two_decisions_within_a_moment_the_address_follows_both(seed: int) -> None:
    """As when two advertisements are applied one after the other: it does not stop at the node of the first one."""
    world = settled(seed)
    holder = owner_of(world)
    first, second = {"n0", "n1", "n2"} - {holder}
    candidates = [
        replace(each, preference=40 * (each.node == first) + 60 * (each.node == second)) for each in ALL.candidates
    ]
    both = replace(ALL, candidates=tuple(sorted(candidates, key=lambda each: -each.preference)))
    world.set_bundles([preferring(ALL, first, 40)])
    world.run(0.2)
    world.set_bundles([both])
    world.run(ACTS_S)
    assert owner_of(world) == second, world.story()


@pytest.mark.parametrize("seed", range(tries(2, 5)))
@pytest.mark.parametrize(
    "gone", [unfit(PREFERRED, "n1"), not_ready(PREFERRED, "n1")], ids=["without endpoint or network", "not Ready"]
)
def test_a_preferred_node_that_comes_back_by_itself_is_held_down_and_longer_each_time(seed: int, gone: Bundle) -> None:
    world = settled(seed)
    world.set_bundles([PREFERRED])
    world.run(ACTS_S)
    for wait in (60.0, 120.0):
        world.set_bundles([gone])
        world.run(ACTS_S)
        if owner_of(world) == "n1":  # NotReady alone moves nothing
            world.power_cut("n1")
            world.run(2.0)
            world.start("n1")
            world.run(2.0)
        assert owner_of(world) != "n1", world.story()
        world.set_bundles([PREFERRED])
        world.run(wait - 2.0)
        assert owner_of(world) != "n1", world.story()
        world.run(5.0)
        assert owner_of(world) == "n1", world.story()


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_a_decision_about_a_node_that_is_away_does_not_spare_it_the_wait(seed: int) -> None:
    """It is included again while it reboots, and has come back by itself after that."""
    world = settled(seed)
    world.set_bundles([PREFERRED])
    world.run(ACTS_S)
    world.set_bundles([EXCLUDED])
    world.run(ACTS_S)
    world.power_cut("n1")
    world.set_bundles([not_ready(PREFERRED, "n1")])
    world.run(5.0)
    world.start("n1")
    world.run(3.0)
    world.set_bundles([PREFERRED])
    world.run(57.0)
    assert owner_of(world) != "n1", world.story()
    world.run(6.0)
    assert owner_of(world) == "n1", world.story()


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_two_plans_that_disagree_for_ever_do_not_fight(seed: int) -> None:
    """Each of two nodes prefers the other one: a decision acts once, and then the waits double."""
    world = settled(seed, 2)
    world.set_bundles([preferring(ALL, "n1", 1)])
    world.run(ACTS_S)
    assert owner_of(world) == "n1"
    world.nodes["n0"].lag = float("inf")
    world.set_bundles([preferring(ALL, "n0", 2)])
    changes = len(world.owner_changes)
    world.run(600.0)
    assert len(world.owner_changes) - changes <= 2 * 6, world.story()


def test_a_hold_down_outlives_what_is_decided_about_others() -> None:
    world = settled(2)
    world.set_bundles([PREFERRED])
    world.run(ACTS_S)
    world.power_cut("n1")
    world.run(2.0)
    world.start("n1")
    world.run(5.0)
    holder = owner_of(world)
    (third,) = {"n0", "n2"} - {holder}
    world.set_bundles([without(PREFERRED, third)])
    world.run(30.0)
    assert owner_of(world) == holder, "n1 has not been well for a minute"


# ------------------------------------------------------------------------ drains


def drained(bundle: Bundle, *nodes: str) -> Bundle:
    candidates = [replace(each, tier=DRAINED_TIER * (each.node in nodes)) for each in bundle.candidates]
    return replace(bundle, candidates=tuple(sorted(candidates, key=lambda each: (each.tier, -each.preference))))


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_a_drained_node_hands_over_and_has_what_is_preferred_back_at_once(seed: int) -> None:
    world = settled(seed)
    world.set_bundles([PREFERRED])
    world.run(ACTS_S)
    for _ in range(3):
        since = world.now
        world.set_bundles([drained(PREFERRED, "n1")])
        world.run(ACTS_S)
        assert owner_of(world) != "n1", world.story()
        assert [each.fields["why"] for each in decisions_of(world, "Offered", since=since)] == ["drained"]
        world.set_bundles([PREFERRED])
        world.run(ACTS_S)
        assert owner_of(world) == "n1", world.story()
        assert max(overlaps(world, since)) < ROUND_TRIP_S + LOOP_S


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_a_drain_of_all_nodes_leaves_every_address_where_it_is(seed: int) -> None:
    world = settled(seed)
    holder, changes = owner_of(world), len(world.owner_changes)
    change(world, lambda bundle: drained(bundle, *world.nodes))
    world.run(5.0)
    assert owner_of(world) == holder
    assert len(world.owner_changes) == changes
    assert not decisions_of(world, "Released", "Offered"), "nor does it claim again and again"
    world.power_cut(holder)
    seconds_until_answered(world, 0.7)
    other = owner_of(world)
    (third,) = (node for node in world.nodes if node not in {holder, other})
    change(world, lambda bundle: drained(bundle, holder, other))
    world.run(ACTS_S)
    assert owner_of(world) == third, "one that is in use again takes it"


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_a_drained_node_keeps_what_no_other_can_hold(seed: int) -> None:
    world = settled(seed)
    holder = owner_of(world)
    others = [node for node in world.nodes if node != holder]
    for node in others:
        world.unplug(node)
    world.run(6.0)
    change(world, lambda bundle: drained(bundle, holder))
    world.run(3.0)
    assert owner_of(world) == holder, world.story()
    assert not decisions_of(world, "Released", "Offered"), "nor does it claim again and again"
    world.plug(others[0])
    world.run(8.0)
    assert owner_of(world) == others[0], world.story()


def test_a_node_that_reboots_while_it_is_drained_is_lost_without_a_moment_of_silence() -> None:
    world = settled(4, bundles=30)
    holder, since = owner_of(world), world.now
    had = held_by(world, holder)
    change(world, lambda bundle: drained(bundle, holder))
    world.run(ACTS_S)
    world.leave(holder)
    world.run(1.0)
    world.start(holder)
    world.run(5.0)
    change(world, drained)
    world.run(5.0)
    assert not held_by(world, holder), "equal nodes keep what they have"
    assert max(overlaps(world, since, had)) < ROUND_TRIP_S + 10 * LOOP_S
