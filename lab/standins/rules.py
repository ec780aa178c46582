"""kube-proxy's decisions: Services and EndpointSlices in, one node's packet rules out.

The rules are those of kube-proxy's nftables mode, cut down to what a lab needs. Each family has maps and chains of its
own, in one table. Maps lead from an address and port, or from a node port, to a chain for the Service's port. That
chain picks an endpoint's chain at random, which rewrites the destination. Connection tracking does the rest. An
external traffic policy of Cluster hides the client behind the node's address, since the answer must come back this way.
Local sends only to endpoints on this node, keeps the client's address, and drops what has no such endpoint. A Service
port without any endpoint is rejected. A node's own processes take the same way, by the output hook, and count as inside
the cluster.

Not here: loadBalancerSourceRanges, internalTrafficPolicy, trafficDistribution, externalIPs, health check node ports.

Guaranteed: ``script`` is one transaction, from any rules to any others. Where two Services claim the same address and
port, the first by name has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cluster.addresses import Family, parse_address
from cluster.objects import Service, ServicePort
from cluster.slices import EndpointSlice
from lab.layout import POD_NETWORKS, Host, url_host

TABLE = "inet lab-proxy"
MASQUERADE = "0x4000"  # the bit of the packet mark that kube-proxy uses

SERVICES, NODE_PORTS = "services", "node-ports"
REFUSED, REFUSED_NODE_PORTS = "refused", "refused-node-ports"
Element = tuple[str, Family, str]
"""What a map is for, in which family, and a key in it."""


@dataclass(frozen=True)
class _Words:
    """nft's words for a family."""

    protocol: str
    address: str


_WORDS = {Family.IPV4: _Words("ip", "ipv4_addr"), Family.IPV6: _Words("ip6", "ipv6_addr")}


@dataclass(frozen=True)
class Rules:
    """The parts of the rules that change, of one Service or of all."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elements: Mapping[Element, str] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)
    """Sets that the kernel fills by itself (session affinity): name to definition."""


@dataclass(frozen=True)
class _Target:
    family: Family
    address: str
    port: int
    local: bool

    def __str__(self) -> str:
        """For names: nft's have no colons."""
        return f"{self.address.replace(':', '.')}/{self.port}"


def rules_of(service: Service, slices: Iterable[EndpointSlice], node: Host) -> Rules:
    """One Service's rules on one node, in each family of which the node and the Service have an address."""
    if service.spec.type == "ExternalName" or service.spec.cluster_ip == "None":
        return Rules()
    cluster_ips = {parse_address(address).family: address for address in service.spec.cluster_ips}
    return join(
        _rules_in(family, service, cluster_ips[family], slices, node)
        for family in node.addresses
        if family in cluster_ips
    )


def _rules_in(family: Family, service: Service, address: str, slices: Iterable[EndpointSlice], node: Host) -> Rules:
    """One Service's rules on one node in one family, in which ``address`` is its ClusterIP."""
    spec, ip = service.spec, _WORDS[family].protocol
    chains: dict[str, tuple[str, ...]] = {}
    elements: dict[Element, str] = {}
    sets: dict[str, str] = {}
    for port in spec.ports:
        protocol = port.protocol.lower()
        service_port = f"{protocol}/{port.name or port.port}"
        name = f"{service.metadata.namespace}/{service.metadata.name}/{family.text}/{service_port}"
        targets, local = _targets(family, slices, port, node)
        inner, outer = f"service-{name}", f"external-{name}"
        cluster_ip = f"{protocol} . {address} . {port.port}"
        outside = [(SERVICES, REFUSED, key) for key in _outside_addresses(family, service, protocol, port)]
        if port.node_port:
            outside.append((NODE_PORTS, REFUSED_NODE_PORTS, f"{protocol} . {port.node_port}"))
        if not targets:
            elements[REFUSED, family, cluster_ip] = "goto refuse"
            elements.update({(refused, family, key): "goto refuse" for _, refused, key in outside})
            continue
        affinity = _affinity_seconds(service)
        reached = (*targets, *local) if spec.external_traffic_policy == "Local" else targets
        for target in dict.fromkeys(reached):
            chains[_endpoint(name, target)] = _endpoint_chain(name, target, protocol, affinity)
            if affinity:
                sets[_affinity(name, target, affinity)] = (
                    f"type {_WORDS[family].address}; size 65535; flags dynamic,timeout; timeout {affinity}s;"
                )
        from_outside = f"{ip} daddr {address} {ip} saddr != {POD_NETWORKS[family]} jump hide-client"
        chains[inner] = (from_outside, *_choice(name, targets, affinity))
        elements[SERVICES, family, cluster_ip] = f"goto {inner}"
        if not outside:
            continue
        if spec.external_traffic_policy == "Local":
            inside = (f"{ip} saddr {{ {POD_NETWORKS[family]}, {node.addresses[family]} }} goto {inner}",)
            chains[outer] = inside + (_choice(name, local, affinity) if local else ())
            if not local:  # after routing: a node's own packets have been sent to endpoints elsewhere by then
                elements.update({(refused, family, key): "drop" for _, refused, key in outside})
        else:
            chains[outer] = ("jump hide-client", f"goto {inner}")
        elements.update({(allowed, family, key): f"goto {outer}" for allowed, _, key in outside})
    return Rules(chains, elements, sets)


