"""Advertisements and Services for which this node lacks the interface.

An L2Advertisement may name interfaces. Where machines differ it is usual that it matches a node that has none of them:
then another node announces. What is said of it:

1. The node's ConfigurationState lists the advertisement. Only the lists of all nodes together tell that no node can.
2. The node that would announce a Service first says so in an Event on the Service. The others say nothing.
3. An interface that is there and cannot be announced on is told apart from one that is not there: the user means it.
4. An interface may speak one family only: a second network card that nobody configured has a link-local IPv6 address
   and no IPv4. A Service with an address of a family that none of its interfaces speaks is stranded, too.

What counts is what the announcer can announce on, whether or not its cable is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from cluster.addresses import Family, family_of
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
LACKING_S = 5.0
"""For which an interface may be without a family, as it is while it comes up."""
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


Links = Mapping[LinkName, frozenset[Family]]
"""What can be announced on, and the families that are spoken there."""


class SpokenFamilies:
    """Which families links speak. One that is lacking counts as spoken for ``LACKING_S``: an address of IPv6 is not in
    use for a second or two after its interface came up (RFC 4862 §5.4)."""

    def __init__(self) -> None:
        self._lacking_since: dict[tuple[LinkName, Family], float] = {}

    def seen(self, links: Links, now: float) -> Links:
        """The links as they are now: as they count."""
        lacking = [(name, family) for name, spoken in links.items() for family in Family if family not in spoken]
        self._lacking_since = {each: self._lacking_since.get(each, now) for each in lacking}
        gone = {each for each, since in self._lacking_since.items() if now - since >= LACKING_S}
        return {name: frozenset(family for family in Family if (name, family) not in gone) for name in links}


class Stranded(NamedTuple):
    """A Service that this node would announce first, if it had one of the interfaces, or if that spoke its family."""

    service: str
    interfaces: tuple[LinkName, ...]
    """Those that are named: none, where any would do."""
    lacking: Family | None = None
    """What none of them speaks; None: the node has none of them."""

    def message(self, node: NodeName, there: frozenset[LinkName]) -> str:
        """``there`` are all of the node's interfaces, whether or not they can be announced on."""
        if self.lacking is not None:
            which = ", ".join(f'"{name}"' for name in self.interfaces[:NAMED])
            which = f"of {which}, as the L2Advertisement demands, none" if which else "none of its interfaces"
            return (
                f'node "{node}" cannot announce the {self.lacking.text} address: {which} speaks {self.lacking.text};'
                " another node announces if it can"
            )
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
        self._links: Links | None = None
        self._stranded: dict[str, Stranded] = {}

    def set_links(self, links: Links) -> list[Stranded]:
        """What became stranded with these links."""
        self._links = links
        services = {service for bundle in self._planner.plan().bundles for service in bundle.services}
        return self._consider(services | self._stranded.keys())

    def plan_changed(self) -> list[Stranded]:
        """What became stranded with the change that was last taken from the planner."""
        return self._consider(self._planner.reconsidered)

    def _consider(self, services: Iterable[str]) -> list[Stranded]:
        if self._links is None:
            return []
        new = []
        for key in sorted(services):
            bundle = self._planner.bundle_of(key)
            stranded = None if bundle is None else self._stranding(key, bundle, self._links)
            before = self._stranded.pop(key, None)
            if stranded is not None:
                self._stranded[key] = stranded
                if stranded != before:
                    new.append(stranded)
        return new

    def _stranding(self, service: str, bundle: Bundle, links: Links) -> Stranded | None:
        """What keeps this node from announcing the Service, if it would be the first to."""
        if not bundle.serving:  # what no endpoint serves is not announced anyway
            return None
        if not bundle.candidates or bundle.candidates[0].node != self._node:
            return None
        usable = [name for name in links if not bundle.interfaces or name in bundle.interfaces]
        if not usable:  # without any interface at all the node is told of, and not each Service
            return Stranded(service, bundle.interfaces) if bundle.interfaces else None
        spoken = frozenset[Family]().union(*(links[name] for name in usable))
        wanted = {family_of(address) for address in self._planner.addresses_of(service)}
        lacking = min(wanted - spoken, default=None)
        return None if lacking is None else Stranded(service, bundle.interfaces, lacking)
