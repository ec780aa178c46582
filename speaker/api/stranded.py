"""Advertisements and Services for which this node lacks the interface.

An L2Advertisement may name interfaces. Where machines differ it is usual that it matches a node that has none of them:
then another node announces. What is said of it:

1. The node's ConfigurationState lists the advertisement. Only the lists of all nodes together tell that no node can.
2. The node that would announce a Service first says so in an Event on the Service. The others say nothing.
3. An interface that is there and cannot be announced on is told apart from one that is not there: the user means it.

What counts is what the announcer can announce on, whether or not its cable is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from cluster.config import Advertisement, Config
from cluster.objects import NodeName
from cluster.selectors import matches_any
from speaker.api.exclusions import NAME as EXCLUDED_BY
from speaker.api.planner import Planner
from speaker.link import LinkName
from speaker.plan import Bundle

MAX_REPORTED = 256
"""Names of advertisements in a report."""
NAMED = 8
"""Names of interfaces in a message."""
WHAT_IT_TAKES = (
    "an interface needs an IPv4 or a link-local IPv6 address, and must be Ethernet, part of no bridge or bond, and not"
    f" excluded by its name (ConfigMap {EXCLUDED_BY})"
)
"""To be announced on."""


def advertisements_without_interface(
    config: Config, labels: Mapping[str, str], links: frozenset[LinkName]
) -> tuple[str, ...]:
    """The advertisements for a node with these labels that name interfaces of which it has none, by name."""
    names = sorted(each.name for each in _naming_interfaces(config, labels) if links.isdisjoint(each.interfaces))
    return tuple(names[:MAX_REPORTED])


def unusable_interfaces(
    config: Config, labels: Mapping[str, str], links: frozenset[LinkName], there: frozenset[LinkName]
) -> tuple[LinkName, ...]:
    """Of ``there``, all interfaces of a node with these labels, those that an advertisement names and that are none of
    its ``links``: the user means them, and they cannot be announced on."""
    named = {LinkName(name) for each in _naming_interfaces(config, labels) for name in each.interfaces}
    return tuple(sorted((named & there) - links))


def _naming_interfaces(config: Config, labels: Mapping[str, str]) -> Iterator[Advertisement]:
    for each in config.advertisements.values():
        if each.interfaces and (not each.node_selectors or matches_any(each.node_selectors, labels)):
            yield each


class Stranded(NamedTuple):
    """A Service that this node would announce first, if it had one of the interfaces."""

    service: str
    interfaces: tuple[LinkName, ...]

    def message(self, node: NodeName, there: frozenset[LinkName]) -> str:
        """``there`` are all of the node's interfaces, whether or not they can be announced on."""
        unusable = tuple(each for each in self.interfaces if each in there)
        names = ", ".join(f'"{name}"' for name in (unusable or self.interfaces)[:NAMED])
        lacks = f"it has no interface {names}, as the L2Advertisement demands"
        if unusable:
            lacks = f"it has {names}, as the L2Advertisement demands, and cannot announce there: {WHAT_IT_TAKES}"
        return f'node "{node}" cannot announce: {lacks}; another node announces if it can'


class StrandedServices:
    """Which they are, and which became so. Nothing is told before the node's links are known."""

    def __init__(self, planner: Planner, node: NodeName) -> None:
        self._planner = planner
        self._node = node
        self._links: frozenset[LinkName] | None = None
        self._stranded: set[str] = set()

    def set_links(self, links: frozenset[LinkName]) -> list[Stranded]:
        """What became stranded with these links."""
        self._links = links
        services = {service for bundle in self._planner.plan().bundles for service in bundle.services}
        return self._consider(services | self._stranded)

    def plan_changed(self) -> list[Stranded]:
        """What became stranded with the change that was last taken from the planner."""
        return self._consider(self._planner.reconsidered)

    def _consider(self, services: Iterable[str]) -> list[Stranded]:
        if self._links is None:
            return []
        new = []
        for key in sorted(services):
            bundle = self._planner.bundle_of(key)
            if bundle is None or not self._is_stranded(bundle, self._links):
                self._stranded.discard(key)
            elif key not in self._stranded:
                self._stranded.add(key)
                new.append(Stranded(key, bundle.interfaces))
        return new

    def _is_stranded(self, bundle: Bundle, links: frozenset[LinkName]) -> bool:
        return (
            bundle.serving  # what no endpoint serves is not announced anyway
            and bool(bundle.interfaces)
            and links.isdisjoint(bundle.interfaces)
            and bool(bundle.candidates)
            and bundle.candidates[0].node == self._node
        )
