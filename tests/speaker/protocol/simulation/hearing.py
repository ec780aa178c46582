"""Which speaker hears which on one network at a moment, as only the simulation knows: what the promises are about.

A speaker hears another if the other's datagrams arrive: both speak a family, frames pass, no firewall drops them, the
one's kernel takes them and the other's has room for them. That the network does not forward what is said to the group
makes no difference to two who know each other, once it can have been noticed, since they go on by unicast; who lose
each other meanwhile, or have never met, have no way to meet. And of two machines that have one name nobody hears either
while they do not hear each other, nor the one until the other's end has been noticed: which of them is meant, nobody
can tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cluster.addresses import Family
from cluster.objects import AddressText
from tests.speaker.protocol.simulation.machines import SimulatedInterface
from tests.speaker.protocol.simulation.network import SimulatedNetwork
from tests.speaker.protocol.simulation.world import World

UNNOTICED_S = 2.6  # for which an idle speaker may not be heard before anybody notices
MET_S = 0.5  # of a new session, until it has met everybody: three heartbeats on the way to and fro
NOTICED_S = 4.0  # after the end of an idle speaker: two and a half of its intervals, and D


BUSY_HOLDERS = 50  # among more, speakers speak less often


def pace_of(world: World) -> float:
    """By how much intervals and D are longer than usual at most: in proportion to those that hold something, beyond
    fifty."""
    if len(world.nodes) <= BUSY_HOLDERS:
        return 1.0
    planned = {address for _, bundles in world.plans[-2:] for bundle in bundles for address in bundle.addresses}
    return max(1.0, min(len(world.nodes), len(planned)) / BUSY_HOLDERS)


def family_of(address: AddressText) -> Family:
    """As the judge sees it, who uses nothing of the speakers'."""
    return Family.IPV6 if ":" in address else Family.IPV4


@dataclass
class WhoHearsWhom:
    network: SimulatedNetwork
    there: dict[str, SimulatedInterface]
    """Whose speakers work, with a link there that is up."""
    hears: dict[str, frozenset[str]] = field(default_factory=dict)
    strayed: dict[str, frozenset[str]] = field(default_factory=dict)
    """Who may be heard, or not: their datagrams arrive if they are sent, or some of them do."""
    unnoticed: set[tuple[str, str]] = field(default_factory=set)
    """(one, other): what the one says to the group does not arrive at the other, which may not have been noticed."""
    noticed_at: float = float("-inf")
    """When it is, by all."""
    machines: dict[str, SimulatedInterface] = field(default_factory=dict)
    """All of them, where ``there`` are those alone who speak a family."""

    def mutual(self, one: str, other: str) -> bool:
        return other in self.hears.get(one, ()) and one in self.hears.get(other, ())

    def knows(self, one: str, other: str) -> bool:
        """Whether the one hears all that the other says."""
        return self.mutual(one, other) and (other, one) not in self.unnoticed

    def asks(self, one: str, other: str) -> bool:
        """Whether ARP or Neighbour Discovery passes between two machines."""
        there = self.machines or self.there
        if one not in there or other not in there or not self.network.mutual(one, other):
            return False
        return bool(there[one].families & there[other].families)

    def of(self, family: Family) -> WhoHearsWhom:
        """Among those alone who speak a family."""
        there = {name: each for name, each in self.there.items() if family in each.families}
        if len(there) == len(self.there):
            return self
        hears = {name: heard & there.keys() for name, heard in self.hears.items() if name in there}
        strayed = {name: heard & there.keys() for name, heard in self.strayed.items() if name in there}
        return replace(self, there=there, hears=hears, strayed=strayed, machines=self.there)

    def sides(self) -> list[frozenset[str]] | None:
        """Groups that hear each other, if everybody hears either all of a group or nothing of it."""
        if all(len(heard) == len(self.there) - 1 for heard in self.hears.values()):
            return [frozenset(self.hears)] if self.hears else []
        sides = {
            name: frozenset(other for other in heard if name in self.hears[other]) | {name}
            for name, heard in self.hears.items()
        }
        if any(sides[other] != side for side in set(sides.values()) for other in side):
            return None
        return sorted(set(sides.values()), key=sorted)


