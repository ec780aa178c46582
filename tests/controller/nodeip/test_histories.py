"""Nodes come, go, flap and change; Services come and go; speakers stop hearing: what is shown is always what the oracle
says, and changes only with what it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cluster.addresses import Family, parse_range
from cluster.node_pools import AddressSource, NodePool
from cluster.objects import LabelSelector, Node, NodeName, PoolName
from controller.nodeip.choice import NodeAddresses, NodePoolRefusal, NodeRequest, choose, nodes_of_pool
from controller.nodeip.damping import Damping
from controller.nodeip.guards import ClusterRanges, PortKey, ServiceProxy
from controller.nodeip.liveness import Hearing, next_stale_at, unheard_nodes
from controller.nodeip.nodes import read_node
from controller.nodeip.reasons import LeftOut
from tests.controller.nodeip.bodies import ANNOTATION, EXTERNAL, INTERNAL, LABEL, node_body
from tests.oracle import node_addresses as oracle
from tests.oracle.services import Address

SERVICES, PODS, ALLOWED = (
    "10.96.0.0/12",
    "10.244.0.0/16",
    ("203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32", "fe80::/10"),
)
NAMES = ["a", "b", "c", "d", "e"]
ADDRESSES = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.10", "198.51.100.1", "10.0.0.1", "10.96.0.5",
             "10.244.1.1", "127.0.0.1", "169.254.169.254", "2001:db8::1", "2001:db8::2", "2001:db8::3", "fe80::1",
             "tomorrow"]  # fmt: skip
SPACED = st.lists(st.sampled_from(ADDRESSES[:-1]), max_size=2).map(" ".join)
V4_TEXTS = [each for each in ADDRESSES if ":" not in each]
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "external": SPACED,
    "internal": SPACED,
    "label": st.sampled_from(["", *V4_TEXTS]),
    "annotation": st.lists(st.sampled_from(ADDRESSES), max_size=2).map(",".join),
    "labels": st.sampled_from(
        [{}, {"edge": "yes"}, {"edge": "yes", "node.kubernetes.io/exclude-from-external-load-balancers": ""}]
    ),
    "taints": st.sampled_from([(), (), ("node.kubernetes.io/out-of-service",), ("ToBeDeletedByClusterAutoscaler",)]),
    "ready": st.sampled_from(["True", "True", "True", "False", "Unknown"]),
    "deleted": st.sampled_from([False, False, False, True]),
}
HEALTHY = {"taints": (), "ready": "True", "deleted": False, "labels": {"edge": "yes"}}
ONE_CHANGE = st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), FIELDS[name]))
SUBSETS = st.frozensets(st.sampled_from(NAMES))


@dataclass(frozen=True)
class Wanted:
    versions: tuple[int, ...]
    local: frozenset[str] | None
    listening: frozenset[str] = frozenset()
    """Nodes on which something has the port."""


class Histories(RuleBasedStateMachine):
    @initialize(
        sources=st.lists(st.sampled_from([EXTERNAL, INTERNAL, LABEL, ANNOTATION]), min_size=1, unique=True),
        labels=st.sampled_from([{}, {"edge": "yes"}]),
        versions=st.sampled_from([{4}, {6}, {4, 6}, {4, 6}]),
        mix=st.booleans(),
        allowed=st.sampled_from([(), ALLOWED]),
        max_nodes=st.sampled_from([None, None, 1, 2, 3]),
    )
    def begin(
        self,
        *,
        sources: list[AddressSource],
        labels: dict[str, str],
        versions: set[int],
        mix: bool,
        allowed: tuple[str, ...],
        max_nodes: int | None,
    ) -> None:
        self.now = 1000.0
        self.pool = NodePool(
            PoolName("nodes"),
            node_selectors=(LabelSelector(labels),) if labels else (),
            families=frozenset(map(Family, versions)),
            sources=tuple(sources),
            mix=mix,
            allowed=tuple(parse_range(each) for each in allowed if not each.startswith("fe80")),
            max_nodes=max_nodes,
        )
        self.spec = oracle.NodePoolSpec(
            labels, tuple((each.type, each.key) for each in sources), frozenset(versions), mix, allowed,
            (SERVICES, PODS),
        )  # fmt: skip
        self.ranges = ClusterRanges((parse_range(SERVICES),), (parse_range(PODS),))
        self.fields: dict[str, dict[str, Any]] = {}
        self.ready_for: dict[str, float] = {}
        self.services: dict[str, Wanted] = {}
        self.said: dict[str, tuple[float, frozenset[str]]] = {}
        self.damping = Damping()
        self.histories = {name: oracle.NodeHistory() for name in NAMES}
        self.shown: dict[str, NodeAddresses | NodePoolRefusal] = {}
        self.had: dict[str, dict[str, frozenset[int]]] = {}

    # -------------------------------------------------------------------- what happens

    @rule(
        name=st.sampled_from(NAMES), fields=st.fixed_dictionaries(FIELDS), ready_for=st.sampled_from([0.0, 4.0, 3600.0])
    )
    def node_comes(self, name: str, fields: dict[str, Any], ready_for: float) -> None:
        if name not in self.fields:
            self.fields[name], self.ready_for[name] = fields | HEALTHY, ready_for
            self.look()

    @rule(name=st.sampled_from(NAMES), change=ONE_CHANGE)
    def node_changes(self, name: str, change: tuple[str, Any]) -> None:
        if name in self.fields:
            self.fields[name] = self.fields[name] | dict([change])
            self.look()

    @rule(name=st.sampled_from(NAMES))
    def node_is_well_again(self, name: str) -> None:
        if name in self.fields:
            self.fields[name] = self.fields[name] | HEALTHY
            self.look()

    @rule(name=st.sampled_from(NAMES), times=st.integers(1, 4), apart=st.sampled_from([0.5, 9.0, 11.0, 45.0]))
    def node_flaps(self, name: str, times: int, apart: float) -> None:
        for _ in range(times):
            self.node_changes(name, ("ready", "Unknown"))
            self.time_passes(1.0)
            self.node_changes(name, ("ready", "True"))
            self.time_passes(apart)

    @rule(name=st.sampled_from(NAMES))
    def node_goes(self, name: str) -> None:
        if self.fields.pop(name, None) is not None:
            self.damping.gone(NodeName(name), self.now)
            self.histories[name].add(self.now, "gone")
            self.look()

    @rule(
        key=st.sampled_from(["web", "dns", "mail"]),
        versions=st.sampled_from([(4,), (6,), (4, 6), (6, 4)]),
        local=st.one_of(st.none(), SUBSETS),
        listening=st.one_of(st.just(frozenset[str]()), SUBSETS),
    )
    def service_comes(
        self, key: str, versions: tuple[int, ...], local: frozenset[str] | None, listening: frozenset[str]
    ) -> None:
        others = {each: found for each, found in self.shown.items() if each != key}
        self.services[key] = Wanted(versions, local, listening)
        self.look()
        assert {each: self.shown[each] for each in others} == others

    @rule(key=st.sampled_from(["web", "dns", "mail"]))
    def service_goes(self, key: str) -> None:
        self.services.pop(key, None)
        self.look()

    @rule(speaker=st.sampled_from(NAMES), unheard=SUBSETS)
    def speaker_says(self, speaker: str, unheard: frozenset[str]) -> None:
        self.said[speaker] = (self.now, unheard)
        self.look()

    @rule(name=st.sampled_from(NAMES))
    def all_others_lose(self, name: str) -> None:
        self.said |= {each: (self.now, frozenset({name})) for each in NAMES if each != name}
        self.look()

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 31.0, 301.0, 601.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := min(self.damping.next_deadline(), next_stale_at(self.hearings(), self.now))) <= until:
            if at > self.now:
                self.nothing_changes(before=at)
            self.now = max(at, self.now)
            self.look()
        self.nothing_changes(before=until)
        self.now = until
        self.look()

    # -------------------------------------------------------------------- what is shown

    def hearings(self) -> dict[NodeName, Hearing]:
        return {
            NodeName(speaker): Hearing(at, frozenset(map(NodeName, nodes)))
            for speaker, (at, nodes) in self.said.items()
        }

    def nothing_changes(self, *, before: float) -> None:
        shown = self.shown
        self.now += (before - self.now) / 2
        self.look()
        assert self.shown == shown

    def look(self) -> None:
        """What the shell does whenever something has changed, and what must be so."""
        bodies = {name: node_body(name, **fields) for name, fields in self.fields.items()}
        self.check(bodies, self.decide(bodies))
        assert self.decide(bodies) == self.shown

    def decide(self, bodies: dict[str, dict[str, Any]]) -> dict[str, NodeAddresses | NodePoolRefusal]:
        unheard = unheard_nodes(self.hearings(), self.now)
        offers = [read_node(msgspec.convert(body, Node), self.pool.sources) for body in bodies.values()]
        absences = {}
        self.damping.handle_timer(self.now)
        for offer in offers:
            why = offer.absence or (LeftOut.UNHEARD if offer.name in unheard else None)
            self.damping.observe(offer.name, why, self.now, self.ready_for[offer.name])
            if (absence := self.damping.absence(offer.name)) is not None:
                absences[offer.name] = absence
        of_pool = nodes_of_pool(self.pool, offers, absences, self.ranges)
        return {
            key: choose(
                of_pool,
                NodeRequest(
                    key,
                    (tuple(map(Family, want.versions)),),
                    (PortKey("TCP", 80),),
                    None if want.local is None else frozenset(map(NodeName, want.local)),
                ),
                proxy=ServiceProxy.IPTABLES,
                listeners={NodeName(each): frozenset({PortKey("TCP", 80)}) for each in want.listening},
            )
            for key, want in self.services.items()
        }

    def check(self, bodies: dict[str, dict[str, Any]], shown: dict[str, NodeAddresses | NodePoolRefusal]) -> None:
        unheard = oracle.unheard(self.said, self.now)
        for name, body in bodies.items():
            usable = oracle.is_well(body) and name not in unheard
            self.histories[name].add(self.now, "usable" if usable else "unusable", self.ready_for[name])
        present = [name for name in bodies if self.histories[name].is_shown(self.now)]
        given = oracle.gives(self.spec, bodies, present)
        selected = {name for name, body in bodies.items() if self.spec.selects(body)}
        for key, found in shown.items():
            want = self.services[key]
            serving = (set(bodies) if want.local is None else want.local) - want.listening
            having = {
                name: versions
                for name in serving
                if (versions := frozenset(each for each in want.versions if name in given[each]))
            }
            self.check_one(bodies, found, want, given, having)
            nodes = found.nodes if isinstance(found, NodeAddresses) else frozenset()
            assert found.left_out.keys() == selected - nodes
            self.check_stable(key, want, nodes, having)
        self.shown = shown
        self.had = {key: had for key, had in self.had.items() if key in shown}

    def check_one(
        self,
        bodies: dict[str, dict[str, Any]],
        found: NodeAddresses | NodePoolRefusal,
        want: Wanted,
        given: dict[int, dict[str, frozenset[Address]]],
        having: dict[str, frozenset[int]],
    ) -> None:
        most = self.pool.max_nodes or len(NAMES)
        complete = {name for name, versions in having.items() if len(versions) == len(want.versions)}
        covered = frozenset[int]().union(*having.values())
        if covered != set(want.versions) or (most < len(want.versions) and not complete):
            assert isinstance(found, NodePoolRefusal)
            return
        assert isinstance(found, NodeAddresses)
        assert found.nodes <= having.keys()
        assert len(found.nodes) == min(most, len(having))
        assert len(found.nodes & complete) == min(most, len(complete))
        theirs = [each for name in found.nodes for version in want.versions for each in given[version].get(name, ())]
        assert [each.text for each in found.addresses] == oracle.in_order(theirs, want.versions)
        assert {each.family for each in found.addresses} == set(want.versions)
        assert not any(
            oracle.is_forbidden(self.spec, bodies, name, address)
            for name in found.nodes
            for version in want.versions
            for address in given[version].get(name, ())
        )

    def check_stable(
        self, key: str, want: Wanted, nodes: frozenset[NodeName], having: dict[str, frozenset[int]]
    ) -> None:
        """Each node that changed brings at most one other in."""
        before, had = self.shown.get(key), self.had.get(key, {})
        self.had[key] = having
        changed = {name for name in {*had, *having} if had.get(name) != having.get(name)}
        if (
            isinstance(before, NodeAddresses)
            and nodes
            and {each.family for each in before.addresses} == set(want.versions)
        ):
            assert len(nodes - before.nodes) <= len(changed)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=20)
