"""Restarts: what a speaker held stays its node's, and is answered for all the while."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from cluster.objects import AddressText
from speaker.plan import DRAINED_TIER, Bundle
from speaker.protocol.absences import NOBODY_S
from speaker.protocol.datagram import Authenticator
from speaker.protocol.heartbeat import ClaimStep, OnBehalf, StoodIn, WireClaim, pack_address
from speaker.protocol.settings import RestartMode, Settings
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.liar import Liar
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.network import Weather
from tests.speaker.protocol.simulation.scenes import (
    VIP,
    assert_each_is_answered_by_one,
    decisions_of,
    held_by,
    numbered,
    owner_of,
    protocol_of,
    seconds_until_answered,
    settle,
)
from tests.speaker.protocol.simulation.world import CLUSTER, KEYS, World, bundle_of
from tests.speaker.protocol.versions import LastAuthenticator

AWAY_S = 1.0
"""Between the end of a speaker and the start of the next one on its node."""
BACK_S = AWAY_S + 4.0
"""From the signal until the next one holds everything, and the stand-in has ended."""
COLD_S = 40.0
"""After a start, until nothing of it moves any more."""
NOTICED_S = 0.16
"""That a process has ended: its next heartbeat, a knock, an unanswered question, and what is late in a loop."""
UNANSWERED_S = 0.05


class Watched:
    """What happens to the addresses of a world from now on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.changes = len(world.owner_changes)
        self.owners = {address: world.owner(address) for address in world.answerers}
        self.epochs = {
            address: epoch
            for node in world.nodes.values()
            if node.protocol is not None
            for address, epoch in node.protocol.claims().items()
        }

    def moved(self) -> dict[AddressText, list[str]]:
        """Addresses that another MAC has answered for since."""
        moved: dict[AddressText, list[str]] = {}
        for _, address, owners in self.world.owner_changes[self.changes :]:
            if owners - {self.owners[address]}:
                moved.setdefault(address, []).extend(sorted(owners))
        return moved

    def longest_gap(self) -> float:
        """For how long nobody answered for an address, at the most."""
        gaps, since = [0.0], dict[AddressText, float]()
        for at, address, owners in self.world.owner_changes[self.changes :]:
            if not owners:
                since[address] = at
            elif address in since:
                gaps.append(at - since.pop(address))
        return max(gaps + [self.world.now - at for at in since.values()])

    def assert_nothing_moved(self) -> None:
        assert not self.moved(), f"{self.moved()}\n{self.world.story()}"
        assert self.longest_gap() <= UNANSWERED_S, self.world.story()
        now = {
            address: epoch
            for name in self.world.nodes
            for address, epoch in protocol_of(self.world, name).claims().items()
        }
        assert now == self.epochs, self.world.story()
        assert_each_is_answered_by_one(self.world)
        assert not any(
            self.world.network.named[address].items() - {(o, o) for o in self.owners.values()} for address in now
        )


def calm(seed: int, nodes: int, bundles: int = 1, *, settings: Settings | None = None) -> World:
    """A world in which nothing of its start moves any more."""
    world = settle(World(seed, nodes, settings=settings), bundles)
    world.run(COLD_S)
    return world


def restart_all(world: World) -> Iterator[str]:
    """A rolling update, one node after the other."""
    for name in list(world.nodes):
        world.restart(name, AWAY_S)
        yield name
        world.run(BACK_S)


@pytest.mark.parametrize(
    ("nodes", "addresses"),
    [
        (3, 1),
        (3, 100),
        pytest.param(3, 1000, marks=pytest.mark.slow),
        (10, 100),
        pytest.param(50, 1000, marks=pytest.mark.long),
    ],
)
def test_a_rolling_restart_moves_nothing(nodes: int, addresses: int) -> None:
    world = calm(nodes + addresses, nodes, addresses)
    watched = Watched(world)
    for _ in restart_all(world):
        pass
    watched.assert_nothing_moved()
    assert len(decisions_of(world, "Restarts")) >= min(nodes, addresses)
    assert {each.fields["why"] for each in decisions_of(world, "StandsInNoMore")} == {"it is back"}


