"""All custom resources, read into one immutable ``Config``.

1. Each object is parsed by itself. One that cannot be honoured does not spoil the others: its last good version stays
   in force, and a ``Problem`` names the object, the field as the user writes it, and the reason.
2. Pools that overlap cannot be in force together. A pool that stands as it was is right against one that changed, then
   the older against the newer, then by name.
3. One name belongs to one pool of either kind (``IPAddressPool``, ``NodeIPPool``): to the one in force, then to the
   older, then to the IPAddressPool. The other one is not in force.
4. After a restart no earlier version is known. A pool that cannot be honoured then gives out nothing, and
   ``Config.unreadable`` names it: Services that have addresses from it are left alone, instead of losing them to a
   typing error.
5. A pool that was deleted a moment ago may be made again at once (``GRACE_S``). Controller and speaker each remember it
   for that long: the controller gives nothing out of it, the speaker goes on announcing what is in it.

Only objects in BerthLB's own namespace count; the caller lists no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from cluster.addresses import Address, AddressError, Family, Range, RangeMap, parse_range
from cluster.node_pools import NodeIPPool, NodePool, parse_node_pool
from cluster.objects import (
    IPAddressPool,
    L2Advertisement,
    LabelSelector,
    Object,
    PoolName,
    PreferredNodeSelector,
    ServiceAllocation,
)
from cluster.parts import ConfigError, check_allocation, check_distinct, check_selectors
from cluster.selectors import SelectorError, check, matches_any

FAILBACK_ANNOTATION = "berthlb.io/failback"
"""Of an L2Advertisement: whether addresses go back to the node that had them, ``true`` or ``false``."""

GRACE_S = 10.0
"""For which an object that was deleted may be about to be made again, as ``kubectl replace --force`` does, and Helm and
Argo CD with what is a hook. Helm waits for what it deleted, a second or two; Argo CD's hooks follow each other within
some seconds."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that is not in force as it stands in the API."""

    kind: str
    name: str
    field: str
    reason: str
    word: str = "Invalid"
    """One word for programs: ``Invalid``, or ``Overlap`` where the object alone would do."""

    @property
    def text(self) -> str:
        return f"{self.kind} {self.name}: {self.field}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Pool:
    """``metallb.io/v1beta1 IPAddressPool``."""

    name: PoolName
    ranges: tuple[Range, ...]
    """In the order of ``spec.addresses``, which is the order of allocation; disjoint."""
    auto_assign: bool = True
    avoid_buggy_ips: bool = False
    """Leave out IPv4 addresses that end in .0 or .255."""
    allocation: ServiceAllocation | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    """``metadata.creationTimestamp``; only its order matters."""

    def __contains__(self, address: Address) -> bool:
        """Whether the pool may give out this address."""
        return any(address in block for block in self.ranges) and not (self.avoid_buggy_ips and is_buggy(address))

    def size(self, family: Family) -> int:
        """How many addresses of this family the pool can give out."""
        blocks = [block for block in self.ranges if block.family is family]
        total = sum(block.count for block in blocks)
        if self.avoid_buggy_ips and family is Family.IPV4:
            total -= sum(_buggy_below(block.last + 1) - _buggy_below(block.first) for block in blocks)
        return total


def is_buggy(address: Address) -> bool:
    """Whether old equipment may refuse it for its last byte: an IPv4 address that ends in .0 or .255."""
    return address.family is Family.IPV4 and address.value & 0xFF in {0, 255}


def _buggy_below(value: int) -> int:
    """How many IPv4 addresses below ``value`` end in .0 or .255."""
    whole, rest = divmod(value, 256)
    return 2 * whole + (1 if rest > 0 else 0)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """``metallb.io/v1beta1 L2Advertisement``."""

    name: str
    pools: frozenset[PoolName] | None
    """The pools that it announces: those named and those selected, as far as they exist. None: every pool."""
    node_selectors: tuple[LabelSelector, ...] = ()
    """Nodes that may announce: any of these; none: every node."""
    service_selectors: tuple[LabelSelector, ...] = ()
    """Services that are announced: any of these; none: every Service."""
    preferred: tuple[PreferredNodeSelector, ...] = ()
    interfaces: tuple[str, ...] = ()
    """Exact names of the interfaces to announce on; none: all."""
    failback: bool | None = None
    """Whether addresses go back to the node that had them; None: as the speakers' command line says."""
    pool_names: tuple[str, ...] = ()
    pool_selectors: tuple[LabelSelector, ...] = ()

    def announces(self, pool: PoolName) -> bool:
        return self.pools is None or pool in self.pools


