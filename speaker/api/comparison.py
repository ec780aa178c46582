"""What this node's speaker would announce, compared with who announces by the API (``--observe``).

Speakers agree on the wire. An observing speaker says nothing there, so it cannot tell which node would hold an address.
It tells what the Plan tells: whether a Service would be announced at all, and which nodes suit it. A difference is one
of:

- ``announced_by_nobody``: this node is the first that would announce a Service, and no record says that any node does.
- ``not_announced``: by its record this node announces a Service, and no node would.
- ``other_node``: by its record this node announces a Service, and others would be preferred to it in any case.

Two announcers spread addresses by different hashes, and choose different nodes for the same address. That is no
difference.

A Service is judged by the speaker of one node: the one that the record names, or else the first that would announce.
Records are ServiceL2Status objects, whoever wrote them (MetalLB writes them from 0.14 on). Sans-IO.
"""

from __future__ import annotations

from collections.abc import Iterator

from cluster.differences import Difference
from cluster.l2status import announced_service, announcing_node
from cluster.objects import NodeName, ServiceL2Status
from speaker.api.planner import Planner
from speaker.plan import Bundle

ANNOUNCED_BY_NOBODY = "announced_by_nobody"
NOT_ANNOUNCED = "not_announced"
OTHER_NODE = "other_node"
KINDS = (ANNOUNCED_BY_NOBODY, NOT_ANNOUNCED, OTHER_NODE)
NAMED = 3  # nodes in a text


class Comparison:
    """One thread only."""

    def __init__(self, planner: Planner, node: NodeName) -> None:
        self._planner = planner
        self._node = node
        self._records: dict[str, tuple[str, str]] = {}
        """Of each record the Service and the node, by the record's name."""
        self._announcing: dict[str, dict[str, str]] = {}
        """The nodes that announce a Service, by the record that says so, by Service."""

    def set_record(self, name: str, record: ServiceL2Status | None) -> Iterator[str]:
        """A record as the API shows it, or None where it is gone; the Services to be compared again."""
        before = self._records.pop(name, None)
        if before is not None:
            service, _ = before
            del self._announcing[service][name]
            if not self._announcing[service]:
                del self._announcing[service]
            yield service
        if record is not None:
            service, node = announced_service(record), announcing_node(record)
            self._records[name] = service, node
            self._announcing.setdefault(service, {})[name] = node
            yield service

    def compare(self, service: str) -> Difference | None:
        """What there is to say about a Service on this node."""
        announcing = set(self._announcing.get(service, {}).values())
        bundle = self._planner.bundle_of(service)
        serving = bundle is not None and bundle.serving and bool(bundle.candidates)
        if self._node in announcing:
            return self._of_ours(service, bundle if serving else None)
        if announcing or bundle is None or not serving or bundle.candidates[0].node != self._node:
            return None
        why = "no ServiceL2Status names a node for it"
        return Difference(ANNOUNCED_BY_NOBODY, service, "", self._node, why)

    def _of_ours(self, service: str, bundle: Bundle | None) -> Difference | None:
        """About a Service that this node announces; ``bundle`` is None where nobody would."""
        if bundle is None:
            return Difference(NOT_ANNOUNCED, service, self._node, "", self._why_not(service))
        first = bundle.candidates[0]
        best = [each.node for each in bundle.candidates if (each.ending, each.tier) == (first.ending, first.tier)]
        if self._node in best:
            return None
        known = any(each.node == self._node for each in bundle.candidates)
        why = "others suit it better" if known else "no advertisement has this node announce it, or it is excluded"
        return Difference(OTHER_NODE, service, self._node, ", ".join(best[:NAMED]), why)

    def _why_not(self, service: str) -> str:
        if self._planner.service(service) is None:
            return "it has no address that is announced, or another loadBalancerClass"
        bundle = self._planner.bundle_of(service)
        if bundle is None or not bundle.candidates:
            return "no L2Advertisement selects it and a node, or its addresses are another Service's"
        return "no endpoint of it can serve"
