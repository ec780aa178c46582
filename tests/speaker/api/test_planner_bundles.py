"""What moves together, and of which groups it is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from cluster.objects import (
    Condition,
    L2Advertisement,
    L2AdvertisementSpec,
    LabelSelector,
    Service,
)
from cluster.taken import ADDRESS_CONFLICT, RIVAL, WITHHELD
from speaker.api.kept import SPREAD_ANNOTATION, kept_service
from speaker.api.planner import Planner
from tests.speaker.api.objects import (
    OWN,
    THREE,
    a_config,
    a_node,
    a_planner,
    a_service,
    a_slice,
    an_advertisement,
    bundles,
    names,
)

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