@dataclass(frozen=True, slots=True)
class Config:
    """What is in force."""

    pools: Mapping[PoolName, Pool] = field(default_factory=dict)
    """In order of name."""
    advertisements: Mapping[str, Advertisement] = field(default_factory=dict)
    """In order of name."""
    node_pools: Mapping[PoolName, NodePool] = field(default_factory=dict)
    """In order of name; no name is in ``pools`` too."""
    unreadable: frozenset[PoolName] = frozenset()
    """Pools of either kind that exist in the API and of which no version can be in force."""
    departed: frozenset[PoolName] = frozenset()
    """Pools of either kind that were deleted a moment ago and may be made again; filled in by who knows the time."""
    elsewhere: Mapping[PoolName, str] = field(default_factory=dict)
    """Pools in namespaces that nobody reads, and where they are; for people who look for them."""
    obstacle: str = ""
    """Why pools cannot be applied, where that is known; for people, too."""
    _by_range: RangeMap[PoolName] = field(default_factory=RangeMap, compare=False, repr=False)

    @property
    def pool_names(self) -> frozenset[PoolName]:
        """Of the pools of either kind that exist in the API, whether or not they are in force."""
        return self.unreadable | self.pools.keys() | self.node_pools.keys()

    def pool_of(self, address: Address) -> Pool | None:
        """The pool whose ranges contain the address, whether or not it may give it out."""
        found = self._by_range.find(address)
        return self.pools[found[1]] if found else None


@dataclass(frozen=True, slots=True)
class Loaded:
    config: Config
    problems: tuple[Problem, ...] = ()


# ------------------------------------------------------------------------ one object


def parse_pool(source: IPAddressPool) -> Pool:
    """One pool; raises ``ConfigError``."""
    spec = source.spec
    if not spec.addresses:
        raise ConfigError("spec.addresses", "is empty; give at least one CIDR or range")
    ranges: list[Range] = []
    index: RangeMap[int] = RangeMap()
    for position, text in enumerate(spec.addresses):
        try:
            block = parse_range(text)
        except AddressError as error:
            raise ConfigError(f"spec.addresses[{position}]", f'"{text}" {error}') from error
        if (found := index.overlapping(block)) is not None:
            other = found[1]
            raise ConfigError(
                f"spec.addresses[{position}]", f'"{text}" overlaps spec.addresses[{other}], "{spec.addresses[other]}"'
            )
        index.add(block, position)
        ranges.append(block)
    if spec.service_allocation is not None:
        check_allocation(spec.service_allocation)
    meta = source.metadata
    return Pool(
        name=PoolName(meta.name),
        ranges=tuple(ranges),
        auto_assign=spec.auto_assign,
        avoid_buggy_ips=spec.avoid_buggy_ips,
        allocation=spec.service_allocation,
        labels=meta.labels,
        created=meta.creation_timestamp or "",
    )


def parse_advertisement(source: L2Advertisement) -> Advertisement:
    """One advertisement, its pools not yet looked up (``pools`` is None); raises ``ConfigError``."""
    spec = source.spec
    check_distinct(spec.ip_address_pools, "spec.ipAddressPools")
    check_distinct(spec.interfaces, "spec.interfaces")
    check_selectors(spec.ip_address_pool_selectors, "spec.ipAddressPoolSelectors")
    check_selectors(spec.node_selectors, "spec.nodeSelectors")
    check_selectors(spec.service_selectors, "spec.serviceSelectors")
    for position, preferred in enumerate(spec.preferred_node_selectors):
        where = f"spec.preferredNodeSelectors[{position}]"
        if not 1 <= preferred.weight <= 100:
            raise ConfigError(f"{where}.weight", f"{preferred.weight} is not between 1 and 100")
        try:
            check(preferred.preference)
        except SelectorError as error:
            raise ConfigError(f"{where}.preference.{error.where}", str(error)) from error
    return Advertisement(
        name=source.metadata.name,
        pools=None,
        node_selectors=spec.node_selectors,
        service_selectors=spec.service_selectors,
        preferred=spec.preferred_node_selectors,
        interfaces=spec.interfaces,
        failback=_failback(source.metadata.annotations.get(FAILBACK_ANNOTATION)),
        pool_names=spec.ip_address_pools,
        pool_selectors=spec.ip_address_pool_selectors,
    )


