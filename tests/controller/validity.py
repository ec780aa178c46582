"""What must hold of a world, whatever happened in it: judged from the API's table by the documented rules
(``tests.oracle``), with nothing of the controller's own. Only its counters are asked for, to be counted over again."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from cluster.addresses import Family
from cluster.objects import PoolName
from tests.controller import node_validity
from tests.controller.world import World
from tests.oracle import services as rules
from tests.oracle.pools import PoolSpec
from tests.oracle.services import Address, Body, key_of, may_share, may_share_a_node, shown

POOL_ANNOTATION = "metallb.io/ip-allocated-from-pool"


def ours(world: World) -> list[Body]:
    """The Services of the controller's class, in the order of their names."""
    return [each for each in load_balancers(world) if rules.is_load_balancer(each, world.load_balancer_class)]


def load_balancers(world: World) -> list[Body]:
    """Those of all classes."""
    return [world.services[key] for key in sorted(world.services) if _type_of(world.services[key]) == "LoadBalancer"]


def class_of(service: Body) -> str | None:
    found: str | None = service["spec"].get("loadBalancerClass")
    return found


def _type_of(service: Body) -> str:
    return str(service["spec"]["type"])


def assert_no_address_is_shown_twice(
    services: Iterable[Body],
    pools: Mapping[str | None, Collection[PoolSpec]] | None = None,
    are_nodes: Callable[[Address, Body, Body], bool] = lambda _address, _one, _other: False,
) -> None:
    """Except by Services that may share it. ``are_nodes``: whether for these two Services the address is one of a node,
    where they share by their ports. With ``pools``, by class, also except what is nobody's: an address that is
    in no pool for either of the two, and was given to neither. Some rivals keep the address of a node in every status,
    and what is written again and again is left to them for a while."""
    showing: dict[Address, list[Body]] = {}
    for service in services:
        for address in shown(service):
            for other in showing.setdefault(address, []):
                if pools is not None:
                    was_given = (*(rules.given(service) or ()), *(rules.given(other) or ()))
                    theirs = (*pools[class_of(service)], *pools[class_of(other)])
                    if address not in was_given and not any(address in pool for pool in theirs):
                        continue
                if are_nodes(address, service, other) and may_share_a_node(service, other):
                    continue
                assert may_share(service, other), f"{key_of(service)} and {key_of(other)} both show {address}"
            showing[address].append(service)


def assert_valid_at_rest(world: World, past_mending: Collection[str] = ()) -> None:
    """No address twice, none outside its pool's rules, the counters right, nobody waiting who could be served, and
    every condition says what is so."""
    assert_no_address_is_shown_twice(
        (each for each in load_balancers(world) if key_of(each) not in past_mending),
        are_nodes=node_validity.are_nodes(world),
    )
    for service in ours(world):
        if service["metadata"].get("deletionTimestamp") is None:
            _assert_served_as_it_may_be(world, service)
    _assert_counters_equal_a_recount(world)


def _assert_served_as_it_may_be(world: World, service: Body) -> None:
    key, addresses = key_of(service), shown(service)
    status, reason, message = world.condition(service["metadata"]["name"], service["metadata"]["namespace"])
    assert (status == "True") is bool(addresses), (key, message)
    versions = [address.version for address in addresses]
    pools = [pool_of(world, address) for address in addresses]
    if node_validity.pool_of(world, service) is not None:
        node_validity.assert_has_what_the_nodes_give(world, service, _namespace_labels(world, service))
        if rules.makes_sense(service) and not has_what_it_asks_for(world, service):
            assert not could_be_served(world, service), f"{key} waits in vain: {message}"
            assert reason != "Assigned"
        return
    if None in pools:
        unreadable = world.pools.keys() - world.in_force.keys()
        assert unreadable, f"{key} has {message}, which is in no pool"
        return
    assert max(Counter(versions).values(), default=0) <= 1, f"{key} has two addresses of a family"
    found = {each.name: each for each in pools if each is not None}
    assert len(found) <= 1, f"{key} has addresses of several pools"
    for pool in found.values():
        assert rules.annotation(service, "ip-allocated-from-pool") == pool.name
        assert pool.is_for(service, _namespace_labels(world, service))
    if not rules.makes_sense(service):
        return
    if not addresses or not has_what_it_asks_for(world, service):
        assert not could_be_served(world, service), f"{key} waits in vain: {message}"
        assert reason != "Assigned"
        return
    (pool,) = found.values()
    for family in set(rules.families(service)) - set(versions):
        assert not _free(world, pool, family), f"{key} lacks IPv{family}, which {pool.name} has"
    assert set(rules.families(service)) >= set(versions)


def pool_of(world: World, address: Address) -> PoolSpec | None:
    """The pool that gives the address out."""
    return next((pool for pool in world.in_force.values() if address in pool), None)