@pytest.mark.parametrize("seed", range(tries(2, 4)))
@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_a_rolling_restart_moves_nothing_while_frames_are_lost(loss: float, seed: int) -> None:
    world = calm(seed, 4, 20)
    world.network.weather = Weather(loss)
    world.run(2.0)
    watched = Watched(world)
    for _ in restart_all(world):
        pass
    assert not watched.moved(), f"{watched.moved()}\n{world.story()}"
    assert watched.longest_gap() <= UNANSWERED_S, world.story()


# -------------------------------------------------------------------------------- somebody dies meanwhile


def away(seed: int, nodes: int = 4, addresses: int = 8) -> tuple[World, str, str, Watched]:
    """A world in which a speaker has ended, whose next one does not start by itself; and who stands in for it."""
    world = calm(seed, nodes, addresses)
    watched, name = Watched(world), owner_of(world)
    world.leave(name)
    world.run(0.5)
    assert not world.nodes[name].running
    (stand_in,) = world.answerers[VIP]
    assert world.network.named[VIP] == {stand_in: name}
    return world, name, stand_in, watched


def test_a_node_that_dies_while_it_is_stood_in_for_is_replaced_as_fast_as_any_other() -> None:
    world, name, _, _ = away(1)
    theirs = {address for address, owners in world.network.named.items() if name in owners.values()}
    at = world.now
    world.power_cut(name)
    world.run(1.5)
    taken = {a: t for t, a, owners in world.owner_changes if t > at and owners and name not in owners}
    assert taken.keys() == theirs, world.story()
    assert max(taken.values()) - at < 0.35 + 0.3 + 0.1, world.story()
    assert_each_is_answered_by_one(world)


@pytest.mark.parametrize("how", ["power_cut", "kill", "leave"])
def test_another_one_stands_in_where_the_stand_in_ends(how: str) -> None:
    world, name, stand_in, watched = away(2)
    theirs = {address for address, owner in watched.owners.items() if owner == name}
    getattr(world, how)(stand_in)
    world.run(2.0)
    for address in theirs:
        named = world.network.named[address]
        assert set(named.values()) == {name}, world.story()
        assert stand_in not in named
    assert not watched.moved().keys() & theirs, world.story()
    world.start(name)
    world.run(4.0)
    assert all(world.answerers[address] == {name} for address in theirs), world.story()
    assert not watched.moved().keys() & theirs, world.story()


def test_the_stand_in_that_dies_with_the_node_costs_half_a_second_more() -> None:
    world, name, stand_in, _ = away(3)
    world.power_cut(name)
    world.power_cut(stand_in)
    world.run(0.35 + NOBODY_S + 0.1 + 1.0)
    assert_each_is_answered_by_one(world)


def test_a_node_that_does_not_come_back_gives_its_addresses_up_after_a_minute() -> None:
    world, name, _, watched = away(4)
    world.run(59.0)
    assert not watched.moved()
    world.run(3.0)
    theirs = {address for address, owner in watched.owners.items() if owner == name}
    assert watched.moved().keys() == theirs, world.story()
    assert watched.longest_gap() <= UNANSWERED_S, world.story()
    assert_each_is_answered_by_one(world)
    assert not held_by(world, name)


def test_a_node_comes_back_with_another_plan() -> None:
    world, name, _, watched = away(5)
    theirs = sorted(address for address, owner in watched.owners.items() if owner == name)
    gone, left = theirs[0], theirs[1:]
    assert left
    api = [bundle for bundle in world.plans[-1][1] if gone not in bundle.addresses]
    for node in world.nodes.values():
        node.lag = float("inf") if node.name != name else 0.0
    world.set_bundles(api)
    world.start(name)
    world.run(5.0)
    assert all(world.owner(address) == name for address in left), world.story()
    assert world.owner(gone) != name, world.story()
    assert world.answerers[gone], world.story()


