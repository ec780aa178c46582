"""Which Services may have an address together: MetalLB's rule, for controller and speaker alike.

Services share an address if

1. all of them have the annotation ``metallb.io/allow-shared-ip`` with the same value;
2. they want the same of the network: either all have the traffic policy ``Cluster`` (or ``Local`` without a selector),
   or all have ``Local`` and the same selector, since then every node with an endpoint of one has one of each;
3. no two of them use the same port.

Services that agree in 1 and 2 are of one ``company``. An address of theirs is shared on ``Terms``: the company, and the
ports that are not free any more.

On an address of a node (``NodeIPPool``, and other programs that show nodes' addresses) all Services are of one company
(``read_node_sharer``), and only 3 counts: the node has one set of ports for all of them. One that an IPAddressPool
contains is shared as the pool's.

Not promised: that those who have an address agree. An API object may be changed afterwards, and may be written by
somebody else. Then nobody can join them.

Example: two Services with the key ``web`` and the policy Cluster, one with port 80/TCP and one with port 443/TCP, share
an address; a third with port 80/TCP cannot join them, and one with 80/UDP can.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from cluster.annotations import ALLOW_SHARED_IP, annotation
from cluster.objects import Service

Port = tuple[str, int]
"""(protocol, port)"""
Company = tuple[str, str]
"""Sharing key, and what the traffic policy demands of those who share."""
ON_A_NODE: Final[Company] = ("address of a node", "any")
"""Of all who have an address of a node. No Service comes to it by its annotation, since a selector has a "="."""


class Terms(NamedTuple):
    """On which an address is shared."""

    company: Company
    ports: frozenset[Port]
    """Those in use."""


@dataclass(frozen=True, slots=True)
class Sharer:
    """A Service that has, or wants, an address: on which terms it shares it."""

    service: str
    """``namespace/name``."""
    sharing_key: str = ""
    """Annotation ``metallb.io/allow-shared-ip``; empty: shares with nobody, and the rest is left empty too."""
    backends: str = ""
    """What the traffic policy demands of those who share: with Local the selector, with Cluster nothing."""
    ports: tuple[Port, ...] = ()
    """Sorted."""

    @property
    def company(self) -> Company | None:
        """None: it shares with nobody."""
        return (self.sharing_key, self.backends) if self.sharing_key else None

    @property
    def terms(self) -> Terms | None:
        """None: it shares with nobody."""
        return None if (company := self.company) is None else Terms(company, _ports_in_use(self.ports))

    def why_not_with(self, other: Sharer) -> str | None:
        """Why the two cannot share an address; None: they can."""
        if self.company is None or self.company != other.company:
            return self._why_no_company(other)
        clash = next((port for port in self.ports if port in other.ports), None)
        return None if clash is None else f"{other.service} holds it and uses port {clash[1]}/{clash[0]} too"

    def _why_no_company(self, other: Sharer) -> str:
        if not other.sharing_key:
            return f"{other.service} holds it and shares it with nobody"
        if not self.sharing_key:
            return f"{other.service} holds it, and sharing needs the annotation metallb.io/allow-shared-ip"
        if self.sharing_key != other.sharing_key:
            return f'{other.service} holds it with the sharing key "{other.sharing_key}"'
        return f"{other.service} holds it with another externalTrafficPolicy or, being Local, another selector"


class Sharers:
    """Several Services that have one address. To ask and to enter costs as much as a Service has ports, as long as all
    agree."""

    __slots__ = ("_agreed", "_by_service", "_users")

    def __init__(self, sharers: Iterable[Sharer]) -> None:
        self._by_service: dict[str, Sharer] = {}
        self._users: dict[Port, str] = {}
        """Which Service uses each port, as long as all of them agree."""
        self._agreed = True
        for sharer in sharers:
            self.put(sharer)

    @property
    def all(self) -> tuple[Sharer, ...]:
        """In the order in which they were put."""
        return tuple(self._by_service.values())

    @property
    def terms(self) -> Terms | None:
        """None: they do not agree with each other, and nobody else can join them."""
        company = self.company if self._agreed else None
        return None if company is None else Terms(company, frozenset(self._users))

    @property
    def company(self) -> Company | None:
        """Of the first, and so of all, as long as they agree."""
        return next(iter(self._by_service.values())).company

    def __len__(self) -> int:
        return len(self._by_service)

    def get(self, service: str) -> Sharer | None:
        """The one of them that is this Service."""
        return self._by_service.get(service)

    def __contains__(self, sharer: Sharer) -> bool:
        """Whether it is one of them, on these terms."""
        return self._by_service.get(sharer.service) == sharer

    def conflict(self, asking: Sharer) -> Sharer | None:
        """One of the others, with which ``asking`` cannot share; None: it can join them."""
        if self._by_service and self._agreed and asking.company is not None and asking.company == self.company:
            users = self._users
            if all(users.get(port, asking.service) == asking.service for port in asking.ports):
                return None
        others = (each for each in self._by_service.values() if each.service != asking.service)
        return next((each for each in others if asking.why_not_with(each) is not None), None)

    def put(self, sharer: Sharer) -> None:
        """One more, or the new terms of one."""
        self.drop(sharer.service)
        if self._agreed and self.conflict(sharer) is not None:
            self._agreed = False
        self._by_service[sharer.service] = sharer
        if self._agreed:
            self._users.update(dict.fromkeys(sharer.ports, sharer.service))

    def drop(self, service: str) -> bool:
        """Whether it was one of them."""
        left = self._by_service.pop(service, None)
        if left is None:
            return False
        if self._agreed:
            for port in left.ports:
                del self._users[port]
        else:
            rest, self._by_service, self._users, self._agreed = self.all, {}, {}, True
            for sharer in rest:  # they may agree with each other
                self.put(sharer)
        return True


@lru_cache(maxsize=1024)
def _ports_in_use(ports: tuple[Port, ...]) -> frozenset[Port]:
    """One set for all who use the same ports: most use 80 and 443."""
    return frozenset(ports)


def read_sharer(service: Service) -> Sharer:
    """On which terms the Service shares its addresses."""
    key = sys.intern(annotation(service, ALLOW_SHARED_IP))
    if not key:
        return Sharer(service.key)
    spec = service.spec
    local = spec.external_traffic_policy == "Local" and bool(spec.selector)
    backends = ",".join(f"{name}={value}" for name, value in sorted((spec.selector or {}).items())) if local else ""
    return Sharer(service.key, key, backends, ports_of(service))


def read_node_sharer(service: Service) -> Sharer:
    """On which terms the Service shares addresses of nodes."""
    return Sharer(service.key, *ON_A_NODE, ports_of(service))


def ports_of(service: Service) -> tuple[Port, ...]:
    """The ports by which the Service is told from others on one address, sorted."""
    return _same(tuple(sorted({(port.protocol, port.port) for port in service.spec.ports})))


@lru_cache(maxsize=1024)
def _same(ports: tuple[Port, ...]) -> tuple[Port, ...]:
    """The same tuple for all who use the same ports: most use 80 and 443."""
    return ports
