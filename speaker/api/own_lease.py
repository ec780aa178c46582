"""This speaker's Lease: where it can be reached, renewed as long as it runs.

``OwnLease`` says when the Lease is to be written, and with which links. The other speakers make their directory of all
Leases (``directory``). A Lease ends with its Node, whose owner reference it carries.

1. It is first written when this node's Node and links are known and the speaker has its key, so that it is heard where
   heartbeats pass.
2. It is renewed each ``RENEW_S``, and at once when the links are not what they were, or the report of the nodes is not
   (``own_report``). Only links with carrier are in it.
3. A write that fails is repeated as any other (``backlog``). Nothing that is served depends on it.

An annotation has the links, as JSON: name, MAC, and addresses with their prefix lengths. It is bounded: 16 links, 16
addresses of each. Times are monotonic seconds.
"""

from __future__ import annotations

import ipaddress
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from cluster.components import COMPONENT_LABEL
from cluster.node_report import REPORT_ANNOTATION
from cluster.objects import NodeName
from cluster.times import NEVER
from speaker.directory import MAX_LINK_ADDRESSES, MAX_LISTED_LINKS, ListedLink
from speaker.link import LinkName

RENEW_S = 10.0
LASTS_S = 40
"""What the Lease says of itself (``spec.leaseDurationSeconds``), for people: four renewals may be missed."""
LINKS_ANNOTATION = "berthlb.io/links"
PREFIX = "berthlb-speaker-"
LONGEST_NAME = 253
"""Of an object (RFC 1123 subdomain)."""


class WrittenLink(Struct, frozen=True):
    """A link as the annotation has it."""

    name: str
    mac: str
    """``02:42:00:00:00:0b``."""
    addresses: tuple[str, ...] = ()


class WrittenLease(Struct, frozen=True):
    """What the Lease says."""

    node_uid: str
    """Of the Node that it ends with."""
    links: tuple[ListedLink, ...] = ()
    report: str | None = None
    """The annotation that reports of the nodes (``cluster.node_report``); None: it is left as it is."""


class OwnLease:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._node_uid = ""
        self._links: tuple[ListedLink, ...] | None = None
        self._report: str | None = None
        self._due_at = NEVER

    def set_node(self, uid: str, now: float) -> None:
        """This node's Node."""
        if uid != self._node_uid:
            self._node_uid = uid
            self._due(now)

    def set_links(self, links: tuple[ListedLink, ...], now: float) -> None:
        """The links with carrier on which this speaker can be heard."""
        if links != self._links:
            self._links = links
            self._due(now)

    def set_report(self, report: str | None, now: float) -> None:
        """The annotation that reports of the nodes; None: it is left as it is."""
        if report != self._report:
            self._report = report
            self._due(now)

    def next_deadline(self) -> float | None:
        """When it is to be written; None: not before something happens."""
        return None if self._due_at == NEVER else self._due_at

    def take(self, now: float) -> WrittenLease | None:
        """What to write now, if it is time to."""
        if self._links is None or now < self._due_at:
            return None
        self._due_at = now + RENEW_S
        return WrittenLease(self._node_uid, self._links, self._report)

    def _due(self, now: float) -> None:
        if self._node_uid and self._links is not None:
            self._due_at = now


def lease_name(node: NodeName) -> str:
    """``berthlb-speaker-<node>``; with a digest in the place of a name that is too long for that."""
    name = f"{PREFIX}{node}"
    return name if len(name) <= LONGEST_NAME else f"{PREFIX}{blake2b(node.encode(), digest_size=16).hexdigest()}"


def lease_body(node: NodeName, lease: WrittenLease, now: str) -> Any:
    """The Lease, as a body to create it or a merge patch to renew it. ``now`` is RFC 3339 with microseconds."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": lease.node_uid}
    written = [WrittenLink(link.name, link.mac.hex(":"), link.addresses[:MAX_LINK_ADDRESSES]) for link in lease.links]
    annotations = {LINKS_ANNOTATION: msgspec.json.encode(written[:MAX_LISTED_LINKS]).decode()}
    if lease.report is not None:
        annotations[REPORT_ANNOTATION] = lease.report
    return {
        "metadata": {
            "name": lease_name(node),
            "labels": {COMPONENT_LABEL: "speaker"},
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LASTS_S, "renewTime": now},
    }


def read_links(annotation: str) -> tuple[ListedLink, ...]:
    """The links in an annotation. Raises ``ValueError`` where it is none of ours."""
    try:
        written = _decoder.decode(annotation)
        return tuple(_read_link(link) for link in written[:MAX_LISTED_LINKS])
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


_decoder = msgspec.json.Decoder(tuple[WrittenLink, ...])


def _read_link(link: WrittenLink) -> ListedLink:
    mac = bytes.fromhex(link.mac.replace(":", ""))
    if len(mac) != 6:
        raise ValueError(f"{link.mac} is no MAC")
    addresses = link.addresses[:MAX_LINK_ADDRESSES]
    for address in addresses:
        ipaddress.ip_interface(address)
    return ListedLink(LinkName(link.name), mac, addresses)