def _targets(
    family: Family, slices: Iterable[EndpointSlice], port: ServicePort, node: Host
) -> tuple[list[_Target], list[_Target]]:
    """The endpoints that get traffic: those that are ready; where none is, those that still serve while they end. And
    those of this node, chosen likewise among themselves (kube-proxy's ``CategorizeEndpoints``)."""
    ready: set[_Target] = set()
    ending: set[_Target] = set()
    for each in slices:
        number = next(
            (p.port for p in each.ports or () if (p.name or "") == port.name and p.protocol == port.protocol), 0
        )
        if each.address_type != family.text or not number:
            continue
        for endpoint in each.endpoints or ():
            local = endpoint.node_name == node.name
            found = {_Target(family, address, number, local) for address in endpoint.addresses[:1]}
            conditions = endpoint.conditions
            if conditions.is_ready:
                ready |= found
            elif conditions.serving is not False and conditions.terminating:
                ending |= found
    mine = {target for target in ready if target.local} or {target for target in ending if target.local}
    of_cluster, of_node = (sorted(each, key=_place) for each in (ready or ending, mine))
    return of_cluster, of_node


def _place(target: _Target) -> tuple[str, int]:
    return target.address, target.port


def _outside_addresses(family: Family, service: Service, protocol: str, port: ServicePort) -> Iterator[str]:
    """The addresses at which the Service answers from outside the cluster, as map keys."""
    if service.spec.type == "LoadBalancer":
        for ingress in service.status.load_balancer.ingress:
            if ingress.ip and parse_address(ingress.ip).family is family and ingress.ip_mode != "Proxy":
                yield f"{protocol} . {ingress.ip} . {port.port}"


def _affinity_seconds(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    return config.client_ip.timeout_seconds if config is not None else 10800  # the API's default


def _endpoint(name: str, target: _Target) -> str:
    return f"endpoint-{name}/{target}"


def _affinity(name: str, target: _Target, seconds: int) -> str:
    """The set of clients that were sent to an endpoint. With the seconds in its name, a set never has to change."""
    return f"affinity-{seconds}-{name}/{target}"


def _endpoint_chain(name: str, target: _Target, protocol: str, affinity: int) -> tuple[str, ...]:
    ip = _WORDS[target.family].protocol
    remember = (f"update @{_affinity(name, target, affinity)} {{ {ip} saddr }}",) if affinity else ()
    return (*remember, f"meta l4proto {protocol} dnat {ip} to {url_host(target.address)}:{target.port}")


def _choice(name: str, targets: list[_Target], affinity: int) -> tuple[str, ...]:
    """Whom a client was sent to before, where that matters; otherwise one endpoint by chance."""
    again = (
        tuple(
            f"{_WORDS[t.family].protocol} saddr @{_affinity(name, t, affinity)} goto {_endpoint(name, t)}"
            for t in targets
        )
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
    for element, verdict in old.elements.items():
        if new.elements.get(element) != verdict:
            yield f"delete element {TABLE} {_in_map(element, verdict)}"
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
    for element, verdict in new.elements.items():
        if old.elements.get(element) != verdict:
            yield f"add element {TABLE} {_in_map(element, verdict)}"


def _map(kind: str, family: Family) -> str:
    return f"{kind}-{family.text}"


def _in_map(element: Element, verdict: str) -> str:
    kind, family, key = element
    return f"{_map(kind, family)} {{ {key} : {verdict} }}"


def _base(node: Host) -> str:
    """The table with everything that never changes, in place of whatever there is."""
    hidden = f"meta mark & {MASQUERADE} == {MASQUERADE}"
    return f"""\
add table {TABLE}
delete table {TABLE}
table {TABLE} {{
{_for_each(node, _maps)}
  chain hide-client {{ meta mark set meta mark | {MASQUERADE}; }}
  chain refuse {{ reject; }}
  chain to-services {{
{_for_each(node, lambda family, address: _look_up(family, address, SERVICES, NODE_PORTS))}
  }}
  chain check-refused {{
{_for_each(node, lambda family, address: _look_up(family, address, REFUSED, REFUSED_NODE_PORTS))}
  }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump to-services; }}
  chain nat-output {{ type nat hook output priority -100; jump to-services; }}
  # An endpoint on this node is one of its own addresses, so what goes there passes input and not postrouting.
  chain nat-input {{
    type nat hook input priority 100
{_for_each(node, lambda family, address: f"    {hidden} snat {_WORDS[family].protocol} to {address} fully-random")}
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat
    oifname "lo" return
    {hidden} masquerade fully-random
  }}
  chain filter-input {{ type filter hook input priority filter; ct state new jump check-refused; }}
  chain filter-forward {{
    type filter hook forward priority filter
    ct state invalid drop
    ct state new jump check-refused
  }}
  chain filter-output {{ type filter hook output priority filter; ct state new jump check-refused; }}
}}"""


def _for_each(node: Host, text: Callable[[Family, str], str]) -> str:
    """What is said once for each family of the node, with its address."""
    return "\n".join(text(family, address) for family, address in node.addresses.items())


def _maps(family: Family, _: str) -> str:
    address = f"type inet_proto . {_WORDS[family].address} . inet_service : verdict;"
    port = "type inet_proto . inet_service : verdict;"
    keys = {SERVICES: address, NODE_PORTS: port, REFUSED: address, REFUSED_NODE_PORTS: port}
    return "\n".join(f"  map {_map(kind, family)} {{ {key} }}" for kind, key in keys.items())


def _look_up(family: Family, address: str, services: str, ports: str) -> str:
    daddr = f"{_WORDS[family].protocol} daddr"
    return f"""\
    meta l4proto . {daddr} . th dport vmap @{_map(services, family)}
    {daddr} {address} meta l4proto . th dport vmap @{_map(ports, family)}"""
