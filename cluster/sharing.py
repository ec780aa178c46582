"""Which Services may have an address together: the rule of MetalLB, for controller and speaker alike.

Services share an address if all of them have the annotation ``metallb.io/allow-shared-ip`` with the same value, use
different ports, and want the same of the network: either all have the traffic policy ``Cluster`` (or ``Local`` without
a selector), or all have ``Local`` and the same selector, since then every node with an endpoint of one has one of each.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache

from cluster.annotations import ALLOW_SHARED_IP, annotation
from cluster.objects import Service

Port = tuple[str, int]
"""(protocol, port)"""
Terms = tuple[str, str, frozenset[Port]]
"""On which an address is shared: key, backends, and the ports that are not free any more."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A Service in its role as holder of an address."""

    service: str
    """``namespace/name``."""
    sharing_key: str = ""
    """Annotation ``metallb.io/allow-shared-ip``; empty: shares with nobody, and the rest is left empty too."""
    backends: str = ""
    """What the traffic policy demands of those who share: with Local the selector, with Cluster nothing."""
    ports: tuple[Port, ...] = ()
    """Sorted."""

    def why_not_with(self, other: Holder) -> str | None:
        """Why the two cannot share an address; None: they can."""
        if not other.sharing_key:
            return f"{other.service} holds it and shares it with nobody"
        if not self.sharing_key:
            return f"{other.service} holds it, and sharing needs the annotation metallb.io/allow-shared-ip"
        if self.sharing_key != other.sharing_key:
            return f'{other.service} holds it with the sharing key "{other.sharing_key}"'
        if self.backends != other.backends:
            return f"{other.service} holds it with another externalTrafficPolicy or, being Local, another selector"
        clash = next((port for port in self.ports if port in other.ports), None)
        if clash is not None:
            return f"{other.service} holds it and uses port {clash[1]}/{clash[0]} too"
        return None

    @property
    def terms(self) -> Terms | None:
        """None: it shares with nobody."""
        return (self.sharing_key, self.backends, _ports_in_use(self.ports)) if self.sharing_key else None


@lru_cache(maxsize=1024)
def _ports_in_use(ports: tuple[Port, ...]) -> frozenset[Port]:
    """One set for all who use the same ports: most use 80 and 443."""
    return frozenset(ports)


def read_holder(service: Service) -> Holder:
    """The Service as a holder of addresses: on which terms it shares them."""
    key = sys.intern(annotation(service, ALLOW_SHARED_IP))
    if not key:
        return Holder(service.key)
    spec = service.spec
    local = spec.external_traffic_policy == "Local" and bool(spec.selector)
    backends = ",".join(f"{name}={value}" for name, value in sorted((spec.selector or {}).items())) if local else ""
    return Holder(service.key, key, backends, _same(tuple(sorted({(port.protocol, port.port) for port in spec.ports}))))


@lru_cache(maxsize=1024)
def _same(ports: tuple[Port, ...]) -> tuple[Port, ...]:
    """The same tuple for all who use the same ports: most use 80 and 443."""
    return ports
