"""Pools and advertisements that were deleted a moment ago, and may be made again at once.

``kubectl replace --force`` deletes an object and makes it anew, and so do Helm and Argo CD with one that is a hook, at
each upgrade. Taken at its word this takes addresses out of the Plan for some milliseconds or seconds, and nobody
answers for them. So what was in force when it was deleted stays so for ``GRACE_S``, as it was; meanwhile the controller
leaves the Services their addresses (``controller.allocation.departed``). What is made again under the same name counts
at once.

A watcher that starts in between does not know what was there, and leaves it out. Sans-IO. Times are monotonic seconds.
"""

from __future__ import annotations

from cluster.config import GRACE_S, Config, as_if_there

Name = tuple[str, str]
"""Kind and name."""


class Departed:
    """See the module's docstring."""

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
