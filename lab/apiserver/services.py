"""What an API server does to Services: defaults, ClusterIPs, node ports, and what a change of type gives back.

The order is that of Kubernetes' registry: on an update first what the server had allocated is put back where the client
left it out, then what the new type has no use for is dropped, then what is still missing is allocated. Which addresses
and ports are taken is derived from the stored Services, so that a refused request takes nothing. IPv4 only.
"""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from lab.apiserver.errors import Problem, duplicate, forbidden_field, required, unsupported, wrong

Body = dict[str, Any]

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
NODE_PORTS = range(30000, 32768)  # kube-apiserver's --service-node-port-range


class ServiceNumbers:
    """ClusterIPs and node ports: who has which, and which is free."""

    def __init__(self, cluster_cidr: str, rng: random.Random) -> None:
        self._network = ipaddress.IPv4Network(cluster_cidr)
        self._rng = rng
        self._addresses: dict[str, str] = {str(self._network[1]): "default/kubernetes"}  # the API server's own
        self._ports: dict[int, str] = {}

    def changed(self, key: str, old: Body | None, new: Body | None) -> None:
        """Follow a committed change of a Service."""
        if old is not None:
            for address in _addresses(old):
                self._addresses.pop(address, None)
            for port in _ports(old):
                self._ports.pop(port, None)
        if new is not None:
            self._addresses.update(dict.fromkeys(_addresses(new), key))
            self._ports.update(dict.fromkeys(_ports(new), key))

    def give(self, key: str, service: Body) -> list[Problem]:
        """Fill in, in place, the ClusterIP and node ports that the Service must have. Returns what cannot be had."""
        spec, problems = service["spec"], list[Problem]()
        if spec["type"] != "ExternalName":
            self._give_address(key, spec, problems)
        wanted = needs_node_ports(spec)
        by_number: dict[int, int] = {}  # one port under two protocols has one node port
        for index, port in enumerate(spec.get("ports", ())):
            if asked := port.get("nodePort", 0):
                self._check_port(key, asked, f"spec.ports[{index}].nodePort", problems)
            elif wanted:
                asked = port["nodePort"] = by_number.get(port["port"]) or self._free_port(spec)
            by_number[port["port"]] = asked
        if needs_health_check_port(spec):
            asked = spec.get("healthCheckNodePort", 0)
            if asked:
                self._check_port(key, asked, "spec.healthCheckNodePort", problems)
            else:
                spec["healthCheckNodePort"] = self._free_port(spec)
        return problems

    def _give_address(self, key: str, spec: Body, problems: list[Problem]) -> None:
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("ipFamilies", ["IPv4"])
        if spec["ipFamilyPolicy"] == "RequireDualStack" or spec["ipFamilies"] != ["IPv4"]:
            why = "this cluster is not configured for dual-stack services"
            problems.append(wrong("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], why))
            return
        spec["ipFamilyPolicy"] = spec["ipFamilyPolicy"] or "SingleStack"
        asked = spec.get("clusterIP") or next(iter(spec.get("clusterIPs", ())), "")
        if not asked:
            asked = self._free_address()
            if not asked:
                problems.append(wrong("spec.clusterIPs", [], "failed to allocate a serviceIP: range is full"))
        elif asked != "None":
            why = self._cannot_have(key, asked)
            if why:
                problems.append(wrong("spec.clusterIPs", [asked], f"failed to allocate IP {asked}: {why}"))
        spec["clusterIP"], spec["clusterIPs"] = asked, [asked]

    def _cannot_have(self, key: str, asked: str) -> str:
        try:
            address = ipaddress.ip_address(asked)
        except ValueError:
            return "must be a valid IP address"
        if address not in self._network:
            return f"the provided IP ({asked}) is not in the valid range. The range of valid IPs is {self._network}"
        return "provided IP is already allocated" if self._addresses.get(asked, key) != key else ""

    def _free_address(self) -> str:
        size = self._network.num_addresses - 2
        start = self._rng.randrange(size)
        for step in range(size):
            address = str(self._network[1 + (start + step) % size])
            if address not in self._addresses:
                return address
        return ""

    def _free_port(self, spec: Body) -> int:
        own = {port.get("nodePort") for port in spec.get("ports", ())}
        start = self._rng.randrange(len(NODE_PORTS))
        for step in range(len(NODE_PORTS)):
            port = NODE_PORTS[(start + step) % len(NODE_PORTS)]
            if port not in self._ports and port not in own:
                return port
        return 0

    def _check_port(self, key: str, port: int, path: str, problems: list[Problem]) -> None:
        if port not in NODE_PORTS:
            why = (
                f"provided port is not in the valid range. The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            )
            problems.append(wrong(path, port, why))
        elif self._ports.get(port, key) != key:
            problems.append(wrong(path, port, "provided port is already allocated"))


def _addresses(service: Body) -> list[str]:
    return [address for address in service["spec"].get("clusterIPs", ()) if address != "None"]


def _ports(service: Body) -> list[int]:
    spec = service["spec"]
    ports = [port.get("nodePort", 0) for port in spec.get("ports", ())]
    return [port for port in (*ports, spec.get("healthCheckNodePort", 0)) if port]


def needs_node_ports(spec: Body) -> bool:
    return spec["type"] == "NodePort" or (
        spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True) is not False
    )


def needs_health_check_port(spec: Body) -> bool:
    return spec["type"] == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def is_external(spec: Body) -> bool:
    """Whether traffic from outside is the Service's business (``ExternallyAccessible``)."""
    return spec["type"] in {"LoadBalancer", "NodePort"} or bool(spec.get("externalIPs"))


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
        port["targetPort"] = port.get("targetPort") or port.get("port", 0)
    if is_external(spec):
        spec["externalTrafficPolicy"] = spec.get("externalTrafficPolicy") or "Cluster"
    if spec["type"] != "ExternalName":
        spec["internalTrafficPolicy"] = spec.get("internalTrafficPolicy") or "Cluster"
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress", ()):
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def keep_allocated(new: Body, old: Body) -> None:
    """Put back what the client left out of an update although it stays allocated (``patchAllocatedValues``)."""
    after, before = new["spec"], old["spec"]
    if after["type"] != "ExternalName" and before["type"] != "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not after.get(name) and name in before:
                after[name] = before[name]
    if needs_node_ports(after) and needs_node_ports(before):
        known = {(port["protocol"], port["port"]): port.get("nodePort", 0) for port in before.get("ports", ())}
        asked = {port.get("nodePort") for port in after.get("ports", ())}
        for port in after.get("ports", ()):
            previous = known.get((port["protocol"], port.get("port")), 0)
            if not port.get("nodePort") and previous and previous not in asked:
                port["nodePort"] = previous
    if needs_health_check_port(after) and needs_health_check_port(before) and not after.get("healthCheckNodePort"):
        after["healthCheckNodePort"] = before["healthCheckNodePort"]


def drop_unneeded(new: Body, old: Body) -> None:
    """Take away what belonged to the old type and was left as it was (``dropTypeDependentFields``)."""
    after, before = new["spec"], old["spec"]
    gone: list[str] = []
    if after["type"] == "ExternalName" != before["type"]:
        gone += ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
    if needs_node_ports(before) and not needs_node_ports(after) and after["type"] != "LoadBalancer":
        kept = {(port["protocol"], port["port"]): port.get("nodePort") for port in before.get("ports", ())}
        for port in after.get("ports", ()):
            if port.get("nodePort") == kept.get((port["protocol"], port.get("port"))):
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
        new["status"] = {**new.get("status", {}), "loadBalancer": {}}


def validate(new: Body, old: Body | None) -> list[Problem]:
    """What a Service may not say (``ValidateService``, the part that concerns us)."""
    spec, problems = new["spec"], list[Problem]()
    if spec["type"] not in TYPES:
        return [unsupported("spec.type", spec["type"], list(TYPES))]
    ports = spec.get("ports") or []
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        problems.append(required("spec.ports"))
    if spec["type"] == "ExternalName" and not spec.get("externalName"):
        problems.append(required("spec.externalName"))
    names, numbers = set[str](), set[tuple[str, int]]()
    for index, port in enumerate(ports):
        path, name = f"spec.ports[{index}]", port.get("name", "")
        if not name and len(ports) > 1:
            problems.append(required(f"{path}.name"))
        elif name and name in names:
            problems.append(duplicate(f"{path}.name", name))
        names.add(name)
        if not _is_port(port.get("port")):
            problems.append(wrong(f"{path}.port", port.get("port", 0), "must be between 1 and 65535, inclusive"))
        elif (port["protocol"], port["port"]) in numbers:
            problems.append(duplicate(path, f"{port['port']}/{port['protocol']}"))
        numbers.add((port["protocol"], port.get("port", 0)))
        if port["protocol"] not in {"TCP", "UDP", "SCTP"}:
            problems.append(unsupported(f"{path}.protocol", port["protocol"], ["SCTP", "TCP", "UDP"]))
    if spec["type"] == "ClusterIP" and any(port.get("nodePort") for port in ports):
        problems.append(forbidden_field("spec.ports[0].nodePort", "may not be used when `type` is 'ClusterIP'"))
    for name, allowed in (
        ("sessionAffinity", ["ClientIP", "None"]),
        ("externalTrafficPolicy", ["Cluster", "Local"]),
        ("internalTrafficPolicy", ["Cluster", "Local"]),
        ("ipFamilyPolicy", ["PreferDualStack", "RequireDualStack", "SingleStack"]),
    ):
        if spec.get(name) and spec[name] not in allowed:
            problems.append(unsupported(f"spec.{name}", spec[name], allowed))
    if spec["type"] != "LoadBalancer" and spec.get("loadBalancerClass"):
        problems.append(forbidden_field("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'"))
    if not is_external(spec) and spec.get("externalTrafficPolicy"):
        why = "may only be set for externally-accessible services"
        problems.append(wrong("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], why))
    if old is not None:
        problems += _validate_change(spec, old["spec"])
    return problems + validate_status(new)


def _validate_change(after: Body, before: Body) -> list[Problem]:
    problems: list[Problem] = []
    if "ExternalName" not in (after["type"], before["type"]) and after.get("clusterIP") != before.get("clusterIP"):
        problems.append(wrong("spec.clusterIPs[0]", after.get("clusterIP"), "field is immutable"))
    if after["type"] == before["type"] == "LoadBalancer" and (
        after.get("loadBalancerClass") != before.get("loadBalancerClass")
    ):
        problems.append(wrong("spec.loadBalancerClass", after.get("loadBalancerClass"), "may not change once set"))
    return problems


def validate_status(service: Body) -> list[Problem]:
    problems: list[Problem] = []
    ingresses = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    path = "status.loadBalancer.ingress"
    if ingresses and service["spec"]["type"] != "LoadBalancer":
        problems.append(forbidden_field(path, 'may only be used when `spec.type` is "LoadBalancer"'))
    for index, ingress in enumerate(ingresses):
        if address := ingress.get("ip"):
            try:
                ipaddress.ip_address(address)
            except ValueError:
                why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                problems.append(wrong(f"{path}[{index}].ip", address, why))
    return problems


def _is_port(value: object) -> bool:
    return isinstance(value, int) and 1 <= value <= 65535
