"""Objects that tests of the API make, as JSON has them."""

from __future__ import annotations

from typing import Any

METALLB = ("metallb.io", "v1beta1")


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports, **spec}}


def pool(name: str, *addresses: str, **spec: Any) -> dict[str, Any]:
    spec = {"addresses": list(addresses), **spec}
    return {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": name}, "spec": spec}


def node_pool(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "berthlb.io/v1alpha1", "kind": "NodeIPPool", "metadata": {"name": name}, "spec": spec}


def labelled(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def in_short(events: list[Any]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]
