"""The configuration objects' table, and one Reports that watches it."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from cluster.node_pools import NodeIPPool
from cluster.objects import ConfigurationState, IPAddressPool, L2Advertisement, Node, decode
from controller.allocation.ledger import Ledger
from controller.allocation.releases import Releases
from controller.allocation.reserved import Reservations
from controller.changes import Moment, Write
from controller.nodeip.cluster import NodePools
from controller.pools.reports import Reports
from tests.controller.world import merge

VIEWS: dict[str, Any] = {
    "IPAddressPool": IPAddressPool,
    "NodeIPPool": NodeIPPool,
    "L2Advertisement": L2Advertisement,
    "ConfigurationState": ConfigurationState,
}


class Api:
    """The objects' table, and one Reports that watches it."""

    def __init__(self, *, prunes_conditions: bool = False) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[Write] = []
        self.time = 1000.0
        self.nodes: dict[str, dict[str, str]] = {}
        self.reservations = Reservations()
        self.node_pools = NodePools()
        self._prunes = prunes_conditions
        self._version = 0
        self.start()

    def start(self) -> None:
        self.reports = Reports("metallb-system", random.Random(1))
        self.ledger = Ledger()
        self.releases = Releases(self.ledger, 3)
        for name, labels in self.nodes.items():
            self.reports.findings.set_node(name, labels)
        for kind, name in self.objects:
            self._tell(kind, name)

    def pool(self, name: str, *addresses: str) -> None:
        self._spec("IPAddressPool", name, {"addresses": list(addresses)})

    def node_pool(self, name: str, **spec: Any) -> None:
        self._spec("NodeIPPool", name, spec)

    def advertisement(self, name: str, **spec: Any) -> None:
        self._spec("L2Advertisement", name, spec)

    def node(
        self, name: str, *addresses: str, pods: tuple[str, ...] = (), labels: dict[str, str] | None = None
    ) -> None:
        """A node; without addresses it is gone."""
        if not addresses:
            del self.nodes[name]
            self.reservations.set_node(name, None)
            self.reports.findings.set_node(name, None)
            return
        status = {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]}
        body = {"metadata": {"name": name}, "spec": {"podCIDRs": pods}, "status": status}
        self.nodes[name] = labels or {}
        self.reservations.set_node(name, decode(msgspec.json.encode(body), Node))
        self.reports.findings.set_node(name, self.nodes[name])

    def speaker(self, node: str, *without: str, says_nothing: bool = False, gone: bool = False) -> None:
        """What the speaker of a node says: these advertisements name interfaces that it lacks."""
        labels = {"metallb.io/component-type": "speaker", "metallb.io/node-name": node}
        status = {} if says_nothing else {"advertisementsWithoutInterface": without}
        body = {"metadata": {"name": f"speaker-{node}", "labels": labels}, "status": status}
        self.reports.findings.set_speaker_state(decode(msgspec.json.encode(body), ConfigurationState), gone=gone)

    def _spec(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        before = self.objects.get((kind, name), {"metadata": {"generation": 0, "uid": name}})
        generation = before["metadata"]["generation"] + 1
        self._store(kind, name, merge(before, {"metadata": {"generation": generation}}) | {"spec": spec})

    def _store(self, kind: str, name: str, body: dict[str, Any]) -> None:
        if body != self.objects.get((kind, name)):  # a write that changes nothing is none
            self._version += 1
            metadata = {"name": name, "namespace": "metallb-system", "resourceVersion": str(self._version)}
            self.objects[kind, name] = merge(body, {"metadata": metadata})
        self._tell(kind, name)

    def _tell(self, kind: str, name: str) -> None:
        if kind != "ConfigurationState":
            self.reports.observe(self.view(kind, name))

    def view(self, kind: str, name: str) -> Any:
        return decode(msgspec.json.encode(self.objects[kind, name]), VIEWS[kind])

    def status(self, kind: str, name: str) -> dict[str, Any]:
        return dict(self.objects[kind, name].get("status", {}))

    def judgement(self, kind: str, name: str) -> tuple[str, str, str]:
        return self.condition(kind, name, "Valid")

    def condition(self, kind: str, name: str, type_: str) -> tuple[str, str, str]:
        (found,) = [each for each in self.status(kind, name)["conditions"] if each["type"] == type_]
        assert found["observedGeneration"] == self.objects[kind, name]["metadata"]["generation"]
        return found["status"], found["reason"], found["message"]

    def turn(self) -> int:
        """One turn of the deciding thread, its changes carried out; how many there were."""
        reloaded = self.reports.reload()
        self.node_pools.set_pools(self.reports.in_force.config.node_pools)
        if reloaded or self.ledger.reserved is not self.reservations.ranges:
            self.ledger.set_pools(self.reports.in_force.config.pools, self.reservations.ranges)
        changes = self.reports.decide(self.ledger, self.releases, self.node_pools, Moment(self.time, self.time))
        for change in changes:
            kind = change.resource.kind
            if isinstance(change, Write):
                self.writes.append(change)
                body = merge(self.objects.get((kind, change.name), {}), change.body)
                if self._prunes and "status" in body:
                    body["status"].pop("conditions", None)
                    body["status"].pop("recentReleases", None)
                self._store(kind, change.name, body)
            there = (kind, change.name) in self.objects
            self.reports.answered(change, self.view(kind, change.name) if there else None)
        return len(changes)

    def rewrite(self, kind: str, name: str, status: dict[str, Any]) -> None:
        """Somebody else writes the object's status."""
        self._store(kind, name, merge(self.objects[kind, name], {"status": status}))

    def settle(self) -> None:
        for _ in range(20):
            while self.turn():
                assert len(self.writes) < 100, "it never comes to rest"
            deadline = self.reports.next_deadline()
            if deadline is None:
                return
            self.time = max(self.time, deadline)
