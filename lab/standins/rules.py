"""kube-proxy's decisions: Services and EndpointSlices in, one node's packet rules out.

The rules are those of kube-proxy's nftables mode, cut down to IPv4 and to what a lab needs. Maps lead from an address
and port, or from a node port, to a chain for the Service's port. That chain picks an endpoint's chain at random, which
rewrites the destination. Connection tracking does the rest. An external traffic policy of Cluster hides the client
behind the node's address, since the answer must come back this way. Local sends only to endpoints on this node, keeps
the client's address, and drops what has no such endpoint. A Service port without any endpoint is rejected. A node's own
processes take the same way, by the output hook, and count as inside the cluster.

Not here: loadBalancerSourceRanges, internalTrafficPolicy, trafficDistribution, externalIPs, health check node ports.

Guaranteed: ``script`` is one transaction, from any rules to any others. Where two Services claim the same address and
port, the first by name has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cluster.addresses import Family
from cluster.objects import EndpointSlice, ServicePort
from lab.layout import POD_NETWORKS, Host
from lab.standins.views import ProxiedService

TABLE = "ip lab-proxy"
MASQUERADE = "0x4000"  # the bit of the packet mark that kube-proxy uses

SERVICES, NODE_PORTS = "services", "node-ports"
REFUSED, REFUSED_NODE_PORTS = "refused", "refused-node-ports"
Element = tuple[str, str]
"""A map's name and a key in it."""


@dataclass(frozen=True)
class Rules:
    """The parts of the rules that change, of one Service or of all."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elements: Mapping[Element, str] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)
    """Sets that the kernel fills by itself (session affinity): name to definition."""


@dataclass(frozen=True)
class _Target:
    address: str
    port: int
    local: bool


def rules_of(service: ProxiedService, slices: Iterable[EndpointSlice], node: Host) -> Rules:
    """One Service's rules on one node."""
    spec = service.spec
    chains: dict[str, tuple[str, ...]] = {}
    elements: dict[Element, str] = {}
    sets: dict[str, str] = {}
    if spec.type == "ExternalName" or spec.cluster_ip in ("", "None"):
        return Rules()
    for port in spec.ports:
        protocol = port.protocol.lower()
        name = f"{service.metadata.namespace}/{service.metadata.name}/{protocol}/{port.name or port.port}"
        targets = _targets(slices, port, node)
        inner, outer = f"service-{name}", f"external-{name}"
        cluster_ip = f"{protocol} . {spec.cluster_ip} . {port.port}"
        outside = [(SERVICES, REFUSED, key) for key in _outside_addresses(service, protocol, port)]
        if port.node_port:
            outside.append((NODE_PORTS, REFUSED_NODE_PORTS, f"{protocol} . {port.node_port}"))
        if not targets:
            elements[REFUSED, cluster_ip] = "goto refuse"
            elements.update({(refused, key): "goto refuse" for _, refused, key in outside})
            continue
        affinity = _affinity_seconds(service)
        for target in targets:
            chains[_endpoint(name, target)] = _endpoint_chain(name, target, protocol, affinity)
            if affinity:
                sets[_affinity(name, target, affinity)] = (
                    f"type ipv4_addr; size 65535; flags dynamic,timeout; timeout {affinity}s;"
                )
        from_outside = f"ip daddr {spec.cluster_ip} ip saddr != {POD_NETWORKS[Family.IPV4]} jump hide-client"
        chains[inner] = (from_outside, *_choice(name, targets, affinity))
        elements[SERVICES, cluster_ip] = f"goto {inner}"
        if not outside:
            continue
        if spec.external_traffic_policy == "Local":
            local = [target for target in targets if target.local]
            inside = (f"ip saddr {{ {POD_NETWORKS[Family.IPV4]}, {node.address} }} goto {inner}",)
            chains[outer] = inside + (_choice(name, local, affinity) if local else ())
            if not local:  # after routing: a node's own packets have been sent to endpoints elsewhere by then
                elements.update({(refused, key): "drop" for _, refused, key in outside})
        else:
            chains[outer] = ("jump hide-client", f"goto {inner}")
        elements.update({(allowed, key): f"goto {outer}" for allowed, _, key in outside})
    return Rules(chains, elements, sets)


def _targets(slices: Iterable[EndpointSlice], port: ServicePort, node: Host) -> list[_Target]:
    """The endpoints that get traffic: those that are ready; where none is, those that still serve while they end."""
    ready: set[_Target] = set()
    ending: set[_Target] = set()
    for each in slices:
        number = next(
            (p.port for p in each.ports or () if (p.name or "") == port.name and p.protocol == port.protocol), 0
        )
        if each.address_type != "IPv4" or not number:
            continue
        for endpoint in each.endpoints or ():
            found = {_Target(address, number, endpoint.node_name == node.name) for address in endpoint.addresses[:1]}
            conditions = endpoint.conditions
            if conditions.ready is not False:
                ready |= found
            elif conditions.serving is not False and conditions.terminating:
                ending |= found
    return sorted(ready or ending, key=lambda target: (target.address, target.port))


def _outside_addresses(service: ProxiedService, protocol: str, port: ServicePort) -> Iterator[str]:
    """The addresses at which the Service answers from outside the cluster, as map keys."""
    if service.spec.type == "LoadBalancer":
        for ingress in service.status.load_balancer.ingress:
            if ingress.ip and ":" not in ingress.ip and ingress.ip_mode != "Proxy":
                yield f"{protocol} . {ingress.ip} . {port.port}"


