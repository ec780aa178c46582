"""What an API server does to Services: defaults, ClusterIPs, node ports, and what a change of type gives back.

The order is that of Kubernetes' registry. On an update:

1. What the server had allocated is put back where the client left it out.
2. What the new type has no use for is dropped.
3. What is still missing is allocated.

Which families a Service has is decided before it gets addresses (``families``). Which addresses and ports are taken is
derived from the stored Services, so a refused request takes nothing. Of what Kubernetes refuses, only what a person
might well write is refused here.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections.abc import Collection, Mapping
from typing import Any

from cluster.addresses import Family
from lab.apiserver import families
from lab.apiserver.errors import FieldProblem, forbidden, required, wrong
from lab.apiserver.schema import conform

Body = dict[str, Any]

NODE_PORTS = range(30000, 32768)  # kube-apiserver's --service-node-port-range
_EXTERNAL = {"LoadBalancer", "NodePort"}
"""The types whose business is traffic from outside (externalIPs are left aside)."""
_NOT_YET: Body = {"type": "ExternalName"}
"""The specification of a Service before it exists: it holds nothing."""


def _with(**fields: Any) -> dict[str, Any]:
    """The schema of an object of which only these fields are looked at."""
    return {"properties": fields, "x-kubernetes-preserve-unknown-fields": True}


_PORT = _with(
    port={"minimum": 1, "maximum": 65535},
    protocol={"enum": ["SCTP", "TCP", "UDP"], "default": "TCP"},
)
_SPEC = _with(
    type={"enum": ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], "default": "ClusterIP"},
    sessionAffinity={"enum": ["ClientIP", "None"], "default": "None"},
    externalTrafficPolicy={"enum": ["Cluster", "Local"]},
    internalTrafficPolicy={"enum": ["Cluster", "Local"]},
    ipFamilyPolicy={"enum": ["SingleStack", "PreferDualStack", "RequireDualStack"]},
    ipFamilies={"items": {"enum": ["IPv4", "IPv6"]}},
    ports={"items": _PORT},
)
_STATUS = _with(loadBalancer={**_with(), "default": {}})
_SCHEMA = _with(spec={**_SPEC, "default": {}}, status={**_STATUS, "default": {}})


class ServiceNumbers:
    """ClusterIPs and node ports: who has which, and which is free.

    ``networks`` are those of the cluster's families, the primary one first. An address is held as the integer that it
    is: those of the two families and the node ports do not meet.
    """

    def __init__(self, networks: Mapping[Family, str]) -> None:
        self._families = [family.text for family in networks]
        self._addresses: dict[str, range] = {}
        for family, text in networks.items():
            network = ipaddress.ip_network(text)
            self._addresses[family.text] = range(int(network[1]), int(network[-1]))
        self._holders: dict[int, str] = {self._addresses[self._families[0]][0]: "default/kubernetes"}
        """The API server's own address is the first of the primary family."""

    def changed(self, key: str, old: Body | None, new: Body | None) -> None:
        """Follow a committed change of a Service."""
        for number in _numbers(old) if old is not None else ():
            self._holders.pop(number, None)
        self._holders.update(dict.fromkeys(_numbers(new), key) if new is not None else {})

    def give(self, key: str, spec: Body, before: Body | None) -> list[FieldProblem]:
        """Fill in, in place, the families, ClusterIPs and node ports that the Service must have. ``before`` is its
        specification as it was; None: it is new. Returns what cannot be had."""
        problems: list[FieldProblem] = []

        def take(path: str, asked: object, wanted: int, allowed: range) -> int:
            number = wanted or self._free(allowed, _node_ports(spec))
            if number not in allowed:
                problems.append(wrong(path, asked, "not in the valid range" if asked else "the range is full"))
            elif self._holders.get(number, key) != key:
                problems.append(wrong(path, asked, "already allocated"))
            return number

        if spec["type"] != "ExternalName":
            problems += families.decide(spec, before, self._families)
            if problems:
                return problems
            asked = spec.get("clusterIPs", [])
            if asked != ["None"]:
                wanted = dict(zip(spec["ipFamilies"], asked, strict=False))
                given = {
                    family: take("spec.clusterIPs", asked, _as_number(wanted.get(family, "")), self._addresses[family])
                    for family in spec["ipFamilies"]
                }
                spec["clusterIPs"] = [
                    wanted.get(family) or _as_text(family, number) for family, number in given.items()
                ]
            spec["clusterIP"] = spec["clusterIPs"][0]
        by_number: dict[int, int] = {}  # one port under two protocols has one node port
        for index, port in enumerate(spec.get("ports", ())):
            if port.get("nodePort") or needs_node_ports(spec):
                wanted_port = port.get("nodePort") or by_number.get(port["port"], 0)
                path = f"spec.ports[{index}].nodePort"
                port["nodePort"] = take(path, wanted_port, wanted_port, NODE_PORTS)
                by_number[port["port"]] = port["nodePort"]
        return problems

    def _free(self, allowed: range, own: Collection[int]) -> int:
        """A number that is nobody's, and none of the Service's own; 0 if there is none left."""
        start = random.randrange(len(allowed))
        candidates = itertools.chain(allowed[start:], allowed[:start])
        return next((number for number in candidates if number not in self._holders and number not in own), 0)


