"""Which node a bundle goes to: evenly, apart from its group, or the first."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import blake2b
from math import ceil

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol.bundles import Bundles
from speaker.protocol.choosing import Choosing
from speaker.protocol.chosen import Chosen
from speaker.protocol.claims import Claim, ClaimLog
from speaker.protocol.handing import HandOvers
from speaker.protocol.owners import Owners
from speaker.protocol.spreading import MAX_MEMBERS, Spreading
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ME, Company, address_of

NODES = [NodeName(each) for each in "abcdefgh"]


class Site:
    """This node and its peers, all able, with nothing claimed."""

    def __init__(self, nodes: int, bundles: list[Bundle]) -> None:
        self.company = Company()
        self.company.link(ETH0, "10.0.0.97/16")
        self.nodes = NODES[:nodes]
        for node in self.nodes[1:]:
            peer = self.company.peer(node, eth0=Standing.ALIVE)
            peer.sightings[ETH0].able_since = 0.0
            peer.sightings[ETH0].prefixes = (f"{address_of(node)}/16",)
        roster = self.company.roster
        self.log = ClaimLog()
        self.bundles = Bundles()
        self.bundles.set(Plan(1, ME, tuple(bundles)), 0.0)
        owners = Owners(roster, self.log, self.bundles)
        spreading = Spreading(self.bundles, owners, HandOvers(roster, random.Random(1)), Chosen())
        self.choosing = Choosing(roster, self.log, self.bundles, owners, spreading)
        self.owners = owners
        self.places: dict[BundleId, NodeName] = {}

    def claim(self) -> None:
        """Each bundle that nobody has is claimed by the node that should have it, in order of id."""
        self.choosing.begin()
        loads = self.loads()
        for id_, bundle in sorted(self.bundles.by_id.items()):
            if id_ in self.places:
                continue
            places = self.owners.places_of_any(bundle.addresses, 0.0)
            chosen = self.choosing.choose(bundle, places, False, loads, 0.0)
            assert chosen is not None
            loads[chosen.node] = self.choosing.load_with(chosen.node, bundle, loads)
            self.choosing.spreading.put(bundle, chosen.node)
            self._hold(bundle, chosen.node)

    def _hold(self, bundle: Bundle, node: NodeName) -> None:
        self.places[bundle.id] = node
        for address in bundle.addresses:
            if node == ME:
                self.log.put(address, Claim(2, 0))
            else:
                self.company.claims(self.company.roster.peers[node], address)

    def die(self, node: NodeName) -> None:
        peer = self.company.roster.peers[node]
        peer.sightings[ETH0].standing = Standing.DEAD
        claimed = tuple(peer.mirror.claims)
        peer.mirror.claims.clear()
        for address in claimed:
            self.company.roster.note_claimant(address, node)
        self.nodes.remove(node)
        self.places = {id_: holder for id_, holder in self.places.items() if holder != node}

    def loads(self) -> dict[NodeName, int]:
        return {node: self.choosing.load(node) for node in self.nodes}


def bundles_of(sizes: list[int], nodes: int) -> list[Bundle]:
    found, address = [], 0
    for i, size in enumerate(sizes):
        addresses = tuple(
            AddressText(f"10.0.{9 + (address + k) // 250}.{1 + (address + k) % 250}") for k in range(size)
        )
        address += size
        ranked = sorted(NODES[:nodes], key=lambda node, i=i: blake2b(f"{i} {node}".encode()).digest())  # type: ignore[misc]
        candidates = tuple(Candidate(node, 0, 0) for node in ranked)
        found.append(Bundle(BundleId(f"b{i:04}"), addresses, (f"default/b{i}",), candidates))
    return found


@example(4, [1, 2], [])
@given(
    st.integers(1, 8),
    st.lists(st.integers(1, 3), min_size=1, max_size=60),
    st.lists(st.sampled_from(NODES[1:]), unique=True),
)
def test_no_node_has_more_than_a_quarter_above_its_share_at_a_start_and_after_failures(
    nodes: int, sizes: list[int], failing: list[NodeName]
) -> None:
    """A bundle is never divided: that may be as much more."""
    site = Site(nodes, bundles_of(sizes, nodes))
    site.claim()
    for node in (None, *(each for each in failing if each in site.nodes)):
        if node is not None:
            site.die(node)
            site.claim()
        assert len(site.places) == len(sizes)
        assert sum(site.loads().values()) == sum(sizes)
        share = sum(sizes) / len(site.nodes)
        assert max(site.loads().values()) <= ceil(1.25 * share) + max(sizes) - 1


@given(st.integers(2, 8), st.integers(1, 20), st.integers(0, 20))
def test_a_group_is_on_as_many_nodes_as_there_are(nodes: int, members: int, others: int) -> None:
    bundles = bundles_of([1] * (members + others), nodes)
    group = [replace(each, spread=("default/dns",)) for each in bundles[:members]]
    site = Site(nodes, group + bundles[members:])
    site.claim()
    crowds = Counter(site.places[each.id] for each in group)
    assert len(crowds) == min(nodes, members)
    assert max(crowds.values()) == ceil(members / nodes)
    site.die(NODES[1])
    site.claim()
    crowds = Counter(site.places[each.id] for each in group)
    assert len(crowds) == min(nodes - 1, members)


@given(st.integers(1, 8), st.integers(1, 40))
def test_what_goes_back_goes_to_the_first_candidate_however_much_that_has(nodes: int, count: int) -> None:
    bundles = [replace(each, failback=True) for each in bundles_of([1] * count, nodes)]
    site = Site(nodes, bundles)
    site.claim()
    assert site.places == {each.id: each.candidates[0].node for each in bundles}


def test_of_a_group_without_end_some_are_spread_and_all_are_placed() -> None:
    bundles = [replace(each, spread=("default/all",)) for each in bundles_of([1] * 3 * MAX_MEMBERS, 3)]
    site = Site(3, bundles)
    site.claim()
    assert len(site.places) == len(bundles)
    assert max(site.loads().values()) <= ceil(1.25 * MAX_MEMBERS)
