"""Endpoints that end, with the policy Local: addresses leave a node before its last endpoint is gone, and no more often
than they must."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import pytest
from msgspec.structs import replace

from cluster.objects import NodeName
from speaker.plan import Bundle
from speaker.protocol.moving import PROXY_S
from tests.speaker.protocol.simulation.luck import tries
from tests.speaker.protocol.simulation.scenes import VIP, decisions_of, owner_of, settled
from tests.speaker.protocol.simulation.test_moves import preferring
from tests.speaker.protocol.simulation.world import World, bundle_of

SEEDS = range(tries(2, 5))
GRACE_S = 5.0
"""For which a pod that is told to end goes on serving."""
START_S = 2.0
"""Until a new pod is ready."""
ALL = bundle_of("b0000", [VIP], ["n0", "n1", "n2", "n3"])


def served(nodes: Mapping[str, str], bundle: Bundle = ALL) -> Bundle:
    """The Plan's bundle where nodes have endpoints: each is ``staying`` or ``ending``."""
    some_stay = "staying" in nodes.values()
    candidates = [
        replace(each, ending=some_stay and nodes[each.node] == "ending")
        for each in bundle.candidates
        if each.node in nodes
    ]
    candidates.sort(key=lambda each: (each.ending, each.tier, -each.preference))
    preferred = (each for each in bundle.candidates if each.preference)
    unfit = tuple(NodeName(each.node) for each in preferred if each.node not in nodes)
    return replace(bundle, candidates=tuple(candidates), unfit=unfit, local=True, serving=bool(candidates))


class Pods:
    """Where endpoints are in the world, and what the holder had of them all the while."""

    def __init__(self, world: World, *nodes: str) -> None:
        self.world = world
        self.nodes = dict.fromkeys(nodes, "staying")
        self._say()

    def _say(self) -> None:
        self.world.set_bundles([served(self.nodes)])

    def end(self, node: str) -> None:
        self.nodes[node] = "ending"
        self._say()

    def start(self, node: str) -> None:
        self.nodes[node] = "staying"
        self._say()

    def gone(self, node: str) -> None:
        """By then the address must be elsewhere, if it can be."""
        del self.nodes[node]
        if "staying" in self.nodes.values():
            assert self.world.answerers[VIP].isdisjoint({node}), self.world.story()
        self._say()

    def replaced(self, node: str) -> None:
        """As a DaemonSet does it: the old pod ends, then the new one starts."""
        self.end(node)
        self.world.run(GRACE_S)
        self.gone(node)
        self.world.run(START_S)
        self.start(node)
        self.world.run(0.5)


def moves(world: World, since: float) -> int:
    """How often the address was another node's, since then."""
    alone = [(at, min(who)) for at, what, who in world.owner_changes if what == VIP and len(who) == 1]
    return sum(at >= since and before != after for (_, before), (at, after) in itertools.pairwise(alone))


def never_unanswered(world: World, since: float) -> bool:
    return all(who for at, what, who in world.owner_changes if what == VIP and at >= since)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_address_goes_to_a_node_whose_endpoints_stay_before_the_last_one_here_is_gone(seed: int) -> None:
    world = settled(seed)
    pods = Pods(world, *world.nodes)
    world.run(1.0)
    holder, since = owner_of(world), world.now
    pods.end(holder)
    world.run(1.0)
    assert owner_of(world) != holder, world.story()
    assert [each.fields["why"] for each in decisions_of(world, "Offered", since=since)] == ["its endpoints are ending"]
    pods.gone(holder)
    world.run(1.0)
    assert moves(world, since) == 1
    assert never_unanswered(world, since)


