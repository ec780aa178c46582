"""What is announced, by whom, and what moves together: tables, and that order and history do not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.config import Config, load
from cluster.objects import (
    Condition,
    IPAddressPool,
    IPAddressPoolSpec,
    L2Advertisement,
    L2AdvertisementSpec,
    LabelSelector,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Node,
    NodeAddress,
    NodeCondition,
    NodeName,
    NodeStatus,
    ObjectMeta,
    PreferredNodeSelector,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    Taint,
)
from cluster.slices import Endpoint, EndpointConditions, EndpointSlice
from cluster.taken import ADDRESS_CONFLICT, RIVAL, WITHHELD
from speaker.api.kept import SPREAD_ANNOTATION, kept_service, kept_slice
from speaker.api.planner import Planner, plan
from speaker.plan import Bundle, Plan
from tests.speaker.plans import after

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


# ------------------------------------------------------------------------ what is announced


def test_a_service_with_an_address_of_a_pool_and_an_endpoint_is_announced_from_every_node() -> None:
    (bundle,) = bundles()
    assert bundle.id == "uid-web"
    assert bundle.addresses == (WEB,)
    assert bundle.services == ("default/web",)
    assert names(bundle) == {"node-1", "node-2", "node-3"}
    assert bundle.interfaces == ()
    assert bundle.serving


@pytest.mark.parametrize(
    "service",
    [
        pytest.param(a_service(lb_class="other"), id="of another class"),
        pytest.param(a_service("web", "198.51.100.1"), id="with an address outside every pool"),
        pytest.param(a_service("web", "not-an-address"), id="with a text that is no address"),
        pytest.param(a_service("web", ""), id="with a host name only"),
        pytest.param(a_service(type_="ClusterIP"), id="of another type"),
    ],
)
def test_not_announced(service: Service) -> None:
    assert bundles([service]) == ()


def a_node_with(name: str, *addresses: str) -> Node:
    node = a_node(name)
    status = replace(node.status, addresses=tuple(NodeAddress("InternalIP", each) for each in addresses))
    return replace(node, status=status)


def test_an_address_of_no_pool_is_not_announced_as_of_a_service_with_addresses_of_nodes() -> None:
    """In node-IP mode a status shows nodes' addresses, which no IPAddressPool has."""
    nodes = [a_node_with("node-1", "198.51.100.11"), a_node_with("node-2", "198.51.100.12")]
    shown = a_service("web", "198.51.100.11", "198.51.100.12")
    assert bundles([shown], nodes=nodes) == ()


@pytest.mark.parametrize("written", ["192.0.2.1", "::ffff:192.0.2.1"])
def test_an_address_that_a_node_has_is_announced_by_nobody_whatever_pool_contains_it(written: str) -> None:
    nodes = [a_node_with("node-1", "198.51.100.11", "node-1.example"), a_node_with("node-2", written)]
    mixed = a_service("web", "192.0.2.1", "192.0.2.2")
    assert [bundle.addresses for bundle in bundles([mixed], nodes=nodes)] == [("192.0.2.2",)]


def test_an_address_is_given_up_when_a_node_gets_it_and_announced_again_when_the_node_is_gone() -> None:
    planner = a_planner([a_service("web", WEB)])
    planner.take_change()
    assert [bundle.addresses for bundle in planner.plan().bundles] == [(WEB,)]
    planner.set_node("node-9", a_node_with("node-9", WEB))
    planner.take_change()
    assert planner.plan().bundles == ()
    planner.set_node("node-9", None)
    planner.take_change()
    assert [bundle.addresses for bundle in planner.plan().bundles] == [(WEB,)]


def test_services_on_the_same_nodes_addresses_are_none_of_each_other_s_business() -> None:
    """Whatever changes about one of a thousand, the others are not worked out anew."""
    addresses = [f"198.51.100.{number}" for number in range(11, 61)]
    services = [a_service(f"web-{number}", *addresses, port=8000 + number) for number in range(100)]
    planner = a_planner([*services, a_service("lan", WEB)])
    planner.take_change()
    planner.set_service("default/web-7", a_service("web-7", *addresses[1:], port=8007))
    planner.take_change()
    assert planner.reconsidered == {"default/web-7"}
    assert [bundle.services for bundle in planner.plan().bundles] == [("default/lan",)]