def test_an_address_that_leaves_the_plan_is_let_go_on_behalf_of_who_is_away() -> None:
    world, name, stand_in, watched = away(6)
    theirs = sorted(address for address, owner in watched.owners.items() if owner == name)
    world.set_bundles(bundle for bundle in world.plans[-1][1] if theirs[0] not in bundle.addresses)
    world.run(3.0)
    assert not world.answerers[theirs[0]], world.story()
    assert all(world.answerers[address] == {stand_in} for address in theirs[1:]), world.story()
    world.start(name)
    world.run(4.0)
    assert held_by(world, name) == set(theirs[1:]), world.story()


def test_a_node_that_is_excluded_while_it_is_away_hands_over_without_a_gap() -> None:
    world, name, _, watched = away(7)
    theirs = {address for address, owner in watched.owners.items() if owner == name}
    others = [other for other in world.nodes if other != name]
    world.set_bundles(bundle_of(each.id, each.addresses, others) for each in world.plans[-1][1])
    world.run(3.0)
    assert watched.moved().keys() == theirs, world.story()
    assert watched.longest_gap() <= UNANSWERED_S, world.story()
    assert_each_is_answered_by_one(world)


@pytest.mark.parametrize("able", ["nobody", "the stand-in", "another"])
def test_a_node_that_is_drained_while_it_is_away_keeps_what_nobody_else_can_hold(able: str) -> None:
    """Others can where they have an interface that advertisements name for them."""
    world, name, stand_in, watched = away(6)
    theirs = {address for address, owner in watched.owners.items() if owner == name}
    another = next(other for other in world.names() if other not in {name, stand_in})
    can = {"nobody": set[str](), "the stand-in": {stand_in}, "another": {another}}[able] | {name}

    def drained(bundle: Bundle) -> Bundle:
        candidates = (
            replace(each, tier=DRAINED_TIER * (each.node == name), interfaces=("eth0" if each.node in can else "eth7",))
            for each in bundle.candidates
        )
        return replace(bundle, candidates=tuple(sorted(candidates, key=lambda each: each.tier)))

    world.set_bundles([drained(each) if theirs & set(each.addresses) else each for each in world.plans[-1][1]])
    world.run(4.0)
    assert watched.moved().keys() == (theirs if len(can) > 1 else set()), world.story()
    assert all(world.answerers[address] for address in theirs), world.story()
    assert watched.longest_gap() <= UNANSWERED_S, world.story()


# -------------------------------------------------------------------------------- many at once


def test_two_that_restart_at_once_move_nothing() -> None:
    world = calm(8, 4, 12)
    watched = Watched(world)
    for name in ("n0", "n1"):
        world.restart(name, AWAY_S)
    world.run(BACK_S)
    watched.assert_nothing_moved()


def test_all_that_restart_at_once_answer_again() -> None:
    world = calm(9, 3, 12)
    for name in list(world.nodes):
        world.restart(name, AWAY_S)
    world.run(10.0)
    assert_each_is_answered_by_one(world)


def test_two_nodes_that_restart_in_turns_stand_in_for_each_other() -> None:
    world = calm(10, 2, 4)
    watched = Watched(world)
    for _ in restart_all(world):
        pass
    watched.assert_nothing_moved()


def test_a_speaker_that_ends_waits_for_one_that_will_be_able_soon() -> None:
    """The other one has just started, or its loop was late: it is heard, and able to nothing yet."""
    world = calm(14, 2, 4)
    watched = Watched(world)
    world.restart("n0", AWAY_S)
    world.run(AWAY_S + 0.5)
    world.restart("n1", AWAY_S)
    world.run(2 * BACK_S)
    watched.assert_nothing_moved()