class Hearing:
    def __init__(self, world: World) -> None:
        self._world = world
        self._strayed: dict[str, set[tuple[str, str]]] = {}
        """By network: pairs that lost each other while nothing that is said to the group passes between them."""
        self._blocked: dict[tuple[str, ...], float] = {}
        """(network, one, other) -> since when what the one says to the group does not arrive at the other."""
        self._lives: dict[str, dict[str, tuple[int, int, float]]] = {}
        """By network: the session of each node there, how often its interface has appeared, and since when both."""
        self.twins: set[str] = set()
        """Machines that share their name with another."""
        self.unsettled = False
        """Some of them do not hear each other."""
        self.unsettled_at = float("-inf")
        """The last time that this was so."""

    def views(self) -> list[WhoHearsWhom]:
        views = [self._view(network) for network in self._world.networks]
        twins = self._twins()
        self.twins = {name for pair in twins for name in pair}
        self.unsettled = False
        for one, other in twins:
            if not any(view.mutual(one, other) for view in views):
                self.unsettled, self.unsettled_at = True, self._world.now
                for view in views:
                    view.hears = {
                        name: frozenset() if name in {one, other} else heard - {one, other}
                        for name, heard in view.hears.items()
                    }
        return views

    def _twins(self) -> list[tuple[str, str]]:
        """Machines that have one name, and whose speakers are not known to be dead: to somebody who was cut off when
        the one ended they are so only some time after that is over."""
        world = self._world
        recently = world.now - NOTICED_S * pace_of(world)
        healing = world.last_fault > recently
        machines = [
            node
            for node in world.nodes.values()
            if node.running or node.ended_at > recently or (healing and node.sessions)
        ]
        if len(machines) == len({node.known_as for node in machines}):
            return []
        return [(a.name, b.name) for a in machines for b in machines if a.name < b.name and a.known_as == b.known_as]

    def _view(self, network: SimulatedNetwork) -> WhoHearsWhom:
        there = {
            node.name: interface
            for node in self._world.nodes.values()
            if node.works and node.name not in network.unplugged
            for interface in node.on(network)
        }
        everybody = frozenset(there)
        view = WhoHearsWhom(network, there)
        now = self._world.now
        whole = not (network.cuts or network.firewalled or network.multicast_blocked)
        for name, interface in there.items():
            if now < interface.loses_until:
                view.hears[name] = frozenset()
            elif whole:
                view.hears[name] = everybody - {name}
            else:
                view.hears[name] = frozenset(
                    other
                    for other in there
                    if other != name and network.reaches(other, name) and network.passes(other, name)
                )
        if len({interface.families for interface in there.values()}) > 1:
            view.hears = {
                name: frozenset(other for other in heard if there[other].families & there[name].families)
                for name, heard in view.hears.items()
            }
        mute = {name for name, interface in there.items() if interface.refuses}
        if mute:
            view.hears = {name: heard - mute for name, heard in view.hears.items()}
        self._part_strayed(view)
        for name, interface in there.items():
            if now < interface.loses_until:
                view.strayed[name] = everybody - {name}
        return view

    def _part_strayed(self, view: WhoHearsWhom) -> None:
        network, now, pace = view.network, self._world.now, pace_of(self._world)
        strayed = self._strayed.setdefault(network.name, set())
        since = {pair: self._blocked.get((network.name, *pair), now) for pair in network.multicast_blocked}
        self._blocked = {key: at for key, at in self._blocked.items() if key[0] != network.name}
        self._blocked.update({(network.name, *pair): at for pair, at in since.items()})
        known, lives = self._lives.get(network.name, {}), {}
        for name, each in view.there.items():
            life = (self._world.nodes[name].sessions, each.life)
            lives[name] = known[name] if name in known and known[name][:2] == life else (*life, now)
        self._lives[network.name] = lives
        new = {name for name, (_, _, since) in lives.items() if now < since + MET_S * pace}
        strayed.intersection_update(since)
        for one, other in since:
            if (other, one) in since and (one in new or other in new or not view.mutual(one, other)):
                strayed.add((one, other))
        view.strayed = {name: frozenset(one for one, other in strayed if other == name) for name in view.hears}
        view.hears = {name: heard - view.strayed[name] for name, heard in view.hears.items()}
        view.unnoticed = {pair for pair, at in since.items() if now < at + UNNOTICED_S * pace}
        view.noticed_at = max(since.values(), default=float("-inf")) + UNNOTICED_S * pace
