"""What programs that follow a load balancer's addresses read of a Service, as their sources have it.

Each function does what one function of such a program does with an object of the API, and nothing else. Its docstring
names repository, file and function, so that a reader can compare them. The page is docs/how-to/follow-addresses.md.

Services, Nodes and entries of ``ingress`` are as the API has them in JSON.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

Body = Mapping[str, Any]
Records = dict[str, list[str]]
"""Type of the DNS record, to its targets."""


def argo_cd_health(service: Body) -> str:
    """argoproj/argo-cd, ``gitops-engine/pkg/health/health_service.go``, ``getCorev1ServiceHealth``: a LoadBalancer is
    healthy when its list of ingress has an entry, and progresses until then."""
    if service["spec"].get("type") == "LoadBalancer" and not _ingress(service):
        return "Progressing"
    return "Healthy"


def traefik_ingress_status(published: Body, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """traefik/traefik, ``pkg/provider/kubernetes/ingress/kubernetes.go``, ``updateIngressStatus``, and ``convertSlice``
    in ``convert.go``: what an Ingress says after this status of the published Service. An Ingress has no ``ipMode``.
    Where the Service has no list, the Ingress is left as it is."""
    if not _ingress(published):
        return before
    return [{key: each[key] for key in ("ip", "hostname", "ports") if key in each} for each in _ingress(published)]


def ingress_nginx_status(published: Body) -> list[dict[str, str]]:
    """kubernetes/ingress-nginx, ``internal/ingress/status/status.go``, ``statusAddressFromService`` for a LoadBalancer:
    IPs and host names of its status, then those of its ``externalIPs`` that are not there; sorted as texts."""
    entries = [{key: each[key] for key in ("hostname", "ip") if each.get(key)} for each in _ingress(published)]
    there = {text for each in entries for text in each.values()}
    entries += [{"ip": ip} for ip in published["spec"].get("externalIPs", ()) if ip not in there]
    return sorted(entries, key=lambda each: (each.get("hostname", ""), each.get("ip", "")))


def external_dns_service(service: Body) -> Records:
    """kubernetes-sigs/external-dns, ``source/service.go``, ``extractLoadBalancerTargets``, and ``source/endpoints.go``,
    ``endpointsForHostname``: ``externalIPs`` if there are any, else IPs and host names of the status."""
    external = service["spec"].get("externalIPs")
    shown = [each[key] for each in _ingress(service) for key in ("ip", "hostname") if each.get(key)]
    return _records(external or shown)


def external_dns_node(node: Body, *, expose_internal_ipv6: bool) -> Records:
    """kubernetes-sigs/external-dns, ``source/node.go``, ``Endpoints`` and ``nodeAddresses``: of a node that is not
    cordoned the ExternalIPs, or where it has none the InternalIPs. Whether it is Ready does not matter. With
    ``--expose-internal-ipv6`` those of IPv6 stand beside the ExternalIPs, too."""
    if node["spec"].get("unschedulable"):
        return {}
    of: dict[str, list[str]] = {}
    for each in node["status"]["addresses"]:
        of.setdefault(each["type"], []).append(each["address"])
    external, internal = of.get("ExternalIP", []), of.get("InternalIP", [])
    if not external:
        return _records(internal)
    return _records(external + [each for each in internal if expose_internal_ipv6 and _type_of(each) == "AAAA"])


def _ingress(service: Body) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    return found


def _records(targets: Iterable[str]) -> Records:
    records: Records = {}
    for each in targets:
        records.setdefault(_type_of(each), []).append(each)
    return records


def _type_of(target: str) -> str:
    try:
        return {4: "A", 6: "AAAA"}[ipaddress.ip_address(target).version]
    except ValueError:
        return "CNAME"
