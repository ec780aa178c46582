"""Addresses that somebody else on the LAN has: before they are announced for the first time, and afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.conflicts import LONGEST_GAP_S, PROBE_WAIT_S
from speaker.protocol.datagram import Authenticator
from speaker.protocol.effects import ConflictView
from speaker.protocol.heartbeat import Heartbeat
from speaker.protocol.settings import RestartMode, Settings
from tests.speaker.protocol.simulation.both_families import BOTH, IPV4, IPV6
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.machines import Stranger
from tests.speaker.protocol.simulation.scenes import (
    VIP,
    decisions_of,
    numbered,
    protocol_of,
    seconds_until_answered,
)
from tests.speaker.protocol.simulation.world import KEYS, World, bundle_of

PRINTER = Mac(bytes.fromhex("00408ccc0017"))
VIP6 = AddressText("fd10::9:1")
OTHER_CLUSTER = "99999999-2222-3333-4444-555555555555"


def running(seed: int = 1, nodes: int = 3, settings: Settings | None = None) -> World:
    """Speakers that run, and have nothing to announce."""
    world = World(seed, nodes, settings=settings)
    world.start_all(spread=0.3)
    world.run(5.0)
    return world


def put_printer(world: World, *addresses: AddressText, mac: Mac = PRINTER) -> None:
    """A host that answers for the addresses."""
    world.strangers["printer"] = Stranger("printer", mac, dict.fromkeys(addresses, mac))


def remove_printer(world: World) -> None:
    del world.strangers["printer"]


def assign(world: World, count: int = 1, **changed: bool) -> None:
    bundles = (bundle_of(f"b{i:04}", [numbered(i)], world.nodes) for i in range(count))
    world.set_bundles([replace(bundle, **changed) for bundle in bundles])


def told(world: World) -> list[ConflictView]:
    """The conflicts of which any running speaker tells."""
    running = [node.protocol for node in world.nodes.values() if node.protocol is not None]
    return [view for protocol in running for view in protocol.conflicts()]


def probes_of(world: World, address: AddressText = VIP, since: float = 0.0) -> int:
    return sum(at >= since and probe.target == address for at, _, probe in world.wire.probes)


# ------------------------------------------------------------------------ before the first announcement


def test_a_new_address_is_asked_for_once_and_answered_after_fifty_milliseconds() -> None:
    world = running()
    assign(world)
    taken = seconds_until_answered(world)
    assert PROBE_WAIT_S <= taken <= PROBE_WAIT_S + 0.02
    world.run(60.0)
    assert probes_of(world) == 1
    assert not told(world)


@pytest.mark.parametrize("fault", [World.power_cut, World.kill, World.leave])
def test_a_take_over_asks_nobody(fault: Callable[[World, str], None]) -> None:
    world = running(settings=Settings(restart_mode=RestartMode.RELEASE))
    assign(world)
    world.run(1.0)
    owner, since = world.owner(VIP), world.now
    assert owner is not None
    fault(world, owner)
    world.run(2.0)
    assert world.owner(VIP) not in {None, owner}
    assert probes_of(world, since=since) == 0


def test_nor_does_a_restart_of_all_speakers() -> None:
    world = running()
    assign(world)
    world.run(1.0)
    for name in world.nodes:
        world.kill(name)
    since = world.now
    for name in world.nodes:
        world.start(name)
    world.run(3.0)
    assert world.owner(VIP) is not None
    assert probes_of(world, since=since) == 0


def test_an_address_that_a_stranger_has_is_not_announced_until_the_stranger_leaves() -> None:
    world = running()
    put_printer(world, VIP)
    assign(world)
    world.run(100.0)
    assert not world.answerers.get(VIP), world.story()
    assert not world.gratuitous, world.story()
    (view,) = told(world)
    assert (view.address, view.mac, view.seen, view.withheld) == (VIP, PRINTER.hex(":"), "stranger", True)
    assert [decision.fields["mac"] for decision in decisions_of(world, "AddressTaken")] == [PRINTER.hex(":")]
    assert probes_of(world) <= 3 * 9  # each of the nodes after 1, 2, 4, 8, 16, 30, 30 … s
    remove_printer(world)
    assert seconds_until_answered(world, LONGEST_GAP_S + 1.0) <= LONGEST_GAP_S + 0.2
    world.run(LONGEST_GAP_S + 1.0)
    assert not told(world)


def test_a_withheld_address_is_not_announced_by_a_speaker_that_starts_or_takes_over() -> None:
    """The record says that the address was withheld, so that a restart does not make it announced over the stranger."""
    world = running()
    put_printer(world, VIP)
    assign(world)
    world.run(2.0)
    assign(world, withheld=True)
    (before,) = {name for name, node in world.nodes.items() if node.protocol and list(node.protocol.conflicts())}
    world.power_cut(before)
    world.run(40.0)
    assert len(told(world)) == 1, "the next in rank tells of it now"
    for name in world.nodes:
        world.kill(name)
    for name in world.nodes:
        world.start(name)
    world.run(10.0)
    assert not world.answerers.get(VIP), world.story()
    remove_printer(world)
    seconds_until_answered(world, LONGEST_GAP_S + 1.0)


def test_nothing_spins_while_an_address_is_withheld() -> None:
    world = running()
    put_printer(world, VIP)
    assign(world)
    world.run(60.0)
    protocol, calls, began = protocol_of(world, "n0"), 0, world.now
    while world.now < began + 60.0:
        due = protocol.next_deadline()
        assert due is not None
        world.run(max(due - world.now, 0.0) + 0.002)
        calls += 1
    assert calls < 3 * 60, "an idle speaker says a heartbeat each second"


def test_the_rest_of_a_bundle_is_announced() -> None:
    world = running()
    put_printer(world, VIP)
    world.set_bundles([bundle_of("b", [VIP, numbered(1)], world.nodes)])
    world.run(3.0)
    assert (world.owner(VIP), world.owner(numbered(1)) is not None) == (None, True)
    remove_printer(world)
    world.run(LONGEST_GAP_S + 2.0)
    assert world.owner(VIP) is not None
    assert world.owner(VIP) == world.owner(numbered(1))


@pytest.mark.parametrize("spoken", [(BOTH,), (IPV4, BOTH), (IPV6,)])
@pytest.mark.parametrize("taken", [VIP, VIP6])
def test_a_dual_stack_service_is_announced_in_the_family_that_is_free(
    spoken: tuple[frozenset[Family], ...], taken: AddressText
) -> None:
    """On each node the kernel speaks the next of these families, on the last ones the last of them."""
    world = World(1, 3)
    world.speak(world.network, BOTH, "fd10")
    for number, node in enumerate(world.nodes.values()):
        node.lan.speak(spoken[min(number, len(spoken) - 1)])
    world.start_all(spread=0.3)
    world.run(5.0)
    put_printer(world, taken)
    world.set_bundles([bundle_of("b", [VIP, VIP6], world.nodes)])
    world.run(8.0)
    can_be = {VIP, VIP6} if spoken != (IPV6,) else {VIP6}
    assert {each for each in (VIP, VIP6) if world.owner(each)} == can_be - {taken}, world.story()
    assert {view.address for view in told(world)} == can_be & {taken}
    remove_printer(world)
    world.run(LONGEST_GAP_S + 5.0)
    assert {each for each in (VIP, VIP6) if world.owner(each)} == can_be, world.story()
    assert len({world.owner(each) for each in can_be}) == 1, "the bundle is one again"


def test_nobody_is_asked_where_that_is_switched_off() -> None:
    world = running(settings=Settings(probes=False))
    put_printer(world, VIP)
    assign(world)
    assert seconds_until_answered(world) <= 0.02
    assert not world.wire.probes


def test_a_service_that_is_deleted_leaves_no_conflict() -> None:
    world = running()
    put_printer(world, VIP)
    assign(world)
    world.run(2.0)
    world.set_bundles([])
    since = world.now
    world.run(60.0)
    assert not told(world)
    assert probes_of(world, since=since) == 0


def test_a_loop_that_stood_still_asks_again_instead_of_taking_silence_for_an_answer() -> None:
    for moment in (0.0, 0.01, 0.04, 1.06, 1.09):
        world = running(nodes=1)
        put_printer(world, VIP)
        assign(world)
        world.run(moment)
        world.pause("n0", 1.0)
        world.run(20.0)
        assert not world.answerers.get(VIP), (moment, world.story())
        assert len(told(world)) == 1


def test_thousands_of_new_addresses_are_asked_for_in_pieces() -> None:
    """Between the pieces heartbeats go out: nobody is suspected."""
    world = running(nodes=2)
    assign(world, 2_000)
    world.run(8.0)
    assert sum(len(answerers) == 1 for answerers in world.answerers.values()) == 2_000
    assert len(world.wire.probes) == 2_000
    assert not decisions_of(world, "PeerSuspected", "PeerDead")


# ------------------------------------------------------------------------ who the other one is


def test_the_kernel_of_a_node_that_answers_by_itself_is_named_once_and_keeps_nothing_back() -> None:
    """kube-proxy in IPVS mode without strictARP: the node's MAC answers, and its speaker claims nothing."""
    world = running(nodes=2)
    for number, name in enumerate(world.nodes):
        mac = world.nodes[name].mac
        world.strangers[f"kernel of {name}"] = Stranger(f"kernel{number}", mac, {VIP: mac, numbered(1): mac})
    assign(world, 2)
    world.run(10.0)
    assert world.owner(VIP)
    assert world.owner(numbered(1))
    told_of = [str(decision.fields["node"]) for decision in decisions_of(world, "AddressConflict")]
    assert told_of
    assert len(told_of) == len(set(told_of))
    assert {decision.fields["seen"] for decision in decisions_of(world, "AddressConflict")} == {"kernel"}
    assert not told(world)


