"""The Plan: what the API says should be announced, and how well each node suits it.

One pure function turns Services, EndpointSlices, Nodes and the configuration into a Plan. Every speaker makes its own
from its own, possibly lagging, view of the API; the Plan therefore only ranks. Who holds an address is decided on the
wire (``ownership``), by claims, and claims are judged by their values and never by the listener's Plan.
"""

from __future__ import annotations

from typing import NewType

from msgspec import Struct

from cluster.objects import AddressText, NodeName

BundleId = NewType("BundleId", str)
LinkName = NewType("LinkName", str)


class Candidate(Struct, frozen=True, array_like=True, gc=False):
    """One node that may hold a bundle."""

    node: NodeName
    tier: int
    """Suitability, 0 is best. Nodes of one tier are equally suited and spread by load; a later tier is used only when
    every node of the earlier ones is absent or unable."""
    preference: int
    """Sum of the matching advertisements' preference weights, said in claims: a higher one may take back."""


class Bundle(Struct, frozen=True, array_like=True, gc=False):
    """Services and addresses that must move together: the connected component of both."""

    id: BundleId
    """The lowest Service UID of the bundle."""
    addresses: tuple[AddressText, ...]
    services: tuple[str, ...]
    """``namespace/name``, sorted."""
    candidates: tuple[Candidate, ...]
    """In order of rank: by tier, then preference descending, then rendezvous hash of node and bundle id."""
    interfaces: tuple[LinkName, ...] = ()
    """Interfaces to announce on; empty means every announced one."""


class Plan(Struct, frozen=True, array_like=True, gc=False):
    """Everything that one speaker may announce. ``bundles`` is in order of id."""

    revision: int
    node: NodeName
    bundles: tuple[Bundle, ...] = ()
