"""The configuration in force, from the pools and advertisements that the API has.

``ConfigReader`` takes each object as it comes, and reads all of them anew when somebody needs the result:

1. A change of what the controller writes into a status is none (``says_otherwise``).
2. An object that cannot be honoured leaves its last good version in force, and is a ``Problem`` (``cluster.config``).
3. An object that was deleted stays in force for ``GRACE_S`` (``Departures``).

``kubectl replace --force`` deletes an object and makes it anew, and so do Helm and Argo CD with one that is a hook, at
each upgrade. Without the grace, addresses would leave the Plan for some seconds, and nobody would answer for them. The
controller leaves the Services their addresses for the same time (``controller.allocation.departed``). What is made
again under the same name counts at once.

A speaker that starts during the grace does not know what was there, and leaves it out. Times are monotonic seconds.
"""

from __future__ import annotations

from typing import Any

from cluster.api.listwatch import Change
from cluster.config import FAILBACK_ANNOTATION, GRACE_S, Config, Problem, as_if_there, load
from cluster.objects import IPAddressPool, L2Advertisement

Name = tuple[str, str]
"""Kind and name."""


def says_otherwise(change: Change[Any]) -> bool:
    """Whether a pool or an advertisement says something else than before. Most changes of pools are of their status."""
    old, new = change.old, change.new
    return old is None or new is None or _says(old) != _says(new)


def _says(each: Any) -> tuple[object, ...]:
    return each.spec, each.metadata.labels, each.metadata.annotations.get(FAILBACK_ANNOTATION)


class ConfigReader:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.config: Config | None = None
        """As it was read last; None: it was not yet."""
        self.problems: tuple[Problem, ...] = ()
        """Of the objects as they were read last."""
        self._pools: dict[str, IPAddressPool] = {}
        self._advertisements: dict[str, L2Advertisement] = {}
        self._departures = Departures()
        self.touched = True
        """Whether an object is another one than when all were read last."""

    def set_pool(self, key: str, pool: IPAddressPool | None) -> None:
        """A pool as it is now; None when it is gone."""
        self.touched = True
        if pool is None:
            self._pools.pop(key, None)
        else:
            self._pools[key] = pool

    def set_advertisement(self, key: str, advertisement: L2Advertisement | None) -> None:
        """An advertisement as it is now; None when it is gone."""
        self.touched = True
        if advertisement is None:
            self._advertisements.pop(key, None)
        else:
            self._advertisements[key] = advertisement

    def next_deadline(self) -> float | None:
        """When a grace is over, so that another configuration is in force though no object has changed; None: never."""
        return self._departures.next_deadline()

    def read(self, now: float) -> Config:
        """The configuration in force: read anew, if it may be another one than before."""
        over_at = self.next_deadline()
        if self.config is None or self.touched or (over_at is not None and now >= over_at):
            self.touched = False
            loaded = load(self._pools.values(), self._advertisements.values(), self.config)
            self.problems = loaded.problems
            self.config = self._departures.kept(self.config or Config(), loaded.config, now)
        return self.config


class Departures:
    """Pools and advertisements that were deleted within the last ``GRACE_S``."""

    def __init__(self) -> None:
        self._until: dict[Name, float] = {}

    def kept(self, before: Config, after: Config, now: float) -> Config:
        """``after``, and what departed in the last moments. ``before``: what this returned the last time."""
        gone: set[Name] = {("pool", name) for name in before.pools.keys() - after.pools.keys() - after.unreadable}
        gone |= {("advertisement", name) for name in before.advertisements.keys() - after.advertisements.keys()}
        until = {name: self._until.get(name, now + GRACE_S) for name in gone}
        self._until = {name: over for name, over in until.items() if over > now}
        if not self._until:
            return after
        return as_if_there(
            after,
            [pool for name, pool in before.pools.items() if ("pool", name) in self._until],
            [each for name, each in before.advertisements.items() if ("advertisement", name) in self._until],
        )

    def next_deadline(self) -> float | None:
        """When ``kept`` returns something else though nothing has changed."""
        return min(self._until.values(), default=None)
