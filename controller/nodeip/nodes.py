"""What a Node offers to Services: its addresses by source, and why they may not be shown.

The first of these that is so is the reason: it is being deleted; it has the taint ``out-of-service`` or the
autoscaler's ``ToBeDeleted``; it has the label ``exclude-from-external-load-balancers``; it is not Ready.

All addresses of a source count, in the order in which the Node has them. An annotation may have several, with commas
between them; a label cannot, since Kubernetes allows neither comma nor colon in it. A text that is no address is kept
as unreadable, so that a condition can name it. A host name under ``status.addresses`` is of another type, and a text
there that is no address is unreadable too.

Cordoned nodes (``unschedulable``) stay: they serve what they have. One that is drained (``cluster.drain``) may be shown
where no other node can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cluster.addresses import Address, AddressError, parse_address
from cluster.drain import drained_by
from cluster.node_pools import AddressSource
from cluster.nodes import EXCLUDE_LABEL, OUT_OF_SERVICE_TAINT, is_ready
from cluster.objects import Node, NodeName
from controller.nodeip.reasons import LeftOut

_LIKE_AN_ADDRESS = re.compile(r"\s*[0-9A-Fa-f:]{1,39}[.:][0-9A-Fa-f:.]{0,44}\s*").fullmatch
"""Most of what labels and annotations say is not."""
TO_BE_DELETED_TAINT = "ToBeDeletedByClusterAutoscaler"
"""The cluster autoscaler drains the node, and then deletes its machine."""


@dataclass(frozen=True, slots=True)
class NodeOffer:
    """A Node, read for the sources of one pool."""

    name: NodeName
    labels: Mapping[str, str]
    absence: LeftOut | None
    """Why its addresses may not be shown, by what the Node says itself."""
    ready_since: float | None
    """When it became Ready, in seconds since 1970 by the API server's clock; None: it is not, or does not say since
    when."""
    found: Mapping[AddressSource, tuple[Address, ...]]
    """Of the sources that have any."""
    unreadable: tuple[AddressSource, ...] = ()
    """The sources that have a text that is no address."""
    own: frozenset[Address] = frozenset()
    """Every address in ``status.addresses``, whatever its type."""
    drained: bool = False
    """People have taken it out of use."""


def read_node(node: Node, sources: Iterable[AddressSource]) -> NodeOffer:
    """What the Node offers by these sources."""
    found: dict[AddressSource, tuple[Address, ...]] = {}
    unreadable: list[AddressSource] = []
    for source in sources:
        texts = _texts(node, source)
        addresses = _read(texts)
        if addresses:
            found[source] = addresses
        elif texts:
            unreadable.append(source)
    return NodeOffer(
        name=NodeName(node.metadata.name),
        labels=node.metadata.labels,
        absence=absence_of(node),
        ready_since=ready_since(node),
        found=found,
        unreadable=tuple(unreadable),
        own=frozenset(_read(each.address for each in node.status.addresses)),
        drained=bool(drained_by(node, cordon=False)),
    )


def named_by(node: Node) -> frozenset[Address]:
    """Every address that it names, by whatever source."""
    meta = node.metadata
    written = (text for value in (*meta.labels.values(), *meta.annotations.values()) for text in value.split(","))
    texts = (*(each.address for each in node.status.addresses), *written)
    return frozenset(_read(filter(_LIKE_AN_ADDRESS, texts)))


def absence_of(node: Node) -> LeftOut | None:
    """Why its addresses may not be shown, by what it says itself."""
    taints = {taint.key for taint in node.spec.taints}
    if node.metadata.deletion_timestamp is not None:
        return LeftOut.BEING_DELETED
    if OUT_OF_SERVICE_TAINT in taints:
        return LeftOut.OUT_OF_SERVICE
    if TO_BE_DELETED_TAINT in taints:
        return LeftOut.TO_BE_DELETED
    if EXCLUDE_LABEL in node.metadata.labels:
        return LeftOut.EXCLUDED
    return None if is_ready(node) else LeftOut.NOT_READY


def ready_since(node: Node) -> float | None:
    """When it became Ready, in seconds since 1970."""
    for each in node.status.conditions:
        if each.type == "Ready" and each.status == "True" and each.last_transition_time:
            try:
                read = datetime.fromisoformat(each.last_transition_time)
            except ValueError:
                return None
            return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    return None


def _texts(node: Node, source: AddressSource) -> list[str]:
    match source.type:
        case "Label":
            written = node.metadata.labels.get(source.key, "")
        case "Annotation":
            written = node.metadata.annotations.get(source.key, "")
        case _:
            return [each.address for each in node.status.addresses if each.type == source.type]
    return [text for text in written.split(",") if text.strip()]


def _read(texts: Iterable[str]) -> tuple[Address, ...]:
    found: dict[Address, None] = {}
    for text in texts:
        try:
            found[parse_address(text)] = None
        except AddressError:
            continue
    return tuple(found)
