"""Any history: whatever happens, in whatever order, with kills, losses and delays between any two steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from controller.changes import Read
from tests.controller.node_validity import addresses_of_nodes, are_nodes
from tests.controller.validity import (
    POOL_ANNOTATION,
    assert_a_restart_changes_nothing,
    assert_no_address_is_shown_twice,
    assert_valid_at_rest,
    class_of,
    has_what_it_asks_for,
    load_balancers,
    may_keep_all,
    ours,
)
from tests.controller.world import World
from tests.oracle import services as rules
from tests.oracle.services import Address, Body, annotation, key_of, may_share, shown

BROKEN = {"a": "10.0.0.9-10.0.0.1", "b": "10.0.0.2-10.0.0.4"}
OVERLAP = {"a": "10.0.0.1-10.0.0.3", "b": ["10.0.0.3-10.0.0.5", "2001:db8::1-2001:db8::2"]}
POOLS: list[dict[str, Any]] = [
    {"a": "10.0.0.1-10.0.0.3"},
    {"a": ["10.0.0.1-10.0.0.2", "2001:db8::1-2001:db8::2"], "b": "10.0.0.3-10.0.0.4"},
    {"a": ["10.0.0.1/32", "2001:db8::1/128"], "b": ["10.0.0.2-10.0.0.3", "2001:db8::2-2001:db8::3"]},
    {"v6": "2001:db8::1-2001:db8::3", "v4": "10.0.0.1-10.0.0.3"},
    {"b": {"addresses": ["10.0.0.1-10.0.0.4", "2001:db8::1/128"], "autoAssign": False}, "c": "10.0.0.5/32"},
    {"c": {"addresses": ["10.0.0.2-10.0.0.5"], "serviceAllocation": {"namespaces": ["dev"]}}, "d": "10.0.0.6/32"},
    {
        "c": {
            "addresses": ["10.0.0.1-10.0.0.2", "2001:db8::1/128"],
            "serviceAllocation": {"priority": 5, "namespaceSelectors": [{"matchLabels": {"team": "blue"}}]},
        },
        "d": {
            "addresses": ["10.0.0.3-10.0.0.4"],
            "serviceAllocation": {"priority": 3, "serviceSelectors": [{"matchLabels": {"tier": "x"}}]},
        },
        "e": {"addresses": ["10.0.0.0/32", "10.0.0.5/32"], "avoidBuggyIPs": True},
    },
    {},
    BROKEN,
    OVERLAP,
]
KEYS = st.sampled_from(["default/u", "default/v", "default/w", "default/x", "dev/y", "dev/z"])
V4, V6 = "10.96.0.1", "fd00:96::1"
V6_FIRST = {"default/x", "dev/z"}
THEIRS = {"default/w", "dev/z"}
"""Born under the other installation's class."""
PREFIX = "metallb.io/"
WISHES = st.fixed_dictionaries(
    {},
    optional={
        f"{PREFIX}loadBalancerIPs": st.sampled_from(
            [None, "", "10.0.0.1", "10.0.0.3", "2001:db8::1", "10.0.0.2,2001:db8::2", "10.0.0.6", "garbage"]
        ),
        f"{PREFIX}address-pool": st.sampled_from([None, "a", "b", "c", "v6"]),
        f"{PREFIX}allow-shared-ip": st.sampled_from([None, "key", "key", "other"]),
    },
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "loadBalancerIP": st.sampled_from([None, "10.0.0.1", "10.0.0.4"]),
        "ports": st.sampled_from([[{"port": 80}], [{"port": 443}], [{"port": 53, "protocol": "UDP"}]]),
        "externalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "selector": st.sampled_from([{"app": "one"}, {"app": "two"}]),
    },
)
NODES = st.sampled_from([(), ("10.0.0.1",), ("10.0.0.3", "2001:db8::1"), ("192.168.0.1",)])
CLASSES = st.sampled_from([None, "their"])
"""Two installations, each of which serves one."""
FALSE = st.sampled_from(
    [None, "10.0.0.1", "10.0.0.2", "10.9.9.9", "2001:db8::1", "host name", "another's", "another's"]
)
FATES = st.sampled_from(["made", "made", "made", "answer lost", "failed"])
POLICIES = st.sampled_from(["SingleStack", "PreferDualStack", "RequireDualStack", "PreferDualStack alone"])