def test_a_speaker_of_another_cluster_is_called_one_with_its_digest() -> None:
    world = running()
    theirs = Authenticator(OTHER_CLUSTER, KEYS).encode(1, 1, heartbeat())
    for node in world.nodes:
        source = AddressText("10.0.0.77")
        protocol_of(world, node).receive_datagram(world.nodes[node].lan.name, source, theirs, world.now, mac=PRINTER)
    put_printer(world, VIP)
    assign(world)
    world.run(2.0)
    (view,) = told(world)
    assert (view.seen, view.cluster) == ("cluster", theirs[4:12].hex())
    (decision,) = decisions_of(world, "AddressTaken")
    assert decision.fields["cluster"] == theirs[4:12].hex()


def heartbeat() -> Heartbeat:
    return Heartbeat("node-1", 100, 1, "eth0", PRINTER, (), (), b"", 0, 0, ())


# ------------------------------------------------------------------------ afterwards


def test_a_stranger_that_comes_later_is_told_of_while_it_is_there_and_the_address_stays() -> None:
    world = running()
    assign(world)
    world.run(1.0)
    owner = world.owner(VIP)
    assert owner is not None
    put_printer(world, VIP)
    world.wire.ask_from(world.strangers["printer"], VIP, lambda _: None)
    world.run(100.0)
    assert world.owner(VIP) == owner
    (view,) = told(world)
    assert (view.mac, view.seen, view.withheld) == (PRINTER.hex(":"), "stranger", False)
    remove_printer(world)
    world.run(LONGEST_GAP_S + 1.0)
    assert not told(world)
    assert len(decisions_of(world, "ConflictOver")) == 1
    assert world.owner(VIP) == owner


@hypothesis.settings(max_examples=tries(10, 30))
@given(st.integers(min_value=0, max_value=10_000), st.lists(st.floats(0.0, 40.0), min_size=1, max_size=6))
def test_whenever_a_stranger_comes_and_goes_the_address_is_answered_once_it_has_gone(
    seed: int, moments: list[float]
) -> None:
    """And never by a speaker that asked while the stranger was there."""
    world = running(seed, nodes=2)
    there = False
    random.Random(seed).shuffle(moments)
    assigned = len(moments) // 2
    for i, seconds in enumerate(moments):
        if i == assigned:
            assign(world)
            world.run(0.2)
            assert (world.owner(VIP) is None) is there, world.story()
        if there:
            remove_printer(world)
        else:
            put_printer(world, VIP)
        there = not there
        world.run(seconds)
    if there:
        remove_printer(world)
    world.run(2 * LONGEST_GAP_S + 2.0)
    assert world.owner(VIP) is not None, world.story()
    assert not told(world)