def test_with_a_class_only_services_of_that_class_are_ours() -> None:
    ours, plain = a_service("ours", "192.0.2.5", lb_class="berth"), a_service()
    slices = [a_slice("ours"), a_slice()]
    assert [each.services for each in bundles([ours, plain], slices, lb_class="berth")] == [("default/ours",)]


CONDITIONS = [
    (True, True, False, "stays"),
    (None, None, None, "stays"),
    (None, False, None, "stays"),
    (True, False, False, "stays"),  # publishNotReadyAddresses
    (True, True, True, "ends"),  # the same, and the pod is being deleted
    (True, False, True, "ends"),
    (None, None, True, "ends"),
    (False, True, True, "ends"),
    (False, None, True, "ends"),
    (False, True, False, "no"),
    (False, True, None, "no"),
    (False, False, True, "no"),
    (False, None, None, "no"),
]
"""Of an endpoint ready, serving and terminating, and whether kube-proxy sends traffic to it and will go on."""


@pytest.mark.parametrize(("ready", "serving", "terminating", "serves"), CONDITIONS)
def test_what_serves_is_what_kube_proxy_sends_traffic_to(
    ready: bool | None, serving: bool | None, terminating: bool | None, serves: str
) -> None:
    conditions = EndpointConditions(ready, serving, terminating)
    (bundle,) = bundles(slices=[a_slice_of({"node-1": [conditions]})])
    assert bundle.serving is (serves != "no")
    (local,) = bundles([a_service(policy="Local")], [a_slice_of({"node-1": [conditions], "node-2": [STAYS]})])
    assert ending(local) == {"node-2": False} | ({} if serves == "no" else {"node-1": serves == "ends"})
    assert local.candidates[0].node == "node-2" or serves == "stays"


@pytest.mark.parametrize(
    ("endpoints", "found"),
    [
        ({"node-1": "stay end", "node-2": "end"}, {"node-1": False, "node-2": True}),
        ({"node-1": "end end", "node-2": "end"}, {"node-1": False, "node-2": False}),
        ({"node-1": "end", "node-2": "gone"}, {"node-1": False}),
        ({"node-1": "end", "": "stay"}, {"node-1": False}),
        ({"node-1": "end", "node-9": "stay"}, {"node-1": False}),
        ({"node-1": "end", "node-2": "stay", "node-3": "stay"}, {"node-1": True, "node-2": False, "node-3": False}),
    ],
    ids=[
        "one of several on a node ends",
        "all of them end everywhere",
        "what is gone is none",
        "one that stays is on no node",
        "one that stays is where nobody may announce",
        "others stay",
    ],
)
def test_a_node_is_ending_where_all_endpoints_end_and_others_stay_elsewhere(
    endpoints: Mapping[str, str], found: Mapping[str, bool]
) -> None:
    kinds = {"stay": STAYS, "end": ENDS, "gone": EndpointConditions(False, False, True)}
    given = {node: [kinds[each] for each in text.split()] for node, text in endpoints.items()}
    (bundle,) = bundles([a_service(policy="Local")], [a_slice_of(given)])
    assert ending(bundle) == found
    assert [each.ending for each in bundle.candidates] == sorted(found.values())
    (anywhere,) = bundles(slices=[a_slice_of(given)])
    assert not any(ending(anywhere).values()), "with the policy Cluster it does not matter where endpoints are"


def test_slices_of_one_service_say_together_whether_a_node_is_ending() -> None:
    parts = [a_slice_of({"node-1": [ENDS], "node-2": [STAYS]}), a_slice_of({"node-1": [STAYS]}, part="def")]
    (bundle,) = bundles([a_service(policy="Local")], parts)
    assert ending(bundle) == {"node-1": False, "node-2": False}


