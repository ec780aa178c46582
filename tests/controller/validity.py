"""What must hold of a world, whatever happened in it: judged from the API's table, by the rules and not by the code's
own record of what it did."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from cluster.addresses import Address, Family
from cluster.config import Pool, load
from cluster.objects import PoolName, Service
from cluster.record import recorded
from cluster.sharing import read_sharer
from controller.allocation.allocator import Refusal, allocate, why_not_requested
from controller.services.contest import shown
from controller.services.reading import addresses_in_status, read_request
from tests.controller.world import World


def ours(world: World) -> list[Service]:
    """The Services of the controller's class, in the order of their names."""
    return [view for view in load_balancers(world) if view.spec.load_balancer_class == world.load_balancer_class]


def load_balancers(world: World) -> list[Service]:
    """Those of all classes."""
    return [view for key in sorted(world.services) if (view := world.look(key)).spec.type == "LoadBalancer"]


def assert_no_address_is_shown_twice(
    services: Iterable[Service], pools: Mapping[str | None, Collection[Pool]] | None = None
) -> None:
    """Except by Services that may share it. With ``pools``, by class, also except what is nobody's: an address that is
    in no pool for either of the two, and was given to neither. Some rivals keep the address of a node in every status,
    and what is written again and again is left to them for a while."""
    shown: dict[Address, list[Service]] = {}
    for view in services:
        for address in addresses_in_status(view):
            for other in shown.setdefault(address, []):
                reason = read_sharer(view).why_not_with(read_sharer(other))
                if pools is not None:
                    given = (*(recorded(view) or ()), *(recorded(other) or ()))
                    theirs = (*pools[view.spec.load_balancer_class], *pools[other.spec.load_balancer_class])
                    if address not in given and not any(address in pool for pool in theirs):
                        continue
                assert reason is None, f"{view.key} and {other.key} show {address.text}: {reason}"
            shown[address].append(view)


def assert_valid_at_rest(world: World, past_mending: Collection[str] = ()) -> None:
    """No address twice, none outside its pool's rules, the counters right, nobody waiting who could be served, and
    every condition says what is so."""
    assert_no_address_is_shown_twice(view for view in load_balancers(world) if view.key not in past_mending)
    for view in ours(world):
        if view.metadata.deletion_timestamp is None:
            _assert_served_as_it_may_be(world, view)
    _assert_counters_equal_a_recount(world)


def _assert_served_as_it_may_be(world: World, view: Service) -> None:
    config, ledger = world.config, world.controller.ledger
    addresses = addresses_in_status(view)
    status, reason, message = world.condition(view.metadata.name, view.metadata.namespace)
    assert (status == "True") is bool(addresses), (view.key, message)
    reading = read_request(view, world.namespaces.get(view.metadata.namespace, {}))
    want = reading.request
    pools = {_pool_of(config.pools, address) for address in addresses}
    assert len({address.family for address in addresses}) == len(addresses)
    if None in pools:
        assert config.unreadable, f"{view.key} has {message}, which is in no pool"
        return
    assert len(pools) <= 1, f"{view.key} has addresses of several pools"
    for name in pools:
        assert name is not None
        assert view.metadata.annotations["metallb.io/ip-allocated-from-pool"] == name
        assert _is_for(config.pools[name], view, world.namespaces.get(view.metadata.namespace, {}))
    if reading.refusal is not None:
        return
    if not addresses or why_not_requested(config, want, addresses) is not None:
        assert isinstance(allocate(config, ledger, want), Refusal), f"{view.key} waits in vain: {message}"
        assert reason != "Assigned"
        return
    missing = [family for family in want.families[0] if family not in {address.family for address in addresses}]
    (name,) = pools
    for family in missing:
        assert name is not None
        assert not ledger.counts(name, family)[1], f"{view.key} lacks {family.text}, which {name} has"
    assert set(want.families[0]) >= {address.family for address in addresses}


def _pool_of(pools: Mapping[PoolName, Pool], address: Address) -> PoolName | None:
    return next((name for name, pool in pools.items() if address in pool), None)


def _is_for(pool: Pool, view: Service, namespace_labels: Mapping[str, str]) -> bool:
    """``serviceAllocation``, read once more: only plain names and single labels occur in these tests."""
    allocation = pool.allocation
    if allocation is None:
        return True
    selected = any(each.match_labels.items() <= namespace_labels.items() for each in allocation.namespace_selectors)
    named = view.metadata.namespace in allocation.namespaces
    unrestricted = not allocation.namespaces and not allocation.namespace_selectors
    by_service = not allocation.service_selectors or any(
        selector.match_labels.items() <= view.metadata.labels.items() for selector in allocation.service_selectors
    )
    return (unrestricted or named or selected) and by_service


def _assert_counters_equal_a_recount(world: World) -> None:
    shown = {
        address
        for key in world.services
        if (view := world.look(key)).spec.type == "LoadBalancer"
        for address in addresses_in_status(view)
    }
    for name, pool in world.config.pools.items():
        for family in Family:
            addresses = {
                address
                for block in pool.ranges
                if block.family is family
                for value in range(block.first, block.last + 1)
                if (address := Address(family, value)) in pool
            }
            free = {each for each in addresses - shown if world.controller.ledger.withheld(each) is None}
            assert world.controller.ledger.counts(name, family) == (len(addresses & shown), len(free)), name


def assert_a_restart_changes_nothing(world: World) -> None:
    """To be asked at rest, where every pool can be read: after a restart nobody knows what the last good version was.

    Except that a Service that waits may hear a fresher reason: who else came to hold what it waits for is not told to
    it each time."""
    assert not load(world.pool_objects(), [], None).problems
    before = {
        view.key: (shown(view), view.metadata.annotations.get("metallb.io/ip-allocated-from-pool"))
        for view in ours(world)
    }
    content = {view.key for view in ours(world) if world.is_content(view.key)}
    world.take_events(), world.take_writes()
    world.start()
    world.settle()
    assert not content & {write.key for write in world.take_writes()}
    assert not content & {key for key, _, _ in world.take_events()}
    assert {
        view.key: (shown(view), view.metadata.annotations.get("metallb.io/ip-allocated-from-pool"))
        for view in ours(world)
    } == before