def families(key: str, policy: str) -> dict[str, Any]:
    """The API's part of a family policy; a cluster of one family gives one ClusterIP also where both are preferred."""
    pair = [V6, V4] if key in V6_FIRST else [V4, V6]
    single = policy in {"SingleStack", "PreferDualStack alone"}
    return {
        "ipFamilyPolicy": policy.split(maxsplit=1)[0],
        "clusterIP": pair[0],
        "clusterIPs": pair[:1] if single else pair,
    }


class Histories(RuleBasedStateMachine):
    """What users, others who write and the network do; and two controllers, step by step, in between."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(POOLS[1], remember_releases=2)
        self.theirs = World(POOLS[1], "their", beside=self.world)
        self.worlds = {None: self.world, "their": self.theirs}
        for world in self.worlds.values():
            world.lagging = True
            world.start()
        self.disturbed: set[str] = set()
        """Services whose own rules somebody touched since the last rest."""
        self.falsified: set[str] = set()
        """Services whose status somebody touched since."""
        self.wiped = False
        """Whether a condition was among that: it is the record."""
        self.sharers: set[str] = set()
        """Services that ever had a sharing key."""
        self.evicted: set[str] = set()
        """Services that, since the last rest, could not keep what they had, be it for a moment."""
        self.of_nodes: dict[str | None, set[Address]] = {whose: set() for whose in self.worlds}
        """Addresses that were nodes' since the last rest, be it for a moment, for each installation: who shared one by
        its ports leaves it when a pool comes to contain it, or the node goes, and not before that is decided."""
        self.rested: dict[str, Body] = {}
        self.stays: dict[str, set[Address]] = {}
        """What Services had, by their conditions and their status, when their deletion began."""

    @initialize(room=st.sampled_from([1, 2, 1000]))
    def writers_have_room(self, room: int) -> None:
        for world in self.worlds.values():
            world.room = room

    # -------------------------------------------------------------------- people

    @rule(key=KEYS, wishes=WISHES, spec=SPECS, policy=POLICIES, tier=st.sampled_from([None, "x"]))
    def put(self, key: str, wishes: dict[str, Any], spec: dict[str, Any], policy: str, tier: str | None) -> None:
        self.put_one(key, wishes, spec, policy, tier)

    def put_one(self, key: str, wishes: dict[str, Any], spec: dict[str, Any], policy: str, tier: str | None) -> None:
        namespace, name = key.split("/")
        present = self.world.services.get(key)
        if present is None and key in THEIRS:
            spec = {**spec, "loadBalancerClass": "their"}
        if present is None or present["spec"]["type"] == "LoadBalancer":
            self._put(key, annotations=wishes, labels={"tier": tier}, **families(key, policy), **spec)
        assert self.world.view(name, namespace)

    @rule(
        keys=st.lists(KEYS, min_size=2, max_size=4, unique=True),
        ports=st.sampled_from([(80, 81, 82, 83), (80, 80, 81)]),
    )
    def share(self, keys: list[str], ports: tuple[int, ...]) -> None:
        """Several that would have one address together, as far as their ports differ."""
        for key, port in zip(keys, ports, strict=False):
            self.put_one(key, {f"{PREFIX}allow-shared-ip": "key"}, {"ports": [{"port": port}]}, "SingleStack", None)

    @rule(key=KEYS, wishes=WISHES)
    def annotate(self, key: str, wishes: dict[str, Any]) -> None:
        if key in self.world.services:
            self._put(key, annotations=wishes)

    @rule(key=KEYS, policy=POLICIES)
    def change_policy(self, key: str, policy: str) -> None:
        if key in self.world.services:
            self._put(key, **families(key, policy))

    @rule(key=KEYS, ports=st.sampled_from([[{"port": 80}], [{"port": 443}], [{"port": 80}, {"port": 443}]]))
    def change_ports(self, key: str, ports: list[Any]) -> None:
        if key in self.world.services:
            self._put(key, ports=ports)

    @rule(key=KEYS, to=st.sampled_from(["ClusterIP", "LoadBalancer", "their LoadBalancer"]))
    def change_type(self, key: str, to: str) -> None:
        """The class can change only together with the type."""
        present = self.world.services.get(key)
        type_ = to.rsplit(maxsplit=1)[-1]
        if present is not None and present["spec"]["type"] != type_:
            self.falsified.discard(key)  # the API takes the addresses out with the type
            self.stays.pop(key, None)
            self._put(key, type=type_, loadBalancerClass="their" if to.startswith("their") else None)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if key in self.world.services:
            self.disturbed.add(key)
            self.stays.pop(key, None)
            namespace, name = key.split("/")
            self.world.delete(name, namespace)

    @rule(key=KEYS)
    def begin_to_delete(self, key: str) -> None:
        """Finalizers keep it until ``delete``."""
        present = self.world.services.get(key)
        if present is None or present["metadata"].get("deletionTimestamp") is not None:
            return
        has = set(shown(present))
        if present["spec"]["type"] == "LoadBalancer" and has and has == set(rules.given(present) or ()):
            self.stays[key] = has
        self._put(key, deletionTimestamp="2026-01-02T00:00:00Z")

    @rule(whose=CLASSES, pools=st.sampled_from(POOLS))
    def configure(self, whose: str | None, pools: dict[str, Any]) -> None:
        self.worlds[whose].configure(**pools)
        self._note_evicted()

    @rule(namespace=st.sampled_from(["default", "dev"]), team=st.sampled_from(["blue", "red"]))
    def label_namespace(self, namespace: str, team: str) -> None:
        for world in self.worlds.values():
            world.label_namespace(namespace, team=team)
        self._note_evicted()

    @rule(name=st.sampled_from(["n1", "n2"]), addresses=NODES)
    def node(self, name: str, addresses: tuple[str, ...]) -> None:
        """A node that comes, goes, or has other addresses now. A Service that has one of them keeps it."""
        for world in self.worlds.values():
            world.node(name, *addresses)

    # -------------------------------------------------------------------- others who write

    @rule(key=KEYS, what=FALSE, other=KEYS, wiped=st.sampled_from([False, False, False, True]))
    def falsify(self, key: str, what: str | None, other: str, wiped: bool) -> None:
        present = self.world.services.get(key)
        if present is None or present["spec"]["type"] != "LoadBalancer":
            return
        if what == "another's":
            theirs = shown(self.world.services[other]) if other in self.world.services else ()
            what = str(theirs[0]) if theirs else None
        ingress = [{"hostname" if what == "host name" else "ip": what}] if what else None
        self.falsified.add(key)
        if not shown(self.world.services[key]):
            self.disturbed.add(key)  # it may be believed
        self.wiped |= wiped
        if wiped:
            self.stays.pop(key, None)
        self._write(key, status={"loadBalancer": {"ingress": ingress}, **({"conditions": None} if wiped else {})})

    @rule(key=KEYS, what=FALSE, other=KEYS)
    def contest(self, key: str, what: str | None, other: str) -> None:
        """Somebody falsifies again and again what the controllers put right."""
        for _ in range(3):
            self.falsify(key, what, other, wiped=False)
            for world in self.worlds.values():
                world.rest()
        self.falsify(key, what, other, wiped=False)
        self.a_moment_passes()

    @rule(key=KEYS)
    def take_the_annotation_away(self, key: str) -> None:
        if key in self.world.services:
            self._write(key, annotations={POOL_ANNOTATION: None})

    # -------------------------------------------------------------------- the controllers, and what they meet

    @rule(whose=CLASSES, count=st.integers(1, 3))
    def deliver(self, whose: str | None, count: int) -> None:
        self.worlds[whose].deliver(count)

    @rule(whose=CLASSES)
    def decide(self, whose: str | None) -> None:
        self.worlds[whose].decide()

    @precondition(lambda self: any(world.pending for world in self.worlds.values()))
    @rule(which=st.integers(0, 9), fate=FATES)
    def carry_out(self, which: int, fate: str) -> None:
        pending = [(world, change) for world in self.worlds.values() for change in world.pending]
        world, change = pending[which % len(pending)]
        if fate != "failed":
            world.carry_out(change, tell=fate == "made")
        else:
            world.pending.remove(change)
        if fate != "made":
            world.unanswered.add(change.key)
            world.controller.failed(change, 0.0, world.now)

    @rule(seconds=st.sampled_from([0.3, 5.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.world.time += seconds

    @rule(whose=CLASSES)
    def kill(self, whose: str | None) -> None:
        """What the dead controller had under way may still arrive."""
        world = self.worlds[whose]
        orphans = [change for change in world.pending if not isinstance(change, Read)]
        for change in orphans[::2]:
            world.carry_out(change, tell=False)
        if self.wiped or self.sharers:
            self.disturbed.update(world.services)  # what it knew better than the API is lost with it
        world.start()
        self._note_evicted()  # with a last good version of a pool that only the dead one knew

    # -------------------------------------------------------------------- what must hold

    @invariant()
    def no_address_is_shown_twice(self) -> None:
        """Except where a user wrote it into the status, or changed the terms of those who share."""
        leaving = {key_of(each) for each in load_balancers(self.world) if self._is_past_mending(each)}
        excused = self.falsified | (self.disturbed & self.sharers) | leaving
        for whose, world in self.worlds.items():
            of_nodes = self.of_nodes[whose]
            of_nodes |= addresses_of_nodes(world)
            assert_no_address_is_shown_twice(
                (each for each in ours(world) if key_of(each) not in excused),
                are_nodes=lambda address, _one, _other: address in of_nodes,  # noqa: B023 (called at once)
            )

    @invariant()
    def two_installations_may_give_one_address_at_one_moment(self) -> None:
        """Then one gives way."""
        showing: dict[tuple[Address, str | None], set[str]] = {}
        for service in load_balancers(self.world):
            for address in shown(service):
                showing.setdefault((address, class_of(service)), set()).add(key_of(service))
        for (address, whose), keys in showing.items():
            if whose is None and (other := showing.get((address, "their"))):
                self.evicted |= (keys | other) - self.falsified

    @rule()
    def a_moment_passes(self) -> None:
        """No duplicate stands, however contested a status is."""
        until = self.world.time + 2.0
        while self.world.time < until:
            for world in self.worlds.values():
                world.rest()
            self.no_address_is_shown_twice()
            self.two_installations_may_give_one_address_at_one_moment()
            self.world.time += 0.1
        excused = {
            key_of(each) for each in load_balancers(self.world) if self._is_past_mending(each) or self._is_retried(each)
        }
        services = (each for each in load_balancers(self.world) if key_of(each) not in excused)
        pools = {whose: tuple(world.in_force.values()) for whose, world in self.worlds.items()}
        assert_no_address_is_shown_twice(services, pools, are_nodes(self.world))

    @rule()
    def rest(self) -> None:
        self.world.settle()
        past_mending = {key_of(each) for each in load_balancers(self.world) if self._is_past_mending(each)}
        for world in self.worlds.values():
            assert_valid_at_rest(world, past_mending)
        self._assert_nobody_moved_who_need_not()
        self._assert_nobody_lost_an_address_while_being_deleted()
        for world in self.worlds.values():
            if not past_mending and world.every_pool_is_in_force():
                assert_a_restart_changes_nothing(world)
        self.disturbed.clear()
        self.falsified &= past_mending
        self.wiped = False
        for of_nodes in self.of_nodes.values():
            of_nodes.clear()
        self.rested = {key_of(each): each for each in load_balancers(self.world) if shown(each)}
        self.evicted.clear()
        self._note_evicted()

    def teardown(self) -> None:
        self.rest()
        for key in list(self.world.services):
            namespace, name = key.split("/")
            self.world.delete(name, namespace)
        self.world.settle()
        for world in self.worlds.values():
            assert_valid_at_rest(world)
            assert world.controller.next_deadline() is None
            assert world.controller.figures().services == 0

    def _assert_nobody_moved_who_need_not(self) -> None:
        now = {key_of(each): each for each in load_balancers(self.world)}
        for key, service in self.rested.items():
            if key in self.disturbed | self.evicted or key not in now or self._is_past_mending(now[key]):
                continue
            before, after = shown(service), shown(now[key])
            assert set(before) <= set(after), f"{key} moved from {before} to {after}"

    def _assert_nobody_lost_an_address_while_being_deleted(self) -> None:
        for key, addresses in self.stays.items():
            has = set(shown(self.world.services[key]))
            assert has == addresses, f"{key}, which is being deleted, had {addresses} and has {has}"

    def _note_evicted(self) -> None:
        """Whom the rules as they are now do not let keep all that it had, or who asks for something else anyway."""
        for key, service in self.rested.items():
            world = self.worlds[class_of(service)]
            if annotation(service, "ip-allocated-from-pool") in world.pools.keys() - world.in_force.keys():
                continue  # a typing error costs nobody anything
            if not may_keep_all(world, service, shown(service)) or not has_what_it_asks_for(world, service):
                self.evicted.add(key)

    # -------------------------------------------------------------------- inside

    def _is_past_mending(self, service: Body) -> bool:
        """A Service that is being deleted keeps its address where it shares no longer on the terms on which it came to
        it."""
        return key_of(service) in self.sharers and service["metadata"].get("deletionTimestamp") is not None

    def _is_retried(self, service: Body) -> bool:
        """Its last write failed, and was not made since."""
        return any(key_of(service) in world.unanswered for world in self.worlds.values())

    def _put(self, key: str, **parts: Any) -> None:
        self.disturbed.add(key)
        self._write(key, **parts)

    def _write(self, key: str, **parts: Any) -> None:
        namespace, name = key.split("/")
        self.world.put(name, namespace, **parts)
        service = self.world.services[key]
        if annotation(service, "allow-shared-ip"):
            self.sharers.add(key)
        if self._is_past_mending(service):
            self._note_crowded_out(service)

    def _note_crowded_out(self, leaving: Body) -> None:
        """A Service that is being deleted stays, also where its status was falsified, and those that cannot share with
        it any more move."""
        stays = {*shown(leaving), *(rules.given(leaving) or ())}
        for other in load_balancers(self.world):
            if stays & set(shown(other)) and other is not leaving and not may_share(other, leaving):
                self.evicted.add(key_of(other))


ANY = settings(suppress_health_check=list(HealthCheck))
QUICK = settings(ANY, max_examples=200, stateful_step_count=30, derandomize=True)
"""The same histories each time; new ones are the long run's business."""
LONG = settings(ANY, max_examples=30_000, stateful_step_count=80)