@pytest.mark.parametrize(
    ("web", "db", "found"),
    [
        (
            {"node-1": [ENDS], "node-2": [STAYS]},
            {"node-1": [STAYS], "node-2": [STAYS]},
            {"node-1": True, "node-2": False},
        ),
        ({"node-1": [ENDS]}, {"node-1": [STAYS], "node-2": [STAYS]}, {"node-1": False}),
        ({"node-1": [STAYS]}, {"node-1": [ENDS], "node-2": [STAYS]}, {"node-1": False}),
        ({"node-1": [STAYS], "node-2": [ENDS]}, {"node-2": [STAYS]}, {"node-1": False, "node-2": True}),
    ],
    ids=[
        "one of them ends, and both are served elsewhere",
        "one of them ends everywhere: it is served for as long as it can be",
        "what stays of the other one is where the older is not served",
        "the older one is served, for nobody can serve both for long",
    ],
)
def test_services_with_one_address_and_different_endpoints(
    web: Mapping[str, list[EndpointConditions]], db: Mapping[str, list[EndpointConditions]], found: Mapping[str, bool]
) -> None:
    older = a_service("web", policy="Local", share="k")
    younger = a_service("db", policy="Local", share="k", port=81, created="2026-02-01T00:00:00Z")
    older, younger = (replace(each, spec=replace(each.spec, selector={"app": "both"})) for each in (older, younger))
    (bundle,) = bundles([older, younger], [a_slice_of(web), a_slice_of(db, "db")])
    assert ending(bundle) == found


@pytest.mark.parametrize("slices", [[], [a_slice("another")], [a_slice(ready=False)]])
def test_without_endpoints_it_stays_in_the_plan_as_it_was_and_does_not_serve(slices: list[EndpointSlice]) -> None:
    assert bundles(slices=slices) == tuple(replace(each, serving=False) for each in bundles())


def test_without_endpoints_a_service_of_the_local_policy_has_no_candidates() -> None:
    service = a_service(policy="Local")
    (bundle,) = bundles([service], [a_slice(ready=False)])
    assert (bundle.addresses, bundle.candidates, bundle.serving) == ((WEB,), (), False)


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_what_no_node_may_announce_is_not_in_the_plan_for_want_of_endpoints_either(policy: str) -> None:
    nowhere = an_advertisement(spec=L2AdvertisementSpec(node_selectors=(LabelSelector(match_labels={"a": "b"}),)))
    assert bundles([a_service(policy=policy)], [], config=a_config(nowhere)) == ()


def test_endpoints_that_come_and_go_change_nothing_but_whether_it_serves() -> None:
    planner = a_planner([a_service(), a_service("db", "192.0.2.2")])
    before = planner.bundle_of("default/web")
    assert before is not None
    for serving in (False, True):
        planner.set_slice("default/web-abc", a_slice(ready=serving))
        change = planner.take_change()
        assert change is not None
        assert (change.changed, change.removed) == ((replace(before, serving=serving),), ())
        planner.set_slice("default/web-abc", a_slice(ready=serving))
        assert planner.take_change() is None


def test_an_address_no_advertisement_selects_is_not_announced() -> None:
    by_pool = an_advertisement(spec=L2AdvertisementSpec(ip_address_pools=("other",)))
    by_service = an_advertisement(
        spec=L2AdvertisementSpec(service_selectors=(LabelSelector(match_labels={"tier": "front"}),))
    )
    assert bundles(config=a_config(by_pool)) == ()
    assert bundles(config=a_config(by_service)) == ()
    assert len(bundles([a_service(labels={"tier": "front"})], config=a_config(by_service))) == 1


def test_both_addresses_of_a_dual_stack_service_are_one_bundle() -> None:
    config = a_config(a_pool("lan", "192.0.2.0/24", "2001:db8::/64"))
    (bundle,) = bundles([a_service("web", "2001:db8::1", WEB)], config=config)
    assert bundle.addresses == (WEB, "2001:db8::1")


def test_services_that_share_an_address_of_one_family_move_together_with_those_of_the_other() -> None:
    config = a_config(a_pool("lan", "192.0.2.0/24", "2001:db8::/64"))
    services = [a_service("a", WEB, "2001:db8::1", share="x"), a_service("b", "2001:db8::1", port=81, share="x")]
    (bundle,) = bundles([*services, a_service("c", "2001:db8::2")], config=config)[:1]
    assert (bundle.addresses, bundle.services) == ((WEB, "2001:db8::1"), ("default/a", "default/b"))


# ------------------------------------------------------------------------ who may announce it


