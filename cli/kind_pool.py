"""Which addresses of a container network a kind cluster may give to its Services.

The nodes of a kind cluster are containers, and the LAN on which an address has to answer is the engine's network. The
engine gives addresses of that network to containers, and other kind clusters on it have pools of their own. Nothing
else keeps these apart.

1. What anybody has is taken out of the subnet. The pool is cut from the upper end of what is left, since engines begin
   at the lower end.
2. Where the network was made with a range for containers (``--ip-range``), the pool lies outside it. No container then
   gets an address of the pool on the engine's own account.
3. Where it was not, the engine may reach the pool: Docker takes the lowest free address, and gets there when nothing
   else is left; podman goes on where it was, and gets there in time. So a pool never has more than half of what is free
   there, and a remark says what remains.
4. A pool that the cluster has already is kept, as far as its addresses are still free: Services have them. Of two
   clusters that took the same addresses at the same time, the one whose name comes first keeps them.
5. Both families are treated alike. A pool has both where the network has both and both have something free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from cli.networks import AnswerError, Container, Network, Subnet
from cluster.addresses import Address, AddressError, Family, Range, parse_range
from cluster.resources import IP_ADDRESS_POOLS, L2_ADVERTISEMENTS

POOL_NAME = "kind"
"""Of the pool, and of its advertisement."""
SIZE = 50
"""Addresses of each family; as many as tutorials for kind take."""
FEW = 8
"""Addresses that containers have left, below which it is said."""


@dataclass(frozen=True, slots=True)
class PoolOfCluster:
    """An IPAddressPool of a kind cluster."""

    cluster: str
    namespace: str
    name: str
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that is there, at one moment."""

    network: Network
    others: tuple[Network, ...]
    """The engine's other networks."""
    containers: tuple[Container, ...]
    """Those of the network, the stopped ones too."""
    pools: tuple[PoolOfCluster, ...]
    """Of every cluster with a node on the network."""


@dataclass(frozen=True, slots=True)
class Derived:
    ranges: tuple[Range, ...]
    """At least one; in order, IPv4 first."""
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NothingFree:
    reason: str
    """One line: what has the addresses."""


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who has a range, in the words of a refusal."""

    block: Range
    what: str


def derive(around: Surroundings, cluster: str, namespace: str) -> Derived | NothingFree:
    """The pool of a cluster's own, from what is free on the network."""
    present = [each for each in around.containers if around.network.name in each.networks]
    clusters = sorted({each.cluster for each in present if each.cluster is not None})
    if cluster not in clusters:
        there = f"; there are nodes of {', '.join(clusters)}" if clusters else ""
        return NothingFree(f"cluster {cluster} has no node on network {around.network.name}{there}")
    own, others = _own_pool(around.pools, cluster, namespace)
    remarks: list[str] = []
    others = tuple(each for each in others if not _gives_way(each, own, cluster, remarks))
    found: list[Range] = []
    refusals: list[str] = []
    for family in Family:
        subnets = _subnets_of(around.network, present, cluster, family)
        if not subnets:
            continue
        outcome = _in_family(subnets, list(_holders(around, present, others)), own)
        if isinstance(outcome, NothingFree):
            refusals.append(outcome.reason)
        else:
            found += outcome.ranges
            remarks += outcome.remarks
    if found:
        return Derived(tuple(found), (*remarks, *refusals))
    if refusals:
        return NothingFree("; ".join(refusals))
    return NothingFree(f"network {around.network.name} has no subnet")


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = ""


class _Spec(msgspec.Struct):
    addresses: list[str] = []


