"""Where each kind is in the API: the paths as Kubernetes documents them."""

from __future__ import annotations

import pytest

from cluster.objects import Object
from cluster.resources import IP_ADDRESS_POOLS, NODES, SERVICES, Resource


@pytest.mark.parametrize(
    ("resource", "where", "path"),
    [
        (SERVICES, (), "/api/v1/services"),
        (SERVICES, ("dev",), "/api/v1/namespaces/dev/services"),
        (SERVICES, ("dev", "web"), "/api/v1/namespaces/dev/services/web"),
        (SERVICES, ("dev", "web", "status"), "/api/v1/namespaces/dev/services/web/status"),
        (NODES, (), "/api/v1/nodes"),
        (NODES, (None, "n1"), "/api/v1/nodes/n1"),
        (NODES, ("dev", "n1"), "/api/v1/nodes/n1"),
        (IP_ADDRESS_POOLS, ("x", "lan"), "/apis/metallb.io/v1beta1/namespaces/x/ipaddresspools/lan"),
    ],
)
def test_paths(resource: Resource[Object], where: tuple[str | None, ...], path: str) -> None:
    assert resource.path(*where) == path


def test_names() -> None:
    assert (SERVICES.api_version, SERVICES.full_name) == ("v1", "services")
    assert (IP_ADDRESS_POOLS.api_version, IP_ADDRESS_POOLS.full_name) == (
        "metallb.io/v1beta1",
        "ipaddresspools.metallb.io",
    )
