"""What pools have to give, by ``docs/allocation.md`` and ``docs/reference/custom-resources.md``: which versions of them
are in force, what is in them, and which Services they are for. Addresses are walked one by one, so pools are small."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.oracle.services import Address, Body, read_address


@dataclass(frozen=True)
class PoolSpec:
    name: str
    blocks: tuple[tuple[Address, Address], ...]
    """First and last of each entry of ``spec.addresses``."""
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def assigns_automatically(self) -> bool:
        return bool(self.spec.get("autoAssign", True))

    def __contains__(self, address: Address) -> bool:
        left_out = self.spec.get("avoidBuggyIPs") and address.version == 4 and int(address) % 256 in {0, 255}
        return not left_out and any(_within(address, block) for block in self.blocks)

    def addresses(self, version: int) -> Iterator[Address]:
        for first, last in self.blocks:
            if first.version == version:
                for value in range(int(first), int(last) + 1):
                    if (address := type(first)(value)) in self:
                        yield address

    def overlaps(self, other: PoolSpec) -> bool:
        return any(
            _within(first, theirs) or _within(theirs[0], (first, last))
            for first, last in self.blocks
            for theirs in other.blocks
        )

    def is_for(self, service: Body, namespace_labels: Mapping[str, str]) -> bool:
        """``serviceAllocation``; only names and single labels occur in these tests."""
        allocation = self.spec.get("serviceAllocation") or {}
        names, selectors = allocation.get("namespaces") or (), allocation.get("namespaceSelectors") or ()
        by_service, metadata = allocation.get("serviceSelectors") or (), service["metadata"]
        of_namespace = metadata["namespace"] in names or any(_selects(each, namespace_labels) for each in selectors)
        of_labels = any(_selects(each, metadata.get("labels") or {}) for each in by_service)
        return (of_namespace or not (names or selectors)) and (of_labels or not by_service)


def _within(address: Address, block: tuple[Address, Address]) -> bool:
    return address.version == block[0].version and int(block[0]) <= int(address) <= int(block[1])


def _selects(selector: Body, labels: Mapping[str, str]) -> bool:
    assert selector.keys() == {"matchLabels"}, selector
    return all(labels.get(name) == value for name, value in selector["matchLabels"].items())


def read_block(text: str) -> tuple[Address, Address] | None:
    """A CIDR or ``first-last``; None: it is neither."""
    begin, dash, end = text.partition("-")
    if not dash:
        network = ipaddress.ip_network(text, strict=False)
        return network[0], network[-1]
    first, last = read_address(begin), read_address(end)
    if first is None or last is None or first.version != last.version or int(first) > int(last):
        return None
    return first, last


def read_pool(name: str, given: Any) -> PoolSpec | None:
    """From its addresses or its spec; None: it makes no sense."""
    spec = given if isinstance(given, dict) else {"addresses": [given] if isinstance(given, str) else list(given)}
    blocks = [read_block(each) for each in spec["addresses"]]
    read = tuple(each for each in blocks if each is not None)
    return PoolSpec(name, read, spec) if len(read) == len(blocks) else None


def in_force(specs: Mapping[str, Any], before: Mapping[str, PoolSpec]) -> dict[str, PoolSpec]:
    """The pools that count, of those that there are. ``before``: those that counted until now, of which the version
    stays where the new one makes no sense or overlaps. A pool that stands as it was is right against one that changed,
    and then the first by name."""
    stays = {name for name, spec in specs.items() if read_pool(name, spec) is None}
    while True:
        versions = [before.get(name) if name in stays else read_pool(name, specs[name]) for name in sorted(specs)]
        counting: dict[str, PoolSpec] = {}
        present = [each for each in versions if each is not None]
        for pool in sorted(
            present, key=lambda each: each.name not in before or before[each.name].blocks != each.blocks
        ):
            if not any(pool.overlaps(other) for other in counting.values()):
                counting[pool.name] = pool
            elif pool.name not in stays:
                stays.add(pool.name)
                break
        else:
            return counting