def _affinity_seconds(service: ProxiedService) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    return config.client_ip.timeout_seconds if config is not None else 10800  # the API's default


def _endpoint(name: str, target: _Target) -> str:
    return f"endpoint-{name}/{target.address}/{target.port}"


def _affinity(name: str, target: _Target, seconds: int) -> str:
    """The set of clients that were sent to an endpoint. With the seconds in its name, a set never has to change."""
    return f"affinity-{seconds}-{name}/{target.address}/{target.port}"


def _endpoint_chain(name: str, target: _Target, protocol: str, affinity: int) -> tuple[str, ...]:
    remember = (f"update @{_affinity(name, target, affinity)} {{ ip saddr }}",) if affinity else ()
    return (*remember, f"meta l4proto {protocol} dnat to {target.address}:{target.port}")


def _choice(name: str, targets: list[_Target], affinity: int) -> tuple[str, ...]:
    """Whom a client was sent to before, where that matters; otherwise one endpoint by chance."""
    again = (
        tuple(f"ip saddr @{_affinity(name, t, affinity)} goto {_endpoint(name, t)}" for t in targets)
        if affinity
        else ()
    )
    ways = ", ".join(f"{i} : goto {_endpoint(name, target)}" for i, target in enumerate(targets))
    return (*again, f"numgen random mod {len(targets)} vmap {{ {ways} }}")


def join(parts: Iterable[Rules]) -> Rules:
    """All Services' rules; where two have the same element, the first keeps it."""
    chains: dict[str, tuple[str, ...]] = {}
    elements: dict[Element, str] = {}
    sets: dict[str, str] = {}
    for part in parts:
        chains.update(part.chains)
        sets.update(part.sets)
        for element, verdict in part.elements.items():
            elements.setdefault(element, verdict)
    return Rules(chains, elements, sets)


# ------------------------------------------------------------------------ nft's language


def script(old: Rules | None, new: Rules, node: Host) -> str:
    """What to tell ``nft -f -`` to get from the old rules (None: from whatever there is) to the new. May be empty."""
    if old is None:
        return "\n".join([_base(node), *_steps(Rules(), new)]) + "\n"
    return "".join(line + "\n" for line in _steps(old, new))


def _steps(old: Rules, new: Rules) -> Iterator[str]:
    """First whatever leads to what goes, then what goes; first what comes, then whatever leads to it."""
    for (kind, key), verdict in old.elements.items():
        if new.elements.get((kind, key)) != verdict:
            yield f"delete element {TABLE} {kind} {{ {key} : {verdict} }}"
    for name, definition in new.sets.items():
        if name not in old.sets:
            yield f"add set {TABLE} {name} {{ {definition} }}"
    for name in new.chains:
        if name not in old.chains:
            yield f"add chain {TABLE} {name}"
    for name, rules in old.chains.items():
        if new.chains.get(name) != rules:
            yield f"flush chain {TABLE} {name}"
    for name, rules in new.chains.items():
        if old.chains.get(name) != rules:
            for rule in rules:
                yield f"add rule {TABLE} {name} {rule}"
    for name in old.chains:
        if name not in new.chains:
            yield f"delete chain {TABLE} {name}"
    for name in old.sets:
        if name not in new.sets:
            yield f"delete set {TABLE} {name}"
    for (kind, key), verdict in new.elements.items():
        if old.elements.get((kind, key)) != verdict:
            yield f"add element {TABLE} {kind} {{ {key} : {verdict} }}"


def _base(node: Host) -> str:
    """The table with everything that never changes, in place of whatever there is."""
    return f"""\
add table {TABLE}
delete table {TABLE}
table {TABLE} {{
  map {SERVICES} {{ type inet_proto . ipv4_addr . inet_service : verdict; }}
  map {NODE_PORTS} {{ type inet_proto . inet_service : verdict; }}
  map {REFUSED} {{ type inet_proto . ipv4_addr . inet_service : verdict; }}
  map {REFUSED_NODE_PORTS} {{ type inet_proto . inet_service : verdict; }}
  chain hide-client {{ meta mark set meta mark | {MASQUERADE}; }}
  chain refuse {{ reject; }}
  chain to-services {{
    meta l4proto . ip daddr . th dport vmap @{SERVICES}
    ip daddr {node.address} meta l4proto . th dport vmap @{NODE_PORTS}
  }}
  chain check-refused {{
    meta l4proto . ip daddr . th dport vmap @{REFUSED}
    ip daddr {node.address} meta l4proto . th dport vmap @{REFUSED_NODE_PORTS}
  }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump to-services; }}
  chain nat-output {{ type nat hook output priority -100; jump to-services; }}
  # An endpoint on this node is one of its own addresses, so what goes there passes input and not postrouting.
  chain nat-input {{
    type nat hook input priority 100
    meta mark & {MASQUERADE} == {MASQUERADE} snat to {node.address} fully-random
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat
    oifname "lo" return
    meta mark & {MASQUERADE} == {MASQUERADE} masquerade fully-random
  }}
  chain filter-input {{ type filter hook input priority filter; ct state new jump check-refused; }}
  chain filter-forward {{
    type filter hook forward priority filter
    ct state invalid drop
    ct state new jump check-refused
  }}
  chain filter-output {{ type filter hook output priority filter; ct state new jump check-refused; }}
}}"""
