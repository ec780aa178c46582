"""What comes of the question which addresses a Service gets: the addresses, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from cluster.addresses import Address
from cluster.objects import NodeName, PoolName
from controller.nodeip.reasons import LeftOut, NodePoolRefusalReason


class Reason(Enum):
    """Why a Service has no address, or not the one it asks for. The value is the condition's ``reason``."""

    INVALID_REQUEST = "InvalidRequest"
    """What the Service asks for is malformed or contradicts itself."""
    ADDRESS_IN_USE = "AddressInUse"
    ADDRESS_RESERVED = "AddressReserved"
    """The address is a node's, or in the cluster's Service or Pod range."""
    ADDRESS_NOT_IN_POOL = "AddressNotInPool"
    """No pool has the address asked for, or not the pool asked for."""
    UNKNOWN_POOL = "UnknownPool"
    POOL_UNREADABLE = "PoolUnreadable"
    """The pool exists, but cannot be honoured as it is written."""
    POOL_EXHAUSTED = "PoolExhausted"
    WRONG_FAMILY = "WrongFamily"
    """The pool has no addresses of the Service's IP families."""
    POOL_NOT_FOR_SERVICE = "PoolNotForService"
    """The pool's ``serviceAllocation`` excludes the Service."""
    AUTO_ASSIGN_OFF = "AutoAssignOff"
    NO_POOL = "NoPool"
    """There is no pool at all."""
    NO_CLUSTER_IP = "NoClusterIP"
    """Kubernetes has not given the Service a ClusterIP yet."""
    CONTESTED = "Contested"
    """Something else keeps replacing the address in the Service's status."""

    # From here on of a NodeIPPool.
    PROXY_IPVS = NodePoolRefusalReason.PROXY_IPVS.value
    PROXY_UNKNOWN = NodePoolRefusalReason.PROXY_UNKNOWN.value
    PORT_GUARDED = NodePoolRefusalReason.PORT_GUARDED.value
    PORT_IN_USE = NodePoolRefusalReason.PORT_IN_USE.value
    ADDRESS_NOT_ALLOWED = NodePoolRefusalReason.ADDRESS_NOT_ALLOWED.value
    NO_FAMILY = NodePoolRefusalReason.NO_FAMILY.value
    NO_NODE = NodePoolRefusalReason.NO_NODE.value


_MOST_TELLING = (
    Reason.ADDRESS_RESERVED,
    Reason.POOL_EXHAUSTED,
    Reason.PORT_IN_USE,
    Reason.PORT_GUARDED,
    Reason.PROXY_IPVS,
    Reason.PROXY_UNKNOWN,
    Reason.ADDRESS_NOT_ALLOWED,
    Reason.NO_NODE,
    Reason.NO_FAMILY,
    Reason.WRONG_FAMILY,
    Reason.POOL_NOT_FOR_SERVICE,
    Reason.POOL_UNREADABLE,
)
"""Where several pools refuse for different reasons, the one that came nearest to giving an address speaks for all."""


@dataclass(frozen=True, slots=True)
class PoolRefusal:
    pool: PoolName
    reason: Reason
    detail: str
    """Completes "pool "lan" …"."""
    left_out: Mapping[NodeName, LeftOut] = field(default_factory=dict)
    """Of a NodeIPPool: why none of its nodes will do, where it is the nodes that lack something."""
    denied: frozenset[Address] = frozenset()
    """What it could have if other Services had other ports."""


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    message: str
    """One line for people, complete in itself."""
    pools: tuple[PoolRefusal, ...] = ()
    """Why not, pool by pool, in the order in which they were asked."""

    @property
    def left_out(self) -> Mapping[NodeName, LeftOut]:
        """Of the first NodeIPPool whose nodes lack something."""
        return next((each.left_out for each in self.pools if each.left_out), {})

    @property
    def denied(self) -> frozenset[Address]:
        return frozenset[Address]().union(*(each.denied for each in self.pools))


@dataclass(frozen=True, slots=True)
class Allocation:
    pool: PoolName
    addresses: tuple[Address, ...]
    """In the order of the Service's IP families."""
    left_out: Mapping[NodeName, LeftOut] = field(default_factory=dict)
    """Of a NodeIPPool: the nodes that it selects and that have no address here."""
    denied: frozenset[Address] = frozenset()
    """What it could have beside these if other Services had other ports."""


def refusal_of(refused: tuple[PoolRefusal, ...]) -> Refusal:
    """What several pools say together."""
    reasons = {each.reason for each in refused}
    reason = next((each for each in _MOST_TELLING if each in reasons), refused[0].reason)
    message = "; ".join(f'pool "{each.pool}" {each.detail}' for each in refused)
    return Refusal(reason, message, refused)