def test_a_chain_of_restarts_moves_nothing() -> None:
    """The stand-in restarts, and its stand-in, while the first one is still away."""
    world, name, stand_in, watched = away(11, nodes=5, addresses=10)
    world.restart(stand_in, AWAY_S)
    world.run(0.5)
    (second,) = world.answerers[VIP]
    assert second not in {name, stand_in}
    world.restart(second, AWAY_S)
    world.run(BACK_S)
    world.start(name)
    world.run(BACK_S)
    watched.assert_nothing_moved()


# -------------------------------------------------------------------------------- who does not take part


def test_a_speaker_that_is_to_release_does() -> None:
    world = calm(12, 3, 6, settings=Settings(restart_mode=RestartMode.RELEASE))
    name = owner_of(world)
    theirs = held_by(world, name)
    world.restart(name, AWAY_S)
    world.run(0.4)
    assert not held_by(world, name)
    assert not {each for address in theirs for each in world.network.named[address].values()} & {name}
    assert_each_is_answered_by_one(world)


def test_the_last_speaker_releases_at_once() -> None:
    world = World(13, 1)
    Invariants(world)
    world.set_bundles([bundle_of("b", [VIP], world.nodes)])
    world.start_all()
    world.run(5.0)
    world.leave("n0")
    world.run(0.2)
    assert not world.nodes["n0"].running
    assert not world.answerers[VIP]


# -------------------------------------------------------------------------------- without a word


@pytest.mark.parametrize("nodes", [3, 10])
@pytest.mark.parametrize("seed", range(tries(2, 4)))
def test_a_speaker_that_is_killed_is_stood_in_for(seed: int, nodes: int) -> None:
    world = calm(seed, nodes, 12)
    watched, name = Watched(world), owner_of(world)
    world.kill(name)
    world.run(1.0)
    named = set(world.network.named[VIP].values())
    assert named == {name}, world.story()
    world.start(name)
    world.run(4.0)
    assert not watched.moved(), f"{watched.moved()}\n{world.story()}"
    assert watched.longest_gap() < NOTICED_S, world.story()
    assert_each_is_answered_by_one(world)
    assert owner_of(world) == name


@pytest.mark.parametrize("nodes", [2, 10])
def test_who_is_heard_though_a_firewall_refuses_its_datagrams_is_suspected_once(nodes: int) -> None:
    """Its speaker's frames pass by the firewall of its host; what is sent to it as a datagram does not."""
    world = calm(23, nodes, 12)
    watched, name = Watched(world), owner_of(world)
    world.network.rejecting.add(name)
    before = len(world.decisions)
    world.run(15.0)
    suspected = [by for _, by, each in world.decisions[before:] if each.reason == "PeerSuspected"]
    assert len(suspected) == len(set(suspected)) < nodes
    assert not watched.moved(), f"{watched.moved()}\n{world.story()}"


def test_a_speaker_that_is_killed_and_starts_at_once_keeps_what_it_had() -> None:
    world = calm(20, 4, 12)
    watched, name = Watched(world), owner_of(world)
    world.kill(name)
    world.run(0.05)
    world.start(name)
    world.run(5.0)
    assert not watched.moved(), f"{watched.moved()}\n{world.story()}"
    assert watched.longest_gap() < 0.3, world.story()
    assert owner_of(world) == name


def test_a_killed_speaker_whose_kernel_says_nothing_is_dead() -> None:
    world = calm(21, 4, 12)
    name = owner_of(world)
    others = set(world.nodes) - {name}
    world.network.firewalled |= {(other, name) for other in others}  # what is written to it is dropped
    world.kill(name)
    seconds = seconds_until_answered(world)
    assert seconds < 0.8, world.story()
    world.run(1.0)
    assert not held_by(world, name)
    assert_each_is_answered_by_one(world)


