"""Whose an address is that several Services claim: the shared rule, the controller and the speaker are compared with an
oracle that was written from the documents alone (``tests.oracle.owners``)."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.addresses import Address, parse_address
from cluster.config import load
from cluster.objects import L2Advertisement, Node, NodeName, Service, decode
from cluster.record import recorded
from cluster.rightful import Contender, Grade, age_of, titles
from cluster.sharing import read_sharer
from speaker.api.kept import kept_service
from speaker.api.planner import plan
from tests.controller.world import World, pool_objects
from tests.oracle.owners import Right, owners
from tests.oracle.services import is_load_balancer, key_of, read_address, shown
from tests.speaker.api.objects import a_slice

A, B = "10.0.0.1", "10.0.0.2"
READY = {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
NODE = decode(msgspec.json.encode(READY), Node)
POOLS = {"lan": "10.0.0.0/24"}
EVERYWHERE = decode(b'{"metadata": {"name": "all"}, "spec": {}}', L2Advertisement)
CONFIG = load(pool_objects(POOLS), [EVERYWHERE], None).config


def a_service(
    name: str,
    shown: tuple[str, ...] = (),
    said: str | None = None,
    *,
    second: int = 1,
    lb_class: str | None = None,
    annotations: dict[str, str] | None = None,
    ports: tuple[dict[str, Any], ...] = ({"port": 80},),
    policy: str | None = None,
    selector: dict[str, str] | None = None,
    leaving: bool = False,
) -> dict[str, Any]:
    """As the API has it. ``said``: the message of its condition; None: it has no condition."""
    condition = {"type": "berthlb.io/AddressAssigned", "status": "True", "message": said}
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "creationTimestamp": f"2026-01-01T00:00:0{second}Z",
            "annotations": annotations or {},
            **({"deletionTimestamp": "2026-01-02T00:00:00Z"} if leaving else {}),
        },
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"],
            "ports": list(ports),
            **({"loadBalancerClass": lb_class} if lb_class else {}),
            **({"selector": selector} if selector is not None else {}),
            **({"externalTrafficPolicy": policy} if policy else {}),
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": each} for each in shown]},
            "conditions": [] if said is None else [condition],
        },
    }


def view_of(service: dict[str, Any]) -> Service:
    return decode(msgspec.json.encode(service), Service)


NAME, FORMER = "metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip"
SHARING: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}),
    st.sampled_from(["x", "x", "x", "y", ""]).map(lambda key: {NAME: key}),
    st.sampled_from(["x", "y"]).map(lambda key: {FORMER: key}),
    st.tuples(st.sampled_from(["x", ""]), st.sampled_from(["x", "y"])).map(lambda two: {NAME: two[0], FORMER: two[1]}),
)
PORTS = st.lists(
    st.sampled_from([{"port": 80}, {"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}, {"port": 81}]),
    min_size=1,
    max_size=2,
).map(tuple)
SELECTORS = st.sampled_from([None, {}, {"app": "one"}, {"app": "two"}, {"app": "one", "tier": "web"}])
SAID = st.sampled_from(
    [
        None,
        None,
        "no address",
        f'{A} from pool "lan"',
        f'{B} from pool "lan"',
        f'{A}, {B} from pool "lan"',
        f'"k3s" keeps replacing what is written to the Service\'s status; {A} stays reserved for it, but it waits',
    ]
)
SERVICES = st.lists(
    st.fixed_dictionaries(
        {
            "shown": st.sampled_from([(), (A,), (A,), (B,)]),
            "said": SAID,
            "second": st.integers(1, 2),
            "lb_class": st.sampled_from([None, None, None, "their"]),
            "annotations": SHARING,
            "ports": PORTS,
            "policy": st.sampled_from([None, "Cluster", "Local"]),
            "selector": SELECTORS,
            "leaving": st.sampled_from([False, False, True]),
        }
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=1000)
@given(SERVICES)
def test_the_rule_orders_claims_as_the_documents_do(listed: list[dict[str, Any]]) -> None:
    services = [a_service(f"s{number}", **facts) for number, facts in enumerate(listed)]
    views = [view_of(each) for each in services]
    contenders = [
        Contender(
            view.key,
            age_of(view),
            read_sharer(view),
            tuple(parse_address(each.ip) for each in view.status.load_balancer.ingress),
            recorded(view),
            elsewhere=view.spec.load_balancer_class is not None,
            leaving=view.metadata.deletion_timestamp is not None,
        )
        for view in views
    ]
    having: dict[Address, list[tuple[str, Grade]]] = {}
    for title in titles(contenders):
        if title.barred_by is None:
            having.setdefault(title.address, []).append((title.who, title.grade))
    for text in (A, B):
        right = owners(services, oracle_address(text))
        found = having.get(parse_address(text), [])
        assert [(key, grade.value) for key, grade in found] == [(k, r.value) for k, r in right.items()]


def oracle_address(text: str) -> Any:
    address = read_address(text)
    assert address is not None
    return address


@settings(max_examples=500)
@given(SERVICES, st.randoms(use_true_random=False))
def test_controller_and_speaker_judge_alike(listed: list[dict[str, Any]], order: Any) -> None:
    """The controller knows that Services of another class have what they show. A speaker announces none of them."""
    services = [a_service(f"s{number}", **facts) for number, facts in enumerate(listed)]
    ours = [each for each in services if is_load_balancer(each, None)]
    shuffled = list(services)
    order.shuffle(shuffled)
    world = World(POOLS)
    for each in shuffled:
        world.services[key_of(each)] = each
    world.start()
    slices = [a_slice(each["metadata"]["name"], "n") for each in services]
    announced = {
        key
        for address in map(oracle_address, (A, B))
        for key in owners(ours, address)
        if address in shown(world.services[key])
    }
    views = [view_of(each) for each in shuffled]
    for kept in (views, [kept_service(each) for each in views]):
        bundles = plan(kept, slices, [NODE], CONFIG, node=NodeName("n"), revision=1).bundles
        assert {each for bundle in bundles for each in bundle.services} == announced
    for text in (A, B):
        rights = owners(services, oracle_address(text))
        lawful = {
            key
            for key, right in rights.items()
            if right is not Right.SHOWN_AGAINST_ITS_WORD and is_load_balancer(world.services[key], None)
        }
        tracked = world.controller._tracked
        assigned = {key for key in tracked if text in {each.text for each in tracked[key].assigned}}
        assert {key for key in assigned if is_load_balancer(world.services[key], None)} == lawful


def bundles_of(*services: dict[str, Any]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """What a speaker announces: addresses by Services."""
    views = [view_of(each) for each in services]
    slices = [a_slice(each["metadata"]["name"], "n") for each in services]
    made = plan(views, slices, [NODE], CONFIG, node=NodeName("n"), revision=1)
    return {each.services: tuple(each.addresses) for each in made.bundles}


def test_of_two_addresses_the_one_that_is_another_s_is_not_announced() -> None:
    """The rest of the Service is; before, it lost both."""
    thief = a_service("thief", (A, B), f'{A} from pool "lan"')
    victim = a_service("victim", (B,), f'{B} from pool "lan"', second=2)
    assert [list(owners([thief, victim], oracle_address(each))) for each in (A, B)] == [
        ["default/thief"],
        ["default/victim"],
    ]
    assert bundles_of(thief, victim) == {("default/thief",): (A,), ("default/victim",): (B,)}


def test_what_somebody_took_out_of_a_status_is_nobody_else_s() -> None:
    """The controller puts it back in a moment; until then nobody is answered for there."""
    thief = a_service("thief", (A,))
    victim = a_service("victim", (), f'{A} from pool "lan"', second=2)
    assert bundles_of(thief, victim) == {}
