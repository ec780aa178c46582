"""What an observing speaker finds: whether a Service would be announced, and by nodes such as those that do it now."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cluster.l2status import NODE_LABEL, SERVICE_NAME_LABEL, SERVICE_NAMESPACE_LABEL
from cluster.objects import (
    Node,
    NodeName,
    ObjectMeta,
    Service,
    ServiceL2Status,
    ServiceL2StatusStatus,
)
from speaker.api.comparison import ANNOUNCED_BY_NOBODY, NOT_ANNOUNCED, OTHER_NODE, Comparison
from speaker.api.planner import Planner
from tests.speaker.api.objects import THREE, a_config, a_node, a_service, a_slice

NODES = tuple(NodeName(each.metadata.name) for each in THREE)
WEB = "default/web"


def record(node: str, service: str = "web", *, labels_only: bool = False) -> ServiceL2Status:
    labels = {NODE_LABEL: node, SERVICE_NAME_LABEL: service, SERVICE_NAMESPACE_LABEL: "default"}
    status = ServiceL2StatusStatus() if labels_only else ServiceL2StatusStatus(node, service, "default")
    return ServiceL2Status(ObjectMeta(name=f"l2-{node}-{service}", namespace="metallb-system", labels=labels), status)


def found(
    *records: ServiceL2Status,
    services: Sequence[Service] = (a_service(),),
    nodes: Sequence[Node] = THREE,
    endpoints: Sequence[str] = ("node-1",),
    service: str = WEB,
) -> dict[str, str]:
    """What each node's speaker says about a Service, as far as it says anything."""
    said = {}
    for node in NODES:
        planner = Planner(node)
        planner.set_config(a_config())
        for each in nodes:
            planner.set_node(each.key, each)
        for ours in services:
            planner.set_service(ours.key, ours)
        if endpoints:
            planner.set_slice("default/web-abc", a_slice("web", *endpoints))
        planner.take_change()
        comparison = Comparison(planner, node)
        for one in records:
            list(comparison.set_record(one.key, one))
        difference = comparison.compare(service)
        if difference is not None:
            assert difference.about == service
            assert difference.why
            said[str(node)] = difference.kind
    return said


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("labels_only", [False, True])
def test_whichever_of_equally_suited_nodes_announces_is_no_difference(node: str, labels_only: bool) -> None:
    assert found(record(node, labels_only=labels_only)) == {}


def test_two_that_announce_are_judged_each_by_its_own_node() -> None:
    assert found(record("node-1"), record("node-2")) == {}


def test_a_service_that_nobody_announces_is_told_by_the_first_that_would_alone() -> None:
    said = found()
    assert list(said.values()) == [ANNOUNCED_BY_NOBODY]


@pytest.mark.parametrize(
    ("services", "endpoints"),
    [
        ((), ("node-1",)),
        ((a_service("web", "203.0.113.1"),), ("node-1",)),  # of no pool
        ((a_service(lb_class="example.com/lb"),), ("node-1",)),
        ((a_service(),), ()),
    ],
)
def test_what_would_not_be_announced_is_told_by_the_node_that_does_it(
    services: Sequence[Service], endpoints: Sequence[str]
) -> None:
    assert found(record("node-2"), services=services, endpoints=endpoints) == {"node-2": NOT_ANNOUNCED}
    assert found(services=services, endpoints=endpoints) == {}, "and if nobody does there is no difference"


def test_a_node_that_others_are_preferred_to_is_told() -> None:
    nodes = (*THREE[:2], a_node("node-3", ready=False))
    assert found(record("node-3"), nodes=nodes) == {"node-3": OTHER_NODE}
    excluded = a_node("node-3", labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""})
    assert found(record("node-3"), nodes=(*THREE[:2], excluded)) == {"node-3": OTHER_NODE}


def test_a_local_service_is_announced_where_its_endpoints_are() -> None:
    local = (a_service(policy="Local"),)
    assert found(record("node-1"), services=local) == {}
    assert found(record("node-2"), services=local) == {"node-2": OTHER_NODE}


def test_a_record_that_changes_hands_or_goes_is_compared_again() -> None:
    planner = Planner(NODES[0])
    comparison = Comparison(planner, NODES[0])
    assert list(comparison.set_record("l2-a", record("node-1"))) == [WEB]
    assert comparison.compare(WEB) is not None
    assert set(comparison.set_record("l2-a", record("node-1", "other"))) == {WEB, "default/other"}
    assert comparison.compare(WEB) is None
    assert list(comparison.set_record("l2-a", None)) == ["default/other"]
    assert list(comparison.set_record("l2-a", None)) == []
    assert comparison.compare("default/other") is None
