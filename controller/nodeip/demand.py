"""What the controller's Services want of the nodes, all together: ports, and where each is served."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

from cluster.addresses import AddressError, parse_address
from cluster.annotations import ALLOCATED_FROM_POOL, annotation
from cluster.objects import PoolName, Service
from cluster.record import addresses_in_status
from cluster.sharing import ports_of
from controller.nodeip.guards import PortKey

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What of a Service matters to the nodes."""

    ports: frozenset[PortKey]
    local: bool
    shown: tuple[str, ...]
    pool: PoolName


class Demand:
    """See the module's docstring. One thread only."""

    def __init__(self) -> None:
        self.local: set[str] = set()
        """Services with ``externalTrafficPolicy: Local``, by ``namespace/name``."""
        self._services: dict[str, _Facts] = {}
        self._ports: Counter[PortKey] = Counter()
        """How many Services have each port."""
        self._assigned: Counter[PoolName] = Counter()

    def set_service(self, key: str, view: Service | None) -> None:
        """A Service by ``namespace/name``; None: it is none of the controller's any more."""
        before = self._services.pop(key, None)
        facts = None if view is None else _facts(view)
        if facts is not None:
            self._services[key] = facts
        for each, by in ((before, -1), (facts, 1)) if facts != before else ():
            if each is not None:
                for port in each.ports:
                    _add(self._ports, port, by)
                if each.shown:
                    _add(self._assigned, each.pool, by)
        if facts is not None and facts.local:
            self.local.add(key)
        else:
            self.local.discard(key)

    def has_any(self, ports: frozenset[PortKey]) -> bool:
        """Whether some Service has one of these ports."""
        return any(port in self._ports for port in ports)

    def served_from(self, pool: PoolName) -> int:
        """How many Services show addresses from the pool."""
        return self._assigned[pool]

    def shown(self) -> frozenset[str]:
        """All addresses that Services show, in canonical form."""
        return frozenset(text for each in self._services.values() for text in each.shown)


def canonical(text: str) -> str | None:
    """None: it is no address."""
    try:
        return parse_address(text).text
    except AddressError:
        return None


def _facts(view: Service) -> _Facts:
    return _Facts(
        ports=frozenset(PortKey(*each) for each in ports_of(view)),
        local=view.spec.external_traffic_policy == "Local",
        shown=tuple(each.text for each in addresses_in_status(view)),
        pool=PoolName(annotation(view, ALLOCATED_FROM_POOL)),
    )


def _add(counter: Counter[K], key: K, by: int) -> None:
    counter[key] += by
    if not counter[key]:
        del counter[key]
