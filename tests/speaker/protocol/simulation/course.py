"""What all promises of a world are measured by: how fast it is, when something was broken last, and D."""

from __future__ import annotations

from collections.abc import Iterator, Set

from speaker.protocol.effects import Decision
from tests.speaker.protocol.simulation.hearing import Hearing, pace_of
from tests.speaker.protocol.simulation.network import Weather
from tests.speaker.protocol.simulation.world import World

DETECTION_S = 0.35  # D, where nothing is late


class Course:
    """To be told to ``look`` at each check, before anything is judged."""

    def __init__(self, world: World, hearing: Hearing) -> None:
        self._world = world
        self._hearing = hearing
        self.pace = 1.0
        """By how much everything takes longer than usual."""
        self._punctual = True
        """Whether nothing has been late so far, and no death a false alarm: then D is known without asking anybody."""
        self._buried: dict[tuple[str, object], float] = {}
        """(node, peer) -> when the one took the other for dead."""

    def look(self) -> None:
        self.pace = pace_of(self._world)
        self._punctual = self._punctual and self._nothing_is_late()

    def last_fault(self) -> float:
        losses = (network.last_loss_fault for network in self._world.networks)
        return max(self._world.last_fault, self._hearing.unsettled_at, *losses)

    def _nothing_is_late(self) -> bool:
        """Neither frames nor speakers: no loss, no lag, nobody who stands still, and no work that takes time."""
        calm, world = Weather(), self._world
        weathers = [network.weather for network in world.networks]
        frames = all((each.loss, each.straggling, each.delay_s) == (0.0, 0.0, calm.delay_s) for each in weathers)
        return frames and world.work is None and all(node.paused_until is None for node in world.nodes.values())

    def detection(self, side: Set[str]) -> float:
        """D on this side, of the peers that hold or held something."""
        if self._punctual:
            return DETECTION_S * self.pace
        floor = DETECTION_S * self.pace
        for name in side:
            protocol = self._world.nodes[name].protocol
            if protocol is not None:
                floor = max([floor, *(peer.detection_s for peer in protocol.peers() if peer.claims)])
        return floor

    def latest(self, since: float) -> Iterator[tuple[float, Decision]]:
        for at, _, decision in reversed(self._world.decisions):
            if at < since:
                return
            yield at, decision

    def note_false_alarm(self, at: float, name: str, decision: Decision) -> None:
        """A speaker doubles D of a peer that was heard again at once, if the peer says that it never lost this one."""
        if decision.reason == "PeerDead":
            self._buried[name, decision.fields["node"]] = at
        elif decision.reason == "PeerAlive":
            buried_at = self._buried.pop((name, decision.fields["node"]), float("-inf"))
            self._punctual = self._punctual and at > buried_at + DETECTION_S * self.pace
