"""The API as far as the controller's decisions are concerned: Services in a table, patches applied as the API does.

For driving the sans-IO cores through long and unlikely histories. The real API, and the daemon on it, are tested in
``daemon.test_loop``.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cluster.config import Config, load
from cluster.node_pools import NodeIPPool
from cluster.objects import IPAddressPool, Node, PoolName, RecentRelease, Service, ServiceCIDR, ServiceOwners, decode
from cluster.resources import SERVICE_OWNERS
from controller.allocation.reserved import Reservations
from controller.changes import Change, Deletion, EventNote, Moment, Read, Tell, Write
from controller.services.reconcile import Reconciler
from tests.controller.machines import Machines
from tests.oracle.pools import PoolSpec, in_force, read_pool

KIND_POOL = "172.18.255.200-172.18.255.250"


def pool_objects(pools: Mapping[str, Any]) -> list[IPAddressPool]:
    """Pools given as name → addresses, or name → spec."""
    objects = []
    for name, given in pools.items():
        spec = given if isinstance(given, dict) else {"addresses": [given] if isinstance(given, str) else list(given)}
        body = {"metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec}
        objects.append(decode(msgspec.json.encode(body), IPAddressPool))
    return objects


def node_pool_objects(pools: Mapping[str, Any]) -> list[NodeIPPool]:
    """NodeIPPools given as name → spec."""
    bodies = [{"metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec} for name, spec in pools.items()]
    return [decode(msgspec.json.encode(body), NodeIPPool) for body in bodies]


def config_of(
    pools: Mapping[str, Any], previous: Config | None = None, node_pools: Mapping[str, Any] | None = None
) -> Config:
    """The configuration of such pools."""
    return load(pool_objects(pools), [], previous, node_pool_objects(node_pools or {})).config


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


@dataclass
class Table:
    """What the API has, and who watches it."""

    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: int = 0
    born: int = 0
    time: float = 1000.0
    worlds: list[World] = field(default_factory=list)


class World:
    """The API's table, and one controller that watches it (until it is killed and started anew). Several worlds may
    share a table: each is an installation."""

    def __init__(
        self,
        pools: Mapping[str, Any] | None = None,
        load_balancer_class: str | None = None,
        *,
        remember_releases: int = 0,
        room: int = sys.maxsize,
        beside: World | None = None,
    ) -> None:
        """``room``: how many requests are decided in one turn at most. ``beside``: an installation in the same
        cluster."""
        self._table: Table = beside._table if beside else Table()
        self._table.worlds.append(self)
        self.namespaces: dict[str, dict[str, str]] = {}
        self.nodes: dict[str, tuple[str, ...]] = {}
        """The addresses and Pod ranges of each."""
        self.node_bodies: dict[str, dict[str, Any]] = {}
        """As the API has them."""
        self.service_ranges: tuple[str, ...] = ()
        self.reservations = Reservations()
        self.pools: dict[str, Any] = {"kind": KIND_POOL} if pools is None else dict(pools)
        self.node_pools: dict[str, Any] = {}
        self.machines = Machines()
        """The nodes as NodeIPPools see them."""
        self.in_force: dict[str, PoolSpec] = {}
        """By the oracle: which pools count, in which version."""
        self.events: list[tuple[str, EventNote]] = []
        self.writes: list[Write] = []
        self.pending: list[Change] = []
        self.unanswered: set[str] = set()
        """Services whose last change the controller was told had failed."""
        self.lagging = False
        """Whether what the watch says waits for ``deliver``."""
        self.unseen: list[tuple[bool, Service]] = []
        self.load_balancer_class = load_balancer_class
        self.room = room
        self._remember_releases = remember_releases
        self.config = Config()
        self.controller = Reconciler(load_balancer_class, random.Random(1), remember_releases)

    @property
    def installations(self) -> list[World]:
        """All in the same cluster."""
        return self._table.worlds

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        return self._table.services

    @property
    def time(self) -> float:
        return self._table.time

    @time.setter
    def time(self, now: float) -> None:
        self._table.time = now

    # -------------------------------------------------------------------- what users do

    def put(self, name: str, namespace: str = "default", **parts: Any) -> Service:
        """Create a Service, or change one: ``annotations``, ``labels``, ``status`` and fields of ``spec``, merged."""
        key, parts = f"{namespace}/{name}", copy.deepcopy(parts)
        body = self.services.get(key)
        if body is None:
            self._table.born = born = self._table.born + 1
            created = f"2026-01-01T{born // 3600:02d}:{born // 60 % 60:02d}:{born % 60:02d}Z"
            body = {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": f"uid-{born:05d}",
                    "creationTimestamp": created,
                },
                "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"]},
                "status": {},
            }
        metadata = {key: parts.pop(key) for key in ("annotations", "labels", "deletionTimestamp") if key in parts}
        status = parts.pop("status", None)
        body = merge(body, {"metadata": metadata, "spec": parts})
        if status is not None:
            body = merge(body, {"status": status})
        if body["spec"]["type"] != "LoadBalancer":
            body = merge(body, {"status": {"loadBalancer": None}})
        return self._store(key, body)

    def delete(self, name: str, namespace: str = "default") -> None:
        view = self.view(name, namespace)
        del self.services[view.key]
        for world in self._table.worlds:
            world._say(view, gone=True)

    def configure(self, **pools: Any) -> None:
        """Replace the pools."""
        self.pools = pools
        self._load()

    def configure_nodes(self, **node_pools: Any) -> None:
        """Replace the NodeIPPools."""
        self.node_pools = node_pools
        self._load()

    def _load(self) -> None:
        self.in_force = in_force(self.pools, self.in_force)
        self.config = config_of(self.pools, self.config, self.node_pools)
        self.controller.set_config(self.config)
        self.tell_nodes()

    def machine(self, name: str, **fields: Any) -> None:
        """A node as NodeIPPools see it (``nodeip.bodies.node_body``)."""
        self.machines.put(name, **fields)
        self.nodes[name] = tuple(f"{fields.get('external', '')} {fields.get('internal', '')}".split())
        self._tell_node(name, self.machines.bodies[name])
        self.tell_nodes()

    def machine_goes(self, name: str) -> None:
        self.machines.remove(name)
        self.node(name)
        self.tell_nodes()

    def _tell_node(self, name: str, body: dict[str, Any] | None) -> None:
        self.node_bodies.pop(name, None)
        if body is not None:
            self.node_bodies[name] = body
        node = None if body is None else decode(msgspec.json.encode(body), Node)
        self.reservations.set_node(name, node)
        self.controller.set_node(name, node)
        self._tell_reserved()

    def tell_nodes(self) -> None:
        """What changed of the nodes, as the controller's shell tells it."""
        self.controller.set_node_view(*self.machines.look(self.config.node_pools))

    def label_namespace(self, name: str, **labels: str) -> None:
        self.namespaces[name] = labels
        self.controller.set_namespace(name, labels)

    def node(self, name: str, *addresses: str, pods: tuple[str, ...] = ()) -> None:
        """A node with these addresses and Pod ranges; with neither, it is gone."""
        status = {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]}
        body = {"metadata": {"name": name}, "spec": {"podCIDRs": pods}, "status": status}
        self.nodes[name] = (*addresses, *pods)
        self._tell_node(name, body if addresses or pods else None)

    def service_range(self, name: str, *cidrs: str) -> None:
        body = {"metadata": {"name": name}, "spec": {"cidrs": cidrs}}
        self.service_ranges = cidrs
        self.reservations.set_service_cidr(name, decode(msgspec.json.encode(body), ServiceCIDR))
        self._tell_reserved()

    def _tell_reserved(self) -> None:
        self.controller.set_reserved(self.reservations.ranges)

    # -------------------------------------------------------------------- what the controller does

    def start(self) -> None:
        """A new controller, which knows nothing but the API; what the old one had under way is lost. What it remembers
        of releases is in the status of the pools."""
        recorded = self.recorded_releases()
        self.controller = Reconciler(self.load_balancer_class, random.Random(1), self._remember_releases)
        self.pending = []
        self.unanswered = set()
        self.unseen = []
        self.in_force = in_force(self.pools, {})
        self.config = config_of(self.pools, None, self.node_pools)
        self.controller.set_config(self.config)
        for name, body in self.node_bodies.items():
            self.controller.set_node(name, decode(msgspec.json.encode(body), Node))
        self.tell_nodes()
        self.controller.set_reserved(self.reservations.ranges)
        for name, labels in self.namespaces.items():
            self.controller.set_namespace(name, labels)
        for key in self.services:
            view = self.look(key)
            if view.spec.type == "LoadBalancer":
                self.controller.observe(view)
        self.controller.start(recorded)
        for key in self.services:  # what the search for leftovers finds
            self.controller.observe(self.look(key))

    def decide(self) -> None:
        """One turn of the deciding thread."""
        self.time += 0.001
        for change in self.controller.decide(self.now, self.room):
            if isinstance(change, Tell):
                self.events += [(change.about.key, note) for note in change.events]
            else:
                self.pending.append(change)

    def wait(self, seconds: float) -> None:
        """A turn, so much time without any, and another one."""
        self.decide()
        self.time += seconds
        self.decide()

    def deliver(self, count: int | None = None) -> None:
        """What the watch has to say, or the first ``count`` news of it."""
        said, self.unseen = self.unseen[:count], self.unseen[count:] if count is not None else []
        for gone, view in said:
            self.controller.vanished(view) if gone else self.controller.observe(view)

    def carry_out(self, change: Change, *, tell: bool = True) -> None:
        """Do one change in the API; ``tell`` False: the controller never hears what became of it."""
        self.pending.remove(change)
        assert not isinstance(change, Deletion), "Services are never deleted"
        body = self.services.get(change.key)
        if body is not None and body["metadata"]["uid"] != change.uid:
            made = isinstance(change, Read)
        elif isinstance(change, Read) or body is None:
            made = True
        else:
            made = change.body["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
            if made:
                self._apply(change, body)
        if not tell:
            return
        self.unanswered.discard(change.key)
        view = self.look(change.key) if change.key in self.services else None
        if change.resource is SERVICE_OWNERS and change.key in self.services:
            self.controller.answered(change, decode(msgspec.json.encode(self.services[change.key]), ServiceOwners))
        elif made:
            self.controller.answered(change, view)
        else:
            self.controller.superseded(change, view, self.now)

    @property
    def now(self) -> Moment:
        return Moment(self.time, 1_767_225_600.0 + self.time)

    def rest(self) -> None:
        """Turn until nothing is left to do but wait."""
        self.deliver()
        for _ in range(1000):
            self.decide()
            if not self.pending:
                return
            for change in list(self.pending):
                self.carry_out(change)
        raise AssertionError(f"it never comes to rest: {self.pending}")

    def settle(self) -> None:
        """Turn until nothing is left to do, for any of the installations."""
        worlds = self._table.worlds
        for _ in range(1000):
            for each in worlds:
                each.deliver()
                each.decide()
            deadlines = [at for each in worlds if (at := each.controller.next_deadline()) is not None]
            if not any(each.pending or each.unseen for each in worlds):
                if not deadlines:
                    return
                self.time = max(self.time, min(deadlines))
            for each in worlds:
                for change in list(each.pending):
                    each.carry_out(change)
        raise AssertionError(f"it never comes to rest: {self.pending}")

    # -------------------------------------------------------------------- what one sees

    def recorded_releases(self) -> list[RecentRelease]:
        """What the pools' status would list, the newest first."""
        return [
            RecentRelease(each.service, tuple(address.text for address in each.addresses), each.time)
            for name in self.pools
            for each in self.controller.releases.of(PoolName(name))
        ]

    def view(self, name: str, namespace: str = "default") -> Service:
        return self.look(f"{namespace}/{name}")

    def ip(self, name: str, namespace: str = "default") -> str:
        """The Service's addresses in its status, joined by commas."""
        return ",".join(each.ip for each in self.view(name, namespace).status.load_balancer.ingress)

    def condition(self, name: str, namespace: str = "default") -> tuple[str, str, str]:
        (found,) = [
            each for each in self.view(name, namespace).status.conditions if each.type == "berthlb.io/AddressAssigned"
        ]
        return (found.status, found.reason, found.message)

    def every_pool_is_in_force(self) -> bool:
        """As it is written."""
        return self.in_force == {name: read_pool(name, given) for name, given in self.pools.items()}

    def is_content(self, key: str) -> bool:
        """Whether the Service has all that it needs and asks for."""
        said = [each for each in self.look(key).status.conditions if each.type == "berthlb.io/AddressAssigned"]
        return bool(said) and said[0].reason == "Assigned" and " address: " not in said[0].message

    def take_events(self) -> list[tuple[str, str, str]]:
        """(Service, reason, message) of the Events since the last call."""
        events, self.events = self.events, []
        return [(key, note.reason, note.message) for key, note in events]

    def events_of(self, reason: str) -> list[tuple[str, str, str]]:
        """Those of one reason so far."""
        return [(key, note.reason, note.message) for key, note in self.events if note.reason == reason]

    def take_writes(self) -> list[Write]:
        writes, self.writes = self.writes, []
        return writes

    # -------------------------------------------------------------------- inside

    def _apply(self, change: Write, body: dict[str, Any]) -> None:
        patch = dict(change.body)
        if change.subresource is None:
            patch.pop("status", None)
        changed = merge(body, patch)
        self.writes.append(change)
        self.events += [(change.key, note) for note in change.events]
        self._store(change.key, changed)

    def _store(self, key: str, body: dict[str, Any]) -> Service:
        self._table.version += 1
        left = key in self.services and self.services[key]["spec"]["type"] == "LoadBalancer"
        for ingress in (body["status"].get("loadBalancer") or {}).get("ingress") or ():
            if "ip" in ingress:
                ingress.setdefault("ipMode", "VIP")
        self.services[key] = merge(body, {"metadata": {"resourceVersion": str(self._table.version)}})
        if left or self.services[key]["spec"]["type"] == "LoadBalancer":
            for world in self._table.worlds:
                world._tell(key)
        return self.look(key)

    def _tell(self, key: str) -> None:
        """What a watch of the Services of type LoadBalancer would say."""
        view = self.look(key)
        gone = view.spec.type != "LoadBalancer"
        if self.controller.started or not gone:
            self._say(view, gone=gone)

    def _say(self, view: Service, *, gone: bool) -> None:
        self.unseen.append((gone, view))
        if not self.lagging:
            self.deliver()

    def look(self, key: str) -> Service:
        return decode(msgspec.json.encode(self.services[key]), Service)


def assigned(world: World, **services: Any) -> None:
    """Create Services, each with its request, and let everything come to rest."""
    for name, parts in services.items():
        world.put(name, **parts)
        world.settle()


def sharing_one(**services: Any) -> World:
    """A pool of one address, and Services in the order in which they come."""
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    assigned(world, **services)
    return world
