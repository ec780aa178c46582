"""How well each node suits a bundle: who may hold it at all, and in which order.

A node may hold a bundle when all of this is so:

1. One of the advertisements that select the bundle's Services matches the node.
2. Its network is available, and it is not excluded from load balancers.
3. With ``externalTrafficPolicy: Local``, an endpoint on it can serve. One that is ending still does.

People decide the first, and the label that excludes a node. The rest a node may lack by itself, and have again. Of the
nodes that are preferred it is told which ones are lacking so (``unfit``).

The nodes that may are in this order:

1. Where an endpoint stays, and last where all of them are ending: these nodes serve for some seconds more. Where there
   are no others, that makes no difference.
2. By tier: a node that is NotReady comes after all that are Ready, and one that is drained (``cluster.drain``) after
   these. It is never left out, since every node is NotReady when the API server is cut off, and people may drain all of
   them.
3. By the sum of preference weights, the highest first.
4. By rendezvous hash, which spreads bundles evenly and moves as few as possible when a node comes or goes. Where an
   address is to go back to the node that had it (``failback``), the hash is MetalLB's, over the node and the first
   address of the oldest Service: so it is the node that MetalLB would choose.

Whether a node is on the address's own subnet is not known here. Live speakers know it, and say it in their heartbeats.

Cost: what depends on advertisements and nodes only (``Suitability``) is made once, and shared by all bundles alike. The
hash order of each bundle is kept, and a node that comes is inserted into it by a binary search.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import chain
from typing import NamedTuple, Protocol, Self

from cluster.config import Advertisement, Config
from cluster.drain import drained_by
from cluster.nodes import EXCLUDE_LABEL, is_ready
from cluster.objects import AddressText, Node, NodeName
from cluster.selectors import matches, matches_any
from speaker.link import LinkName
from speaker.plan import DRAINED_TIER, NOT_READY_TIER, READY_TIER, BundleId, Candidate

MAX_SUITABILITIES = 1024  # distinct (advertisements, local endpoints) kept ready: beyond it they are made anew
MAX_CANDIDATES = 16_384  # distinct ones, shared between bundles

Advertisements = frozenset[str]
"""Names of L2Advertisements."""


class Requirement(NamedTuple):
    """What one Service asks of the node that announces it."""

    advertisements: Advertisements
    """Those that select the Service and one of its pools."""
    local: frozenset[NodeName] | None
    """Nodes with an endpoint that can serve, where the traffic policy is Local; None where any node will do."""
    ending: frozenset[NodeName] = frozenset()
    """Those of them whose endpoints are all ending."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What matters here about a Node. Most of what a kubelet writes does not."""

    labels: Mapping[str, str]
    permitted: bool
    """No person has excluded it from load balancers."""
    connected: bool
    """Its network is available."""
    tier: int

    @staticmethod
    def of(node: Node, *, ignore_exclude: bool, drain_cordoned: bool) -> NodeFacts:
        unavailable = any(
            each.type == "NetworkUnavailable" and each.status == "True" for each in node.status.conditions
        )
        excluded = EXCLUDE_LABEL in node.metadata.labels and not ignore_exclude
        tier = READY_TIER if is_ready(node) else NOT_READY_TIER
        return NodeFacts(
            labels=node.metadata.labels,
            permitted=not excluded,
            connected=not unavailable,
            tier=DRAINED_TIER if drained_by(node, cordon=drain_cordoned) else tier,
        )


class Suitability(NamedTuple):
    """What all bundles with the same requirements have in common."""

    levels: tuple[dict[NodeName, Candidate], ...]
    """The candidates, those that are equally suited together: within a level the hash alone decides."""
    interfaces: tuple[LinkName, ...]
    """Of the own node, candidate or not."""
    unfit: tuple[NodeName, ...]
    """Nodes that are preferred, and that people permit, and which lack a network or an endpoint; by name. Where
    ``failback`` is so, preferred or not."""
    failback: bool


class Hasher(Protocol):
    """As those of ``hashlib``."""

    def copy(self) -> Self: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


def berthlb_hash(node: bytes) -> Hasher:
    return blake2b(node, digest_size=8)


def metallb_hash(node: bytes) -> Hasher:
    return sha256(node)


