"""When a node's addresses come into the statuses, and when they leave: at once out, after a pause in.

1. A node that may not be shown leaves at once.
2. A node joins after it was usable for ``PAUSE_S`` without a break. One that is seen for the first time, by a
   controller that begins, joins at once where it has been Ready for that long.
3. A node that leaves again within ``CALM_S`` of its joining flaps: its next pause is twice the last one, and at most
   ``LONGEST_PAUSE_S``. After ``CALM_S`` in the statuses its next pause is ``PAUSE_S`` again.
4. A break of a pause begins the pause anew, and does not make it longer: who is not shown disturbs nobody.
5. A node whose kube-proxy does not serve yet joins when it does, and after its pause. Of one that has joined that is
   not asked any more: kube-proxy may be restarted.
6. A Node that is deleted is remembered for ``CALM_S``, so that deleting and making it again is damped as well.

So a node that flaps for ever changes a status at most twice in ``LONGEST_PAUSE_S``.

Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

from cluster.objects import NodeName
from cluster.times import NEVER
from controller.nodeip.reasons import LeftOut

PAUSE_S = 10.0
"""For kube-proxy to have its rules on a node that has just become Ready."""
LONGEST_PAUSE_S = 300.0
CALM_S = 600.0
"""Twice the longest pause: a node that has waited that long is not forgiven by its waiting."""


@dataclass(slots=True)
class _Presence:
    absence: LeftOut | None
    """What was observed; None: it is usable."""
    pause: float
    joins_at: float = NEVER
    """When its pause ends; NEVER: it has none, or it is over."""
    serves: bool = True
    ripe: bool = False
    """Whether its pause is over and only kube-proxy is waited for."""
    joined_at: float | None = None
    """None: it is not shown."""
    forgotten_at: float = NEVER


class Damping:
    """Which nodes may be shown, over time. One thread only."""

    def __init__(self) -> None:
        self._nodes: dict[NodeName, _Presence] = {}
        self._deadlines: list[tuple[float, NodeName]] = []
        """A heap; an entry that is not the node's own deadline any more is passed over."""

    def observe(
        self, name: NodeName, absence: LeftOut | None, now: float, ready_for: float = 0.0, *, serves: bool = True
    ) -> None:
        """A node as it is now. ``ready_for``: seconds for which it has been Ready, which count at its first sight.
        ``serves``: whether its kube-proxy does, as far as anybody says."""
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = _Presence(LeftOut.NOT_READY, PAUSE_S)
            already = max(ready_for, 0.0)
        else:
            already = 0.0
        node.forgotten_at, node.serves = NEVER, serves
        if absence is not None:
            self._leave(node, absence, now)
        elif node.ripe and serves:
            node.joined_at, node.ripe = now, False
        elif node.absence is not None:
            node.absence = None
            node.joins_at = now + node.pause - already
            self._arm(name, node.joins_at)
        self.handle_timer(now)

    def gone(self, name: NodeName, now: float) -> None:
        """Its Node object is no more."""
        node = self._nodes.get(name)
        if node is not None:
            self._leave(node, LeftOut.BEING_DELETED, now)
            node.forgotten_at = now + CALM_S
            self._arm(name, node.forgotten_at)

    def absence(self, name: NodeName) -> LeftOut | None:
        """Why the node may not be shown; None: it may."""
        node = self._nodes.get(name)
        if node is None:
            return LeftOut.NOT_READY
        if node.absence is not None or node.joined_at is not None:
            return node.absence
        return LeftOut.JOINING if node.pause == PAUSE_S else LeftOut.FLAPPING

    def next_deadline(self) -> float:
        """When ``handle_timer`` is due."""
        while self._deadlines and not self._is_due_then(*self._deadlines[0]):
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else NEVER

    def handle_timer(self, now: float) -> frozenset[NodeName]:
        """Let join who has waited; says who did."""
        joined = set()
        while self.next_deadline() <= now:
            _, name = heappop(self._deadlines)
            node = self._nodes[name]
            if node.forgotten_at <= now:
                del self._nodes[name]
                continue
            if node.serves:
                node.joined_at, node.joins_at = node.joins_at, NEVER
                joined.add(name)
            else:
                node.joins_at, node.ripe = NEVER, True
        return frozenset(joined)

    def _leave(self, node: _Presence, absence: LeftOut, now: float) -> None:
        if node.joined_at is not None:
            calm = now - node.joined_at >= CALM_S
            node.pause = PAUSE_S if calm else min(2 * node.pause, LONGEST_PAUSE_S)
        node.absence, node.joins_at, node.joined_at, node.ripe = absence, NEVER, None, False

    def _arm(self, name: NodeName, at: float) -> None:
        heappush(self._deadlines, (at, name))

    def _is_due_then(self, at: float, name: NodeName) -> bool:
        node = self._nodes.get(name)
        return node is not None and at in {node.joins_at, node.forgotten_at}
