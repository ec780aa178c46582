"""Which Services a node announces: from claims and Plan, by transitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.config import load
from cluster.objects import (
    AddressText,
    IPAddressPool,
    IPAddressPoolSpec,
    L2Advertisement,
    L2AdvertisementSpec,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Node,
    NodeName,
    ObjectMeta,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
)
from cluster.slices import Endpoint, EndpointSlice
from speaker.api.announcements import Announcements, Transition, TransitionKind
from speaker.api.planner import Planner
from speaker.channel import Holding
from speaker.link import LinkName

HELD = Holding(1)
WEB = AddressText("192.0.2.1")
DB = AddressText("192.0.2.2")


def a_planner() -> Planner:
    planner = Planner(NodeName("node-1"))
    pool = IPAddressPool(ObjectMeta(name="lan"), IPAddressPoolSpec(addresses=("192.0.2.0/24",)))
    planner.set_config(load([pool], [L2Advertisement(ObjectMeta(name="all"))], None).config)
    planner.set_node("node-1", Node(ObjectMeta(name="node-1")))
    return planner


def a_service(name: str, *addresses: str, port: int = 80) -> Service:
    return Service(
        ObjectMeta(name=name, namespace="default", uid=f"uid-{name}", annotations={"metallb.io/allow-shared-ip": "x"}),
        ServiceSpec(type="LoadBalancer", ports=(ServicePort(port=port),)),
        ServiceStatus(LoadBalancerStatus(tuple(LoadBalancerIngress(ip=each) for each in addresses))),
    )


def set_service(planner: Planner, service: Service, *, serving: bool = True) -> None:
    meta = ObjectMeta(
        name=f"{service.metadata.name}-x",
        namespace="default",
        labels={"kubernetes.io/service-name": service.metadata.name},
    )
    planner.set_service(service.key, service)
    planner.set_slice(f"default/{meta.name}", EndpointSlice(meta, endpoints=(Endpoint(),) if serving else ()))
    planner.take_change()


def told(transitions: list[Transition]) -> list[tuple[TransitionKind, str]]:
    return [(transition.kind, transition.announced.service) for transition in transitions]


def test_a_claim_to_an_address_announces_every_service_that_has_it() -> None:
    planner = a_planner()
    set_service(planner, a_service("web", WEB, port=80))
    set_service(planner, a_service("secure", WEB, port=443))
    set_service(planner, a_service("db", DB))
    announcements = Announcements(planner)
    transitions = announcements.change_claims({WEB: HELD})
    assert told(transitions) == [(TransitionKind.GAINED, "default/secure"), (TransitionKind.GAINED, "default/web")]
    assert announcements.change_claims({WEB: HELD}) == []


def test_another_epoch_is_recorded() -> None:
    planner = a_planner()
    set_service(planner, a_service("web", WEB, DB))
    announcements = Announcements(planner)
    announcements.change_claims({WEB: Holding(2), DB: Holding(4)})
    assert announcements.announced["default/web"].epoch == 4
    assert announcements.change_claims({WEB: Holding(4)}) == [], "it is not the highest"
    (transition,) = announcements.change_claims({WEB: Holding(6)})
    assert (transition.kind, transition.announced.epoch) == (TransitionKind.CHANGED, 6)


def test_a_service_that_joins_a_held_address_is_announced() -> None:
    planner = a_planner()
    set_service(planner, a_service("web", WEB, port=80))
    announcements = Announcements(planner)
    announcements.change_claims({WEB: HELD})
    set_service(planner, a_service("secure", WEB, port=443))
    assert told(announcements.plan_changed()) == [(TransitionKind.GAINED, "default/secure")]


def test_losing_the_address_and_ending_the_service_are_told_apart() -> None:
    planner = a_planner()
    set_service(planner, a_service("web", WEB))
    set_service(planner, a_service("db", DB))
    announcements = Announcements(planner)
    announcements.change_claims({WEB: HELD, DB: HELD})
    assert told(announcements.change_claims({WEB: None})) == [(TransitionKind.LOST, "default/web")]
    planner.set_service("default/db", None)
    planner.take_change()
    assert told(announcements.plan_changed()) == [(TransitionKind.ENDED, "default/db")]
    assert announcements.change_claims({DB: None}) == []


def test_a_service_without_endpoints_is_not_announced_though_its_address_is_held() -> None:
    planner = a_planner()
    set_service(planner, a_service("web", WEB, port=80))
    set_service(planner, a_service("idle", WEB, port=443), serving=False)
    announcements = Announcements(planner)
    assert told(announcements.change_claims({WEB: HELD})) == [(TransitionKind.GAINED, "default/web")]


def test_endpoints_that_are_away_for_a_moment_are_no_news_and_letting_go_without_them_is_an_end() -> None:
    planner = a_planner()
    set_service(planner, a_service("web", WEB))
    announcements = Announcements(planner)
    announcements.change_claims({WEB: HELD})
    for serving in (False, True, False):
        set_service(planner, a_service("web", WEB), serving=serving)
        assert told(announcements.plan_changed()) == []
        assert list(announcements.announced) == ["default/web"]
    assert told(announcements.change_claims({WEB: None})) == [(TransitionKind.ENDED, "default/web")]


def test_answered_is_only_what_some_link_answers() -> None:
    """While a cable is out, or while a claim is suspended otherwise, an address is held and another node answers."""
    planner = a_planner()
    set_service(planner, a_service("web", WEB, port=80))
    set_service(planner, a_service("secure", WEB, port=443))
    set_service(planner, a_service("db", DB))
    announcements = Announcements(planner)
    announcements.change_claims({WEB: Holding(1, (LinkName("eth0"),)), DB: HELD})
    assert sorted(announcements.answered()) == [("default/secure", WEB), ("default/web", WEB)]
    announcements.suspended = frozenset((LinkName("eth0"),))
    assert list(announcements.answered()) == []
    assert announcements.announced.keys() == {"default/web", "default/secure", "default/db"}


def test_of_the_named_interfaces_those_count_that_can_be_announced_on() -> None:
    planner = a_planner()
    pool = IPAddressPool(ObjectMeta(name="lan"), IPAddressPoolSpec(addresses=("192.0.2.0/24",)))
    named = L2AdvertisementSpec(interfaces=("eth0", "eth1"))
    planner.set_config(load([pool], [L2Advertisement(ObjectMeta(name="all"), named)], None).config)
    set_service(planner, a_service("web", WEB))
    announcements = Announcements(planner)
    (gained,) = announcements.change_claims({WEB: HELD})
    assert gained.announced.interfaces == ("eth0", "eth1")
    (changed,) = announcements.set_links(frozenset({LinkName("eth1"), LinkName("eth7")}))
    assert (changed.kind, changed.announced.interfaces) == (TransitionKind.CHANGED, ("eth1",))
    assert announcements.set_links(frozenset({LinkName("eth1")})) == []


ADDRESSES = st.sampled_from([AddressText(f"192.0.2.{i}") for i in range(1, 5)])
STEPS = st.lists(
    st.one_of(
        st.frozensets(ADDRESSES),
        st.tuples(st.sampled_from("abcd"), st.lists(ADDRESSES, max_size=2), st.integers(80, 82), st.booleans()),
    ),
    max_size=30,
)


@given(STEPS)
def test_transitions_lead_from_one_state_to_the_next(
    steps: list[frozenset[AddressText] | tuple[str, list[AddressText], int, bool]],
) -> None:
    """Whoever only hears the transitions knows at each moment what an observer who begins now would see."""
    planner = a_planner()
    announcements = Announcements(planner)
    held: frozenset[AddressText] = frozenset()
    known: dict[str, object] = {}
    for step in steps:
        if isinstance(step, frozenset):
            gained, lost = dict.fromkeys(step - held, HELD), dict.fromkeys(held - step)
            held = step
            transitions = announcements.change_claims({**lost, **gained})
        else:
            name, addresses, port, serving = step
            set_service(planner, a_service(name, *addresses, port=port), serving=serving)
            transitions = announcements.plan_changed()
        for kind, announced in transitions:
            assert (announced.service in known) is (kind is not TransitionKind.GAINED)
            if kind in {TransitionKind.GAINED, TransitionKind.CHANGED}:
                known[announced.service] = announced
            else:
                del known[announced.service]
        fresh = Announcements(planner)
        fresh.change_claims(dict.fromkeys(held, HELD))
        assert known == announcements.announced == fresh.announced
