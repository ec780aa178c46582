"""Which addresses are nodes': those that a Node names, in its status, in a label or in an annotation.

On the address of a node Services share by their ports alone (``cluster.sharing``). So an address has to be known for
one. That no IPAddressPool contains it says nothing: it may be from a pool of another installation, or from one that
cannot be read.

1. NodeIPPools are not asked. What a Node names is the same while its pool is made anew, while the Node is not Ready,
   and for a controller that has just started and has not read everything about the nodes yet.
2. Labels and annotations count whatever their name, since a NodeIPPool may take an address from any.
3. An address counts as long as one Node names it.

A change of a Node costs as much as that Node says. Not promised: that the address is shown, or may be; the guards of a
NodeIPPool decide that (``controller.nodeip.guards``).
"""

from __future__ import annotations

from collections import Counter

from cluster.addresses import Address
from cluster.objects import Node
from controller.nodeip.nodes import named_by


class AddressesOfNodes:
    """See the module's docstring. One thread only."""

    def __init__(self) -> None:
        self._named: dict[str, frozenset[Address]] = {}
        self._nodes: Counter[Address] = Counter()
        """How many name it."""

    def __contains__(self, address: object) -> bool:
        return address in self._nodes

    def set_node(self, name: str, node: Node | None) -> set[Address]:
        """A node as the API shows it; None: it is gone. Returns the addresses that have come to be a node's."""
        before = self._named.pop(name, frozenset())
        now = frozenset() if node is None else named_by(node)
        if now:
            self._named[name] = now
        come = {address for address in now - before if address not in self._nodes}
        self._nodes.update(now - before)
        for address in before - now:
            self._nodes[address] -= 1
            if not self._nodes[address]:
                del self._nodes[address]
        return come