def _failback(value: str | None) -> bool | None:
    if value not in {None, "true", "false"}:
        raise ConfigError(f"metadata.annotations[{FAILBACK_ANNOTATION}]", f'"{value}" is neither "true" nor "false"')
    return None if value is None else value == "true"


# ------------------------------------------------------------------------ all of them


def load(
    pools: Iterable[IPAddressPool],
    advertisements: Iterable[L2Advertisement],
    previous: Config | None,
    node_pools: Iterable[NodeIPPool] = (),
) -> Loaded:
    """Everything that can be in force, and what cannot be and why.

    ``previous`` is what was in force until now: of an object that cannot be honoured its version there stays.
    """
    before = previous or Config()
    pool_sources, node_pool_sources, problems = _one_of_each_name(pools, node_pools, before)
    wanted, last_good_pools, pool_problems = _parse_each(pool_sources, "IPAddressPool", parse_pool, before.pools)
    problems += pool_problems
    accepted, by_range, overlaps = _without_overlap(wanted, last_good_pools)
    problems += overlaps

    good, last_good_node_pools, node_pool_problems = _parse_each(
        node_pool_sources, "NodeIPPool", parse_node_pool, before.node_pools
    )
    problems += node_pool_problems
    of_nodes = last_good_node_pools | good

    advertisement_sources = sorted(advertisements, key=lambda each: each.metadata.name)
    parsed, last_good, advertisement_problems = _parse_each(
        advertisement_sources, "L2Advertisement", parse_advertisement, before.advertisements
    )
    problems += advertisement_problems
    in_force = {name: parsed.get(name) or last_good[name] for name in sorted(parsed.keys() | last_good.keys())}

    return Loaded(
        Config(
            pools=MappingProxyType(accepted),
            advertisements=MappingProxyType({name: _resolved(each, accepted) for name, each in in_force.items()}),
            node_pools=MappingProxyType({name: of_nodes[name] for name in sorted(of_nodes)}),
            unreadable=frozenset(PoolName(each.metadata.name) for each in (*pool_sources, *node_pool_sources))
            - accepted.keys()
            - of_nodes.keys(),
            _by_range=by_range,
        ),
        tuple(problems),
    )


def _one_of_each_name(
    pools: Iterable[IPAddressPool], node_pools: Iterable[NodeIPPool], before: Config
) -> tuple[list[IPAddressPool], list[NodeIPPool], list[Problem]]:
    """The pools of both kinds in order of name, each name once, and the problems of those whose name is another's."""
    by_name = {each.metadata.name: each for each in pools}
    of_nodes = {each.metadata.name: each for each in node_pools}
    problems: list[Problem] = []
    for name in sorted(by_name.keys() & of_nodes.keys()):
        created, nodes_created = (each[name].metadata.creation_timestamp or "" for each in (by_name, of_nodes))
        standing = (name not in before.pools, created) <= (name not in before.node_pools, nodes_created)
        kind, other = ("NodeIPPool", "an IPAddressPool") if standing else ("IPAddressPool", "a NodeIPPool")
        del (of_nodes if standing else by_name)[name]
        reason = f'"{name}" is the name of {other} too, which stays in force'
        problems.append(Problem(kind, name, "metadata.name", reason, "Overlap"))
    return [by_name[name] for name in sorted(by_name)], [of_nodes[name] for name in sorted(of_nodes)], problems