def test_a_stand_in_that_stands_still_is_replaced() -> None:
    world, name, stand_in, watched = away(22)
    theirs = {address for address, owner in watched.owners.items() if owner == name}
    world.pause(stand_in, 2.0)
    world.run(4.0)
    assert not watched.moved().keys() & theirs, f"{watched.moved()}\n{world.story()}"
    assert all(set(world.network.named[address].values()) == {name} for address in theirs), world.story()
    world.start(name)
    world.run(5.0)
    assert not watched.moved().keys() & theirs, world.story()
    assert all(world.answerers[address] == {name} for address in theirs), world.story()


# -------------------------------------------------------------------------------- other releases, and members that lie


def test_while_a_speaker_of_a_release_without_the_skill_is_heard_addresses_are_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(30, 4)
    Invariants(world, owners_stay=False)
    world.set_bundles(bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(12))
    for name in world.nodes:
        with monkeypatch.context() as patched:
            if name == "n3":
                patched.setattr("speaker.protocol.protocol.Authenticator", LastAuthenticator)
            world.start(name)
    world.run(COLD_S)
    world.leave("n0")
    world.run(0.5)
    assert not held_by(world, "n0")
    assert not decisions_of(world, "StandsIn"), world.story()
    assert_each_is_answered_by_one(world)


@pytest.mark.parametrize("seed", range(3))
def test_who_lies_that_it_stands_in_for_those_who_live_changes_nothing(seed: int) -> None:
    world = calm(seed, 3, 9)
    watched, liar = Watched(world), Liar(world)
    sessions: dict[str, int] = {}

    def hear(name: str, data: bytes) -> None:
        sessions[name] = Authenticator(CLUSTER, KEYS).parse(data).session

    world.wire.on_datagram = hear
    world.run(2.0)
    world.wire.on_datagram = liar.hear

    def lie() -> None:
        entries = tuple(
            StoodIn(session, name, 99, 99, "eth0", liar.mac, 1, (pack_address(AddressText("10.0.3.1")),))
            for name, session in sessions.items()
        )
        strange = tuple(replace(entry, session=entry.session ^ 1) for entry in entries)
        liar.say(replace(liar.heartbeat(100), stood_in=entries + strange))
        for session in sessions.values():
            claims = tuple(WireClaim(pack_address(address), 0, 0) for address in world.answerers)
            liar.say(OnBehalf(session, ClaimStep(100, claims)))

    liar.lie(5.0, lie)
    world.run(6.0)
    assert not watched.moved(), world.story()
    assert watched.longest_gap() == 0.0, world.story()
    world.run(10.0)
    assert not watched.moved(), world.story()


@pytest.mark.parametrize("seed", range(tries(2, 5)))
def test_a_stand_in_whose_link_is_renamed_goes_on_or_is_replaced(seed: int) -> None:
    world = settle(World(seed, 3), bundles=6)
    holder = owner_of(world)
    world.kill(holder)
    world.run(1.0)
    (begun, *_) = (name for _, name, each in world.decisions if each.reason == "StandsIn")
    world.rename_link(begun, world.nodes[begun].lan, "lan1")
    world.run(5.0)
    assert_each_is_answered_by_one(world)


@pytest.mark.parametrize("later_s", [0.3, 0.6])
def test_one_that_was_replaced_while_it_stood_still_does_not_answer_beside_a_stand_in(later_s: float) -> None:
    """Its successor has ended meanwhile, and is stood in for: it hears of the successor's claims from the stand-in
    alone."""
    for seed in range(tries(2, 6)):
        world = calm(seed, 4)
        former = owner_of(world)
        world.pause(former, 1.4 + later_s)
        world.run(1.4)
        successor = owner_of(world)
        assert successor != former
        world.restart(successor, 2.0)
        for _ in range(400):
            world.run(0.01)
            named = set(world.network.named[VIP].values())
            assert named == {successor}, world.story()
        assert_each_is_answered_by_one(world)
