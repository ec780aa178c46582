"""The Leases and records of a simulated cluster, and the part of each watcher that keeps and reads them: its real
decisions.

A node whose API server is ``away`` neither renews its Lease nor sees those of the others; it sees what it missed when
the server is back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from cluster.l2status import EPOCH_ANNOTATION, NODE_LABEL
from cluster.objects import Lease, LeaseSpec, ObjectMeta, ServiceL2Status
from speaker.api.directory import Directory
from speaker.api.own_lease import LINKS_ANNOTATION, OwnLease, lease_body, lease_name
from speaker.api.records import former_holder, next_record_write
from speaker.directory import DirectoryChange, ListedLink
from speaker.plan import BundleId
from speaker.protocol.effects import AskRecord, RecordAnswer
from tests.speaker.protocol.simulation.machines import SimulatedNode
from tests.speaker.protocol.simulation.world import World

STEP_S = 0.05  # between passes of a watcher
LINKS_S = 1.0  # until a watcher knows of a change of links


@dataclass
class _Watcher:
    """Of one session of a speaker."""

    session: int
    lease: OwnLease
    directory: Directory
    seen: dict[str, Lease] = field(default_factory=dict)
    links_at: float = 0.0
    told: dict[BundleId, int] = field(default_factory=dict)
    """Bundles that the speaker holds, with their epochs, as was recorded last."""
    read: bool = False
    """The records were read."""


class Registry:
    """Starts with the world. ``leases`` has what the API has."""

    def __init__(self, world: World) -> None:
        self.leases: dict[str, Lease] = {}
        self.away: set[str] = set()
        """Nodes that do not reach the API server."""
        self._world = world
        self._watchers: dict[str, _Watcher] = {}
        self._renewals = 0
        self.records: dict[str, ServiceL2Status] = {}
        world.wire.on_question = self._win
        world.clock.after(0.0, self._step)

    def remove(self, name: str) -> None:
        """The Node is deleted, and its Lease with it."""
        self.leases.pop(lease_name(self._world.nodes[name].known_as), None)

    def _step(self) -> None:
        for name, node in self._world.nodes.items():
            if node.works and name not in self.away:
                self._pass(node, self._watcher(node))
        self._world.clock.after(STEP_S, self._step)

    def _watcher(self, node: SimulatedNode) -> _Watcher:
        watcher = self._watchers.get(node.name)
        if watcher is None or watcher.session != node.sessions:
            watcher = _Watcher(node.sessions, OwnLease(), Directory(node.known_as))
            watcher.lease.set_node(f"uid of {node.known_as}", self._world.now)
            self._watchers[node.name] = watcher
        return watcher

    def _pass(self, node: SimulatedNode, watcher: _Watcher) -> None:
        now = self._world.now
        if now >= watcher.links_at:
            watcher.links_at = now + LINKS_S
            up = (state for state in node.link_states() if state.up)
            watcher.lease.set_links(tuple(ListedLink(each.name, each.mac, each.own) for each in up), now)
        if renewal := watcher.lease.take(now):
            self._renewals += 1
            body = lease_body(node.known_as, renewal, f"renewal {self._renewals}")
            annotations = {LINKS_ANNOTATION: body["metadata"]["annotations"][LINKS_ANNOTATION]}
            spec = LeaseSpec(holder_identity=node.known_as, renew_time=body["spec"]["renewTime"])
            self.leases[body["metadata"]["name"]] = Lease(ObjectMeta(name="", annotations=annotations), spec)
        for name in {*self.leases, *watcher.seen}:
            before, there = watcher.seen.get(name), self.leases.get(name)
            if before is not there:
                watcher.directory.set_lease(before, there, now)
        watcher.seen = dict(self.leases)
        self._record(node, watcher)
        if not watcher.read:
            watcher.read = True
            self._tell_former(node)
        if change := watcher.directory.take(now):
            self._tell(node, change)

    def _record(self, node: SimulatedNode, watcher: _Watcher) -> None:
        """What is held from now on gets a record that names the node, whatever it named; what is held no more has none
        of its any more."""
        claims = node.protocol.claims() if node.protocol is not None else {}
        bundles = self._world.plans[-1][1]
        held = {
            bundle.id: max(claims[address] for address in bundle.addresses if address in claims)
            for bundle in bundles
            if not claims.keys().isdisjoint(bundle.addresses)
        }
        for id_, epoch in held.items():
            if watcher.told.get(id_) != epoch:
                self._write(id_, node, epoch)
        for id_ in watcher.told.keys() - held.keys():
            if self._holder(id_) == node.known_as:
                del self.records[id_]
        watcher.told = held

    def _holder(self, id_: str) -> str:
        return self.records[id_].metadata.labels[NODE_LABEL] if id_ in self.records else ""

    def _write(self, id_: str, node: SimulatedNode, epoch: int) -> None:
        annotations = {EPOCH_ANNOTATION: str(epoch)}
        meta = ObjectMeta(name="", labels={NODE_LABEL: node.known_as}, annotations=annotations)
        self.records[id_] = ServiceL2Status(meta)

    def _tell_former(self, node: SimulatedNode) -> None:
        protocol = node.protocol
        read = {BundleId(id_): former_holder(record) for id_, record in self.records.items()}
        holders = {id_: holder for id_, holder in read.items() if holder is not None}
        if protocol is not None and node.loop is not None:
            node.loop.receive(lambda: protocol.set_former_holders(holders, self._world.now))

    def _win(self, node: SimulatedNode, question: AskRecord) -> None:
        """Two requests, between which others may write."""
        protocol, rng = node.protocol, self._world.rng

        def step(seen: ServiceL2Status | None) -> None:
            if not node.works or node.name in self.away:
                return
            decided = next_record_write(question, question.services[0], seen, node.known_as)
            there = self.records.get(question.bundle)
            if isinstance(decided, RecordAnswer):
                if protocol is not None and node.protocol is protocol and node.loop is not None:
                    node.loop.receive(lambda: protocol.answer_record(decided, self._world.now))
                return
            if there is seen:
                meta = decided.body["metadata"]
                there = ServiceL2Status(ObjectMeta(name="", labels=meta["labels"], annotations=meta["annotations"]))
                self.records[question.bundle] = there
                self._world.note(f"{node.name} wins the record of {question.bundle}")
            later(there)

        def later(seen: ServiceL2Status | None) -> None:
            self._world.clock.after(rng.uniform(0.005, 0.1), lambda: step(seen))

        self._world.clock.after(rng.uniform(0.005, 0.1), lambda: later(self.records.get(question.bundle)))

    def _tell(self, node: SimulatedNode, change: DirectoryChange) -> None:
        protocol = node.protocol
        told = msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=DirectoryChange)
        if protocol is not None and node.loop is not None:
            node.loop.receive(lambda: protocol.change_directory(told, self._world.now))