class Rendezvous:
    """For each key all nodes in order of the hash of both, which is of the text ``node#key``. Nodes are numbered, so
    that an order takes two octets for each."""

    def __init__(self, hash_of: Callable[[bytes], Hasher] = berthlb_hash) -> None:
        self._hash_of = hash_of
        self._numbers: dict[NodeName, int] = {}
        self._nodes: list[NodeName] = []
        """By number; the name of one that is gone stays until its number is another's."""
        self._hashers: list[Hasher] = []
        self._free: list[int] = []
        self._orders: dict[str, array[int]] = {}

    def _score(self, number: int, data: bytes) -> tuple[bytes, NodeName]:
        hasher = self._hashers[number].copy()
        hasher.update(data)
        return hasher.digest(), self._nodes[number]

    def add(self, node: NodeName) -> None:
        hasher = self._hash_of(f"{node}#".encode())
        if self._free:
            number = self._free.pop()
            self._nodes[number], self._hashers[number] = node, hasher
        else:
            number = len(self._nodes)
            self._nodes.append(node)
            self._hashers.append(hasher)
        self._numbers[node] = number
        for key, order in self._orders.items():
            data = key.encode()
            insort(order, number, key=lambda each, data=data: self._score(each, data))  # type: ignore[misc]  # default

    def remove(self, node: NodeName) -> None:
        number = self._numbers.pop(node)
        self._free.append(number)
        for order in self._orders.values():
            order.remove(number)

    def order(self, key: str) -> Sequence[NodeName]:
        """Every node, best first."""
        order = self._orders.get(key)
        if order is None:
            data = key.encode()
            scores = [(*self._score(number, data), number) for number in self._numbers.values()]
            scores.sort()
            order = self._orders[key] = array("H", (number for *_, number in scores))
        return [self._nodes[number] for number in order]

    def forget(self, key: str) -> None:
        self._orders.pop(key, None)


