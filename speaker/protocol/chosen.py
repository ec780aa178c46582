"""Which node is to claim each bundle that has no owner, and how many addresses each node is to claim.

``claiming`` writes it. The node is expected to claim in its turn, so the bundle counts for it already: as load
(``claiming``), and among the bundles of its groups (``spreading``).
"""

from __future__ import annotations

from collections import Counter

from cluster.objects import NodeName
from speaker.plan import Bundle, BundleId


class Chosen:
    def __init__(self) -> None:
        self._of: dict[BundleId, tuple[NodeName, int]] = {}
        """The node, and how many addresses the bundle had when it was chosen."""
        self._addresses: Counter[NodeName] = Counter()

    def node(self, id_: BundleId) -> NodeName | None:
        """Who is to claim a bundle."""
        chosen = self._of.get(id_)
        return chosen[0] if chosen is not None else None

    def addresses(self, node: NodeName) -> int:
        """How many a node is to claim."""
        return self._addresses[node]

    def choose(self, bundle: Bundle, node: NodeName) -> None:
        """The node is to claim the bundle."""
        self.forget(bundle.id)
        self._of[bundle.id] = node, len(bundle.addresses)
        self._addresses[node] += len(bundle.addresses)

    def forget(self, id_: BundleId) -> None:
        """The bundle is not for the one any more who was to claim it."""
        chosen = self._of.pop(id_, None)
        if chosen is not None:
            node, addresses = chosen
            self._addresses[node] -= addresses

    def clear(self) -> None:
        """All are chosen for anew."""
        self._of.clear()
        self._addresses.clear()
