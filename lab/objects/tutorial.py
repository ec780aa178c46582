"""A tutorial's pool and Service, as it was found where the lab is IPv4 only, and otherwise with the lab's families.

The tutorial names addresses of a LAN that speaks IPv4 alone. In another lab the pool has the ranges that are free
there, and in a dual-stack lab the Service asks for an address of each family. The rest is the tutorial's.
"""

from __future__ import annotations

from typing import Any

from lab.client import Lab
from lab.objects.manifests import SEEDS, apply_bodies, bodies

POOL = SEEDS / "kind-metallb-pool.yaml"
SERVICE = SEEDS / "kind-nginx-service.yaml"
NAMESPACE, SERVICE_NAME = "dev", "nginx-service"


def apply_pool(lab: Lab) -> None:
    """The pool, and an L2Advertisement of everything. Raises ``LabError``."""
    found = bodies(POOL)
    for body in found:
        if body["kind"] == "IPAddressPool":
            body["spec"]["addresses"] = [network.pool_range for network in lab.status().layout.networks.values()]
    apply_bodies(lab, found)


def apply_service(lab: Lab, name: str = SERVICE_NAME, **annotations: str) -> None:
    """The Service of the pods with the label ``app=nginx``. Raises ``LabError``."""
    (service,) = bodies(SERVICE)
    service["metadata"].update(name=name, annotations=annotations)
    apply_bodies(lab, [in_families(lab, service)])


def in_families(lab: Lab, service: dict[str, Any]) -> dict[str, Any]:
    """The Service with an address of each of the lab's families; unchanged where there is one."""
    policy = {"ipFamilyPolicy": "RequireDualStack"} if len(lab.status().layout.networks) > 1 else {}
    return {**service, "spec": {**service["spec"], **policy}}


def first_addresses(lab: Lab) -> list[str]:
    """Of an empty pool, what the first Service gets: one address of each family."""
    return [network.pool_first for network in lab.status().layout.networks.values()]
