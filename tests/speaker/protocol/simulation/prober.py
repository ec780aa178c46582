"""A client on the LAN that asks for one address again and again, and counts who answers each time."""

from __future__ import annotations

from cluster.objects import AddressText
from tests.speaker.protocol.simulation.world import World


class Prober:
    def __init__(self, world: World, address: AddressText, every_s: float = 0.01) -> None:
        self._world = world
        self._address = address
        self._every_s = every_s
        self.answers: list[set[str]] = []
        """Of each question: who answered."""
        self._ask()

    def _ask(self) -> None:
        answered: set[str] = set()
        self.answers.append(answered)
        self._world.wire.ask_from(self._world.strangers["client"], self._address, answered.add)
        self._world.clock.after(self._every_s, self._ask)

    @property
    def doubled(self) -> int:
        """Questions that two have answered."""
        return sum(len(answered) > 1 for answered in self.answers)
