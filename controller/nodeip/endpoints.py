"""Which nodes serve a Service with ``externalTrafficPolicy: Local``: those with a ready endpoint that stays.

Where there is none, those count that are ending and still serve: kube-proxy sends traffic to them as well (KEP-1669),
and a roll-out of a single Pod leaves the status as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import intern

from cluster.objects import NodeName
from cluster.slices import Endpoint, EndpointSlice, takers, with_endpoints

Nodes = frozenset[NodeName]


@dataclass(slots=True)
class _Slices:
    """Of one Service, by their keys."""

    staying: dict[str, Nodes] = field(default_factory=dict)
    ending: dict[str, Nodes] = field(default_factory=dict)


class Endpoints:
    """Where each Service is served. A change costs as much as its Service has slices. One thread only."""

    def __init__(self) -> None:
        self._services: dict[str, _Slices] = {}
        self._service_of: dict[str, str] = {}

    def set_slice(self, key: str, endpoint_slice: EndpointSlice | None) -> set[str]:
        """A slice as the API shows it; None: it is gone. Returns the Services that are served elsewhere now."""
        service = endpoint_slice.service_key if endpoint_slice is not None else None
        before = self._service_of.get(key)
        concerned = {each for each in (before, service) if each is not None}
        nodes = {each: self.nodes(each) for each in concerned}
        if before is not None and before != service:
            self._drop(key, before)
        if service is not None and endpoint_slice is not None:
            self._service_of[key] = service
            slices = self._services.setdefault(service, _Slices())
            slices.staying[key] = _staying(endpoint_slice)
            slices.ending[key] = _ending(endpoint_slice)
        return {each for each in concerned if self.nodes(each) != nodes[each]}

    def _drop(self, key: str, service: str) -> None:
        del self._service_of[key]
        slices = self._services[service]
        del slices.staying[key], slices.ending[key]
        if not slices.staying:
            del self._services[service]

    def nodes(self, service: str) -> Nodes:
        """``service``: ``namespace/name``."""
        slices = self._services.get(service)
        if slices is None:
            return frozenset()
        return frozenset().union(*slices.staying.values()) or frozenset().union(*slices.ending.values())


def kept_slice(endpoint_slice: EndpointSlice) -> EndpointSlice:
    """The slice with what is read here: one endpoint for each node."""
    return with_endpoints(endpoint_slice, takers(endpoint_slice))


def _staying(endpoint_slice: EndpointSlice) -> Nodes:
    return _nodes_of(each for each in endpoint_slice.endpoints or () if each.conditions.is_staying)


def _ending(endpoint_slice: EndpointSlice) -> Nodes:
    return _nodes_of(each for each in endpoint_slice.endpoints or () if each.conditions.is_ending)


def _nodes_of(endpoints: Iterable[Endpoint]) -> Nodes:
    return frozenset(NodeName(intern(each.node_name)) for each in endpoints if each.node_name)
