"""The Plan: what the API says should be announced, and how well each node suits it.

``planner`` makes a Plan of Services, EndpointSlices, Nodes and the configuration. Each speaker makes its own, from its
own view of the API, which may lag behind others'. A Plan therefore only ranks nodes. Which node holds an address is
decided on the wire (``ownership``) by claims, and claims are judged by their values and never by the listener's Plan.

This module has the values that both processes of a speaker know, and the difference between two Plans. The watcher
sends a Plan whole once, and as differences from then on.

A Plan has *bundles*, each of which is one or more Services with the addresses that they share, and moves as one. A
bundle has *candidates*, the nodes that may hold it, best first.
"""

from __future__ import annotations

from typing import NewType

from msgspec import Struct

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName

BundleId = NewType("BundleId", str)

READY_TIER = 0
NOT_READY_TIER = 1
DRAINED_TIER = 2


class Candidate(Struct, frozen=True, array_like=True, gc=False):
    """One node that may hold a bundle."""

    node: NodeName
    tier: int
    """Suitability, 0 is best. Nodes of one tier are equally suited and spread by load; a later tier is used only when
    every node of the earlier ones is absent or unable."""
    preference: int
    """Sum of the matching advertisements' preference weights, said in claims: a higher one may take back."""
    interfaces: tuple[LinkName, ...] = ()
    """Interfaces that the advertisements name for this node; empty means any. A node with none of them cannot."""
    ending: bool = False
    """The policy is Local, all endpoints on this node that serve are ending, and others elsewhere stay. Such a node
    comes after all others, whatever its tier, and hands over what it holds while its endpoints still serve."""


class Bundle(Struct, frozen=True, array_like=True, gc=False):
    """Services and addresses that must move together: the connected component of both."""

    id: BundleId
    """The lowest Service UID of the bundle."""
    addresses: tuple[AddressText, ...]
    services: tuple[str, ...]
    """``namespace/name``, sorted."""
    candidates: tuple[Candidate, ...]
    """In order of rank: those that are not ``ending`` first, then by tier, then preference descending, then rendezvous
    hash of node and bundle id, or where ``failback`` is so by MetalLB's hash of node and address."""
    interfaces: tuple[LinkName, ...] = ()
    """Interfaces to announce on from the Plan's own node; empty means every announced one."""
    serving: bool = True
    """Some endpoint of some Service of it can serve. Without one it is not claimed, and held on to only for a while."""
    withheld: bool = False
    """By the record, somebody else was found to have one of its addresses before that was ever announced."""
    unfit: tuple[NodeName, ...] = ()
    """The nodes that are preferred, and are no candidates only because they lack a network, or an endpoint that serves.
    One that becomes a candidate has come back by itself; any other was made one by a person (``regards``)."""
    local: bool = False
    """Some Service of it wants to be announced by nodes with an endpoint (``externalTrafficPolicy: Local``)."""
    failback: bool = False
    """It belongs to the first candidate that is able, and goes back there, whatever that node holds already."""
    spread: tuple[str, ...] = ()
    """Groups of bundles that are to be on different nodes, ``namespace/group``, sorted (``spreading``)."""


class Plan(Struct, frozen=True, array_like=True, gc=False):
    """Everything that one speaker may announce. ``bundles`` is in order of id."""

    revision: int
    node: NodeName
    bundles: tuple[Bundle, ...] = ()


class PlanChange(Struct, frozen=True, tag=True):
    """The difference between two Plans, applied atomically."""

    revision: int
    changed: tuple[Bundle, ...] = ()
    """New bundles, and the new form of those that were there; in order of id."""
    removed: tuple[BundleId, ...] = ()
    more: bool = False
    """This is a part of the difference: others follow, and all are applied together."""
