"""The promises of the speaker, asserted all the while (DESIGN, "Promised").

G1  Of two speakers that hear each other, at most one answers for an address, from D + 0.3 s after the last fault on.
G2  On each side of a partition on which it can be proved that one hears, somebody answers for every address in the
    Plan, from D + 100 ms × (better candidates that cannot + 1) + the probes after the last fault on, or after the first
    proof of a lone speaker that took itself for isolated meanwhile.
G3  At most one on each side: G1 for every pair of that side. After healing: G1.
G4  Nothing of this needs the API: schedules freeze it.
    While a speaker is starting, an address that nobody is known to have held may wait for it. One whose link has just
    come up is none that can claim, for 1.3 s.
    And an owner stays: without a fault nobody becomes or ceases to be one. That endpoints vanish and come back is none.
    A bundle without an endpoint that serves is promised no new owner, but one in the place of one that is lost, as long
    as somebody there knows by its own Plan that it served lately, and by having heard the owner that it had one.

D is the largest that any speaker on that side has for any peer that may hold something. A fault is what ``World.fault``
is told, three losses in a row between two hosts included, and a speaker becoming ready.
"""

from __future__ import annotations

from cluster.objects import AddressText
from speaker.plan import Bundle
from speaker.unserved import TAKE_OVER_S
from tests.speaker.simulation.world import World

CHECK_S = 0.05
DEAF_S = 2.6  # until a speaker that hears nobody knows that: 2.5 intervals of idle peers
PROBES_S = 0.1  # two questions, 50 ms apart
OVERLAP_S = 0.1  # of two answerers, once things are calm: the time that a claim takes to be heard
SLACK_S = 0.03  # the loops' lateness and the wire's delay, which the promises leave out
KNOWN_S = 0.5  # of hearing an owner, until its claim is known for certain
SETTLED_S = 2.5  # after it, no owner changes: a provisional claim moves a second after its better candidate is able


class BrokenPromiseError(AssertionError):
    """A promise was not kept; the message has the seed and what happened."""


