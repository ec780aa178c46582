"""Which advertisements and Services lack their interfaces on this node, and whose word it is to say so."""

from __future__ import annotations

from cluster.addresses import Family
from cluster.config import Config, load
from cluster.objects import (
    IPAddressPool,
    IPAddressPoolSpec,
    L2Advertisement,
    L2AdvertisementSpec,
    LabelSelector,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Node,
    NodeName,
    ObjectMeta,
    PreferredNodeSelector,
    Service,
    ServiceSpec,
    ServiceStatus,
)
from cluster.slices import Endpoint, EndpointSlice
from speaker.api.planner import Planner
from speaker.api.stranded import (
    LACKING_S,
    MAX_REPORTED,
    Links,
    SpokenFamilies,
    Stranded,
    StrandedServices,
    advertisements_without_interface,
    unusable_interfaces,
)
from speaker.link import LinkName

OWN, OTHER = NodeName("node-1"), NodeName("node-2")
RACK = LabelSelector(match_labels={"rack": "a"})


def links(*names: str) -> frozenset[LinkName]:
    return frozenset(LinkName(name) for name in names)


def spoken(*names: str, families: frozenset[Family] = frozenset(Family)) -> Links:
    return dict.fromkeys(links(*names), families)


def config(**advertisements: L2AdvertisementSpec) -> Config:
    pool = IPAddressPool(ObjectMeta(name="lan"), IPAddressPoolSpec(addresses=("192.0.2.0/24",)))
    objects = [L2Advertisement(ObjectMeta(name=name), spec) for name, spec in advertisements.items()]
    return load([pool], objects, None).config


def on(*interfaces: str, prefer: str = "") -> L2AdvertisementSpec:
    preferred = LabelSelector(match_labels={"name": prefer})
    return L2AdvertisementSpec(
        interfaces=interfaces, preferred_node_selectors=(PreferredNodeSelector(100, preferred),) if prefer else ()
    )


def planner_with(advertisement: L2AdvertisementSpec) -> Planner:
    """A Service that two nodes may announce."""
    planner = Planner(OWN)
    planner.set_config(config(all=advertisement))
    for name in (OWN, OTHER):
        planner.set_node(name, Node(ObjectMeta(name=name, labels={"name": name})))
    status = ServiceStatus(LoadBalancerStatus((LoadBalancerIngress(ip="192.0.2.1"),)))
    meta = ObjectMeta(name="web", namespace="default", uid="uid-web")
    planner.set_service("default/web", Service(meta, ServiceSpec(type="LoadBalancer"), status))
    labels = {"kubernetes.io/service-name": "web"}
    planner.set_slice(
        "default/web-x",
        EndpointSlice(ObjectMeta(name="web-x", namespace="default", labels=labels), endpoints=(Endpoint(),)),
    )
    planner.take_change()
    return planner


def stranded(planner: Planner) -> StrandedServices:
    return StrandedServices(planner, OWN)


WEB = [Stranded("default/web", (LinkName("eth1"),))]


# ------------------------------------------------------------------------ advertisements


def test_one_interface_of_several_is_enough() -> None:
    both = config(a=on("eth1", "eth2"), b=on("eth3"), c=on())
    assert advertisements_without_interface(both, {}, links("eth2")) == ("b",)
    assert advertisements_without_interface(both, {}, links()) == ("a", "b")


def test_an_advertisement_for_other_nodes_demands_nothing_of_this_one() -> None:
    spec = L2AdvertisementSpec(interfaces=("eth1",), node_selectors=(RACK,))
    assert advertisements_without_interface(config(a=spec), {"rack": "b"}, links()) == ()
    assert advertisements_without_interface(config(a=spec), {"rack": "a"}, links()) == ("a",)


def test_a_report_is_bounded() -> None:
    many = config(**{f"a{number:04}": on("eth1") for number in range(2 * MAX_REPORTED)})
    assert len(advertisements_without_interface(many, {}, links())) == MAX_REPORTED


def test_an_interface_that_is_there_and_cannot_be_announced_on_is_told_from_one_that_is_not() -> None:
    some = config(a=on("eth1", "eth2"), b=on("eth3"), c=on())
    assert unusable_interfaces(some, {}, links("eth1"), links("lo", "eth1", "eth2")) == ("eth2",)
    elsewhere = config(a=L2AdvertisementSpec(interfaces=("eth1",), node_selectors=(RACK,)))
    assert unusable_interfaces(elsewhere, {"rack": "b"}, links(), links("eth1")) == ()


