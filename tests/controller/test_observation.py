"""What an observing controller finds: what MetalLB assigned is held, and only what people would notice counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from cluster.node_pools import NodeIPPool
from cluster.objects import Namespace, Node, Object, ObjectMeta, Service, decode
from controller.changes import Moment
from controller.observation import (
    ADDRESS_CHANGES,
    ADDRESS_GIVEN,
    ADDRESS_TAKEN,
    NOT_IN_FORCE,
    POOL_CHANGES,
    Observation,
    observe,
)
from tests.controller.world import pool_objects

NOW = Moment(1000.0, 1_800_000_000.0)
POOLS = {"lan": "192.0.2.10-192.0.2.20", "dmz": "198.51.100.0/28"}


def service(
    name: str,
    *addresses: str,
    annotations: Mapping[str, str] | None = None,
    lb_class: str | None = None,
    **spec: Any,
) -> Service:
    body = {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": dict(annotations or {}),
        },
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.9",
            "clusterIPs": ["10.96.0.9"],
            "ipFamilies": ["IPv4"],
            "ports": [{"port": 80}],
            "loadBalancerClass": lb_class,
            **spec,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": each, "ipMode": "VIP"} for each in addresses]}},
    }
    return decode(msgspec.json.encode(body), Service)


def look(*services: Service, pools: Mapping[str, Any] = POOLS, lb_class: str | None = None) -> Observation:
    seen: list[Object] = [*pool_objects(pools), Namespace(ObjectMeta(name="default")), *services]
    return observe(seen, "metallb-system", lb_class, 64, NOW)


def kinds(observation: Observation) -> dict[str, str]:
    return {key: each.kind for key, each in observation.differences.items()}


def by_metallb(name: str, address: str, pool: str = "lan", **more: Any) -> Service:
    return service(name, address, annotations={"metallb.io/ip-allocated-from-pool": pool}, **more)


@pytest.mark.parametrize(
    "what",
    [
        by_metallb("web", "192.0.2.15"),  # not the lowest that is free: MetalLB's history is none of ours
        by_metallb("web", "198.51.100.3", "dmz"),
        service("web", "192.0.2.15"),  # of a version that wrote no annotation
        service("web", "192.0.2.15", annotations={"metallb.universe.tf/ip-allocated-from-pool": "lan"}),
        service("web", "192.0.2.15", annotations={"metallb.universe.tf/loadBalancerIPs": "192.0.2.15"}),
        service("other", lb_class="example.com/lb"),
        service("other", "203.0.113.1", lb_class="example.com/lb"),
    ],
)
def test_what_metallb_did_and_we_would_do_too_is_no_difference(what: Service) -> None:
    assert kinds(look(what)) == {}


def test_two_that_share_an_address_are_left_alone() -> None:
    key = {"metallb.io/allow-shared-ip": "key", "metallb.io/ip-allocated-from-pool": "lan"}
    one = service("one", "192.0.2.15", annotations=key)
    two = service("two", "192.0.2.15", annotations=key, ports=[{"port": 443}])
    assert kinds(look(one, two)) == {}


def test_a_full_pool_leaves_who_waits_waiting_as_metallb_does() -> None:
    observation = look(by_metallb("web", "192.0.2.10"), service("waits"), pools={"lan": "192.0.2.10/32"})
    assert kinds(observation) == {}
    assert sum(observation.figures.waiting.values()) == 1


@pytest.mark.parametrize(
    ("what", "kind", "there", "decided"),
    [
        (service("web"), ADDRESS_GIVEN, "", "192.0.2.10"),
        (by_metallb("web", "203.0.113.5"), ADDRESS_CHANGES, "203.0.113.5", "192.0.2.10"),
        (
            service("web", "192.0.2.15", annotations={"metallb.io/loadBalancerIPs": "192.0.2.11"}),
            ADDRESS_CHANGES,
            "192.0.2.15",
            "192.0.2.11",
        ),
        (
            service("web", "203.0.113.5", annotations={"metallb.io/address-pool": "none"}),
            ADDRESS_TAKEN,
            "203.0.113.5",
            "",
        ),
        (by_metallb("web", "192.0.2.15", "dmz"), POOL_CHANGES, "dmz", "lan"),
    ],
)
def test_what_would_change_is_said_with_what_there_is_and_what_would_be(
    what: Service, kind: str, there: str, decided: str
) -> None:
    (difference,) = look(
        what, pools={**POOLS, "dmz": {"addresses": [POOLS["dmz"]], "autoAssign": False}}
    ).differences.values()
    assert (difference.kind, difference.about, difference.there, difference.decided) == (
        kind,
        "default/web",
        there,
        decided,
    )
    assert difference.why


def test_a_pool_that_would_not_be_in_force_is_a_difference_and_its_services_lose_nothing() -> None:
    """An active controller that starts has no earlier version of a pool that cannot be read either."""
    observation = look(by_metallb("web", "192.0.2.15"), pools={"lan": ["192.0.2.10-192.0.2.20", "nonsense"]})
    assert kinds(observation) == {"IPAddressPool lan": NOT_IN_FORCE}


def test_with_a_class_the_services_of_that_class_are_judged_and_no_others() -> None:
    ours = service("ours", lb_class="example.com/lb")
    assert kinds(look(ours, service("plain"), lb_class="example.com/lb")) == {"default/ours": ADDRESS_GIVEN}


def test_an_address_of_a_node_is_kept_by_who_has_it() -> None:
    node = {"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.15"}]}}
    seen: list[Object] = [
        *pool_objects(POOLS),
        decode(msgspec.json.encode(node), Node),
        by_metallb("web", "192.0.2.15"),
        service("new"),
    ]
    observation = observe(seen, "metallb-system", None, 64, NOW)
    assert kinds(observation) == {"default/new": ADDRESS_GIVEN}


@pytest.mark.parametrize("nodes_read", [True, False])
def test_addresses_of_nodes_count_once_all_that_they_depend_on_was_read(*, nodes_read: bool) -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    addresses = [{"type": "InternalIP", "address": "192.0.2.1"}]
    node = {"metadata": {"name": "a"}, "status": {"addresses": addresses, "conditions": [ready]}}
    pool = {"metadata": {"name": "nodes", "namespace": "metallb-system"}, "spec": {"allowOtherProxies": True}}
    seen: list[Object] = [
        decode(msgspec.json.encode(node), Node),
        decode(msgspec.json.encode(pool), NodeIPPool),
        Namespace(ObjectMeta(name="default")),
        service("waits"),
        service("has", "192.0.2.1", annotations={"metallb.io/ip-allocated-from-pool": "nodes"}, ports=[{"port": 81}]),
        service("lost", "192.0.2.7", annotations={"metallb.io/ip-allocated-from-pool": "nodes"}, ports=[{"port": 82}]),
    ]
    found = observe(seen, "metallb-system", None, 64, NOW, nodes_read=nodes_read).differences
    expected = {"default/waits": ADDRESS_GIVEN, "default/lost": ADDRESS_CHANGES} if nodes_read else {}
    assert {key: each.kind for key, each in found.items()} == expected
