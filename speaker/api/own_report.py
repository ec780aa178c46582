"""What this speaker reports of the nodes in its Lease, for node-IP mode (``cluster.node_report``).

``OwnReport`` puts the report together, and says when another one is to be written.

1. Nothing is reported, looked at or said more often while there is no NodeIPPool, for then nobody reads it.
2. A node that becomes unheard is reported at once. One that is heard again is reported for ``HOLD_S`` more, so that one
   which comes and goes costs two writes in that time.
3. Only nodes that exist are reported.
4. What its own node listens on, and what kube-proxy there says, is reported as ``node_look`` found it last.
5. A speaker that begins leaves the report of the one before it as it is, until it has found out all of its own.

Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.node_report import NodeReport, write_report
from cluster.objects import NodeName
from cluster.sharing import Port
from cluster.times import NEVER

HOLD_S = 5.0
"""For which a node that was unheard has to be heard."""


class OwnReport:
    """See the module's docstring. The watcher's loop calls it."""

    def __init__(self, node: NodeName, *, always: bool = False) -> None:
        """``always``: it is wanted whether or not there is a NodeIPPool."""
        self._node = node
        self._pools: set[str] | None = set() if always else None
        self._always = always
        self._nodes: set[NodeName] = set()
        self._unheard: dict[NodeName, float] = {}
        """Until when each is reported."""
        self._to_find_out = {"unheard", "own node"}
        self._listening: frozenset[Port] = frozenset()
        self._proxy_mode: str | None = None
        self._proxy_healthy: bool | None = None
        self._told: bool | None = None
        self._text: str | None = None
        """As it was last; None: it may be another one now."""

    # -------------------------------------------------------------------- what is so

    def pools_known(self) -> None:
        """All NodeIPPools that there are have been told."""
        if self._pools is None:
            self._pools = set()

    def set_pool(self, key: str, *, exists: bool) -> None:
        """Whether there is a NodeIPPool, by ``namespace/name``."""
        pools = self._pools = self._pools or set()
        (pools.add if exists else pools.discard)(key)
        self._text = None

    def set_node(self, node: NodeName, *, exists: bool) -> None:
        """Whether there is a Node."""
        (self._nodes.add if exists else self._nodes.discard)(node)
        self._text = None

    def set_unheard(self, nodes: Iterable[NodeName], now: float) -> None:
        """All nodes whose silence is proved now."""
        self._to_find_out.discard("unheard")
        silent = set(nodes) - {self._node}
        for node, until in self._unheard.items():
            if until == NEVER and node not in silent:
                self._unheard[node] = now + HOLD_S
        self._unheard.update(dict.fromkeys(silent, NEVER))
        self._text = None

    def set_own_node(
        self, listening: frozenset[Port], proxy_mode: str | None = None, proxy_healthy: bool | None = None
    ) -> None:
        """What this node listens on, and what its kube-proxy says of itself, as far as it is known."""
        self._to_find_out.discard("own node")
        self._listening, self._proxy_mode, self._proxy_healthy = listening, proxy_mode, proxy_healthy
        self._text = None

    # -------------------------------------------------------------------- what follows

    @property
    def wanted(self) -> bool:
        """Whether somebody reads it."""
        return self._always or bool(self._pools)

    def take_wanted(self) -> bool | None:
        """Whether it is wanted, once that is known and whenever it changes."""
        if self._pools is None or self.wanted is self._told:
            return None
        self._told = self.wanted
        return self.wanted

    def next_deadline(self) -> float | None:
        """When a node is reported no more; None: not before something happens."""
        soonest = min(self._unheard.values(), default=NEVER)
        return soonest if self.wanted and soonest < NEVER else None

    def text(self, now: float) -> str | None:
        """The annotation as it should be now; None: as it is, since too little is known yet."""
        if self._pools is None or (self.wanted and self._to_find_out):
            return None
        for node in [node for node, until in self._unheard.items() if until <= now]:
            del self._unheard[node]
            self._text = None
        if self._text is None:
            self._text = write_report(self._report() if self.wanted else NodeReport())
        return self._text

    def _report(self) -> NodeReport:
        return NodeReport(
            unheard=frozenset(self._unheard.keys() & self._nodes),
            listening=self._listening,
            proxy_mode=self._proxy_mode,
            proxy_healthy=self._proxy_healthy,
        )
