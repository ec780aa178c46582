"""Changes of the Plan: what is told, and that order and history do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import Config
from cluster.objects import (
    L2AdvertisementSpec,
    LabelSelector,
    Node,
    ObjectMeta,
    PreferredNodeSelector,
    Service,
)
from cluster.slices import EndpointSlice
from speaker.api.planner import Planner, plan
from speaker.plan import Plan
from tests.speaker.api.objects import (
    OWN,
    a_config,
    a_node,
    a_planner,
    a_pool,
    a_service,
    a_slice,
    an_advertisement,
)
from tests.speaker.plans import after

# ------------------------------------------------------------------------ changes


def test_one_service_changes_one_bundle() -> None:
    planner = a_planner([a_service(f"s{i}", f"192.0.2.{i}") for i in range(1, 9)])
    moved = a_service("s3", "192.0.2.99")
    planner.set_service(moved.key, moved)
    change = planner.take_change()
    assert change is not None
    assert [each.addresses for each in change.changed] == [("192.0.2.99",)]
    assert change.removed == ()


def test_what_does_not_matter_changes_nothing() -> None:
    planner = a_planner([a_service()])
    node = a_node("node-1")
    touched = Node(
        ObjectMeta(name="node-1", resource_version="77", annotations={"seen": "now"}), node.spec, node.status
    )
    planner.set_node("node-1", touched)
    planner.set_slice("default/web-abc", a_slice("web", "node-1", "node-1"))
    service = a_service(labels={"colour": "blue"})
    planner.set_service(service.key, service)
    assert planner.take_change() is None


@pytest.mark.parametrize("services", [(), (a_service(),)])
def test_nothing_is_pending_once_the_change_was_taken(services: Sequence[Service]) -> None:
    """A change of nodes or of the configuration in a cluster without Services stayed pending for ever, and its due time
    in the past: the watcher's loop spun."""
    planner = a_planner(services)
    assert not planner.pending
    planner.set_node("node-4", a_node("node-4"))
    came = planner.pending
    planner.take_change()
    assert (came, planner.pending) == (True, False)


def test_taking_the_changes_twice_gives_nothing_the_second_time() -> None:
    assert a_planner([a_service()]).take_change() is None


# ------------------------------------------------------------------------ order and history do not matter

ADVERTISEMENTS = (
    an_advertisement("all"),
    an_advertisement(
        "front",
        L2AdvertisementSpec(
            ip_address_pools=("lan",),
            node_selectors=(LabelSelector(match_labels={"rack": "a"}),),
            preferred_node_selectors=(PreferredNodeSelector(7, LabelSelector(match_labels={"nic": "fast"})),),
            interfaces=("eth1",),
        ),
    ),
    an_advertisement("web", L2AdvertisementSpec(service_selectors=(LabelSelector(match_labels={"app": "web"}),))),
)
LABELS = st.fixed_dictionaries(
    {}, optional={"rack": st.sampled_from("ab"), "nic": st.just("fast"), "app": st.just("web")}
)
NODE_NAMES = ("node-1", "node-2", "node-3", "node-4")
SERVICE_NAMES = ("s1", "s2", "s3", "s4", "s5")
CONFIGS = st.builds(
    lambda advertisements, pool: a_config(pool, *advertisements),
    st.lists(st.sampled_from(ADVERTISEMENTS), min_size=1, unique_by=lambda each: each.metadata.name),
    st.sampled_from([a_pool(), a_pool("lan", "192.0.2.0/31"), a_pool("other", "192.0.2.2/31")]),
)
SERVICES = st.builds(
    lambda name, addresses, **rest: a_service(name, *addresses, **rest),
    st.sampled_from(SERVICE_NAMES),
    st.lists(st.sampled_from([f"192.0.2.{i}" for i in range(4)]), min_size=1, max_size=2),
    created=st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
    policy=st.sampled_from(["Cluster", "Local"]),
    lb_class=st.sampled_from([None, None, None, "other"]),
    port=st.sampled_from([80, 443, 53]),
    share=st.sampled_from(["", "x", "x", "y"]),
    labels=LABELS,
)
SLICES = st.builds(
    lambda service, nodes, ready: a_slice(service, *nodes, ready=ready),
    st.sampled_from(SERVICE_NAMES),
    st.lists(st.sampled_from(NODE_NAMES), min_size=1, max_size=2),
    st.sampled_from([True, True, False]),
)
NODES = st.builds(
    lambda name, ready, network_unavailable, labels: a_node(
        name, ready=ready, network_unavailable=network_unavailable, labels=labels
    ),
    st.sampled_from(NODE_NAMES),
    st.booleans(),
    st.sampled_from([False, False, True]),
    LABELS,
)
Gone = tuple[type, str]
GONE = st.one_of(
    st.tuples(st.just(Service), st.sampled_from([f"default/{name}" for name in SERVICE_NAMES])),
    st.tuples(st.just(EndpointSlice), st.sampled_from([f"default/{name}-abc" for name in SERVICE_NAMES])),
    st.tuples(st.just(Node), st.sampled_from(NODE_NAMES)),
)
STEPS = st.lists(st.one_of(SERVICES, SERVICES, SLICES, SLICES, NODES, NODES, CONFIGS, GONE, st.none()), max_size=40)


