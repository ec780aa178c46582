"""Why a node has no address in a Service's status, and why a Service gets no address from a NodeIPPool at all.

A value of either kind is the one word of the decision: in conditions, Events, log lines and labels of metrics.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class LeftOut(Enum):
    """Why a node that the pool selects has no address in the status."""

    BEING_DELETED = "BeingDeleted"
    OUT_OF_SERVICE = "OutOfService"
    TO_BE_DELETED = "ToBeDeleted"
    EXCLUDED = "Excluded"
    NOT_READY = "NotReady"
    UNHEARD = "Unheard"
    """A majority of the speakers do not hear it."""
    JOINING = "Joining"
    """It has not been usable for long enough yet."""
    FLAPPING = "Flapping"
    """As ``JOINING``; it waits longer, since it has left again and again."""
    UNREADABLE = "AddressUnreadable"
    """What stands in its label or annotation is no address."""
    UNREACHABLE_ADDRESS = "AddressUnreachable"
    """Loopback, link-local, multicast and the like."""
    SERVICE_RANGE = "AddressInServiceRange"
    POD_RANGE = "AddressInPodRange"
    ANOTHER_NODES = "AddressOfAnotherNode"
    NOT_ALLOWED = "AddressNotAllowed"
    """Outside ``allowedCIDRs``."""
    IN_ADDRESS_POOL = "AddressInPool"
    """An IPAddressPool contains it, so the speakers would answer for it on the LAN."""
    NO_ADDRESS = "NoAddress"
    """None of the sources has an address of the families that the Service needs."""
    OTHER_SOURCE = "OtherSource"
    """It has an address, but not of the source that counts for all nodes of the pool."""
    PORT_IN_USE = "PortInUse"
    """Something on the node listens on a port of the Service, or another Service has it there."""
    NO_ENDPOINT = "NoLocalEndpoint"
    DRAINED = "Drained"
    """People have drained it, and others have what the Service needs."""
    BEYOND_MAX = "BeyondMaxNodes"


WAITING: Final = frozenset({LeftOut.JOINING, LeftOut.FLAPPING})
"""Of a node that joins when it stays as it is."""


class NodePoolRefusalReason(Enum):
    """Why a Service gets nothing from the pool."""

    PROXY_IPVS = "ProxyIPVS"
    PROXY_UNKNOWN = "ProxyUnknown"
    PORT_GUARDED = "PortGuarded"
    PORT_IN_USE = "PortInUse"
    """Every node that could serve has something that listens on a port of the Service."""
    ADDRESS_NOT_ALLOWED = "AddressNotAllowed"
    """Every usable node has only addresses that are forbidden."""
    NO_FAMILY = "NoFamily"
    """No node that could serve has an address of a family that the Service needs."""
    NO_NODE = "NoNode"