class Ranking:
    """Nodes and advertisements, and from them the candidates of any bundle."""

    def __init__(self, own: NodeName, *, failback: bool = False) -> None:
        """``failback``: addresses go back to the node that had them, where no advertisement says otherwise."""
        self._own = own
        self._failback = failback
        self._nodes: dict[NodeName, NodeFacts] = {}
        self._advertisements: Mapping[str, Advertisement] = {}
        self._weights: dict[str, dict[NodeName, int]] = {}
        self._suitabilities: dict[tuple[Requirement, ...], Suitability] = {}
        self._candidates: dict[Candidate, Candidate] = {}
        self._rendezvous = Rendezvous()
        self._elections = Rendezvous(metallb_hash)
        self._elected_by: dict[BundleId, AddressText] = {}
        """The address by which each bundle that goes back is ranked."""

    def set_config(self, config: Config) -> None:
        self._advertisements = config.advertisements
        self._forget_suitabilities()

    def set_node(self, name: NodeName, facts: NodeFacts | None) -> bool:
        """A node as it is now, None when it is gone; whether that can change any candidate."""
        before = self._nodes.get(name)
        if facts == before:
            return False
        if facts is None:
            del self._nodes[name]
            self._rendezvous.remove(name)
            self._elections.remove(name)
        else:
            self._nodes[name] = facts
            if before is None:
                self._rendezvous.add(name)
                self._elections.add(name)
        self._forget_suitabilities()
        return True

    def _forget_suitabilities(self) -> None:
        self._weights.clear()
        self._suitabilities.clear()

    def possible(self, requirement: Requirement) -> bool:
        """Whether any node may announce the Service."""
        return bool(self._suitability((requirement,)).levels)

    def rank(
        self, bundle: BundleId, requirements: tuple[Requirement, ...], address: AddressText
    ) -> tuple[Candidate, ...]:
        """Candidates in order of rank; ``requirements`` are those of the bundle's Services, the oldest first, and
        ``address`` is the first one of the oldest."""
        suitability = self._suitability(requirements)
        order = self._elected(bundle, address) if suitability.failback else self._rendezvous.order(bundle)
        return tuple(chain.from_iterable(filter(None, map(level.get, order)) for level in suitability.levels))

    def _elected(self, bundle: BundleId, address: AddressText) -> Sequence[NodeName]:
        before = self._elected_by.get(bundle)
        if before is not None and before != address:
            self._elections.forget(before)
        self._elected_by[bundle] = address
        return self._elections.order(address)

    def interfaces(self, requirements: tuple[Requirement, ...]) -> tuple[LinkName, ...]:
        """Where this speaker's own node announces; empty: everywhere."""
        return self._suitability(requirements).interfaces

    def unfit(self, requirements: tuple[Requirement, ...]) -> tuple[NodeName, ...]:
        """The nodes that are preferred, and no candidates only because they lack a network or an endpoint; by name.
        Where the bundle goes back to the node that had it, preferred or not."""
        return self._suitability(requirements).unfit

    def failback(self, requirements: tuple[Requirement, ...]) -> bool:
        """Whether the bundle goes back to the node that had it."""
        return self._suitability(requirements).failback

    def forget(self, bundle: BundleId) -> None:
        """The bundle is gone."""
        self._rendezvous.forget(bundle)
        if bundle in self._elected_by:
            self._elections.forget(self._elected_by.pop(bundle))

    def _suitability(self, requirements: tuple[Requirement, ...]) -> Suitability:
        suitability = self._suitabilities.get(requirements)
        if suitability is None:
            if len(self._suitabilities) >= MAX_SUITABILITIES:
                self._suitabilities.clear()
            suitability = self._suitabilities[requirements] = self._new_suitability(requirements)
        return suitability

    def _new_suitability(self, requirements: tuple[Requirement, ...]) -> Suitability:
        permitted = _common(self._nodes_of(each) for each in requirements)
        fit = {name for name, facts in self._nodes.items() if facts.connected}
        able = [self._nodes_of(each) & (fit if each.local is None else fit & each.local) for each in requirements]
        eligible = _common(able)
        staying = _common(nodes - each.ending or nodes for nodes, each in zip(able, requirements, strict=True))
        names = sorted(frozenset[str]().union(*(requirement.advertisements for requirement in requirements)))
        weights = [self._weights_of(name) for name in names]
        levels: dict[tuple[bool, int, int], dict[NodeName, Candidate]] = {}
        for node in eligible | staying:
            tier, preference = self._nodes[node].tier, sum(each.get(node, 0) for each in weights)
            ending = node not in staying
            candidate = Candidate(node, tier, preference, self._interfaces(node, names), ending)
            levels.setdefault((ending, tier, -preference), {})[node] = self._shared(candidate)
        said = (self._advertisements[name].failback for name in names)
        failback = any(self._failback if each is None else each for each in said)
        lacking = permitted - eligible - staying
        unfit = sorted(node for node in lacking if failback or any(each.get(node) for each in weights))
        ordered = tuple(levels[each] for each in sorted(levels))
        return Suitability(ordered, self._interfaces(self._own, names), tuple(unfit), failback)

    def _nodes_of(self, requirement: Requirement) -> frozenset[NodeName]:
        """The nodes that its advertisements permit."""
        return frozenset[NodeName]().union(*map(self._weights_of, requirement.advertisements))

    def _shared(self, candidate: Candidate) -> Candidate:
        """One object for all equal ones: bundles then share them, and comparing two bundles is quick."""
        if len(self._candidates) >= MAX_CANDIDATES:
            self._candidates.clear()
        return self._candidates.setdefault(candidate, candidate)

    def _interfaces(self, node: NodeName, names: Sequence[str]) -> tuple[LinkName, ...]:
        """Where a node announces by these advertisements; empty: everywhere."""
        applying = [self._advertisements[name] for name in names if node in self._weights_of(name)]
        if any(not advertisement.interfaces for advertisement in applying):
            return ()
        return tuple(sorted({LinkName(name) for advertisement in applying for name in advertisement.interfaces}))

    def _weights_of(self, name: str) -> dict[NodeName, int]:
        """The nodes that may announce by this advertisement, each with its preference."""
        weights = self._weights.get(name)
        if weights is None:
            advertisement = self._advertisements[name]
            weights = self._weights[name] = {
                node: sum(
                    preferred.weight
                    for preferred in advertisement.preferred
                    if matches(preferred.preference, facts.labels)
                )
                for node, facts in self._nodes.items()
                if facts.permitted
                and (not advertisement.node_selectors or matches_any(advertisement.node_selectors, facts.labels))
            }
        return weights


def _common(each: Iterable[frozenset[NodeName]]) -> frozenset[NodeName]:
    """The nodes that suit all of these. Services that share an address but no node: the older one is served, for nobody
    can serve both."""
    common = frozenset[NodeName]()
    for nodes in each:
        common = (common & nodes or common) if common else nodes
    return common