def _as_number(address: str) -> int:
    """An IP address as an integer; 0 where there is none."""
    return int(ipaddress.ip_address(address)) if address else 0


def _as_text(family: str, number: int) -> str:
    return str(ipaddress.IPv4Address(number) if family == Family.IPV4.text else ipaddress.IPv6Address(number))


def _node_ports(spec: Body) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports", ()) if port.get("nodePort")}


def _numbers(service: Body) -> set[int]:
    """The addresses and node ports that a Service holds."""
    spec = service["spec"]
    return _node_ports(spec) | {_as_number(address) for address in spec.get("clusterIPs", ()) if address != "None"}


def needs_node_ports(spec: Body) -> bool:
    declined = spec.get("allocateLoadBalancerNodePorts") is False
    return spec["type"] == "NodePort" or (spec["type"] == "LoadBalancer" and not declined)


def prepare(new: Body, old: Body | None) -> list[FieldProblem]:
    """All that is done to a Service before numbers are given to it, in place. Returns what it may not say."""
    problems = conform(new, _SCHEMA)
    if not problems:
        spec, before = new["spec"], old["spec"] if old is not None else _NOT_YET
        _fill_in(new)
        _keep_allocated(spec, before)
        _drop_unneeded(new, before)
        problems += _problems(new, before)
    return problems


def _fill_in(service: Body) -> None:
    """Defaults that depend on the object's other fields (``SetDefaults_Service``)."""
    spec = service["spec"]
    for port in spec.get("ports", ()):
        port["targetPort"] = port.get("targetPort") or port["port"]
    if spec["type"] in _EXTERNAL:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in service["status"]["loadBalancer"].get("ingress", ()):
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def _keep_allocated(after: Body, before: Body) -> None:
    """Put back what the client left out of an update although it stays allocated (``patchAllocatedValues``)."""
    families.keep(after, before)
    known = {(port["protocol"], port["port"]): port.get("nodePort") for port in before.get("ports", ())}
    asked = _node_ports(after)
    for port in after.get("ports", ()):
        previous = known.get((port["protocol"], port["port"]))
        if not port.get("nodePort") and previous and previous not in asked:
            port["nodePort"] = previous


def _drop_unneeded(new: Body, before: Body) -> None:
    """Take away what the type has no use for and was left as it was (``dropTypeDependentFields``)."""
    after = new["spec"]
    unneeded: list[str] = []
    if after["type"] == "ExternalName":
        unneeded += [*families.FIELDS, "internalTrafficPolicy"]
    if after["type"] != "LoadBalancer":
        unneeded += ["allocateLoadBalancerNodePorts", "loadBalancerClass"]
        new["status"] = {**new["status"], "loadBalancer": {}}
    if after["type"] not in _EXTERNAL:
        unneeded.append("externalTrafficPolicy")
        for port in after.get("ports", ()):
            port.pop("nodePort", None)
    for name in unneeded:
        if after.get(name) == before.get(name):
            after.pop(name, None)


def _problems(service: Body, before: Body) -> list[FieldProblem]:
    """What a Service may not say, beyond its schema (``ValidateService``)."""
    spec, problems = service["spec"], list[FieldProblem]()
    ports, wanted = spec.get("ports", ()), spec.get("loadBalancerClass")
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        problems.append(required("spec.ports"))
    if len(ports) > 1:
        problems += [required(f"spec.ports[{i}].name") for i, port in enumerate(ports) if not port.get("name")]
    if spec["type"] == "ExternalName" and not spec.get("externalName"):
        problems.append(required("spec.externalName"))
    if spec["type"] != "LoadBalancer" and wanted:
        problems.append(forbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'"))
    if spec["type"] == before["type"] == "LoadBalancer" and wanted != before.get("loadBalancerClass"):
        problems.append(wrong("spec.loadBalancerClass", wanted, "may not change once set"))
    for index, ingress in enumerate(service["status"]["loadBalancer"].get("ingress", ())):
        if "ip" in ingress and not families.is_address(ingress["ip"]):
            path = f"status.loadBalancer.ingress[{index}].ip"
            problems.append(wrong(path, ingress["ip"], "must be a valid IP address"))
    return problems
