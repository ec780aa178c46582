"""What is known of the nodes at one moment, as allocation and judgement need it: one immutable value.

``cluster`` makes a new one whenever something in it differs. ``choice.choose`` takes all that it needs from here:

    of_pool = view.of(pool)
    choose(of_pool, want, proxy=view.proxy, listeners=view.listeners, node_ports=view.node_ports)

Until everything about nodes was read once, nothing is ``known``. Then no Service gets an address of a node, and none
loses one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cluster.objects import NodeName, PoolName
from controller.nodeip.choice import NodesOfPool
from controller.nodeip.guards import NODE_PORTS, Listeners, ServiceProxy


@dataclass(frozen=True, slots=True)
class NodeView:
    """See the module's docstring."""

    known: bool = False
    """Whether everything that the rest says is so; False: nothing is to be decided by it."""
    pools: Mapping[PoolName, NodesOfPool] = field(default_factory=dict)
    """What the nodes of each NodeIPPool in force give."""
    joining: Mapping[PoolName, NodesOfPool] = field(default_factory=dict)
    """What they will give when the nodes have joined that wait for it, of those pools of which one does and that are
    behind 1:1 NAT."""
    listeners: Listeners = field(default_factory=dict)
    proxy: ServiceProxy = ServiceProxy.OTHER
    node_ports: range = NODE_PORTS
    serving: Mapping[str, frozenset[NodeName]] = field(default_factory=dict)
    """By ``namespace/name`` of a Service the nodes that have a ready endpoint of it."""

    def of(self, pool: PoolName) -> NodesOfPool | None:
        """What the pool's nodes give to any Service; None: the pool is not in force, or nothing is known."""
        return self.pools.get(pool) if self.known else None

    @property
    def joined(self) -> NodeView:
        """As it will be when all nodes have joined that wait for it."""
        return replace(self, pools={**self.pools, **self.joining}, joining={}) if self.joining else self

    def local_nodes(self, service: str) -> frozenset[NodeName]:
        """Where a Service with ``externalTrafficPolicy: Local`` is served. ``service``: ``namespace/name``."""
        return self.serving.get(service, frozenset())