S = TypeVar("S", bound=Object)
P = TypeVar("P")
N = TypeVar("N", bound=str)


def _parse_each(
    sources: list[S], kind: str, parse: Callable[[S], P], previous: Mapping[N, P]
) -> tuple[dict[N, P], dict[N, P], list[Problem]]:
    """What parses now, the earlier version of everything that still exists, and what does not parse."""
    parsed: dict[N, P] = {}
    last_good: dict[N, P] = {}
    problems: list[Problem] = []
    for source in sources:
        name: N = source.metadata.name  # type: ignore[assignment]  # N is the name's own NewType
        if name in previous:
            last_good[name] = previous[name]
        try:
            parsed[name] = parse(source)
        except ConfigError as error:
            problems.append(Problem(kind, name, error.field, error.reason))
    return parsed, last_good, problems


def _without_overlap(
    wanted: Mapping[PoolName, Pool], last_good: Mapping[PoolName, Pool]
) -> tuple[dict[PoolName, Pool], RangeMap[PoolName], list[Problem]]:
    """The pools that can be in force together, by name.

    Whenever a changed pool is refused, its last good version counts as unchanged and the choice is made anew: so what
    is in force is never given up for an edit of somebody else's.
    """
    refused: dict[PoolName, Problem] = {}
    while True:
        chosen = {
            name: wanted[name] if name in wanted and name not in refused else last_good[name]
            for name in wanted.keys() | last_good.keys()
            if (name in wanted and name not in refused) or name in last_good
        }

        def standing(pool: Pool) -> tuple[bool, str, str]:
            earlier = last_good.get(pool.name)
            return (earlier is None or earlier.ranges != pool.ranges, pool.created, pool.name)

        accepted: dict[PoolName, Pool] = {}
        by_range: RangeMap[PoolName] = RangeMap()
        again = False
        for pool in sorted(chosen.values(), key=standing):
            problem = _overlap(pool, by_range)
            if problem is None:
                accepted[pool.name] = pool
                for block in pool.ranges:
                    by_range.add(block, pool.name)
            elif pool.name not in refused:
                refused[pool.name] = problem
                again = True
                break
        if not again:
            return {name: accepted[name] for name in sorted(accepted)}, by_range, list(refused.values())


def _overlap(pool: Pool, taken: RangeMap[PoolName]) -> Problem | None:
    for position, block in enumerate(pool.ranges):
        if (found := taken.overlapping(block)) is not None:
            other, name = found
            reason = f'{block.text} overlaps {other.text} of pool "{name}", which stays in force'
            return Problem("IPAddressPool", pool.name, f"spec.addresses[{position}]", reason, "Overlap")
    return None


def _resolved(advertisement: Advertisement, pools: Mapping[PoolName, Pool]) -> Advertisement:
    if not advertisement.pool_names and not advertisement.pool_selectors:
        return advertisement
    names = frozenset(
        name
        for name, pool in pools.items()
        if name in advertisement.pool_names or matches_any(advertisement.pool_selectors, pool.labels)
    )
    return replace(advertisement, pools=names)


# ------------------------------------------------------------------------ what was there a moment ago


def as_if_there(config: Config, pools: Iterable[Pool], advertisements: Iterable[Advertisement]) -> Config:
    """The configuration as if these were still in it. What is there under the same name counts instead, and of a pool
    what another one has come to contain is that one's."""
    by_range: RangeMap[PoolName] = RangeMap()
    by_range.add_all((block, pool.name) for pool in config.pools.values() for block in pool.ranges)
    together = dict(config.pools)
    for pool in pools:
        left = tuple(piece for block in pool.ranges for piece in by_range.gaps(block))
        if pool.name not in together and left:
            together[pool.name] = replace(pool, ranges=left)
            by_range.add_all((piece, pool.name) for piece in left)
    announcing = {each.name: each for each in advertisements} | dict(config.advertisements)
    return replace(
        config,
        pools=MappingProxyType({name: together[name] for name in sorted(together)}),
        advertisements=MappingProxyType({name: _resolved(announcing[name], together) for name in sorted(announcing)}),
        _by_range=by_range,
    )
