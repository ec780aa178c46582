"""Where the other speakers are, from their Leases and from the Nodes' addresses: the directory (``speaker.directory``).

1. A speaker with a Lease is listed with the links that its Lease has.
2. A speaker without one, as of the last release, has a ConfigurationState. It is listed with its Node's InternalIPs.
   So is each speaker with a Lease for one that holds nothing (``by_nodes``), and with the ExternalIPs behind them.
3. What changes goes to the announcer, once in ``SPACING_S``; the first time, the whole directory does.

**A Lease is fresh or stale by what is seen here**, and no clock is compared with another one: not that of the Lease's
writer, and not that of the API server. A Lease is stale when this speaker has seen its *own* one renewed five times,
each ``RENEW_S`` after the one before, and not the other. What is seen has gone through the API and back. So where this
speaker cannot reach the API, or nobody can, nothing becomes stale, however long that lasts; and when the API is back,
everybody has 40 to 50 s to renew. A Lease that is seen for the first time is fresh.

**Bounds:** 256 speakers are listed, and 16 links of each with 16 addresses. A Lease that cannot be read lists nothing.
Times are monotonic seconds.
"""

from __future__ import annotations

import ipaddress
import logging

from cluster.objects import Lease, Node, NodeName
from cluster.times import LONG_AGO
from speaker.api.own_lease import LINKS_ANNOTATION, RENEW_S, read_links
from speaker.directory import MAX_LINK_ADDRESSES, MAX_LISTED, DirectoryChange, ListedLink, ListedSpeaker
from speaker.link import LinkName

STALE_AFTER = 5
"""Renewals of our own without one of the other: 40 to 50 s."""
SPACING_S = 1.0
TOLERANCE_S = 1.0
"""By which a renewal of our own may be early to count."""

logger = logging.getLogger(__name__)


class Directory:
    """See the module's docstring. The watcher's loop calls it."""

    def __init__(self, node: NodeName, *, by_nodes: bool = False) -> None:
        """``by_nodes``: whoever has a Lease is listed with its Node's addresses, whatever links the Lease has."""
        self._node = node
        self._by_nodes = by_nodes
        self._leases: dict[NodeName, tuple[ListedLink, ...]] = {}
        self._renewed: dict[NodeName, int] = {}
        """At which of our own renewals a Lease was last seen renewed."""
        self._own = 0
        """Renewals of our own, as seen."""
        self._own_at = LONG_AGO
        self._renew_times: dict[NodeName, str | None] = {}
        self._addresses: dict[NodeName, tuple[str, ...]] = {}
        self._speakers: set[NodeName] = set()
        self._touched: dict[NodeName, None] = {}
        self._just_renewed: dict[NodeName, None] = {}
        self._told: dict[NodeName, ListedSpeaker] = {}
        self._begun = False
        self._next_at = LONG_AGO

    # -------------------------------------------------------------------- what the API says

    def set_lease(self, before: Lease | None, lease: Lease | None, now: float) -> None:
        """A speaker's Lease was made, renewed or deleted."""
        there = lease or before
        node = NodeName((there.spec.holder_identity if there else None) or "")
        if lease is None:
            for table in (self._leases, self._renewed, self._renew_times):
                table.pop(node, None)
            self._touched[node] = None
            return
        if self._renew_times.get(node, "") == lease.spec.renew_time:
            return
        self._renew_times[node] = lease.spec.renew_time
        if node == self._node:
            self._renew_own(now)
            return
        try:
            links = read_links(lease.metadata.annotations.get(LINKS_ANNOTATION, ""))
        except ValueError as error:
            logger.warning("Lease not understood", extra={"lease": lease.metadata.name, "reason": str(error)})
            links = ()
        if self._leases.get(node) != links or self._is_stale(node):
            self._touched[node] = None
        self._leases[node] = links
        self._renewed[node] = self._own
        self._just_renewed[node] = None

    def set_node(self, name: NodeName, node: Node | None) -> None:
        """A Node with its addresses."""
        found = node.status.addresses if node is not None else ()
        of = {kind: [each.address for each in found if each.type == kind] for kind in ("InternalIP", "ExternalIP")}
        texts = [*of["InternalIP"], *(of["ExternalIP"] if self._by_nodes else ())]
        addresses = tuple(text for text in texts if _is_address(text))[:MAX_LINK_ADDRESSES]
        if self._addresses.get(name, ()) != addresses:
            self._touched[name] = None
        if addresses:
            self._addresses[name] = addresses
        else:
            self._addresses.pop(name, None)

    def set_speaker(self, node: NodeName, *, exists: bool) -> None:
        """Whether a node's speaker has ever written its ConfigurationState."""
        (self._speakers.add if exists else self._speakers.discard)(node)
        self._touched[node] = None

    def _renew_own(self, now: float) -> None:
        if now - self._own_at < RENEW_S - TOLERANCE_S:
            return
        self._own_at = now
        self._own += 1
        for node in self._leases:
            if self._own - self._renewed[node] == STALE_AFTER:
                self._touched[node] = None

    def _is_stale(self, node: NodeName) -> bool:
        return self._own - self._renewed.get(node, LONG_AGO) >= STALE_AFTER

    # -------------------------------------------------------------------- what is told

    def next_deadline(self) -> float | None:
        """When there is something to tell; None: nothing has changed."""
        return self._next_at if self._begun and (self._touched or self._just_renewed) else None

    def take(self, now: float) -> DirectoryChange | None:
        """What to tell the announcer now. To be asked once the Leases are known."""
        if self._begun and (now < self._next_at or not (self._touched or self._just_renewed)):
            return None
        whole, self._begun = not self._begun, True
        self._next_at = now + SPACING_S
        changed: list[ListedSpeaker] = []
        removed: list[NodeName] = []
        for node in self._touched:
            before, listed = self._told.get(node), self._listed(node)
            if listed is None:
                if self._told.pop(node, None) is not None:
                    removed.append(node)
            elif listed != before and (before is not None or len(self._told) < MAX_LISTED):
                self._told[node] = listed
                changed.append(listed)
        renewed = () if whole else tuple(node for node in self._just_renewed if node in self._told)
        self._touched.clear()
        self._just_renewed.clear()
        if not (whole or changed or removed or renewed):
            return None
        return DirectoryChange(tuple(changed), tuple(removed), renewed, whole)

    def _listed(self, node: NodeName) -> ListedSpeaker | None:
        if node == self._node:
            return None
        links = self._leases.get(node)
        if links is not None and not self._by_nodes:
            return ListedSpeaker(node, links, not self._is_stale(node))
        addresses = self._addresses.get(node)
        if addresses is None or (links is None and node not in self._speakers):
            return None
        fresh = links is not None and not self._is_stale(node)
        return ListedSpeaker(node, (ListedLink(LinkName(""), b"", addresses),), fresh)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