def test_excluded_and_disconnected_nodes_are_no_candidates() -> None:
    label = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    nodes = (a_node("node-1", labels=label), a_node("node-2", network_unavailable=True), a_node("node-3"))
    assert names(bundles(nodes=nodes)[0]) == {"node-3"}
    assert names(bundles(nodes=nodes, ignore_exclude=True)[0]) == {"node-1", "node-3"}


def test_nodes_that_are_not_ready_or_drained_come_last_but_are_never_left_out() -> None:
    out_of_service = Taint("node.kubernetes.io/out-of-service", "NoExecute")
    nodes = (a_node("node-1", ready=False), a_node("node-2"), a_node("node-3", taints=(out_of_service,)))
    (bundle,) = bundles(nodes=nodes)
    assert bundle.candidates[0].node == "node-2"
    assert tiers(bundle) == {"node-2": 0, "node-1": 1, "node-3": 2}
    (bundle,) = bundles(nodes=[a_node(name, ready=False) for name in ("node-1", "node-2")])
    assert names(bundle) == {"node-1", "node-2"}


def test_local_traffic_policy_needs_an_endpoint_on_the_node() -> None:
    service = a_service(policy="Local")
    assert names(bundles([service], [a_slice("web", "node-2", "node-3")])[0]) == {"node-2", "node-3"}
    assert bundles([service], [a_slice("web", "node-9")]) == ()


def test_a_service_that_no_node_may_announce_leaves_the_plan() -> None:
    nowhere = an_advertisement(spec=L2AdvertisementSpec(node_selectors=(LabelSelector(match_labels={"a": "b"}),)))
    assert bundles(config=a_config(nowhere)) == ()


def test_candidates_are_the_nodes_of_the_advertisements_that_select_the_service() -> None:
    def on(name: str, label: str) -> L2Advertisement:
        selector = LabelSelector(match_labels={"rack": label})
        return an_advertisement(name, L2AdvertisementSpec(ip_address_pools=("lan",), node_selectors=(selector,)))

    nodes = [a_node(f"node-{i}", labels={"rack": rack}) for i, rack in enumerate("abc", start=1)]
    assert names(bundles(nodes=nodes, config=a_config(on("one", "a"), on("two", "b")))[0]) == {"node-1", "node-2"}


def test_preference_is_summed_over_the_advertisements_by_which_the_node_may_announce() -> None:
    fast = LabelSelector(match_labels={"nic": "fast"})
    rack = LabelSelector(match_labels={"rack": "a"})
    everywhere = an_advertisement(
        "everywhere", L2AdvertisementSpec(preferred_node_selectors=(PreferredNodeSelector(10, fast),))
    )
    in_rack = an_advertisement(
        "in-rack",
        L2AdvertisementSpec(node_selectors=(rack,), preferred_node_selectors=(PreferredNodeSelector(5, fast),)),
    )
    nodes = [
        a_node("node-1", labels={"nic": "fast"}),
        a_node("node-2", labels={"nic": "fast", "rack": "a"}),
        a_node("node-3", labels={"rack": "a"}),
    ]
    (bundle,) = bundles(nodes=nodes, config=a_config(everywhere, in_rack))
    assert [(candidate.node, candidate.preference) for candidate in bundle.candidates] == [
        ("node-2", 15),
        ("node-1", 10),
        ("node-3", 0),
    ]


def test_readiness_outranks_preference() -> None:
    preferred = PreferredNodeSelector(100, LabelSelector(match_labels={"nic": "fast"}))
    config = a_config(an_advertisement(spec=L2AdvertisementSpec(preferred_node_selectors=(preferred,))))
    nodes = [a_node("node-1", ready=False, labels={"nic": "fast"}), a_node("node-2")]
    assert [each.node for each in bundles(nodes=nodes, config=config)[0].candidates] == ["node-2", "node-1"]


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_a_bundle_names_the_preferred_nodes_that_lack_an_endpoint(policy: str) -> None:
    preferred = PreferredNodeSelector(100, LabelSelector(match_labels={"nic": "fast"}))
    config = a_config(an_advertisement(spec=L2AdvertisementSpec(preferred_node_selectors=(preferred,))))
    nodes = [a_node("node-1", labels={"nic": "fast"}), a_node("node-2")]
    services = [a_service("web", "192.0.2.1", policy=policy)]
    (bundle,) = bundles(services, slices=[a_slice("web", "node-2")], nodes=nodes, config=config)
    assert (bundle.unfit, bundle.local) == ((("node-1",), True) if policy == "Local" else ((), False))


