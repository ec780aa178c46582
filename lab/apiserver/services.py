"""What an API server does to Services: defaults, ClusterIPs, node ports, and what a change of type gives back.

The order is that of Kubernetes' registry: on an update first what the server had allocated is put back where the client
left it out, then what the new type has no use for is dropped, then what is still missing is allocated. Which addresses
and ports are taken is derived from the stored Services, so that a refused request takes nothing. IPv4 only.
"""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from lab.apiserver.errors import Problem, duplicate, forbidden, required, unsupported, wrong

Body = dict[str, Any]

NODE_PORTS = range(30000, 32768)  # kube-apiserver's --service-node-port-range
_CHOICES = {
    "type": ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    "sessionAffinity": ["ClientIP", "None"],
    "externalTrafficPolicy": ["Cluster", "Local"],
    "internalTrafficPolicy": ["Cluster", "Local"],
    "ipFamilyPolicy": ["PreferDualStack", "RequireDualStack", "SingleStack"],
}
_ADDRESS_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")


class ServiceNumbers:
    """ClusterIPs and node ports: who has which, and which is free."""

    def __init__(self, cluster_cidr: str, rng: random.Random) -> None:
        self._network = ipaddress.IPv4Network(cluster_cidr)
        self._rng = rng
        self._holders: dict[str | int, str] = {str(self._network[1]): "default/kubernetes"}  # the API server's own

    def changed(self, key: str, old: Body | None, new: Body | None) -> None:
        """Follow a committed change of a Service."""
        for number in _numbers(old) if old is not None else ():
            self._holders.pop(number, None)
        self._holders.update(dict.fromkeys(_numbers(new), key) if new is not None else {})

    def give(self, key: str, spec: Body) -> list[Problem]:
        """Fill in, in place, the ClusterIP and node ports that the Service must have. Returns what cannot be had."""
        problems: list[Problem] = []
        if spec["type"] != "ExternalName":
            self._give_address(key, spec, problems)
        by_number: dict[int, int] = {}  # one port under two protocols has one node port
        for index, port in enumerate(spec.get("ports", ())):
            path, number = f"spec.ports[{index}].nodePort", port["port"]
            if port.get("nodePort") or needs_node_ports(spec):
                wanted = port.get("nodePort") or by_number.get(number, 0)
                by_number[number] = port["nodePort"] = self._give_port(key, wanted, path, spec, problems)
        if needs_health_check_port(spec):
            wanted, path = spec.get("healthCheckNodePort", 0), "spec.healthCheckNodePort"
            spec["healthCheckNodePort"] = self._give_port(key, wanted, path, spec, problems)
        return problems

    def _give_address(self, key: str, spec: Body, problems: list[Problem]) -> None:
        spec["ipFamilyPolicy"] = spec.get("ipFamilyPolicy") or "SingleStack"
        spec["ipFamilies"] = spec.get("ipFamilies") or ["IPv4"]
        if spec["ipFamilyPolicy"] == "RequireDualStack" or spec["ipFamilies"] != ["IPv4"]:
            problems.append(wrong("spec.ipFamilies", spec["ipFamilies"], "this cluster has IPv4 only"))
        asked = spec.get("clusterIP") or next(iter(spec.get("clusterIPs", ())), "") or self._free_address()
        if not asked:
            problems.append(wrong("spec.clusterIPs", [], "failed to allocate a serviceIP: range is full"))
        elif asked != "None" and not (is_address(asked) and ipaddress.ip_address(asked) in self._network):
            why = f"failed to allocate IP {asked}: the provided IP is not in the valid range {self._network}"
            problems.append(wrong("spec.clusterIPs", [asked], why))
        elif asked != "None" and self._holders.get(asked, key) != key:
            why = f"failed to allocate IP {asked}: provided IP is already allocated"
            problems.append(wrong("spec.clusterIPs", [asked], why))
        spec["clusterIP"], spec["clusterIPs"] = asked, [asked]

    def _free_address(self) -> str:
        size = self._network.num_addresses - 2
        start = self._rng.randrange(size)
        candidates = (str(self._network[1 + (start + step) % size]) for step in range(size))
        return next((address for address in candidates if address not in self._holders), "")

    def _give_port(self, key: str, wanted: int, path: str, spec: Body, problems: list[Problem]) -> int:
        if not wanted:
            own = {port.get("nodePort") for port in spec.get("ports", ())}
            start = self._rng.randrange(len(NODE_PORTS))
            candidates = (*NODE_PORTS[start:], *NODE_PORTS[:start])
            wanted = next((port for port in candidates if port not in self._holders and port not in own), 0)
            if not wanted:
                problems.append(wrong(path, 0, "failed to allocate a nodePort: range is full"))
        elif wanted not in NODE_PORTS:
            why = (
                f"provided port is not in the valid range. The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            )
            problems.append(wrong(path, wanted, why))
        elif self._holders.get(wanted, key) != key:
            problems.append(wrong(path, wanted, "provided port is already allocated"))
        return wanted


def _numbers(service: Body) -> list[str | int]:
    """The addresses and node ports that a Service holds."""
    spec = service["spec"]
    ports = [port.get("nodePort") for port in spec.get("ports", ())]
    held = (*spec.get("clusterIPs", ()), *ports, spec.get("healthCheckNodePort"))
    return [number for number in held if number and number != "None"]


def needs_node_ports(spec: Body) -> bool:
    declined = spec.get("allocateLoadBalancerNodePorts") is False
    return spec["type"] == "NodePort" or (spec["type"] == "LoadBalancer" and not declined)


def needs_health_check_port(spec: Body) -> bool:
    return spec["type"] == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def is_external(spec: Body) -> bool:
    """Whether traffic from outside is the Service's business (``ExternallyAccessible``)."""
    return spec["type"] in {"LoadBalancer", "NodePort"} or bool(spec.get("externalIPs"))


def is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def fill_defaults(service: Body) -> None:
    """Defaults that depend on nothing but the object (``SetDefaults_Service``)."""
    spec = service.setdefault("spec", {})
    spec["type"] = spec.get("type") or "ClusterIP"
    spec["sessionAffinity"] = spec.get("sessionAffinity") or "None"
    if spec["sessionAffinity"] == "ClientIP":
        affinity = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        affinity.setdefault("timeoutSeconds", 10800)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports", ()):
        port["protocol"] = port.get("protocol") or "TCP"
        port["targetPort"] = port.get("targetPort") or port["port"]
    if is_external(spec):
        spec["externalTrafficPolicy"] = spec.get("externalTrafficPolicy") or "Cluster"
    if spec["type"] != "ExternalName":
        spec["internalTrafficPolicy"] = spec.get("internalTrafficPolicy") or "Cluster"
    balancer = service.setdefault("status", {}).setdefault("loadBalancer", {})
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in balancer.get("ingress", ()):
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def keep_allocated(new: Body, old: Body) -> None:
    """Put back what the client left out of an update although it stays allocated (``patchAllocatedValues``)."""
    after, before = new["spec"], old["spec"]
    if "ExternalName" not in (after["type"], before["type"]):
        for name in _ADDRESS_FIELDS:
            after[name] = after.get(name) or before[name]
    if needs_node_ports(after) and needs_node_ports(before):
        known = {(port["protocol"], port["port"]): port["nodePort"] for port in before.get("ports", ())}
        asked = {port.get("nodePort") for port in after.get("ports", ())}
        for port in after.get("ports", ()):
            previous = known.get((port["protocol"], port["port"]))
            if not port.get("nodePort") and previous and previous not in asked:
                port["nodePort"] = previous
    if needs_health_check_port(after) and needs_health_check_port(before):
        after["healthCheckNodePort"] = after.get("healthCheckNodePort") or before["healthCheckNodePort"]


def drop_unneeded(new: Body, old: Body) -> None:
    """Take away what belonged to the old type and was left as it was (``dropTypeDependentFields``)."""
    after, before = new["spec"], old["spec"]
    gone: list[str] = []
    if after["type"] == "ExternalName" != before["type"]:
        gone += [*_ADDRESS_FIELDS, "internalTrafficPolicy"]
    if needs_node_ports(before) and after["type"] not in {"LoadBalancer", "NodePort"}:
        known = {(port["protocol"], port["port"]): port["nodePort"] for port in before.get("ports", ())}
        for port in after.get("ports", ()):
            if port.get("nodePort") == known.get((port["protocol"], port["port"])):
                port.pop("nodePort", None)
    if needs_health_check_port(before) and not needs_health_check_port(after):
        gone.append("healthCheckNodePort")
    if before["type"] == "LoadBalancer" != after["type"]:
        gone += ["allocateLoadBalancerNodePorts", "loadBalancerClass"]
    if is_external(before) and not is_external(after):
        gone.append("externalTrafficPolicy")
    for name in gone:
        if after.get(name) == before.get(name):
            after.pop(name, None)
    if after["type"] != "LoadBalancer":
        new["status"] = {**new["status"], "loadBalancer": {}}


def problems_of(new: Body, old: Body | None) -> list[Problem]:
    """What a Service may not say (``ValidateService``, the part that concerns us)."""
    spec = new["spec"]
    problems = [
        unsupported(f"spec.{name}", spec[name], allowed)
        for name, allowed in _CHOICES.items()
        if spec.get(name) and spec[name] not in allowed
    ]
    if not spec.get("ports") and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        problems.append(required("spec.ports"))
    if spec["type"] == "ExternalName" and not spec.get("externalName"):
        problems.append(required("spec.externalName"))
    problems += _port_problems(spec)
    if spec["type"] != "LoadBalancer" and spec.get("loadBalancerClass"):
        problems.append(forbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'"))
    if not is_external(spec) and spec.get("externalTrafficPolicy"):
        why = "may only be set for externally-accessible services"
        problems.append(wrong("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], why))
    before = old["spec"] if old is not None else {"type": "ExternalName"}
    if "ExternalName" not in (spec["type"], before["type"]) and spec["clusterIP"] != before["clusterIP"]:
        problems.append(wrong("spec.clusterIPs[0]", spec["clusterIP"], "field is immutable"))
    wanted = spec.get("loadBalancerClass")
    if spec["type"] == before["type"] == "LoadBalancer" and wanted != before.get("loadBalancerClass"):
        problems.append(wrong("spec.loadBalancerClass", wanted, "may not change once set"))
    path, ingresses = "status.loadBalancer.ingress", new["status"]["loadBalancer"].get("ingress", ())
    if ingresses and spec["type"] != "LoadBalancer":
        problems.append(forbidden(path, 'may only be used when `spec.type` is "LoadBalancer"'))
    for index, ingress in enumerate(ingresses):
        if "ip" in ingress and not is_address(ingress["ip"]):
            why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            problems.append(wrong(f"{path}[{index}].ip", ingress["ip"], why))
    return problems


def _port_problems(spec: Body) -> list[Problem]:
    ports, problems = spec.get("ports", ()), list[Problem]()
    names, numbers = set[str](), set[tuple[str, int]]()
    for index, port in enumerate(ports):
        path, name, number = f"spec.ports[{index}]", port.get("name", ""), (port["protocol"], port["port"])
        if not name and len(ports) > 1:
            problems.append(required(f"{path}.name"))
        elif name in names:
            problems.append(duplicate(f"{path}.name", name))
        if not 1 <= port["port"] <= 65535:
            problems.append(wrong(f"{path}.port", port["port"], "must be between 1 and 65535, inclusive"))
        elif number in numbers:
            problems.append(duplicate(path, f"{number[0]} {number[1]}"))
        if port["protocol"] not in {"TCP", "UDP", "SCTP"}:
            problems.append(unsupported(f"{path}.protocol", port["protocol"], ["SCTP", "TCP", "UDP"]))
        if port.get("nodePort") and spec["type"] == "ClusterIP":
            problems.append(forbidden(f"{path}.nodePort", "may not be used when `type` is 'ClusterIP'"))
        names.add(name)
        numbers.add(number)
    return problems
