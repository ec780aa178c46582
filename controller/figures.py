"""What the controller measures, as values of one moment. ``daemon.metrics`` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.addresses import Family
from cluster.objects import PoolName
from controller.allocation.ledger import Ledger
from controller.nodeip.cluster import NodePoolFigures
from controller.services.latency import Distribution


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """Addresses of one pool."""

    ipv4: int = 0
    ipv6: int = 0
    ipv4_in_use: int = 0
    ipv6_in_use: int = 0

    @classmethod
    def of(cls, ledger: Ledger, pool: PoolName) -> PoolFigures:
        """As the ledger has them now."""
        v4, v6 = (ledger.counts(pool, family) for family in (Family.IPV4, Family.IPV6))
        return cls(sum(v4), sum(v6), v4[0], v6[0])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All figures of one moment."""

    pools: Mapping[PoolName, PoolFigures] = field(default_factory=dict)
    node_pools: Mapping[PoolName, NodePoolFigures] = field(default_factory=dict)
    """Of the NodeIPPools in force; empty where nothing is known of the nodes."""
    updates: int = 0
    """Writes of Service status that the API took."""
    update_errors: int = 0
    config_loaded: bool = False
    """Whether a configuration has been read."""
    config_stale: bool = False
    """Whether some object is not in force as it stands in the API."""
    services: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Services without an address, or without the one that they ask for, by reason."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    queue_length: int = 0
    """Observations not yet judged, and writes not yet begun."""
    leader: bool = False
    lease_transitions: int = 0
    """How often the Lease went to another replica, as it says itself."""
    since_seen: Distribution = field(default_factory=Distribution)
    since_creation: Distribution = field(default_factory=Distribution)
