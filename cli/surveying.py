"""What ``berthlb migrate check`` reads of a cluster: whole objects, of the kinds that MetalLB has a part in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cluster.api.client import ApiClient
from cluster.api.errors import Forbidden, NotFound
from cluster.objects import Object
from cluster.resources import METALLB_GROUP, Resource


def _kind(group: str, version: str, plural: str, kind: str, *, namespaced: bool = True) -> Resource[Object]:
    return Resource(group, version, plural, kind, namespaced, Object)


KINDS: Mapping[str, Resource[Object]] = {
    each.plural: each
    for each in (
        _kind(METALLB_GROUP, "v1beta1", "ipaddresspools", "IPAddressPool"),
        _kind(METALLB_GROUP, "v1beta1", "l2advertisements", "L2Advertisement"),
        _kind(METALLB_GROUP, "v1beta1", "bgpadvertisements", "BGPAdvertisement"),
        _kind(METALLB_GROUP, "v1beta2", "bgppeers", "BGPPeer"),
        _kind(METALLB_GROUP, "v1beta1", "addresspools", "AddressPool"),
        _kind("", "v1", "services", "Service"),
        _kind("apps", "v1", "deployments", "Deployment"),
        _kind("apps", "v1", "daemonsets", "DaemonSet"),
        _kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False),
        _kind(
            "admissionregistration.k8s.io",
            "v1",
            "validatingwebhookconfigurations",
            "ValidatingWebhookConfiguration",
            namespaced=False,
        ),
    )
}

Survey = Mapping[str, tuple[dict[str, Any], ...]]
"""All objects, by the plural of their kind."""


def survey(client: ApiClient) -> tuple[Survey, tuple[str, ...]]:
    """Everything of these kinds in all namespaces, and the kinds that we were not allowed to read. A kind that the
    cluster does not have has no objects. Raises ``ApiError``."""
    found: dict[str, tuple[dict[str, Any], ...]] = {}
    forbidden = []
    for plural, resource in KINDS.items():
        try:
            found[plural] = tuple(_objects(client, resource))
        except NotFound:
            found[plural] = ()
        except Forbidden:
            found[plural] = ()
            forbidden.append(resource.full_name)
    return found, tuple(forbidden)


def _objects(client: ApiClient, resource: Resource[Object]) -> Iterator[dict[str, Any]]:
    continue_ = ""
    while True:
        page = client.list_page(resource, continue_=continue_)
        for raw in page.items:
            yield {"kind": resource.kind, **msgspec.json.decode(raw)}
        continue_ = page.metadata.continue_
        if not continue_:
            return