@pytest.mark.slow
def test_any_history_ends_well() -> None:
    run_state_machine_as_test(Histories, settings=QUICK)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_thousands_of_histories_end_well() -> None:
    run_state_machine_as_test(Histories, settings=LONG)


# ------------------------------------------------------------------------ the same events in another order

SERVICES = st.dictionaries(
    KEYS,
    st.fixed_dictionaries({"wishes": WISHES, "spec": SPECS, "policy": POLICIES, "tier": st.sampled_from([None, "x"])}),
)
TEAMS = st.fixed_dictionaries({"default": st.sampled_from(["blue", "red"]), "dev": st.sampled_from(["blue", "red"])})


def happen(world: World, event: tuple[str, str, Any]) -> None:
    what, key, value = event
    namespace, _, name = key.rpartition("/")
    if what == "service":
        asked = {"annotations": value["wishes"], "labels": {"tier": value["tier"]}, **value["spec"]}
        world.put(name, namespace, **asked, **families(key, value["policy"]))
    elif what == "pool":
        world.configure(**{**world.pools, key: value})
    else:
        world.label_namespace(key, team=value)


@pytest.mark.slow
@settings(max_examples=300)
@given(SERVICES, st.sampled_from(POOLS), TEAMS, st.data())
def test_the_same_events_in_any_order_end_well(
    services: dict[str, Any], pools: dict[str, Any], teams: dict[str, str], data: st.DataObject
) -> None:
    """Not alike, since the first to come is served first; but each time by the rules."""
    events = [("service", key, value) for key, value in services.items()]
    events += [("pool", name, spec) for name, spec in pools.items()]
    events += [("team", name, team) for name, team in teams.items()]
    world = World({})
    world.start()
    for event in data.draw(st.permutations(events)):
        happen(world, event)
        if data.draw(st.booleans()):
            world.settle()
    world.settle()
    assert_valid_at_rest(world)
    if world.every_pool_is_in_force():
        assert_a_restart_changes_nothing(world)