def test_interfaces_are_those_named_for_the_own_node_unless_an_advertisement_names_none() -> None:
    def named(name: str, *interfaces: str, rack: str = "a") -> L2Advertisement:
        selector = LabelSelector(match_labels={"rack": rack})
        return an_advertisement(name, L2AdvertisementSpec(node_selectors=(selector,), interfaces=interfaces))

    nodes = [a_node("node-1", labels={"rack": "a"}), a_node("node-2", labels={"rack": "b"})]
    config = a_config(named("one", "eth1"), named("two", "eth0"), named("elsewhere", rack="b"))
    assert bundles(nodes=nodes, config=config)[0].interfaces == ("eth0", "eth1")
    assert bundles(nodes=nodes, config=a_config(named("one", "eth1"), named("all")))[0].interfaces == ()


def test_each_candidate_comes_with_the_interfaces_named_for_its_node() -> None:
    """Whether another node can announce at all is only known by what the advertisements name for that node."""

    def named(name: str, rack: str, *interfaces: str) -> L2Advertisement:
        selector = LabelSelector(match_labels={"rack": rack})
        return an_advertisement(name, L2AdvertisementSpec(node_selectors=(selector,), interfaces=interfaces))

    nodes = [a_node(f"node-{i}", labels={"rack": rack}) for i, rack in enumerate("abc", 1)]
    config = a_config(named("one", "a", "eth1"), named("two", "a", "eth0"), named("three", "b", "lan"), named("c", "c"))
    services = [a_service(name, f"192.0.2.{i}") for i, name in enumerate(("web", "api"), 1)]
    first, second = bundles(services, [a_slice("web"), a_slice("api")], nodes, config)
    assert {each.node: each.interfaces for each in first.candidates} == {
        "node-1": ("eth0", "eth1"),
        "node-2": ("lan",),
        "node-3": (),
    }
    assert {id(each) for each in first.candidates} == {id(each) for each in second.candidates}, "they are shared"


def test_bundles_spread_over_nodes_and_a_node_that_comes_takes_only_its_share() -> None:
    services = [a_service(f"s{i}", f"192.0.2.{i + 1}", uid=f"uid-{i:04}") for i in range(200)]
    slices = [a_slice(f"s{i}") for i in range(200)]
    before = {each.id: each.candidates[0].node for each in bundles(services, slices)}
    after = {each.id: each.candidates[0].node for each in bundles(services, slices, [*THREE, a_node("node-4")])}
    counts = [list(before.values()).count(NodeName(node.key)) for node in THREE]
    assert min(counts) > 200 / 3 / 2
    moved = {after[each] for each in after if after[each] != before[each]}
    assert moved == {"node-4"}


# ------------------------------------------------------------------------ what moves together


def test_services_that_share_an_address_are_one_bundle_under_the_lowest_uid() -> None:
    services = [
        a_service("b", "192.0.2.1", uid="2", port=80, share="x"),
        a_service("a", "192.0.2.1", "192.0.2.2", uid="7", port=443, share="x"),
        a_service("c", "192.0.2.2", uid="5", port=53, share="x"),
        a_service("alone", "192.0.2.9", uid="9"),
    ]
    slices = [a_slice(name) for name in ("a", "b", "c", "alone")]
    joined, alone = bundles(services, slices)
    assert (joined.id, joined.services) == ("2", ("default/a", "default/b", "default/c"))
    assert joined.addresses == ("192.0.2.1", "192.0.2.2")
    assert alone.services == ("default/alone",)


def test_a_bundle_keeps_its_name_while_its_lowest_service_has_no_endpoints() -> None:
    services = [a_service("a", uid="1", port=80, share="x"), a_service("b", uid="2", port=443, share="x")]
    (bundle,) = bundles(services, [a_slice("b")])
    assert (bundle.id, bundle.services, bundle.serving) == ("1", ("default/b",), True)