class _Pool(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec


class _Pools(msgspec.Struct):
    items: list[_Pool]


def pools_of(cluster: str, answer: bytes) -> tuple[PoolOfCluster, ...]:
    """The IPAddressPools of a cluster, from the list that its API server gives. Raises ``AnswerError``.

    An entry that is no range has no effect in that cluster, and none here.
    """
    try:
        said = msgspec.json.decode(answer, type=_Pools)
    except msgspec.MsgspecError as error:
        raise AnswerError(f"the pools of cluster {cluster} cannot be read: {error}") from error
    return tuple(
        PoolOfCluster(cluster, each.metadata.namespace, each.metadata.name, tuple(_ranges(each.spec.addresses)))
        for each in said.items
    )


def _ranges(texts: Iterable[str]) -> Iterator[Range]:
    for text in texts:
        with suppress(AddressError):
            yield parse_range(text)


def manifest(ranges: Iterable[Range], namespace: str) -> list[dict[str, Any]]:
    """The pool and its advertisement, ready for ``kubectl apply``."""
    metadata = {"name": POOL_NAME, "namespace": namespace}
    pool, advertisement = IP_ADDRESS_POOLS, L2_ADVERTISEMENTS
    return [
        {
            "apiVersion": pool.api_version,
            "kind": pool.kind,
            "metadata": metadata,
            "spec": {"addresses": [each.text for each in ranges]},
        },
        {
            "apiVersion": advertisement.api_version,
            "kind": advertisement.kind,
            "metadata": dict(metadata),
            "spec": {"ipAddressPools": [POOL_NAME]},
        },
    ]


# ------------------------------------------------------------------------ whose pool is whose


def _own_pool(
    pools: tuple[PoolOfCluster, ...], cluster: str, namespace: str
) -> tuple[tuple[Range, ...], tuple[PoolOfCluster, ...]]:
    """The ranges of the pool that was derived before, and everybody else's pools."""
    mine = {each for each in pools if (each.cluster, each.namespace, each.name) == (cluster, namespace, POOL_NAME)}
    return tuple(block for each in mine for block in each.ranges), tuple(each for each in pools if each not in mine)


def _gives_way(other: PoolOfCluster, own: tuple[Range, ...], cluster: str, remarks: list[str]) -> bool:
    """Whether the other cluster is the one to move, where both have the same addresses. What somebody chose stays."""
    if (
        other.name != POOL_NAME
        or other.cluster <= cluster
        or not any(mine.overlaps(theirs) for mine in own for theirs in other.ranges)
    ):
        return False
    remarks.append(
        f"pool {other.name} of cluster {other.cluster} overlaps this one, which stays: derive that cluster's again"
    )
    return True


# ------------------------------------------------------------------------ what is free


def _subnets_of(network: Network, present: list[Container], cluster: str, family: Family) -> list[Subnet]:
    """Those in which the cluster's nodes are; where that is not known, all of the family."""
    subnets = [each for each in network.subnets if each.block.family is family]
    nodes = [address for each in present if each.cluster == cluster for address in each.addresses]
    return [each for each in subnets if any(address in each.block for address in nodes)] or subnets


def _holders(around: Surroundings, present: list[Container], pools: tuple[PoolOfCluster, ...]) -> Iterator[_Holder]:
    """Everything that somebody has, whatever its subnet; the first one counts."""
    for subnet in around.network.subnets:
        yield from _unusable(subnet)
        for address in subnet.reserved:
            yield _Holder(_one(address), "the gateway or reserved")
        if subnet.leased is not None:
            yield _Holder(subnet.leased, "the engine's range for containers")
    for each in present:
        for address in each.addresses:
            yield _Holder(_one(address), "containers")
    for address in around.network.attached:
        yield _Holder(_one(address), "containers")
    for pool in pools:
        for block in pool.ranges:
            yield _Holder(block, f"pool {pool.name} of cluster {pool.cluster}")
    for network in around.others:
        for other in network.subnets:
            # The host sends to the longer prefix: what another network has of ours does not arrive here.
            if any(_is_within(other.block, subnet.block) for subnet in around.network.subnets):
                yield _Holder(other.block, f"network {network.name}")


def _unusable(subnet: Subnet) -> Iterator[_Holder]:
    """The ends that no host can have."""
    block, family = subnet.block, subnet.block.family
    if family is Family.IPV4 and block.count > 2:  # RFC 3021: a /31 has neither
        yield _Holder(Range(family, block.first, block.first), "the network's own address")
        yield _Holder(Range(family, block.last, block.last), "the broadcast address")
    if family is Family.IPV6 and block.count > 2:
        yield _Holder(Range(family, block.first, block.first), "the routers' anycast address")  # RFC 4291 §2.6.1
        if block.count >= 1 << 64:
            yield _Holder(Range(family, block.last - 127, block.last), "reserved anycast addresses")  # RFC 2526 §2


def _in_family(subnets: list[Subnet], holders: list[_Holder], own: tuple[Range, ...]) -> Derived | NothingFree:
    free = [(subnet, gap) for subnet in subnets for gap in _gaps(subnet.block, [each.block for each in holders])]
    if not free:
        return NothingFree("; ".join(_why_full(subnet, holders) for subnet in subnets))
    kept = [cut for block in own for _, gap in free for cut in _common(block, gap)]
    if kept:
        return Derived(tuple(sorted(kept)), ())
    # The uppermost that has room for a whole pool, or else the one with the most room.
    subnet, gap = max(free, key=lambda each: (min(each[1].count, SIZE), each[1].first))
    total = sum(block.count for each, block in free if each is subnet)
    room = SIZE if subnet.leased is not None else min(SIZE, max(1, total // 2))
    count = min(room, gap.count)
    chosen = Range(gap.family, gap.last - count + 1, gap.last)
    left = total - count
    remarks = []
    if subnet.leased is None and left < FEW:
        remarks.append(
            f"{subnet.text} is small: {left or 'no'} address{'' if left == 1 else 'es'} left for containers,"
            f" and the one after may get one of {chosen.text}"
        )
    return Derived((chosen,), tuple(remarks))


def _gaps(block: Range, taken: Iterable[Range]) -> Iterator[Range]:
    """The parts of a block that no range has, in order; the ranges may overlap."""
    start = block.first
    for each in sorted(each for each in taken if each.overlaps(block)):
        if each.first > start:
            yield Range(block.family, start, each.first - 1)
        start = max(start, each.last + 1)
    if start <= block.last:
        yield Range(block.family, start, block.last)


def _common(one: Range, other: Range) -> Iterator[Range]:
    if one.overlaps(other):
        yield Range(one.family, max(one.first, other.first), min(one.last, other.last))


def _is_within(inner: Range, outer: Range) -> bool:
    return inner.family is outer.family and outer.first <= inner.first and inner.last <= outer.last


def _one(address: Address) -> Range:
    return Range(address.family, address.value, address.value)


def _why_full(subnet: Subnet, holders: list[_Holder]) -> str:
    """Who has how many addresses of a subnet in which nothing is free."""
    counts: Counter[str] = Counter()
    before: list[Range] = []
    for each in holders:
        for cut in _common(each.block, subnet.block):
            mine = sum(part.count for part in _gaps(cut, before))
            if mine:
                counts[each.what] += mine
                before.append(cut)
    said = ", ".join(f"{what} {count}" for what, count in counts.items())
    return f"nothing is free in {subnet.text}, which has {subnet.block.count} addresses: {said}"
