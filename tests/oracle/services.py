"""What a Service says of itself, read from the JSON of the API: what it shows, was given, needs and asks for, and with
whom it may share an address.

Written from MetalLB's rules and ``docs/allocation.md``, with the standard library alone: the tests judge the daemons by
it, so nothing of theirs is used here. A reader of addresses, of conditions or of annotations that is wrong in the
daemons is not wrong here as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

Body = Mapping[str, Any]
"""An object as the API has it."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NEW, OLD = "metallb.io/", "metallb.universe.tf/"
"""The annotations' present prefix, and the one that MetalLB gave up."""


def key_of(service: Body) -> str:
    """``namespace/name``."""
    return f"{service['metadata']['namespace']}/{service['metadata']['name']}"


def is_load_balancer(service: Body, load_balancer_class: str | None) -> bool:
    spec = service["spec"]
    return bool(spec["type"] == "LoadBalancer" and spec.get("loadBalancerClass") == load_balancer_class)


def annotation(service: Body, name: str) -> str:
    """The present annotation hides the old one, even where it is empty."""
    annotations = service["metadata"].get("annotations") or {}
    return str(annotations[NEW + name] if NEW + name in annotations else annotations.get(OLD + name, ""))


def read_address(text: str) -> Address | None:
    """None: it is none. An IPv4-mapped IPv6 address means the IPv4 address."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def shown(service: Body) -> tuple[Address, ...]:
    """The addresses in its status, in their order."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = (read_address(each.get("ip") or "") for each in ingress)
    return tuple(dict.fromkeys(each for each in found if each is not None))


def given(service: Body) -> tuple[Address, ...] | None:
    """The addresses with which its condition begins, or that it says are reserved for it; None: it has no condition."""
    conditions = (service.get("status") or {}).get("conditions") or ()
    for said in conditions:
        if said["type"] == "berthlb.io/AddressAssigned":
            message = said.get("message", "")
            begin, found, _ = message.partition(' from pool "')
            if not found:
                begin = message.rpartition(" stays reserved for it")[0].rpartition("; ")[2]
            addresses = tuple(read_address(each) for each in begin.split(", "))
            return tuple(each for each in addresses if each) if all(addresses) else ()
    return None


# ------------------------------------------------------------------------ sharing


def may_share(one: Body, other: Body) -> bool:
    """Whether two Services may have one address: the same key, the same of the network, and no port in common."""
    key, spec, others = annotation(one, "allow-shared-ip"), one["spec"], other["spec"]
    return (
        key != ""
        and key == annotation(other, "allow-shared-ip")
        and _backends(spec) == _backends(others)
        and not _ports(spec) & _ports(others)
    )


def may_share_a_node(one: Body, other: Body) -> bool:
    """Whether two Services may have one address of a node: no port in common."""
    return not _ports(one["spec"]) & _ports(other["spec"])


def ports_of(service: Body) -> set[tuple[str, int]]:
    """(protocol, port)"""
    return _ports(service["spec"])


def _backends(spec: Body) -> dict[str, str]:
    """With the traffic policy Local those who share must have the same Pods behind them; with Cluster any will do."""
    return dict(spec.get("selector") or {}) if spec.get("externalTrafficPolicy") == "Local" else {}


def _ports(spec: Body) -> set[tuple[str, int]]:
    return {(port.get("protocol", "TCP"), port["port"]) for port in spec.get("ports") or ()}


# ------------------------------------------------------------------------ needs and requests


def families(service: Body) -> tuple[int, ...]:
    """4 and 6, as Kubernetes gave it ClusterIPs; the primary one first."""
    spec = service["spec"]
    cluster_ips = (read_address(each) for each in spec.get("clusterIPs") or (spec.get("clusterIP") or "",))
    return tuple(dict.fromkeys(each.version for each in cluster_ips if each is not None))


def enough(service: Body) -> list[set[int]]:
    """The families of addresses that would do for it; none: it cannot have any."""
    has, policy = families(service), service["spec"].get("ipFamilyPolicy")
    if not has or (policy == "RequireDualStack" and len(has) == 1):
        return []
    return [set(has), *({each} for each in has if policy == "PreferDualStack" and len(has) == 2)]


def asked_addresses(service: Body) -> tuple[Address, ...] | None:
    """Those that it asks for; None: the request makes no sense."""
    listed, single = annotation(service, "loadBalancerIPs"), service["spec"].get("loadBalancerIP") or ""
    if listed and single:
        return None
    asked = [read_address(each) for each in (listed or single).split(",") if listed or single]
    addresses = tuple(each for each in asked if each is not None)
    return addresses if len(set(addresses)) == len(asked) else None


def makes_sense(service: Body) -> bool:
    """Whether it can be served at all, as it is written."""
    return bool(enough(service)) and asked_addresses(service) is not None