def test_of_services_that_share_an_address_those_that_serve_are_announced_and_all_stay_if_none_does() -> None:
    services = [
        a_service("a", "192.0.2.1", uid="1", port=80, share="x"),
        a_service("b", "192.0.2.1", "192.0.2.2", uid="2", port=443, share="x"),
    ]
    (bundle,) = bundles(services, [a_slice("a"), a_slice("b", ready=False)])
    assert (bundle.services, bundle.addresses, bundle.serving) == (("default/a",), ("192.0.2.1",), True)
    (bundle,) = bundles(services, [a_slice("a", ready=False), a_slice("b", ready=False)])
    assert (bundle.id, bundle.services, bundle.serving) == ("1", ("default/a", "default/b"), False)
    assert bundle.addresses == ("192.0.2.1", "192.0.2.2")


def test_addresses_are_ordered_as_numbers() -> None:
    (bundle,) = bundles([a_service("web", "192.0.2.10", "192.0.2.9")])
    assert bundle.addresses == ("192.0.2.9", "192.0.2.10")


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        pytest.param({}, {}, id="no sharing key"),
        pytest.param({"share": "x", "port": 80}, {"share": "y", "port": 443}, id="different keys"),
        pytest.param({"share": "x", "port": 80}, {"share": "x", "port": 80}, id="the same port"),
        pytest.param({"share": "x"}, {"share": "x", "port": 443, "policy": "Local"}, id="different backends"),
        pytest.param({"share": "x", "port": 80}, {"port": 443}, id="only one wants to share"),
    ],
)
def test_of_two_services_that_may_not_share_an_address_the_newer_is_not_announced(
    older: Mapping[str, str], newer: Mapping[str, str]
) -> None:
    services = [
        a_service("new", uid="1", created="2026-01-02T00:00:00Z", **newer),  # type: ignore[arg-type]  # keyword by name
        a_service("old", uid="2", created="2026-01-01T00:00:00Z", **older),  # type: ignore[arg-type]  # keyword by name
    ]
    (bundle,) = bundles(services, [a_slice("new"), a_slice("old")])
    assert (bundle.id, bundle.services) == ("2", ("default/old",))


def test_of_two_services_of_one_second_the_first_by_name_is_announced() -> None:
    """As the controller judges, whose loser it must not be that is announced."""
    services = [a_service(name, uid=uid, created="2026-01-01T00:00:00Z") for name, uid in (("b", "1"), ("a", "2"))]
    (bundle,) = bundles(services, [a_slice("a"), a_slice("b")])
    assert bundle.services == ("default/a",)


def test_local_services_share_when_they_have_the_same_backends() -> None:
    def a_sharer(name: str, policy: str, selector: dict[str, str] | None, port: int) -> Service:
        service = a_service(name, policy=policy, share="x", port=port)
        spec = replace(service.spec, selector=selector)
        return replace(service, spec=spec)

    slices = [a_slice("a"), a_slice("b")]
    same = [a_sharer("a", "Local", {"app": "web"}, 80), a_sharer("b", "Local", {"app": "web"}, 443)]
    other = [a_sharer("a", "Local", {"app": "web"}, 80), a_sharer("b", "Local", {"app": "db"}, 443)]
    without = [a_sharer("a", "Local", None, 80), a_sharer("b", "Cluster", {"app": "db"}, 443)]
    assert [len(each.services) for each in bundles(same, slices)] == [2]
    assert [len(each.services) for each in bundles(other, slices)] == [1]
    assert [len(each.services) for each in bundles(without, slices)] == [2]


def test_the_duplicate_is_announced_once_the_older_service_is_gone() -> None:
    planner = a_planner([a_service("old", uid="1"), a_service("new", uid="2", created="2026-01-02T00:00:00Z")])
    assert [each.id for each in planner.plan().bundles] == ["1"]
    planner.set_service("default/old", None)
    change = planner.take_change()
    assert change is not None
    assert ([each.id for each in change.changed], change.removed) == (["2"], ("1",))