@dataclass
class World:
    """The API's objects, as the steps left them."""

    services: dict[str, Service] = field(default_factory=dict)
    slices: dict[str, EndpointSlice] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    config: Config = field(default_factory=Config)

    def step(self, planner: Planner, step: Service | EndpointSlice | Node | Config | Gone) -> None:
        match step:
            case Service():
                self.services[step.key] = step
                planner.set_service(step.key, step)
            case EndpointSlice():
                self.slices[step.key] = step
                planner.set_slice(step.key, step)
            case Node():
                self.nodes[step.key] = step
                planner.set_node(step.key, step)
            case Config():
                self.config = step
                planner.set_config(step)
            case (kind, key):
                if kind is Service:
                    self.services.pop(key, None)
                    planner.set_service(key, None)
                elif kind is EndpointSlice:
                    self.slices.pop(key, None)
                    planner.set_slice(key, None)
                else:
                    self.nodes.pop(key, None)
                    planner.set_node(key, None)


@given(STEPS)
def test_changes_one_by_one_lead_to_the_plan_made_from_scratch(
    steps: list[Service | EndpointSlice | Node | Config | Gone | None],
) -> None:
    """None in ``steps`` is a moment at which the changes are taken and sent, as the announcer would see them."""
    world, planner = World(), Planner(OWN)
    received = Plan(0, OWN)
    for step in [*steps, None]:
        if step is not None:
            world.step(planner, step)
            continue
        change = planner.take_change()
        if change is not None:
            received = after(received, change)
        assert received == planner.plan()
    scratch = plan(
        world.services.values(),
        world.slices.values(),
        world.nodes.values(),
        world.config,
        node=OWN,
        revision=planner.revision,
    )
    assert received == scratch
    held = [address for bundle in received.bundles for address in bundle.addresses]
    assert len(held) == len(set(held)), "an address is in two bundles"
    assert all(bundle.candidates for bundle in received.bundles if bundle.serving)


@given(st.data(), CONFIGS)
def test_the_order_of_the_inputs_does_not_matter(data: st.DataObject, config: Config) -> None:
    services = data.draw(st.lists(SERVICES, max_size=5, unique_by=lambda each: each.key))
    slices = data.draw(st.lists(SLICES, max_size=5, unique_by=lambda each: each.key))
    nodes = data.draw(st.lists(NODES, max_size=4, unique_by=lambda each: each.key))
    straight = plan(services, slices, nodes, config, node=OWN, revision=1)
    shuffled = plan(
        data.draw(st.permutations(services)),
        data.draw(st.permutations(slices)),
        data.draw(st.permutations(nodes)),
        config,
        node=OWN,
        revision=1,
    )
    assert straight == shuffled
