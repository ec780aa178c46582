"""The parts of the controller together: what an observation or an answer leads to, and when a write is tried again."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cluster.api.errors import ApiError, Forbidden, Invalid
from cluster.api.listwatch import Change as Seen
from cluster.node_pools import NodeIPPool
from cluster.objects import IPAddressPool, Node, Object, Service, ServicePort, ServiceSpec, decode
from cluster.resources import COMPANIONS, IP_ADDRESS_POOLS, SERVICES
from controller.changes import Change, Moment, Write
from controller.core import HOPELESS_RETRY_S, ChangeOutcome, Core, PassResult
from controller.nodeip.companion import DELIVERED_CLASS
from controller.passes import Room
from controller.retry import FIRST_RETRY_S
from tests.controller.world import pool_objects

TERM = 7
MUCH = Room(1000, 1000)
MOST_JITTER = 1.5
POOLS = pool_objects({"lan": "192.0.2.10-192.0.2.19"})
UNREADABLE = pool_objects({"typo": "192.0.2.x"})


def at(seconds: float) -> Moment:
    return Moment(seconds, 1_767_225_600.0 + seconds)


def service(name: str = "web", version: int = 1, **status: Any) -> Service:
    body = {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"]},
        "status": status,
    }
    return decode(msgspec.json.encode(body), Service)


def came(view: Object) -> Seen[Any]:
    return Seen("added", None, view)


def leader(*everything: Object) -> Core:
    core = Core("metallb-system", None, 0, random.Random(1))
    core.begin_term()
    core.restore(everything, at(0.0))
    return core


def decide(core: Core, now: float, room: Room | None = MUCH) -> PassResult:
    return core.decide(room, at(now), states_served=False)


def about_services(orders: PassResult) -> list[Change]:
    return [each for each in orders.changes if each.resource is SERVICES]


def test_a_standby_keeps_what_it_needs_to_begin_and_decides_nothing() -> None:
    core = Core("metallb-system", None, 0, random.Random(1))
    for view in (*UNREADABLE, service()):
        core.take(came(view), at(1.0))
    orders = decide(core, 1.0, None)
    assert [problem.name for problem in orders.problems] == ["typo"]
    assert not orders.changes
    assert (core.restored, core.backlog) == (False, 0)
    assert core.figures().config_stale


def test_a_problem_is_told_once() -> None:
    core = leader(*UNREADABLE)
    assert [len(decide(core, now).problems) for now in (1.0, 2.0)] == [1, 0]


def test_a_pool_is_in_force_before_the_services_of_the_same_pass_are_judged() -> None:
    core = leader()
    for view in (service(), *POOLS):
        core.take(came(view), at(1.0))
    (write,) = about_services(decide(core, 1.0))
    assert isinstance(write, Write)
    assert write.body["status"]["loadBalancer"] == {"ingress": [{"ip": "192.0.2.10"}]}


def test_what_is_written_about_a_pool_counts_what_its_services_were_given() -> None:
    core = leader(*POOLS, service())
    (report,) = [each for each in decide(core, 1.0).changes if each.resource is IP_ADDRESS_POOLS]
    assert isinstance(report, Write)
    assert report.body["status"]["assignedIPv4"] == 1


def test_without_room_nothing_is_decided_and_nothing_is_lost() -> None:
    core = leader(*POOLS, service("a"), service("b"), service("c"))
    assert not decide(core, 1.0, None).changes
    assert core.backlog == 3
    assert len(about_services(decide(core, 2.0, Room(2, 1000)))) == 2
    assert len(about_services(decide(core, 3.0, Room(1000, 1)))) == 1
    assert core.backlog == 0


def test_a_term_that_ends_takes_all_with_it_that_was_decided() -> None:
    core = leader(*POOLS, service())
    decide(core, 1.0)
    core.begin_term()
    assert (core.restored, core.backlog) == (False, 0)
    core.restore((*POOLS, service("other"), service()), at(5.0))
    assert {each.name for each in about_services(decide(core, 5.0))} == {"other", "web"}


def test_pools_of_another_namespace_are_told_and_do_not_count() -> None:
    body = {"metadata": {"name": "astray", "namespace": "default"}, "spec": {"addresses": ["192.0.2.0/24"]}}
    core = leader(decode(msgspec.json.encode(body), IPAddressPool), service())
    (write,) = about_services(decide(core, 1.0))
    assert isinstance(write, Write)
    assert write.body["status"]["conditions"][0]["reason"] == "NoPool"
    assert [each.about.key for each in decide(core, 60.0).astray] == ["default/astray"]


def test_a_status_object_is_looked_at_when_its_node_is_gone() -> None:
    body = {"metadata": {"name": "node-1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    node = decode(msgspec.json.encode(body), Node)
    core = leader(node)
    core.clear({}, 60.0)  # the first look, at everything
    core.take(Seen("deleted", node, None), at(100.0))
    due = core.next_deadline()
    assert due is not None
    assert (core.orphans_due(due - 0.001), core.orphans_due(due)) == (False, True)
    tasks, census = core.clear({}, due)
    assert (len(tasks), census.nodes) == (1, frozenset())


# ------------------------------------------------------------------------ retries


FAILED_AT = 10.0


@pytest.mark.parametrize(
    ("failure", "least_s"),
    [
        pytest.param(ApiError(0, "Unreachable", "no answer"), FIRST_RETRY_S, id="no answer"),
        pytest.param(ApiError(500, "InternalError", "etcd"), FIRST_RETRY_S, id="the server's own fault"),
        pytest.param(ApiError(429, "TooManyRequests", "", 4.0), 4.0, id="the server asks for a pause"),
        pytest.param(Forbidden(403, "Forbidden", "RBAC"), HOPELESS_RETRY_S, id="a person has to allow it"),
        pytest.param(Invalid(422, "Invalid", "schema"), HOPELESS_RETRY_S, id="a person has to mend it"),
        pytest.param(Forbidden(403, "Forbidden", "", 30.0), 30.0, id="and the server asks for a longer pause"),
    ],
)
@pytest.mark.parametrize("resource", [SERVICES, IP_ADDRESS_POOLS], ids=["a Service", "a pool"])
def test_when_a_failed_write_is_tried_again(failure: ApiError, least_s: float, resource: object) -> None:
    core = leader(*POOLS, service())
    core.clear({}, 6.0)  # the look at status objects, which a term begins with
    (write,) = [each for each in decide(core, 6.0).changes if each.resource is resource]
    assert not [each for each in decide(core, 7.0).changes if each.resource is resource]
    core.take_outcome(ChangeOutcome(TERM, write, failure=failure), at(FAILED_AT))

    def tried(now: float) -> bool:
        return any(each.key == write.key and each.resource is resource for each in decide(core, now).changes)

    assert not tried(FAILED_AT + least_s - 0.001)
    due = core.next_deadline()
    assert due is not None
    assert FAILED_AT + least_s <= due <= FAILED_AT + least_s * MOST_JITTER
    assert tried(due)


def test_who_lost_a_race_is_judged_at_once_on_what_the_object_has_become() -> None:
    core = leader(*POOLS, service())
    (write,) = about_services(decide(core, 1.0))
    core.take_outcome(ChangeOutcome(TERM, write, service(version=2), made=False), at(2.0))
    (again,) = about_services(decide(core, 2.0))
    assert isinstance(again, Write)
    assert again.body["metadata"]["resourceVersion"] == "2"


def test_a_service_that_is_gone_when_it_is_written_gives_its_address_back() -> None:
    core = leader(*POOLS, service())
    (write,) = about_services(decide(core, 1.0))
    core.take_outcome(ChangeOutcome(TERM, write, None), at(2.0))
    assert not about_services(decide(core, 2.0))
    assert core.figures().services == 0
    assert [each.ipv4_in_use for each in core.figures().pools.values()] == [0]


# ------------------------------------------------------------------------ companions


def node_pool(**spec: Any) -> NodeIPPool:
    body = {
        "metadata": {"name": "nodes", "namespace": "metallb-system"},
        "spec": {"addresses": [{"type": "ExternalIP"}], "allowOtherProxies": True, **spec},
    }
    return decode(msgspec.json.encode(body), NodeIPPool)


def node_behind_nat() -> Node:
    addresses = [{"type": "ExternalIP", "address": "203.0.113.1"}, {"type": "InternalIP", "address": "10.0.0.1"}]
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    body = {"metadata": {"name": "a"}, "status": {"addresses": addresses, "conditions": [ready]}}
    return decode(msgspec.json.encode(body), Node)


def http(*, version: int = 1, **status: Any) -> Service:
    view = service(version=version, **status)
    ports, selector = (ServicePort(80),), {"app": "web"}
    pool = {"metallb.io/ip-allocated-from-pool": "nodes"} if status else {}
    return replace(
        view,
        metadata=replace(view.metadata, annotations=pool),
        spec=replace(view.spec, ports=ports, selector=selector),
    )


def behind_nat(*everything: Object) -> Core:
    core = leader(node_behind_nat(), node_pool(deliveredAddresses=[{"type": "InternalIP"}]), *everything)
    core.nodes_read(at(1.0))
    return core


def about_companions(orders: PassResult) -> list[Change]:
    return [each for each in orders.changes if each.resource is COMPANIONS]


def test_a_companion_is_made_once_its_service_shows_the_address() -> None:
    core = behind_nat(http())
    first = decide(core, 2.0)
    (write,) = about_services(first)
    assert isinstance(write, Write)
    assert write.body["status"]["loadBalancer"] == {"ingress": [{"ip": "203.0.113.1"}]}
    assert not about_companions(first)
    shown = http(version=2, **write.body["status"])
    core.take_outcome(ChangeOutcome(TERM, write, shown), at(3.0))
    (made,) = about_companions(decide(core, 3.0))
    assert (made.key, isinstance(made, Write) and made.create) == ("default/web-berthlb-delivered", True)


def test_a_companion_is_no_service_that_has_or_wants_an_address() -> None:
    """Also where its address would be one of a pool: the class says all."""
    companion = replace(
        service("web-berthlb-delivered", loadBalancer={"ingress": [{"ip": "192.0.2.10"}]}),
        spec=ServiceSpec(type="LoadBalancer", load_balancer_class=DELIVERED_CLASS),
    )
    core = leader(*POOLS, companion, service("other"))
    writes = about_services(decide(core, 1.0))
    assert [each.key for each in writes] == ["default/other"]
    assert isinstance(writes[0], Write)
    assert writes[0].body["status"]["loadBalancer"] == {"ingress": [{"ip": "192.0.2.10"}]}
    assert core.figures().services == 1


def test_what_stands_in_the_way_of_a_companion_becomes_a_condition_of_the_service() -> None:
    shows: dict[str, Any] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    core = behind_nat(http(**shows))
    orders = decide(core, 2.0)
    (made,) = about_companions(orders)
    taken = replace(service("web-berthlb-delivered"), spec=ServiceSpec())
    (write,) = about_services(orders)
    assert isinstance(write, Write)
    written = http(version=2, **shows, conditions=write.body["status"]["conditions"])
    core.take_outcome(ChangeOutcome(TERM, write, written), at(3.0))
    core.take_outcome(ChangeOutcome(TERM, made, taken, made=False), at(3.0))
    assert [note.reason for tell in decide(core, 3.0).tells for note in tell.events] == ["CompanionNameTaken"]
    (said,) = about_services(decide(core, 3.1))
    assert isinstance(said, Write)
    reasons = {each["type"]: each["reason"] for each in said.body["status"]["conditions"]}
    assert reasons["berthlb.io/NotDelivered"] == "CompanionNameTaken"


def test_a_companion_that_the_api_refuses_waits_and_its_service_says_why() -> None:
    core = behind_nat(http(loadBalancer={"ingress": [{"ip": "203.0.113.1"}]}))
    (made,) = about_companions(decide(core, 2.0))
    core.take_outcome(ChangeOutcome(TERM, made, failure=Forbidden(403, "Forbidden", "exceeded quota")), at(3.0))
    orders = decide(core, 3.0)
    assert not about_companions(orders)
    assert [note.reason for tell in orders.tells for note in tell.events] == ["CompanionRefused"]
    assert not decide(core, 4.0).tells
    (again,) = about_companions(decide(core, 3.0 + HOPELESS_RETRY_S * MOST_JITTER))
    assert again.key == made.key
