"""Slim views of EndpointSlices, and what their conditions mean for who takes traffic.

There are as many slices as Services. ``takers`` and ``with_endpoints`` leave of one what a copy of all of them needs.
"""

from __future__ import annotations

from sys import intern

from cluster.objects import NodeName, Object, View, kept_meta

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
SLICES_OF_SERVICES = f"{SERVICE_NAME_LABEL},!service.kubernetes.io/headless"
"""A label selector: headless Services, which no load balancer has, have many more endpoints than others."""


class EndpointConditions(View, frozen=True):
    """``null`` means unknown."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None

    @property
    def is_ready(self) -> bool:
        """An unknown ``ready`` counts as true (the API's own advice)."""
        return self.ready is not False

    @property
    def is_ending(self) -> bool:
        """Its pod is being deleted, and it takes traffic until then. kube-proxy sends traffic to it where no endpoint
        is ready (KEP-1669). Where the Service publishes what is not ready, one that ends counts as ready for it."""
        return self.terminating is True and (self.is_ready or self.serving is not False)

    @property
    def is_staying(self) -> bool:
        """It takes traffic, and nothing says that it will not."""
        return self.is_ready and self.terminating is not True


class Endpoint(View, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    node_name: NodeName | None = None


class EndpointPort(View, frozen=True):
    name: str | None = None
    port: int | None = None
    protocol: str = "TCP"


class EndpointSlice(Object, frozen=True):
    """``discovery.k8s.io/v1 EndpointSlice``."""

    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()

    @property
    def service_key(self) -> str | None:
        """``namespace/name`` of the Service that this slice belongs to (label ``kubernetes.io/service-name``)."""
        name = self.metadata.labels.get(SERVICE_NAME_LABEL)
        return f"{self.metadata.namespace}/{name}" if name else None


_STAYS = EndpointConditions(ready=True)
_ENDS = EndpointConditions(ready=False, serving=True, terminating=True)


def takers(endpoint_slice: EndpointSlice) -> tuple[Endpoint, ...]:
    """Of the endpoints that take traffic one for each node, by name: one that stays, if there is one. Of those on no
    node one, too."""
    endpoints = endpoint_slice.endpoints or ()
    best = {each.node_name: _ENDS for each in endpoints if each.conditions.is_ending}
    best |= {each.node_name: _STAYS for each in endpoints if each.conditions.is_staying}
    return tuple(
        Endpoint(conditions=best[node], node_name=NodeName(intern(node)) if node else node)
        for node in sorted(best, key=lambda node: node or "")
    )


def with_endpoints(endpoint_slice: EndpointSlice, endpoints: tuple[Endpoint, ...]) -> EndpointSlice:
    """The slice with these endpoints, and with nothing else than whose it is."""
    meta = endpoint_slice.metadata
    service = meta.labels.get(SERVICE_NAME_LABEL)
    return EndpointSlice(kept_meta(meta, {SERVICE_NAME_LABEL: service} if service else {}), endpoints=endpoints)
