"""The annotations of Services that are MetalLB's, under its present prefix or under the one that it gave up."""

from __future__ import annotations

from cluster.objects import Service

PREFIX = "metallb.io/"
DEPRECATED_PREFIX = "metallb.universe.tf/"
ADDRESS_POOL = "address-pool"
LOAD_BALANCER_IPS = "loadBalancerIPs"
ALLOW_SHARED_IP = "allow-shared-ip"
ALLOCATED_FROM_POOL = "ip-allocated-from-pool"
ASKED = (ADDRESS_POOL, LOAD_BALANCER_IPS, ALLOW_SHARED_IP)
"""Those by which a user asks for something."""
KNOWN = (*ASKED, ALLOCATED_FROM_POOL)
"""All that there are, without their prefix."""


def annotation(service: Service, name: str) -> str:
    """The annotation's value, under its present key or else its deprecated one; empty where it is absent."""
    annotations = service.metadata.annotations
    present = annotations.get(PREFIX + name)
    return annotations.get(DEPRECATED_PREFIX + name, "") if present is None else present