# ------------------------------------------------------------------------ Services


def test_the_node_that_would_announce_first_tells_and_the_other_does_not() -> None:
    assert stranded(planner_with(on("eth1", prefer=OWN))).set_links(spoken("eth0")) == WEB
    assert stranded(planner_with(on("eth1", prefer=OTHER))).set_links(spoken("eth0")) == []


def test_it_is_told_when_it_becomes_so_and_not_while_it_stays_so() -> None:
    planner = planner_with(on("eth1", prefer=OWN))
    told = stranded(planner)
    assert told.plan_changed() == []  # no links are known
    assert told.set_links(spoken("eth0")) == WEB
    assert told.set_links(spoken("eth0", "eth5")) == []
    assert told.set_links(spoken("eth1")) == []
    assert told.set_links(spoken()) == WEB


def test_a_change_of_the_plan_tells_what_it_strands() -> None:
    planner = planner_with(on(prefer=OWN))
    told = stranded(planner)
    assert told.set_links(spoken("eth0")) == []
    planner.set_config(config(all=on("eth1", prefer=OWN)))
    planner.take_change()
    assert told.plan_changed() == WEB
    planner.set_service("default/web", None)
    planner.take_change()
    assert told.plan_changed() == []
    planner.set_config(config(all=on(prefer=OWN)))
    planner.take_change()
    assert told.plan_changed() == []


def test_a_service_without_endpoints_is_not_announced_anyway() -> None:
    planner = planner_with(on("eth1", prefer=OWN))
    planner.set_slice("default/web-x", None)
    planner.take_change()
    told = stranded(planner)
    assert told.set_links(spoken("eth0")) == []
    slice_labels = {"kubernetes.io/service-name": "web"}
    meta = ObjectMeta(name="web-y", namespace="default", labels=slice_labels)
    planner.set_slice("default/web-y", EndpointSlice(meta, endpoints=(Endpoint(),)))
    planner.take_change()
    assert told.plan_changed() == WEB


def test_the_message_names_what_is_missing() -> None:
    (one,) = WEB
    assert 'node "node-1" cannot announce: it has no interface "eth1"' in one.message(OWN, links("eth0"))


def test_an_interface_that_is_there_is_not_called_missing() -> None:
    message = Stranded("default/web", (LinkName("eth1"), LinkName("eth2"))).message(OWN, links("eth0", "eth2"))
    assert 'cannot announce: it has "eth2", as the L2Advertisement demands, and cannot announce there' in message
    assert "an IPv4 or a link-local IPv6 address" in message


def test_interface_that_does_not_speak_the_addresses_family_is_told_as_one_that_is_lacking() -> None:
    """A second network card that nobody configured speaks IPv6, by its link-local address."""
    told = stranded(planner_with(on("eth1", "eth2", prefer=OWN)))
    only_v6 = frozenset({Family.IPV6})
    (one,) = told.set_links({**spoken("eth0"), **spoken("eth1", families=only_v6)})
    assert (one.service, one.lacking) == ("default/web", Family.IPV4)
    said = one.message(OWN, links("eth0", "eth1"))
    assert said.startswith('node "node-1" cannot announce the IPv4 address: of "eth1", "eth2", as the L2Advertisement')
    assert told.set_links({**spoken("eth0"), **spoken("eth1", families=only_v6)}) == []
    assert told.set_links(spoken("eth0")) == [Stranded("default/web", (LinkName("eth1"), LinkName("eth2")))]
    assert told.set_links(spoken("eth1")) == []


def test_family_that_no_interface_speaks_is_told_also_where_any_would_do() -> None:
    told = stranded(planner_with(on(prefer=OWN)))
    assert told.set_links({}) == [], "that the node has no interface is told of the node"
    (one,) = told.set_links(spoken("eth0", families=frozenset({Family.IPV6})))
    assert "cannot announce the IPv4 address: none of its interfaces speaks IPv4" in one.message(OWN, links("eth0"))
    assert told.set_links(spoken("eth0")) == []


def test_family_that_is_lacking_for_a_moment_counts_as_spoken() -> None:
    """As while an address of IPv6 is tried out on an interface that came up."""
    families = SpokenFamilies()
    v4, both = spoken("eth0", families=frozenset({Family.IPV4})), spoken("eth0")
    assert families.seen(v4, 0.0) == both
    assert families.seen(v4, LACKING_S - 0.1) == both
    assert families.seen(v4, LACKING_S) == v4
    assert families.seen(both, 10.0) == both
    assert families.seen(v4, 11.0) == both
