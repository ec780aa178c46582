"""Says how many bundles of the same group a node has: those of one group are to be on different nodes.

People put Services into a group (``berthlb.io/spread``), as two DNS servers of which one is to survive any node. A node
is the more *crowded* for a bundle the more other bundles of its groups it has. Whoever chooses a node for the bundle
takes a less crowded one first, before preference and load (``choosing``). So two of a group are together only where
there are fewer able nodes than members, and then no node has more than its share.

A bundle counts for the node that it is handed over to, else for its owner, else for the node that is to claim it
(``chosen``).

**Work is bounded.** Of a group the first 100 bundles count, in order of id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from cluster.objects import NodeName
from speaker.plan import Bundle, BundleId
from speaker.protocol.bundles import Bundles
from speaker.protocol.chosen import Chosen
from speaker.protocol.handing import HandOvers
from speaker.protocol.owners import Owners

MAX_MEMBERS = 100


class Spreading:
    def __init__(self, bundles: Bundles, owners: Owners, hand_overs: HandOvers, chosen: Chosen) -> None:
        self._bundles = bundles
        self._owners = owners
        self._hand_overs = hand_overs
        self._chosen = chosen
        self._places: dict[str, dict[BundleId, NodeName]] = {}
        """Of each group that was asked about, where its bundles are."""
        self._counts: dict[str, Counter[NodeName]] = {}

    def begin(self) -> None:
        """Look anew where the bundles are: what was found is kept while many are looked at together."""
        self._places.clear()
        self._counts.clear()

    def put(self, bundle: Bundle, node: NodeName) -> None:
        """From now on the bundle counts for the node, until all is looked at anew."""
        for group in bundle.spread:
            places = self._places.get(group)
            if places is None:
                continue
            before = places.get(bundle.id)
            if before is not None:
                self._counts[group][before] -= 1
            places[bundle.id] = node
            self._counts[group][node] += 1

    def crowd(self, node: NodeName, bundle: Bundle, now: float) -> int:
        """How many other bundles of its groups the node has."""
        return sum(self._crowd(group, node, bundle.id, now) for group in bundle.spread) if bundle.spread else 0

    def _crowd(self, group: str, node: NodeName, id_: BundleId, now: float) -> int:
        places = self._places.get(group)
        if places is None:
            places = self._places[group] = dict(self._found(group, now))
            self._counts[group] = Counter(places.values())
        return self._counts[group][node] - (places.get(id_) == node)

    def _found(self, group: str, now: float) -> Mapping[BundleId, NodeName]:
        found = {}
        for id_ in sorted(self._bundles.groups.get(group, ()))[:MAX_MEMBERS]:
            bundle = self._bundles.by_id[id_]
            node = self._hand_overs.to(id_) or self._owner(bundle, now)
            if node is not None:
                found[id_] = node
        return found

    def _owner(self, bundle: Bundle, now: float) -> NodeName | None:
        for owner in self._owners.of_bundle(bundle, now):
            if owner is not None:
                return owner.node
        return self._chosen.node(bundle.id)