def test_sharers_without_a_common_node_follow_the_older() -> None:
    def front(rack: str) -> L2Advertisement:
        return an_advertisement(
            rack,
            L2AdvertisementSpec(
                node_selectors=(LabelSelector(match_labels={"rack": rack}),),
                service_selectors=(LabelSelector(match_labels={"rack": rack}),),
            ),
        )

    services = [
        a_service("old", uid="2", port=80, share="x", labels={"rack": "a"}),
        a_service("new", uid="1", port=443, share="x", labels={"rack": "b"}, created="2026-01-02T00:00:00Z"),
    ]
    nodes = [a_node("node-1", labels={"rack": "a"}), a_node("node-2", labels={"rack": "b"})]
    (bundle,) = bundles(services, [a_slice("old"), a_slice("new")], nodes, a_config(front("a"), front("b")))
    assert names(bundle) == {"node-1"}


# ------------------------------------------------------------------------ changes


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


def test_a_bundle_says_that_an_address_of_it_was_withheld_by_the_record() -> None:
    def a_conflict(reason: str) -> Service:
        web = a_service("web", share="x")
        status = replace(web.status, conditions=(Condition(ADDRESS_CONFLICT, "True", reason, "somebody has it"),))
        return replace(web, status=status)

    beside = a_service("secure", port=443, share="x")
    for reason, withheld in ((WITHHELD, True), (RIVAL, False)):
        (found,) = bundles([a_conflict(reason), beside], [a_slice(), a_slice("secure")])
        assert found.withheld is withheld
    (found,) = bundles()
    assert not found.withheld


# ------------------------------------------------------------------------ groups


def in_group(service: Service, group: str) -> Service:
    annotations = {**service.metadata.annotations, SPREAD_ANNOTATION: group}
    return replace(service, metadata=replace(service.metadata, annotations=annotations))


def test_a_group_is_of_a_namespace_and_a_bundle_is_in_all_groups_of_its_services() -> None:
    one = in_group(a_service("one", "192.0.2.1"), "dns")
    two = in_group(a_service("two", "192.0.2.2", share="x", port=53), "dns")
    three = in_group(a_service("three", "192.0.2.2", share="x", port=54), "web")
    none = in_group(a_service("none", "192.0.2.3"), "")
    elsewhere = replace(one, metadata=replace(one.metadata, namespace="other", uid="uid-else"))
    elsewhere = replace(elsewhere, status=a_service("x", "192.0.2.4").status)
    services = (one, two, three, none, elsewhere)
    slices = [a_slice(each.metadata.name) for each in services[:4]]
    slices.append(replace(slices[0], metadata=replace(slices[0].metadata, namespace="other", name="else-abc")))
    found = {each.services[0]: each.spread for each in bundles(services, slices)}
    assert found == {
        "default/one": ("default/dns",),
        "default/three": ("default/dns", "default/web"),
        "default/none": (),
        "other/one": ("other/dns",),
    }


def test_a_group_that_is_given_or_taken_changes_the_bundle() -> None:
    planner = Planner(OWN)
    planner.set_config(a_config())
    for node in THREE:
        planner.set_node(node.key, node)
    planner.set_slice("default/web-abc", a_slice())
    seen = []
    for service in (a_service(), in_group(a_service(), "dns"), a_service()):
        planner.set_service("default/web", kept_service(service))
        change = planner.take_change()
        assert change is not None
        seen.append(change.changed[0].spread)
    assert seen == [(), ("default/dns",), ()]


def test_what_goes_back_is_ranked_by_the_first_address_whether_or_not_its_service_serves() -> None:
    """Else an address would move whenever an endpoint of another Service goes."""
    planner = Planner(OWN, failback=True)
    planner.set_config(a_config())
    for node in (*THREE, a_node("node-4"), a_node("node-5")):
        planner.set_node(node.key, node)
    old = a_service("old", "192.0.2.1", "192.0.2.2", share="x", created="2025-01-01T00:00:00Z")
    young = a_service("young", "192.0.2.2", share="x", port=81)
    for service in (old, young):
        planner.set_service(service.key, service)
    orders = []
    for serving in (True, False):
        planner.set_slice("default/old-abc", a_slice("old") if serving else None)
        planner.set_slice("default/young-abc", a_slice("young"))
        planner.take_change()
        (bundle,) = planner.plan().bundles
        assert bundle.failback
        orders.append([each.node for each in bundle.candidates])
    assert orders[0] == orders[1]
