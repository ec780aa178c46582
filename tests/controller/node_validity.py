"""What must hold at rest of the Services that have addresses of nodes, by the documented rules (``tests.oracle``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.controller.world import World
from tests.oracle import node_addresses as nodes
from tests.oracle import services as rules
from tests.oracle.node_addresses import NodePoolSpec
from tests.oracle.pools import PoolSpec
from tests.oracle.services import Address, Body, key_of, may_share_a_node, shown

GUARDED = {("TCP", 22), ("UDP", 53)}
"""Those that occur in these tests."""


def are_nodes(*worlds: World) -> Callable[[Address, Body, Body], bool]:
    """Whether for two Services an address is one of a node: a Node names it, and for neither of them a pool contains
    it."""
    installations = {world.load_balancer_class: world for each in worlds for world in each.installations}

    def tell(address: Address, one: Body, other: Body) -> bool:
        classes = {each["spec"].get("loadBalancerClass") for each in (one, other)}
        theirs = [installations[each] for each in classes if each in installations]
        return all(address in addresses_of_nodes(each) for each in theirs)

    return tell


def addresses_of_nodes(world: World) -> set[Address]:
    """Those that some Node names and no IPAddressPool contains."""
    named = {each for body in world.node_bodies.values() for each in nodes.named_by(body)}
    return {each for each in named if not is_in_a_pool(world, each)}


def is_in_a_pool(world: World, address: Address) -> bool:
    """Whether an IPAddressPool contains it, whether or not it gives it out."""
    blocks = [block for pool in world.in_force.values() for block in pool.blocks]
    return any(first.version == address.version and int(first) <= int(address) <= int(last) for first, last in blocks)


def pool_of(world: World, service: Body) -> str | None:
    """The NodeIPPool that the Service has addresses of."""
    named = rules.annotation(service, "ip-allocated-from-pool")
    return named if named in world.node_pools and shown(service) else None


def assert_has_what_the_nodes_give(world: World, service: Body, namespace_labels: Mapping[str, str]) -> None:
    """All of it, in order, and of the best families that can be had."""
    key, name = key_of(service), pool_of(world, service)
    assert name is not None
    spec, has = world.node_pools[name], shown(service)
    assert PoolSpec(name, (), spec).is_for(service, namespace_labels), f"{name} is not for {key}"
    assert _may_have_the_ports(spec, service), f"{key} has a port that nodes need"
    versions = rules.families(service)
    best = next(
        (each for each in [set(versions), *({each} for each in versions)] if _able(world, name, service, each)),
        set(),
    )
    assert best, f"{key} shows {has}, and no node gives any of it"
    able = _able(world, name, service, best)
    most = min(spec.get("maxNodes", len(able)), len(able))
    whose = {node for node, addresses in able.items() if addresses & set(has)}
    assert len(whose) == most, f"{key} shows {whose} of {set(able)}"
    expected = nodes.in_order({each for node in whose for each in able[node]}, versions)
    assert [str(each) for each in has] == expected, key


def could_be_served(world: World, service: Body, named: str, namespace_labels: Mapping[str, str]) -> bool:
    """Whether some NodeIPPool has what the Service needs and asks for, at this moment."""
    for name, spec in world.node_pools.items():
        may_be_taken = name == named if named else spec.get("autoAssign", True)
        if not may_be_taken or not PoolSpec(name, (), spec).is_for(service, namespace_labels):
            continue
        if _may_have_the_ports(spec, service) and any(
            _able(world, name, service, choice) for choice in rules.enough(service)
        ):
            return True
    return False


def _may_have_the_ports(spec: Mapping[str, Any], service: Body) -> bool:
    return not {each for each in rules.ports_of(service) & GUARDED if each[1] not in spec.get("allowPorts", ())}


def _able(world: World, name: str, service: Body, versions: set[int]) -> dict[str, set[Address]]:
    """The nodes that could serve the Service, with their addresses of these versions; none where one has none."""
    spec = world.node_pools[name]
    found: dict[str, set[Address]] = {}
    for version, by_node in _gives(world, spec).items():
        for node, addresses in by_node.items() if version in versions else ():
            found.setdefault(node, set()).update(each for each in addresses if not is_in_a_pool(world, each))
    allowed = spec.get("allowPorts", ())
    for node in list(found):
        listens = {(each.protocol, each.port) for each in world.machines.listeners.get(node, ())}  # type: ignore[call-overload]
        busy = {each for each in rules.ports_of(service) & listens if each[1] not in allowed}
        serving = world.machines.serving.get(key_of(service), frozenset())
        away = service["spec"].get("externalTrafficPolicy") == "Local" and node not in serving
        if busy or away or not found[node] or any(_is_taken(world, service, each) for each in found[node]):
            del found[node]
    covered = {address.version for addresses in found.values() for address in addresses}
    return found if covered == versions else {}


def _gives(world: World, spec: Mapping[str, Any]) -> dict[int, dict[str, frozenset[Address]]]:
    selectors = spec.get("nodeSelectors") or [{}]
    sources = spec.get("addresses") or [{"type": "ExternalIP"}, {"type": "InternalIP"}]
    read = NodePoolSpec(
        labels=selectors[0].get("matchLabels", {}),
        sources=tuple((each["type"], each.get("key", "")) for each in sources),
        versions=frozenset({"IPv4": 4, "IPv6": 6}[each] for each in spec.get("families", ("IPv4", "IPv6"))),
        allowed=tuple(spec.get("allowedCIDRs", ())),
    )
    bodies = world.machines.bodies
    return nodes.gives(read, bodies, [name for name, body in bodies.items() if nodes.is_well(body)])


def _is_taken(world: World, service: Body, address: Address) -> bool:
    """Whether another Service that shows it has one of the ports."""
    everybody = [each for each in world.services.values() if each["spec"]["type"] == "LoadBalancer"]
    return any(
        address in shown(other) and not may_share_a_node(service, other)
        for other in everybody
        if key_of(other) != key_of(service)
    )
