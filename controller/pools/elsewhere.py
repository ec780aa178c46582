"""Pools and advertisements in other namespaces: they do not count, and their authors are told. Pure.

Only the controller's own namespace counts. The API accepts an object elsewhere, and it does nothing, which looks like a
fault.

1. Such an object is named in the log and in an Event of its own, ``PATIENCE_S`` after it was seen first, and the Event
   again every ``AGAIN_S``.
2. Services that look for a pool of that name, or for any pool, are told of it in their condition.
3. Another installation, of BerthLB or MetalLB, may read that very namespace. It soon writes a status; so nothing is
   said about a namespace in which any of these objects has one.

Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cluster.node_pools import NodeIPPool
from cluster.objects import IPAddressPool, L2Advertisement, PoolName
from cluster.resources import IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, NODE_IP_POOLS, Resource
from controller.changes import EventNote, Tell
from controller.pools.reported import Configured

PATIENCE_S = 10.0
"""For which another installation has time to write a status."""
AGAIN_S = 3300.0
"""After which an Event is recorded anew: the API server forgets it after an hour."""
MOST = 100
"""Objects that are told at a time. Where so many are in the wrong place, a few tell it."""

_RESOURCES: dict[type[Configured], Resource[Any]] = {
    IPAddressPool: IP_ADDRESS_POOLS,
    NodeIPPool: NODE_IP_POOLS,
    L2Advertisement: L2_ADVERTISEMENTS,
}


@dataclass(slots=True)
class _Stray:
    view: Configured
    tell_at: float
    told: bool = False


class Elsewhere:
    """See the module's docstring. One thread only."""

    def __init__(self, namespace: str) -> None:
        """``namespace`` is the one that counts."""
        self.pools: Mapping[PoolName, str] = MappingProxyType({})
        """Pools that nobody reads, with a namespace that they are in; another mapping whenever it differs."""
        self._namespace = namespace
        self._strays: dict[tuple[type[Configured], str], _Stray] = {}
        self._changed = False
        self._due_at: float | None = None
        """When the first of them is to be told."""

    def observe(self, view: Configured, now: float) -> None:
        key = (type(view), view.key)
        before = self._strays.get(key)
        if before is not None and before.view.metadata.uid == view.metadata.uid:
            before.view = view
        else:
            self._strays[key] = _Stray(view, now + PATIENCE_S)
        self._changed = True

    def vanished(self, view: Configured) -> None:
        self._strays.pop((type(view), view.key), None)
        self._changed = True

    def take_due(self, now: float) -> list[Tell]:
        """The Events to record now, about the objects themselves."""
        if not self._changed and (self._due_at is None or now < self._due_at):
            return []
        due = [each for each in self._strays.values() if each.tell_at <= now]
        self._changed = False
        read = {each.view.metadata.namespace for each in self._strays.values() if _has_status(each.view)}
        telling = [each for each in due if each.view.metadata.namespace not in read]
        for each in due:
            each.tell_at, each.told = now + AGAIN_S, True
        self._due_at = min((each.tell_at for each in self._strays.values()), default=None)
        named = {
            PoolName(each.view.metadata.name): each.view.metadata.namespace
            for each in self._strays.values()
            if each.told and not isinstance(each.view, L2Advertisement) and each.view.metadata.namespace not in read
        }
        if named != self.pools:
            self.pools = MappingProxyType(dict(sorted(named.items())))
        return [self._word(each.view) for each in telling[:MOST]]

    def _word(self, view: Configured) -> Tell:
        message = f'it does not count: the controller reads the namespace "{self._namespace}" only; make it there'
        return Tell((EventNote("Warning", "WrongNamespace", message),), view.metadata, _RESOURCES[type(view)])

    def next_deadline(self) -> float | None:
        """When ``take_due`` wants to be called next though nothing was observed."""
        return self._due_at


def _has_status(view: Configured) -> bool:
    """Whether some controller has written a status."""
    if not isinstance(view, IPAddressPool):
        return bool(view.status.conditions)
    status = view.status
    counts = (status.assigned_ipv4, status.assigned_ipv6, status.available_ipv4, status.available_ipv6)
    return bool(status.conditions) or any(counts)