@pytest.mark.parametrize("seed", SEEDS)
def test_where_all_endpoints_end_nothing_moves_until_one_stays(seed: int) -> None:
    world = settled(seed)
    holder = owner_of(world)
    other = next(node for node in world.nodes if node != holder)
    pods = Pods(world, holder, other)
    world.run(1.0)
    since = world.now
    pods.end(other)
    pods.end(holder)
    world.run(PROXY_S + 1.0)
    assert owner_of(world) == holder, world.story()
    pods.start(other)
    world.run(PROXY_S + 1.0)
    assert owner_of(world) == other
    assert never_unanswered(world, since)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_endpoint_gets_the_address_when_its_kube_proxy_knows_of_it(seed: int) -> None:
    """Of a Deployment: a pod is added, and then one is taken away. Another old one is not gone to in between."""
    world = settled(seed)
    holder = owner_of(world)
    old, new = (node for node in world.nodes if node != holder)
    pods = Pods(world, holder, old)
    world.run(3.0)
    since = world.now
    pods.start(new)
    world.run(0.1)
    pods.end(holder)
    world.run(PROXY_S - 0.2)
    assert owner_of(world) == holder, world.story()
    world.run(0.5)
    assert owner_of(world) == new, world.story()
    assert moves(world, since) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pod_that_does_not_wait_for_its_end_is_left_at_once(seed: int) -> None:
    """A new endpoint elsewhere, of which kube-proxy may not know yet, is better than none here. One that it knows of is
    better still."""
    for old_one in (False, True):
        world = settled(seed)
        holder = owner_of(world)
        old, new = (node for node in world.nodes if node != holder)
        pods = Pods(world, holder, *([old] if old_one else []))
        world.run(3.0)
        pods.start(new)
        world.run(0.1)
        del pods.nodes[holder]
        pods.start(new)
        world.run(0.5)
        assert owner_of(world) == (old if old_one else new), world.story()


@pytest.mark.parametrize("seed", range(0, 24, 3))
def test_an_update_of_all_pods_one_by_one_moves_the_address_twice_at_most(seed: int) -> None:
    """In any order. The address is on a node that serves all the while, goes to one whose pod is new once there is one,
    and stays there."""
    world = settled(seed, 4)
    pods = Pods(world, *world.nodes)
    world.run(3.0)
    since = world.now
    for node in list(itertools.permutations(world.nodes))[seed]:
        pods.replaced(node)
    world.run(3.0)
    assert moves(world, since) <= 2, world.story()
    assert never_unanswered(world, since)


def restarts(world: World) -> Iterator[str]:
    """Each node in turn, the holder first, whoever that is by then."""
    left = list(world.nodes)
    while left:
        holder = owner_of(world)
        node = holder if holder in left else left[0]
        left.remove(node)
        yield node


@pytest.mark.parametrize("seed", SEEDS)
def test_an_update_that_always_meets_the_holder_moves_the_address_twice(seed: int) -> None:
    """It goes to the node whose pod is new, though others are ranked higher."""
    world = settled(seed, 4)
    last = ALL.candidates[-1].node
    pods = Pods(world, last)
    world.run(3.0)
    for node in world.nodes:
        pods.start(node)
    world.run(1.0)
    since = world.now
    for node in restarts(world):
        pods.replaced(node)
    assert moves(world, since) == 2, world.story()


@pytest.mark.parametrize("seed", range(2))
def test_a_preferred_node_whose_pods_are_updated_has_the_address_back_after_a_minute_of_health(seed: int) -> None:
    preferred = preferring(ALL, "n1", 50)
    world = settled(seed)
    world.set_bundles([served(dict.fromkeys(world.nodes, "staying"), preferred)])
    world.run(2.0)
    assert owner_of(world) == "n1"
    for others in ({}, {"n1": "ending"}):
        world.set_bundles([served({"n0": "staying", "n1": "ending", "n2": "staying"}, preferred)])
        world.run(1.0)
        assert owner_of(world) != "n1", world.story()
        world.set_bundles([served({"n0": "staying", "n2": "staying"} | others, preferred)])
        world.run(1.0)
        world.set_bundles([served(dict.fromkeys(world.nodes, "staying"), preferred)])
        world.run(55.0)
        assert owner_of(world) != "n1", world.story()
        world.run(70.0)
        assert owner_of(world) == "n1", world.story()
    assert [each.fields["why"] for each in decisions_of(world, "Offered")].count("preference") == 2


def test_a_node_whose_pods_are_ending_while_its_speaker_restarts_hands_over_before_they_are_gone() -> None:
    """Who stands in for it sees to that, by its own Plan."""
    world = settled(3)
    pods = Pods(world, *world.nodes)
    world.run(3.0)
    holder, since = owner_of(world), world.now
    world.leave(holder)
    world.run(2.0)
    assert holder in world.network.named[VIP].values(), "somebody answers with its MAC"
    pods.end(holder)
    world.run(GRACE_S)
    assert holder not in world.network.named.get(VIP, {}).values(), world.story()
    pods.gone(holder)
    world.run(1.0)
    assert never_unanswered(world, since), world.story()
