"""Objects of the API for tests of the Plan, and what of a bundle these look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from cluster.config import Config, load
from cluster.objects import (
    IPAddressPool,
    IPAddressPoolSpec,
    L2Advertisement,
    L2AdvertisementSpec,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Node,
    NodeCondition,
    NodeName,
    NodeStatus,
    ObjectMeta,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    Taint,
)
from cluster.slices import Endpoint, EndpointConditions, EndpointSlice
from speaker.api.kept import kept_service, kept_slice
from speaker.api.planner import Planner, plan
from speaker.plan import Bundle

WEB = "192.0.2.1"
OWN = NodeName("node-1")


def a_pool(name: str = "lan", *addresses: str, labels: Mapping[str, str] | None = None) -> IPAddressPool:
    return IPAddressPool(
        ObjectMeta(name=name, labels=dict(labels or {})), IPAddressPoolSpec(addresses=addresses or ("192.0.2.0/24",))
    )


def an_advertisement(name: str = "all", spec: L2AdvertisementSpec | None = None) -> L2Advertisement:
    return L2Advertisement(ObjectMeta(name=name), spec or L2AdvertisementSpec())


def a_node(
    name: str,
    *,
    ready: bool = True,
    network_unavailable: bool = False,
    taints: tuple[Taint, ...] = (),
    labels: Mapping[str, str] | None = None,
) -> Node:
    conditions = [NodeCondition("Ready", "True" if ready else "Unknown")]
    if network_unavailable:
        conditions.append(NodeCondition("NetworkUnavailable", "True"))
    node = Node(ObjectMeta(name=name, labels=dict(labels or {})), status=NodeStatus(conditions=tuple(conditions)))
    return Node(node.metadata, type(node.spec)(taints=taints), node.status)


def a_service(
    name: str = "web",
    *addresses: str,
    uid: str = "",
    created: str = "2026-01-01T00:00:00Z",
    policy: str = "Cluster",
    lb_class: str | None = None,
    port: int = 80,
    share: str = "",
    labels: Mapping[str, str] | None = None,
    type_: str = "LoadBalancer",
) -> Service:
    return Service(
        ObjectMeta(
            name=name,
            namespace="default",
            uid=uid or f"uid-{name}",
            creation_timestamp=created,
            labels=dict(labels or {}),
            annotations={"metallb.io/allow-shared-ip": share} if share else {},
        ),
        ServiceSpec(
            type=type_,
            external_traffic_policy=policy,
            load_balancer_class=lb_class,
            ports=(ServicePort(port=port),),
            selector={"app": name},
        ),
        ServiceStatus(LoadBalancerStatus(tuple(LoadBalancerIngress(ip=each) for each in addresses or (WEB,)))),
    )


def a_slice(service: str = "web", *nodes: str, ready: bool | None = True, serving: bool | None = None) -> EndpointSlice:
    return EndpointSlice(
        ObjectMeta(name=f"{service}-abc", namespace="default", labels={"kubernetes.io/service-name": service}),
        endpoints=tuple(
            Endpoint(("10.244.1.1",), EndpointConditions(ready=ready, serving=serving), NodeName(node))
            for node in nodes or ("node-1",)
        ),
    )


STAYS, ENDS = EndpointConditions(True, True, False), EndpointConditions(False, True, True)


def a_slice_of(
    endpoints: Mapping[str, Sequence[EndpointConditions]], service: str = "web", part: str = "abc"
) -> EndpointSlice:
    """With endpoints on nodes; an empty name stands for no node."""
    found = a_slice(service)
    return replace(
        found,
        metadata=replace(found.metadata, name=f"{service}-{part}"),
        endpoints=tuple(
            Endpoint(("10.244.1.1",), each, NodeName(node) if node else None)
            for node, conditions in endpoints.items()
            for each in conditions
        ),
    )


def a_config(*objects: IPAddressPool | L2Advertisement) -> Config:
    pools = [each for each in objects if isinstance(each, IPAddressPool)]
    advertisements = [each for each in objects if isinstance(each, L2Advertisement)]
    loaded = load(pools or [a_pool()], advertisements or [an_advertisement()], None)
    assert not loaded.problems
    return loaded.config


THREE = (a_node("node-1"), a_node("node-2"), a_node("node-3"))


def bundles(
    services: Sequence[Service] = (a_service(),),
    slices: Sequence[EndpointSlice] = (a_slice(),),
    nodes: Sequence[Node] = THREE,
    config: Config | None = None,
    *,
    lb_class: str | None = None,
    ignore_exclude: bool = False,
) -> tuple[Bundle, ...]:
    """From whole objects, which must be the same as from what a speaker keeps of them."""
    whole, kept = (
        plan(
            services if each is None else map(kept_service, services),
            slices if each is None else map(kept_slice, slices),
            nodes,
            config or a_config(),
            node=OWN,
            revision=1,
            lb_class=lb_class,
            ignore_exclude=ignore_exclude,
        ).bundles
        for each in (None, "kept")
    )
    assert whole == kept
    return whole


def names(bundle: Bundle) -> set[str]:
    return {candidate.node for candidate in bundle.candidates}


def ending(bundle: Bundle) -> dict[str, bool]:
    return {candidate.node: candidate.ending for candidate in bundle.candidates}


def tiers(bundle: Bundle) -> dict[str, int]:
    return {candidate.node: candidate.tier for candidate in bundle.candidates}


def a_planner(services: Sequence[Service]) -> Planner:
    planner = Planner(OWN)
    planner.set_config(a_config())
    for node in THREE:
        planner.set_node(node.key, node)
    for service in services:
        planner.set_service(service.key, service)
        endpoints = a_slice(service.metadata.name)
        planner.set_slice(endpoints.key, endpoints)
    planner.take_change()
    return planner
