"""What is announced, and by whom: tables."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from cluster.objects import (
    L2Advertisement,
    L2AdvertisementSpec,
    LabelSelector,
    Node,
    NodeAddress,
    NodeName,
    PreferredNodeSelector,
    Service,
    Taint,
)
from cluster.slices import EndpointConditions, EndpointSlice
from tests.speaker.api.objects import (
    ENDS,
    STAYS,
    THREE,
    WEB,
    a_config,
    a_node,
    a_planner,
    a_pool,
    a_service,
    a_slice,
    a_slice_of,
    an_advertisement,
    bundles,
    ending,
    names,
    tiers,
)

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
