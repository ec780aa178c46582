"""What each speaker has had time to learn, as only the simulation knows: which owners it has heard and for how long,
who answers for what and since when, and which machines ARP reaches."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.objects import AddressText
from speaker.plan import Bundle
from tests.speaker.protocol.simulation.hearing import WhoHearsWhom, family_of
from tests.speaker.protocol.simulation.world import World

KNOWN_S = 0.5  # of hearing an owner, until its claim is known for certain
TAKE_OVER_S = 50.0  # after the last endpoint: for so long a lost owner of a bundle is replaced
ASKED_S = 0.5  # of ARP that passes: some questions to a suspect and their answers


class Knowledge:
    """To be told how things are each ``look_s``."""

    def __init__(self, world: World, look_s: float) -> None:
        self._world = world
        self._look_s = look_s
        self._pace = 1.0
        self._known: dict[tuple[str, int, int, str, AddressText], float] = {}
        """(node, session, life of its interface, owner, address) -> for how long the owner was heard by it."""
        self._known_at: dict[tuple[str, int, int, str, AddressText], float] = {}
        """And when that was the last time."""
        self.lent_at: dict[tuple[str, AddressText], float] = {}
        """(network, address) -> when somebody answered for it in another's name for the last time, or nobody answered
        who did before."""
        self._holds: dict[tuple[str, AddressText, str], float] = {}
        """(network, address, who) -> since when it answers there."""
        self._asking: dict[tuple[str, ...], float] = {}
        """(network, one, other, family) -> since when ARP or Neighbour Discovery passes between them."""

    def note(self, views: list[WhoHearsWhom], pace: float) -> None:
        """For how long each session has heard an owner of each address, which node answers for what, and which ones ARP
        reaches."""
        self._pace, now = pace, self._world.now
        holds: dict[tuple[str, AddressText, str], float] = {}
        asking: dict[tuple[str, ...], float] = {}
        for view in views:
            network = view.network
            told: dict[str, list[tuple[str, int, int]]] = {}
            for address, answerers in network.answerers.items():
                named, place = network.named.get(address, {}), (network.name, address)
                lent = any(name != owner for name, owner in named.items())
                if lent or (not named and self.lent_at.get(place, float("-inf")) > now - 2 * self._look_s):
                    self.lent_at[place] = now
                for owner in answerers:
                    if named.get(owner, owner) != owner:
                        continue  # it answers in another one's name, and holds nothing by that
                    key = (network.name, address, owner)
                    holds[key] = self._holds.get(key, now)
                    if owner not in told:
                        told[owner] = list(self._told_by(view, owner))
                    for who in told[owner]:
                        known = (*who, owner, address)
                        self._known[known] = self._known.get(known, 0.0) + self._look_s
                        self._known_at[known] = now
            for name, interface in view.there.items():
                for other, theirs in view.there.items():
                    if name < other and view.asks(name, other):
                        came_up_at = max(interface.came_up_at, theirs.came_up_at)
                        for family in interface.families & theirs.families:
                            pair = (network.name, name, other, family.name)
                            asking[pair] = max(self._asking.get(pair, now), came_up_at)
        self._holds, self._asking = holds, asking

    def _told_by(self, view: WhoHearsWhom, owner: str) -> Iterator[tuple[str, int, int]]:
        """Who knows what the owner claims: names, sessions, and the lives of their interfaces."""
        nodes = self._world.nodes
        known_as = nodes[owner].known_as
        for name in view.hears:
            if name != owner and nodes[name].known_as == known_as:
                continue  # nobody is told what a machine with its own name claims
            if name == owner or view.knows(name, owner):
                yield name, nodes[name].sessions, view.there[name].life

    def has_heard(self, view: WhoHearsWhom, name: str, address: AddressText) -> bool:
        """Whether that node has heard an owner of the address for long enough to know."""
        session, life = self._world.nodes[name].sessions, view.there[name].life
        heard_s = sum(self._known.get((name, session, life, each, address), 0.0) for each in self._world.nodes)
        return heard_s > KNOWN_S * self._pace

    def may_replace(self, view: WhoHearsWhom, name: str, bundle: Bundle) -> bool:
        """Whether that node can tell that a bundle without endpoints needs an owner in the place of a lost one."""
        node = self._world.nodes[name]
        heard = any(self.has_heard(view, name, address) for address in bundle.addresses)
        return heard and self._world.now < node.stopped.get(bundle.id, float("-inf")) + TAKE_OVER_S

    def should_keep_off(
        self, view: WhoHearsWhom, claimer: str, holder: str, address: AddressText, *, at: float, detection_s: float
    ) -> bool:
        """Whether the claimer has heard the holder for long enough to know that it holds the address, and could go on
        asking it all the while."""
        held = at - self._holds.get((view.network.name, address, holder), at)
        pair = (view.network.name, *sorted((claimer, holder)), family_of(address).name)
        asking = at - self._asking.get(pair, at)
        enough = ASKED_S * self._pace + detection_s
        life = view.there[claimer].life if claimer in view.there else 0
        known = (claimer, self._world.nodes[claimer].sessions, life, holder, address)
        still = self._known_at.get(known, float("-inf")) >= at - asking
        return min(held, asking) > enough and still and self._known[known] > KNOWN_S * self._pace
