"""Random schedules of faults, each determined by its seed.

What happens in a step is drawn for that step alone, and of what could happen each has its own lot: so what is left out
of a schedule (``Without``) changes little of the rest, and a schedule that fails can be made smaller (``shrinking``).

**How long a schedule is.** A start and the calm at the end take some ten seconds of virtual time, a step one and a
half. So a schedule with fewer steps tries fewer faults in the same time, and what breaks promises is mostly several
faults within seconds. Two to five nodes have every part that a fault needs, and the work grows with the square of their
number.

**What is not here.** A clock that is stepped: the protocol is told CLOCK_BOOTTIME and knows no other, and what crosses
the API is compared, never subtracted (``test_directory`` has Leases of clocks that jump); the fault ``clock-stepped``
steps the clock of a real machine. The records in the API: ``registry`` has them, ``test_whole_site`` and
``test_degraded`` use it. A storm is in ``strange``: it is load where a speaker's work takes time (``BusyLoop``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from cluster.addresses import family_of
from cluster.objects import AddressText
from speaker.plan import DRAINED_TIER, Bundle
from tests.speaker.protocol.simulation.hearing import pace_of
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.machines import SimulatedNode
from tests.speaker.protocol.simulation.network import SimulatedNetwork, Weather
from tests.speaker.protocol.simulation.promises import BrokenPromiseError
from tests.speaker.protocol.simulation.world import World, bundle_of

CALM_S = 6.0  # at the end, everything healed, until everything must be as it should be
LONGEST_LOSS = 0.05  # of which a network that is healed may go on losing frames
ENDED_S = 0.4  # after a speaker was told to end, until it has, as a rule


class Fault(NamedTuple):
    name: str
    weight: float
    """Of its lot, beside those of the others."""
    happen: Callable[[], None]


@dataclass(frozen=True)
class Without:
    """What is left out of a schedule."""

    steps: frozenset[int] = frozenset()
    nodes: frozenset[str] = frozenset()
    bundles: frozenset[int] = frozenset()
    """Of the first ones."""
    weather: bool = False
    """No frame is lost, doubled or late."""
    lags: bool = False
    """All see a Plan at once."""
    spread: bool = False
    """All start at once."""
    luck: int = 0
    """Which frames are lost, and who is early, is drawn anew where this is another number."""


WHOLE = Without()


class Schedule:
    """Some seconds of faults on some speakers, and the calm after them."""

    usual_faults = 8

    def __init__(
        self,
        seed: int,
        *,
        nodes: int | None = None,
        loss: float | None = None,
        faults: int | None = None,
        without: Without = WHOLE,
    ) -> None:
        self.begin(seed)
        rng = random.Random(seed * 7919)
        count = nodes if nodes is not None else self.node_count(rng)
        gateway = rng.random() < 0.7
        self.seed = seed
        self.without = without
        self.world = self.make_world(
            seed + without.luck * 1_000_003, count, gateway=gateway, client=gateway or rng.random() < 0.5
        )
        self.rng = rng
        self.faults = self.usual_faults if faults is None else faults
        lossy = loss if loss is not None else rng.choice((0.0, 0.0, 0.0, 0.01, 0.05, 0.2))
        straggling = rng.choice((0.0, 0.0, 0.1))
        weather = Weather(lossy, (0.0002, 0.002), rng.choice((0.0, 0.05)), straggling)
        for node in self.world.nodes.values():
            node.lag = rng.choice((0.0, 0.05, rng.uniform(0.0, 2.0)))
        self._leave_out(weather)
        self.api_gone = False
        """For good: nothing changes in it any more."""
        self.drained: set[str] = set()
        self.bundles = self._first_bundles(rng.randint(1, self.most_bundles()))
        self.made = len(self.bundles)
        self.bundles = [bundle for i, bundle in enumerate(self.bundles) if i not in without.bundles]
        self.first_bundles = self.made
        self.invariants = Invariants(self.world)

    def begin(self, seed: int) -> None:
        """What a kind of schedules has of its own, before anything else is made."""

    def node_count(self, rng: random.Random) -> int:
        return rng.choice((2, 2, 3, 3, 3, 4, 5))

    def most_bundles(self) -> int:
        """At the start."""
        return 6

    def _leave_out(self, weather: Weather) -> None:
        world, without = self.world, self.without
        if without.weather:
            for network in world.networks:
                network.weather = Weather()
        else:
            world.network.weather = weather
        for name in without.nodes:
            del world.nodes[name]
        for node in world.nodes.values() if without.lags else ():
            node.lag = 0.0

    def make_world(self, seed: int, count: int, *, gateway: bool, client: bool) -> World:
        return World(seed, count, gateway=gateway, client=client)

    def _first_bundles(self, count: int) -> list[Bundle]:
        return [self._bundle(i) for i in range(count)]

    def _bundle(self, i: int) -> Bundle:
        addresses = [f"10.0.9.{2 * i + 1}"] + ([f"10.0.9.{2 * i + 2}"] if self.rng.random() < 0.3 else [])
        return bundle_of(f"b{i:03}", addresses, self.world.names())

    def run(self) -> World:
        world, rng = self.world, self.rng
        self.publish()
        spread = self.start_takes()
        world.start_all(spread=0.0 if self.without.spread else spread)
        world.run(rng.uniform(1.0, 4.5))
        self.api_gone = rng.random() < 0.3
        if self.api_gone:
            world.api_frozen_at = world.now
            world.note("--- the API is gone")
        for step in range(self.faults):
            self.draw_for(step)
            if step not in self.without.steps:
                self._step()
        self.draw_for(self.faults)
        self.heal()
        world.run(CALM_S * pace_of(world) + max(node.lag for node in world.nodes.values()))
        self.check_end()
        return world

    def draw_for(self, step: int) -> None:
        """From now on all that is drawn depends on the step alone."""
        self.rng.seed(f"{self.seed} {step}")

    def _step(self) -> None:
        rng = self.rng
        faults, lot = self._faults(), rng.random()
        waits = rng.choice((rng.uniform(0.0, 0.5), rng.uniform(0.3, 2.0), rng.uniform(2.0, 4.0)))
        min(faults, key=lambda fault: -math.log(random.Random(f"{lot} {fault.name}").random()) / fault.weight).happen()
        self.world.run(waits)

    def some_node(self) -> SimulatedNode:
        return self.some_nodes()[0]

    def some_nodes(self) -> list[SimulatedNode]:
        """All, in an order that chance gives."""
        lot = self.rng.random()
        return sorted(self.world.nodes.values(), key=lambda node: random.Random(f"{lot} {node.name}").random())

    def publish(self) -> None:
        """The API has the bundles, with the nodes that are drained."""
        self.world.set_bundles([self._with_drained(bundle) for bundle in self.bundles])

    def _with_drained(self, bundle: Bundle) -> Bundle:
        if not self.drained:
            return bundle
        candidates = [
            replace(each, tier=DRAINED_TIER) if each.node in self.drained else each for each in bundle.candidates
        ]
        return replace(bundle, candidates=tuple(sorted(candidates, key=lambda each: (each.ending, each.tier))))

    def start_takes(self) -> float:
        """Seconds within which all speakers start for the first time."""
        return self.rng.choice((0.0, 0.2, 2.0))

    # ---------------------------------------------------------------------------------------------- faults

    def _faults(self) -> list[Fault]:
        """What may happen now."""
        world, rng = self.world, self.rng
        node, other = self.some_nodes()[:2] if len(world.nodes) > 1 else self.some_nodes() * 2
        name, seconds = node.name, rng.choice((rng.uniform(0.05, 0.4), rng.uniform(0.2, 3.0)))
        faults = [
            Fault("plan", 1, self._change_plan),
            Fault("endpoints", 2, self._change_endpoints),
            Fault("pods", 2, self._move_pods),
            Fault("drain", 2, lambda: self._drain(node)),
            Fault("partition", 1, self._partition),
            Fault("heal", 1, self._heal_network),
            Fault("deaf", 1, lambda: self._cut(f"{name} cannot hear", [(o, name) for o in world.hosts() - {name}])),
            Fault("mute", 1, lambda: self._cut(f"{name} is not heard", [(name, o) for o in world.hosts() - {name}])),
            Fault("one way", 1, lambda: self._cut(f"{name} does not reach {other.name}", [(name, other.name)])),
            Fault("rolling restart", 0.5, self._restart_all),
            Fault("site", 0.5, self._cut_power_of_all),
        ]
        if world.without_api:
            faults.append(Fault("API", 3, world.regain_api))
        elif not self.api_gone:
            faults.append(Fault("no API", 1, lambda: self._part_from_api(node)))
        if node.powered:
            faults.append(Fault("power", 1, lambda: world.power_cut(name)))
            if name in world.network.unplugged:
                faults.append(Fault("plug", 3, lambda: world.plug(name)))
            else:
                faults.append(Fault("unplug", 1, lambda: world.unplug(name)))
        if not node.running:
            faults.append(Fault("start", 4, lambda: world.start(name)))
            return faults
        faults += [
            Fault("kill", 1, lambda: world.kill(name)),
            Fault("pause", 1, lambda: world.pause(name, seconds)),
            Fault("leave", 1, lambda: world.leave(name)),
        ]
        if math.isinf(node.lag):
            faults.append(Fault("watcher", 2, lambda: world.restart_watcher(name)))
        else:
            faults.append(Fault("no watcher", 0.5, lambda: world.lose_watcher(name)))
        return faults

    def _drain(self, node: SimulatedNode) -> None:
        """A node is drained, or not any more."""
        self.drained ^= {node.known_as}
        self.world.note(f"--- drained: {' '.join(sorted(self.drained)) or 'nobody'}")
        self.publish()

    def _restart_all(self) -> None:
        """As a rolling update of the DaemonSet does: one speaker ends and starts after the other."""
        world, rng = self.world, self.rng
        for node in self.some_nodes():
            if node.running:
                world.leave(node.name)
                self._await_ends()
            if node.powered and not node.running:
                world.start(node.name)
                world.run(rng.choice((0.1, 2.5)))

    def _cut_power_of_all(self) -> None:
        """The whole site loses power, and has it back."""
        world, rng = self.world, self.rng
        for node in self.some_nodes():
            if node.powered:
                world.power_cut(node.name)
        world.run(rng.uniform(0.1, 3.0))
        for node in self.some_nodes():
            world.start(node.name)
            world.run(rng.uniform(0.0, 0.5))

    def _cut(self, what: str, pairs: list[tuple[str, str]]) -> None:
        for source, target in pairs:
            self.world.network.cut(source, target)
        self.world.fault(what)

    def _partition(self) -> None:
        world = self.world
        lot = self.rng.random()
        side = {name for name in world.hosts() if random.Random(f"{lot} {name}").random() < 0.5}
        world.network.partition(side, world.hosts())
        world.fault(f"partition: {' '.join(sorted(side))}")

    def _heal_network(self) -> None:
        self.world.network.heal()
        self.world.fault("the network is whole again")

    def _change_plan(self) -> None:
        kind = self.rng.random()
        if kind < 0.5 or not self.bundles:
            self.bundles.append(self._bundle(self.made))
            self.made += 1
        elif kind < 0.75:
            self.bundles.pop(self.rng.randrange(len(self.bundles)))
        else:
            i = self.rng.randrange(len(self.bundles))
            tiers = {name: self.rng.choice((0, 0, 1)) for name in self.world.names()}
            self.bundles[i] = bundle_of(self.bundles[i].id, self.bundles[i].addresses, self.world.names(), tiers)
        self.publish()

    def _change_endpoints(self) -> None:
        """Endpoints vanish, of some bundles or, as after an outage of the API server, of all; or all are back."""
        if any(not bundle.serving for bundle in self.bundles):
            lost: set[str] = set()
        elif self.rng.random() < 0.5:
            lost = {bundle.id for bundle in self.bundles}
        else:
            lost = {bundle.id for bundle in self.bundles if self.rng.random() < 0.5}
        self._set_serving(lost)

    def _move_pods(self) -> None:
        """The pods of a Service of the policy Local end on some nodes, are gone from some, and have come to others."""
        if not self.bundles:
            return
        rng = self.rng
        i, lot = rng.randrange(len(self.bundles)), rng.random()
        bundle = self.bundles[i]
        names = self.world.names()
        has = {n: random.Random(f"{lot} {n}").choice(("staying", "staying", "ending", "none")) for n in names}
        if "staying" not in has.values():
            has = dict.fromkeys(names, "staying")
        local = bundle_of(bundle.id, bundle.addresses, [name for name in names if has[name] != "none"])
        interfaces = {each.node: each.interfaces for each in bundle.candidates}
        candidates = [
            replace(each, interfaces=interfaces.get(each.node, ()), ending=has[each.node] == "ending")
            for each in local.candidates
        ]
        candidates.sort(key=lambda each: each.ending)
        self.bundles[i] = replace(local, candidates=tuple(candidates), serving=bundle.serving, local=True)
        self.world.note(f"--- pods of {bundle.id}: {', '.join(f'{n} {has[n]}' for n in names if has[n] != 'none')}")
        self.publish()

    def _part_from_api(self, node: SimulatedNode) -> None:
        """All nodes do not reach the API server, or one; the LAN is whole. Often a node loses power then."""
        world, kind = self.world, self.rng.random()
        world.lose_api(world.nodes if kind < 0.6 else [node.name])
        if kind < 0.3 and node.powered:
            world.run(0.2)
            world.power_cut(node.name)

    def _set_serving(self, lost: set[str]) -> None:
        self.bundles = [replace(bundle, serving=bundle.id not in lost) for bundle in self.bundles]
        self.world.set_serving(lambda bundle: bundle.id not in lost)

    # ---------------------------------------------------------------------------------------------- the end

    def heal(self) -> None:
        world = self.world
        if world.without_api:
            world.regain_api()
        self._heal_network()
        world.network.weather.loss = min(world.network.weather.loss, LONGEST_LOSS)
        self._await_ends()
        for name in world.nodes:
            if math.isinf(world.nodes[name].lag):
                world.restart_watcher(name)
        for name in sorted(world.network.unplugged):
            world.plug(name)
        for name in world.names():
            if not world.nodes[name].running:
                world.start(name)
        self._set_serving(set())
        world.fault("everything is healed")

    def _await_ends(self) -> None:
        """Until who was told to end has."""
        self.world.run(ENDED_S)
        while any(node.told_to_end for node in self.world.nodes.values()):
            self.world.run(ENDED_S)

    def check_end(self) -> None:
        world = self.world
        seen = {world.nodes[name].plan_seen for name in world.names()}
        if len(seen) > 1:  # the API went away while they saw different Plans
            return
        for bundle in world.plans[seen.pop()][1]:
            for network in world.networks:
                self._check_bundle(bundle, network)
        held = {address for bundle in world.plans[-1][1] for address in bundle.addresses}
        if world.api_frozen_at == float("inf"):
            answerers = [pair for network in world.networks for pair in network.answerers.items()]
            left = {address for address, nodes in answerers if nodes} - held
            if left:
                raise BrokenPromiseError("END", f"{sorted(left)} are answered although no Service has them", world)

    def _check_bundle(self, bundle: Bundle, network: SimulatedNetwork) -> None:
        """One node answers for each address on each network where it belongs and somebody can, and one for all of them
        where somebody can. Of a bundle of both families that belongs on several networks, by its subnets or by the
        interfaces that are named, it may be one on the one, and another on the other, where nodes speak other families
        on each."""
        world = self.world
        able = {
            address: {name for name in world.names() if world.can_hold(name, network, bundle, address)}
            for address in bundle.addresses
        }
        owners = [network.answerers.get(address, frozenset()) for address in bundle.addresses if able[address]]
        if not owners or (not bundle.serving and not any(owners)):
            return
        of_all = set.intersection(*(nodes for nodes in able.values() if nodes))
        on_one = all(len(world.networks_of(address)) == 1 for address in bundle.addresses) and not any(
            each.interfaces for each in bundle.candidates
        )
        one_for_all = on_one or len({family_of(address) for address in bundle.addresses}) == 1
        if any(self._has_lost_its_family(network, address, able[address]) for address in bundle.addresses):
            return
        if any(len(nodes) != 1 for nodes in owners) or (of_all and one_for_all and len(set(owners)) != 1):
            shown = "; ".join("+".join(sorted(nodes)) or "nobody" for nodes in owners)
            raise BrokenPromiseError("END", f"{bundle.id} is held on {network.name} by {shown}", world)

    def _has_lost_its_family(self, network: SimulatedNetwork, address: AddressText, able: set[str]) -> bool:
        """Whether its last owner lives, and has no family any more by which one who could answer for it hears that it
        has let it go: then others tell all of them that the owner lives, and nothing more is promised."""
        world = self.world
        changes = (who for _, what, who in reversed(network.owner_changes) if what == address and who)
        spoken = {name: {f for each in world.nodes[name].on(network) for f in each.families} for name in world.nodes}
        return bool(able) and any(
            world.nodes[owner].works and all(spoken[owner].isdisjoint(spoken[name]) for name in able)
            for owner in next(changes, frozenset())
        )
