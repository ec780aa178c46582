"""The configuration in force, made anew when the objects that it is made of have changed. Pure.

1. ``changed`` says that it is to be made anew; so do ``set_elsewhere`` and ``set_obstacle``.
2. ``load`` makes it, and says whether it is another one now. What cannot be honoured stays as it was last
   (``cluster.config``).
3. ``take_new_problems`` gives each problem once, for the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cluster import config as configuration
from cluster.config import Config, Problem
from cluster.node_pools import NodeIPPool
from cluster.objects import IPAddressPool, L2Advertisement, PoolName


class InForce:
    """See the module's docstring. One thread only."""

    def __init__(self, previous: Config | None) -> None:
        """``previous`` is the configuration whose objects stay in force where they cannot be honoured any more."""
        self.config = Config()
        """As of the last ``load``."""
        self.problems: tuple[Problem, ...] = ()
        """Why objects are not in force as they stand."""
        self.obstacle: Problem | None = None
        """What keeps pools from being applied at all."""
        self._previous = previous
        self._elsewhere: Mapping[PoolName, str] = {}
        self._new_problems: list[Problem] = []
        self._stale = True

    def changed(self) -> None:
        """An object has changed."""
        self._stale = True

    def set_elsewhere(self, pools: Mapping[PoolName, str]) -> None:
        """Pools in other namespaces that nobody reads."""
        if pools is not self._elsewhere:
            self._elsewhere, self._stale = pools, True

    def set_obstacle(self, problem: Problem | None) -> None:
        """What keeps pools from being applied; None: nothing."""
        if problem != self.obstacle:
            self.obstacle, self._stale = problem, True
            self._new_problems += [problem] if problem is not None else []

    @property
    def stale(self) -> bool:
        """Whether ``load`` has anything to do."""
        return self._stale

    def load(
        self,
        pools: Iterable[IPAddressPool],
        advertisements: Iterable[L2Advertisement],
        node_pools: Iterable[NodeIPPool] = (),
    ) -> bool:
        """Make these into ``config``; says whether it is another one now."""
        self._stale = False
        loaded = configuration.load(pools, advertisements, self._previous, node_pools)
        obstacle = self.obstacle.text if self.obstacle is not None else ""
        config = replace(loaded.config, elsewhere=self._elsewhere, obstacle=obstacle)
        differs = config != self.config
        self.config = self._previous = config
        self._new_problems += [problem for problem in loaded.problems if problem not in self.problems]
        self.problems = loaded.problems
        return differs

    def take_new_problems(self) -> list[Problem]:
        """Problems that came up since the last call."""
        taken, self._new_problems = self._new_problems, []
        return taken