class Invariants:
    def __init__(self, world: World, *, owners_stay: bool = True) -> None:
        self.world = world
        self.checks = 0
        self._owners_stay = owners_stay
        self._doubled: dict[tuple[AddressText, str, str], float] = {}
        self._missing: dict[tuple[AddressText, frozenset[str]], float] = {}
        self._ready: set[tuple[str, int]] = set()
        self._able_at: dict[str, float] = {}
        self._changes_seen = 0
        self._known: dict[tuple[str, int, AddressText], float] = {}
        world.clock.after(CHECK_S, self._check)

    def _fail(self, promise: str) -> None:
        raise BrokenPromiseError(f"{promise} at {self.world.now:.4f}\n{self.world.story()}")

    def _last_fault(self) -> float:
        return max(self.world.last_fault, self.world.network.last_loss_fault)

    def _check(self) -> None:
        self.checks += 1
        self._note_ready()
        self._note_known()
        self._check_single()
        self._check_somebody()
        self._check_stays()
        self.world.clock.after(CHECK_S, self._check)

    def _note_ready(self) -> None:
        for node in self.world.nodes.values():
            key = (node.name, node.sessions)
            if node.protocol is not None and node.protocol.ready and key not in self._ready:
                self._ready.add(key)
                self.world.fault(f"{node.name} is ready")

    def _note_known(self) -> None:
        """For how long each session has heard an owner of each address."""
        for address, answerers in self.world.answerers.items():
            for node in self.world.nodes.values():
                if node.works and any(node.name == o or self.world.network.mutual(node.name, o) for o in answerers):
                    key = (node.name, node.sessions, address)
                    self._known[key] = self._known.get(key, 0.0) + CHECK_S

    def _knows(self, name: str, bundle: Bundle) -> bool:
        """Whether that node can tell that a bundle without endpoints needs an owner in the place of a lost one."""
        node = self.world.nodes[name]
        heard = any(self._known.get((name, node.sessions, address), 0.0) > KNOWN_S for address in bundle.addresses)
        return heard and self.world.now < node.stopped.get(bundle.id, float("-inf")) + TAKE_OVER_S

    def detection(self, side: frozenset[str] | set[str]) -> float:
        """D on this side, of the peers that hold or held something."""
        floor = self.world.settings.detection_floor_s
        for name in side:
            protocol = self.world.nodes[name].protocol
            if protocol is not None:
                floor = max([floor, *(peer.detection_s for peer in protocol.peers() if peer.claims)])
        return floor

    def _sides(self) -> list[frozenset[str]] | None:
        """Groups that hear each other, if everybody hears either all of a group or nothing of it."""
        names = [node.name for node in self.world.nodes.values() if node.works and node.protocol is not None]
        plugged = [name for name in names if name not in self.world.network.unplugged]
        sides: dict[str, frozenset[str]] = {
            name: frozenset(other for other in plugged if other == name or self.world.network.mutual(name, other))
            for name in plugged
        }
        for side in sides.values():
            if any(sides[other] != side for other in side):
                return None
        return sorted(set(sides.values()), key=sorted)

    # ---------------------------------------------------------------------------------------------- G1, G3

    def _check_single(self) -> None:
        now = self.world.now
        doubled: dict[tuple[AddressText, str, str], float] = {}
        for address, answerers in self.world.answerers.items():
            if len(answerers) < 2:
                continue
            for one in answerers:
                for other in answerers:
                    if one < other and self.world.network.mutual(one, other):
                        since = self._doubled.get((address, one, other), now)
                        doubled[(address, one, other)] = since
                        grace = self.detection({one, other}) + 0.3 + SLACK_S
                        if now > self._last_fault() + grace and now - since > OVERLAP_S:
                            self._fail(f"G1: {address} is answered by {one} and {other}")
        self._doubled = doubled

    # ---------------------------------------------------------------------------------------------- G2, G3

    def _proved(self, side: frozenset[str]) -> bool:
        """Whether somebody on that side can prove to hear, whoever else is gone."""
        if len(side) > 1:
            return True
        (name,) = side
        if self.world.has_gateway and self.world.network.mutual(name, "gateway"):
            return True
        if self.world.now < self.world.nodes[name].lan.came_up_at + self.world.settings.link_silence_s + 1.0:
            return False  # a switch may still block its port
        return len(self.world.nodes) == 2 and not self.world.has_gateway and not self.world.has_client

    def _hears_beyond(self, side: frozenset[str]) -> bool:
        network = self.world.network
        return any(
            network.reaches(node.name, name)
            for node in self.world.nodes.values()
            if node.works and node.name not in side
            for name in side
        )

    def _overheard(self, side: frozenset[str]) -> bool:
        """Whether they hear someone beyond, who cannot hear them: then its claims stand, and nothing is promised. One
        who hears nobody at all does not count, where somebody else proves that it should."""
        network = self.world.network
        running = [node.name for node in self.world.nodes.values() if node.works]
        for other in running:
            if other not in side and any(network.reaches(other, name) for name in side):
                deaf = not any(network.reaches(name, other) for name in running if name != other)
                if not deaf or len(side) == 1:
                    return True
        return False

    def _check_somebody(self) -> None:
        now = self.world.now
        sides = self._sides()
        if sides is None:
            self._missing.clear()
            return
        missing: dict[tuple[AddressText, frozenset[str]], float] = {}
        for side in sides:
            ready = [n for n in side if self._able(n)]
            if not ready or not self._proved(side):
                continue
            if self._overheard(side):
                continue
            deaf = DEAF_S if self._hears_beyond(side) else 0.0
            plans = {self.world.nodes[name].plan_seen for name in side}
            if len(plans) != 1:
                continue
            for bundle in self.world.plans[plans.pop()][1]:
                names = [candidate.node for candidate in bundle.candidates]
                if not any(name in names for name in ready):
                    continue
                better = min(names.index(name) for name in names if name in ready)
                if not bundle.serving:
                    if not any(name in names and self._knows(name, bundle) for name in ready):
                        continue
                    better = len(names) - 1  # the first ones may not know
                for address in bundle.addresses:
                    if self.world.answerers.get(address, frozenset()) & side:
                        continue
                    since = self._missing.get((address, side), now)
                    missing[(address, side)] = since
                    grace = self.world.settings.start_wait_s if len(ready) < len(side) else 0.0
                    grace += self.detection(side) + deaf + 0.1 * (better + 1) + PROBES_S + SLACK_S + CHECK_S
                    if now > max(self._last_fault(), since, self._proof_came(side), self._listened(ready)) + grace:
                        self._fail(f"G2: {address} has no owner among {', '.join(sorted(side))}")
        self._missing = missing

    def _able(self, name: str) -> bool:
        """Whether the node may claim: started, and not listening on a link that has just come up."""
        node = self.world.nodes[name]
        listening = self.world.now < node.lan.came_up_at + self.world.settings.listening_s
        return node.protocol is not None and node.protocol.ready and not listening

    def _listened(self, ready: list[str]) -> float:
        """When the first of them was able."""
        return min(self.world.nodes[name].lan.came_up_at for name in ready) + self.world.settings.listening_s

    def _proof_came(self, side: frozenset[str]) -> float:
        """When a lone speaker whose witness's answers were lost heard one: silence counts from then (decision 0010).
        Only once after a fault: who takes itself for isolated again and again breaks G2."""
        last = self._last_fault()
        rejoined = [
            at
            for at, name, report in self.world.reports
            if at > last and len(side) == 1 and name in side and report.reason == "Rejoined"
        ]
        return rejoined[0] if len(rejoined) == 1 else last

    # ---------------------------------------------------------------------------------------------- owners stay

    def _check_stays(self) -> None:
        changes = self.world.owner_changes[self._changes_seen :]
        self._changes_seen = len(self.world.owner_changes)
        if not self._owners_stay:
            return
        for at, address, _ in changes:
            calm = self._last_fault() + DEAF_S + max(SETTLED_S, *(self.detection({n}) + 1.0 for n in self.world.nodes))
            if at > calm and not self._was_postponed(address, at):
                self._fail(f"the owner of {address} changed without a fault")

    def _was_postponed(self, address: AddressText, at: float) -> bool:
        """Whether a provisional claim moves only now, since its bundle did not serve when its turn to move came."""
        moved = any(
            report.reason == "Released" and (report.fields["address"], report.fields["why"]) == (address, "provisional")
            for released, _, report in self.world.reports
            if at - DEAF_S <= released <= at
        )
        return moved and at <= self.world.resumed_at + SETTLED_S
