"""ServiceL2Status objects that no speaker will delete any more: when to look for them, and which they are. Pure.

A speaker keeps such an object about each Service that it announces, and deletes it when it ceases. The next one to
announce the Service takes the object over. A node that dies leaves its objects behind; where no other speaker takes
over they name a node that announces nothing, and they outlive even the Service. The controller deletes an object if

1. its Service has been gone, or has shown no address, for ``GRACE_S``. A live speaker deletes it sooner;
2. its node is gone, or has not been Ready for ``ABSENT_S`` while other nodes were. Where no node is Ready it is the API
   that was away, and nothing is concluded from it.

No copy of these objects is kept: there may be ten thousand. They are looked at when one of these things happens, and
all of them once after the beginning of a term, for what happened while no controller led.

Not promised: that the speaker is dead. A live one makes its object anew, and it stays: a node is cleared once each time
that it goes.

Example: node-3 loses power. 40 s later Kubernetes says that it is not Ready, and 30 s after that the objects with its
label are listed, and deleted where no other speaker has taken them over.

Times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.l2status import announced_service, announcing_node, status_name
from cluster.nodes import is_ready
from cluster.objects import Node, Service, ServiceL2Status

GRACE_S = 10.0
"""For the speaker to delete its object itself, from when its Service went."""
ABSENT_S = 30.0
"""From when a node is said to be not Ready, which comes 40 s after its last sign of life."""
FIRST_LOOK_S = 5.0
"""After the beginning of a term: addresses come first."""
MANY = 50
"""From so many Services that go together on all objects are looked at instead of each one's."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Delete the object of this name, if there is one."""

    name: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """Look at all objects, or at those that name a node, and delete those that belong to nobody."""

    node: str | None = None


Task = Clear | Sweep


@dataclass(frozen=True, slots=True)
class Census:
    """Who is there, at one moment."""

    services: Mapping[str, Service]
    """By ``namespace/name``."""
    nodes: frozenset[str]
    """Those whose speaker may be there."""

    def belongs_to_nobody(self, status: ServiceL2Status) -> bool:
        service = self.services.get(announced_service(status))
        if service is None or not _announced(service) or status_name(service.metadata.uid) != status.metadata.name:
            return True
        node = announcing_node(status)
        return bool(node) and node not in self.nodes


class Orphans:
    """See the module's docstring. One for each term, which begins at ``now``. One thread only."""

    def __init__(self, now: float) -> None:
        self._gone: deque[tuple[float, str, str]] = deque()
        """When to look, the Service and its uid; in order of time, since all wait equally long."""
        self._silent: dict[str, float] = {}
        """Since when nodes that exist are not Ready."""
        self._ready: set[str] = set()
        self._some_ready_since: float | None = None
        self._to_sweep: dict[str, float] = {}
        """Nodes that went, and when to look."""
        self._all_at: float | None = now + FIRST_LOOK_S

    def service_changed(self, before: Service | None, after: Service | None, now: float) -> None:
        """A Service as it was and as it is; None: it did not exist, or does no more."""
        if before is None or not _announced(before):
            return
        uid = before.metadata.uid
        if after is None or after.metadata.uid != uid or not _announced(after):
            self._gone.append((now + GRACE_S, before.key, uid))

    def set_node(self, name: str, node: Node | None, now: float) -> None:
        """A node as the API shows it; None: it is gone."""
        ready = node is not None and is_ready(node)
        known = name in self._ready or name in self._silent
        self._ready.discard(name)
        if ready:
            self._ready.add(name)
            self._silent.pop(name, None)
            self._to_sweep.pop(name, None)
        elif node is None:
            self._silent.pop(name, None)
            if known:
                self._to_sweep[name] = now + GRACE_S
        elif name not in self._silent:
            self._silent[name] = now
            self._to_sweep[name] = now + ABSENT_S
        if not self._ready:
            self._some_ready_since = None
        elif self._some_ready_since is None:
            self._some_ready_since = now

    def _absent(self, name: str, now: float) -> bool:
        """Whether a node that exists has been silent for so long, and not together with all the others."""
        since = self._silent.get(name)
        if since is None or self._some_ready_since is None:
            return False
        return now - max(since, self._some_ready_since) >= ABSENT_S

    def next_deadline(self) -> float | None:
        """When ``due`` has something to do, though nothing be observed."""
        moments = [at for name in self._to_sweep if (at := self._sweep_at(name)) is not None]
        moments += [self._gone[0][0]] if self._gone else []
        moments += [self._all_at] if self._all_at is not None else []
        return min(moments, default=None)

    def _sweep_at(self, name: str) -> float | None:
        at = self._to_sweep[name]
        if name not in self._silent:  # it does not exist any more
            return at
        return None if self._some_ready_since is None else max(at, self._some_ready_since + ABSENT_S)

    def due(self, services: Mapping[str, Service], now: float) -> list[Task]:
        """What is to be looked at now. ``services`` as for ``Census``."""
        tasks: list[Task] = []
        for name in [each for each in self._to_sweep if (at := self._sweep_at(each)) is not None and at <= now]:
            del self._to_sweep[name]
            tasks.append(Sweep(name))
        names = []
        while self._gone and self._gone[0][0] <= now:
            _, key, uid = self._gone.popleft()
            present = services.get(key)
            if present is None or present.metadata.uid != uid or not _announced(present):
                names.append(status_name(uid))
        if len(names) >= MANY or (self._all_at is not None and self._all_at <= now):
            self._all_at = None
            return [Sweep()]
        return tasks + [Clear(name) for name in dict.fromkeys(names)]

    def census(self, services: Mapping[str, Service], now: float) -> Census:
        return Census(services, frozenset(self._ready | {each for each in self._silent if not self._absent(each, now)}))


def _announced(service: Service) -> bool:
    """Whether there is anything of it to announce."""
    return service.spec.type == "LoadBalancer" and bool(service.status.load_balancer.ingress)