def has_what_it_asks_for(world: World, service: Body) -> bool:
    """Whether what it shows is what it asks for, as far as that makes sense."""
    if not rules.makes_sense(service):
        return True
    named, has = rules.annotation(service, "address-pool"), shown(service)
    pools = {pool.name for address in has if (pool := pool_of(world, address)) is not None}
    if (of_nodes := node_validity.pool_of(world, service)) is not None:
        pools = {of_nodes}
    return set(rules.asked_addresses(service) or ()) <= set(has) and pools <= {named or next(iter(pools), "")}


def may_keep_all(world: World, service: Body, has: tuple[Address, ...]) -> bool:
    """Whether the pools and the Service's families let it keep these addresses, whatever others claim."""
    pools = [pool_of(world, address) for address in has]
    versions = [address.version for address in has]
    (pool, *others) = pools
    return (
        pool is not None
        and all(each is pool for each in others)
        and pool.is_for(service, _namespace_labels(world, service))
        and len(set(versions)) == len(versions)
        and set(versions) <= set(rules.families(service))
    )


def could_be_served(world: World, service: Body) -> bool:
    """Whether some pool has what the Service needs and asks for, at this moment."""
    choices, asked, named = (
        rules.enough(service),
        rules.asked_addresses(service),
        rules.annotation(service, "address-pool"),
    )
    assert asked is not None
    versions = [address.version for address in asked]
    if len(set(versions)) < len(versions) or not set(versions) <= set(rules.families(service)):
        return False
    for pool in world.in_force.values():
        may_be_taken = pool.name == named if named else bool(asked) or pool.assigns_automatically
        if not may_be_taken or not pool.is_for(service, _namespace_labels(world, service)):
            continue
        if not all(address in pool and _can_be_had(world, service, address) for address in asked):
            continue
        if asked:
            missing = set() if set(versions) in choices else set(rules.families(service)) - set(versions)
            if all(_has_one(world, service, pool, family) for family in missing):
                return True
        elif any(all(_has_one(world, service, pool, family) for family in choice) for choice in choices):
            return True
    return not asked and node_validity.could_be_served(world, service, named, _namespace_labels(world, service))


def _has_one(world: World, service: Body, pool: PoolSpec, family: int) -> bool:
    """Whether the pool has an address of the family for the Service: one that is free, or that it may share."""
    if _free(world, pool, family):
        return True
    return any(
        _can_be_had(world, service, address) and _agree(_showing(world, address)) for address in pool.addresses(family)
    )


def _can_be_had(world: World, service: Body, address: Address) -> bool:
    """Whether no Service that shows it is in the way, and the cluster does not use it. What a Service has it keeps."""
    if address not in shown(service) and is_reserved(world, address):
        return False
    others = [each for each in _showing(world, address) if key_of(each) != key_of(service)]
    return all(may_share(service, other) for other in others)


def _agree(services: list[Body]) -> bool:
    """Nobody can join those who share an address that they should not."""
    return all(may_share(one, other) for one in services for other in services if one is not other)


def _showing(world: World, address: Address) -> list[Body]:
    return [each for each in load_balancers(world) if address in shown(each)]


def _free(world: World, pool: PoolSpec, family: int) -> set[Address]:
    taken = {address for each in load_balancers(world) for address in shown(each)}
    return {each for each in pool.addresses(family) if each not in taken and not is_reserved(world, each)}


def is_reserved(world: World, address: Address) -> bool:
    """Whether the cluster uses it itself."""
    texts = [text for node in world.nodes.values() for text in node]
    if any(address in ipaddress.ip_network(text) for text in (*texts, *world.service_ranges)):
        return True
    nodes = {each for text in texts if "/" not in text and (each := ipaddress.ip_address(text)).version == 6}
    return any(address == ipaddress.ip_network((each, 64), strict=False)[0] for each in nodes)


def _namespace_labels(world: World, service: Body) -> Mapping[str, str]:
    return world.namespaces.get(service["metadata"]["namespace"], {})


def _assert_counters_equal_a_recount(world: World) -> None:
    taken = {address for each in load_balancers(world) for address in shown(each)}
    for name, pool in world.in_force.items():
        for family in Family:
            used = taken & set(pool.addresses(family.value))
            counted = world.controller.ledger.counts(PoolName(name), family)
            assert counted == (len(used), len(_free(world, pool, family.value))), name


def assert_a_restart_changes_nothing(world: World) -> None:
    """To be asked at rest, where every pool can be read: after a restart nobody knows what the last good version was.

    Except that a Service that waits may hear a fresher reason: who else came to hold what it waits for is not told to
    it each time."""
    assert world.every_pool_is_in_force()
    before = _what_services_show(world)
    content = {key_of(each) for each in ours(world) if world.is_content(key_of(each))}
    world.take_events(), world.take_writes()
    world.start()
    world.settle()
    assert not content & {write.key for write in world.take_writes()}
    assert not content & {key for key, _, _ in world.take_events()}
    assert _what_services_show(world) == before


def _what_services_show(world: World) -> dict[str, tuple[object, object]]:
    """The addresses, and the annotation that names their pool."""
    return {
        key_of(each): (each["status"].get("loadBalancer"), each["metadata"].get("annotations", {}).get(POOL_ANNOTATION))
        for each in ours(world)
    }
