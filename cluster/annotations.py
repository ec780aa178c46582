"""The annotations of Services that are MetalLB's: under the present prefix, or under the one that it gave up."""

from __future__ import annotations

from cluster.objects import Service

PREFIX = "metallb.io/"
DEPRECATED_PREFIX = "metallb.universe.tf/"
ALLOW_SHARED_IP = "allow-shared-ip"


def annotation(service: Service, name: str) -> str:
    """The annotation's value, under its present key or else its deprecated one; empty where it is absent."""
    annotations = service.metadata.annotations
    present = annotations.get(PREFIX + name)
    return annotations.get(DEPRECATED_PREFIX + name, "") if present is None else present
