"""Random schedules of faults, each determined by its seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from cluster.addresses import family_of
from speaker.plan import Bundle
from tests.speaker.protocol.simulation.invariants import Invariants
from tests.speaker.protocol.simulation.network import SimulatedNetwork, Weather
from tests.speaker.protocol.simulation.world import World, bundle_of

CALM_S = 6.0  # at the end, everything healed, until everything must be as it should be


class Schedule:
    """Some seconds of faults on some speakers, and the calm after them."""

    def __init__(self, seed: int, *, nodes: int | None = None, loss: float | None = None, faults: int = 8) -> None:
        rng = random.Random(seed * 7919)
        count = nodes if nodes is not None else rng.choice((2, 2, 3, 3, 3, 4, 5))
        gateway = rng.random() < 0.7
        self.world = self.make_world(seed, count, gateway=gateway, client=gateway or rng.random() < 0.5)
        self.rng = rng
        self.faults = faults
        lossy = loss if loss is not None else rng.choice((0.0, 0.0, 0.0, 0.01, 0.05))
        straggling = rng.choice((0.0, 0.0, 0.1))
        self.world.network.weather = Weather(lossy, (0.0002, 0.002), rng.choice((0.0, 0.05)), straggling)
        for node in self.world.nodes.values():
            node.lag = rng.choice((0.0, 0.05, rng.uniform(0.0, 2.0)))
        self.bundles = self._first_bundles(rng.randint(1, 6))
        self.made = len(self.bundles)
        self.invariants = Invariants(self.world)

    def make_world(self, seed: int, count: int, *, gateway: bool, client: bool) -> World:
        return World(seed, count, gateway=gateway, client=client)

    def _first_bundles(self, count: int) -> list[Bundle]:
        return [self._bundle(i) for i in range(count)]

    def _bundle(self, i: int) -> Bundle:
        addresses = [f"10.0.9.{2 * i + 1}"] + ([f"10.0.9.{2 * i + 2}"] if self.rng.random() < 0.3 else [])
        return bundle_of(f"b{i:03}", addresses, self.world.names())

    def run(self) -> World:
        world, rng = self.world, self.rng
        world.set_bundles(self.bundles)
        world.start_all(spread=self.start_takes())
        world.run(rng.uniform(1.0, 4.5))
        if rng.random() < 0.3:
            world.api_frozen_at = world.now
            world.note("--- the API is gone")
        for _ in range(self.faults):
            rng.choice(self._faults())()
            world.run(rng.choice((rng.uniform(0.0, 0.5), rng.uniform(0.3, 2.0), rng.uniform(2.0, 4.0))))
        self.heal()
        world.run(CALM_S + max(node.lag for node in world.nodes.values()))
        self.check_end()
        return world

    def start_takes(self) -> float:
        """Seconds within which all speakers start for the first time."""
        return self.rng.choice((0.0, 0.2, 2.0))

    # ---------------------------------------------------------------------------------------------- faults

    def _faults(self) -> list[Callable[[], None]]:
        world, rng = self.world, self.rng
        node = rng.choice(list(world.nodes.values()))
        other = rng.choice([n for n in world.nodes.values() if n is not node])
        name = node.name
        faults: list[Callable[[], None]] = [self._change_plan, self._partition, self._heal_network]
        faults += [self._change_endpoints] * 2
        if node.powered:
            faults += [lambda: world.power_cut(name)]
            if name in world.network.unplugged:
                faults += [lambda: world.plug(name)] * 3
            else:
                faults += [lambda: world.unplug(name)]
        if node.running:
            faults += [
                lambda: world.kill(name),
                lambda: world.pause(name, rng.choice((rng.uniform(0.05, 0.4), rng.uniform(0.2, 3.0)))),
                lambda: world.leave(name),
            ]
        else:
            faults += [lambda: world.start(name)] * 4
        faults += [
            lambda: self._cut(f"{name} cannot hear", [(o, name) for o in world.hosts() - {name}]),
            lambda: self._cut(f"{name} cannot be heard", [(name, o) for o in world.hosts() - {name}]),
            lambda: self._cut(f"{name} does not reach {other.name}", [(name, other.name)]),
        ]
        return faults

    def _cut(self, what: str, pairs: list[tuple[str, str]]) -> None:
        for source, target in pairs:
            self.world.network.cut(source, target)
        self.world.fault(what)

    def _partition(self) -> None:
        world = self.world
        side = {name for name in sorted(world.hosts()) if self.rng.random() < 0.5}
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
        self.world.set_bundles(self.bundles)

    def _change_endpoints(self) -> None:
        """Endpoints vanish, of some bundles or, as after an outage of the API server, of all; or all are back."""
        if any(not bundle.serving for bundle in self.bundles):
            lost: set[str] = set()
        elif self.rng.random() < 0.5:
            lost = {bundle.id for bundle in self.bundles}
        else:
            lost = {bundle.id for bundle in self.bundles if self.rng.random() < 0.5}
        self._set_serving(lost)

    def _set_serving(self, lost: set[str]) -> None:
        self.bundles = [replace(bundle, serving=bundle.id not in lost) for bundle in self.bundles]
        self.world.set_serving(lambda bundle: bundle.id not in lost)

    # ---------------------------------------------------------------------------------------------- the end

    def heal(self) -> None:
        world = self.world
        self._heal_network()
        world.run(0.4)  # who was told to end has ended
        for name in sorted(world.network.unplugged):
            world.plug(name)
        for name in world.names():
            if not world.nodes[name].running:
                world.start(name)
        self._set_serving(set())
        world.fault("everything is healed")

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
            assert not left, f"{left} are answered although no Service has them\n{world.story()}"

    def _check_bundle(self, bundle: Bundle, network: SimulatedNetwork) -> None:
        """One node answers for each address on each network where it belongs and somebody can, and one for all of them
        where somebody can. Of a bundle of both families that belongs on several networks it may be one on the one, and
        another on the other, where nodes speak other families on each."""
        world = self.world
        able = {
            address: {name for name in world.names() if world.can_hold(name, network, bundle, address)}
            for address in bundle.addresses
        }
        owners = [network.answerers.get(address, frozenset()) for address in bundle.addresses if able[address]]
        if not owners or (not bundle.serving and not any(owners)):
            return
        of_all = set.intersection(*(nodes for nodes in able.values() if nodes))
        on_one = all(len(world.networks_of(address)) == 1 for address in bundle.addresses)
        one_for_all = on_one or len({family_of(address) for address in bundle.addresses}) == 1
        if any(len(nodes) != 1 for nodes in owners) or (of_all and one_for_all and len(set(owners)) != 1):
            raise AssertionError(f"{bundle.id} is held on {network.name} by {owners} at the end\n{world.story()}")
