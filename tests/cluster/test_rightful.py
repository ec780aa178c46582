"""Whose an address is that several Services claim: controller and speaker judge alike, as the rules say."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import load
from cluster.objects import L2Advertisement, Node, NodeName, Service, decode
from speaker.api.kept import kept_service
from speaker.api.planner import plan
from tests.controller.world import World, pool_objects
from tests.speaker.api.test_planner import a_slice

A, B = "10.0.0.1", "10.0.0.2"
READY = {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
NODE = decode(msgspec.json.encode(READY), Node)
POOLS = {"lan": "10.0.0.0/24"}
EVERYWHERE = decode(b'{"metadata": {"name": "all"}, "spec": {}}', L2Advertisement)
CONFIG = load(pool_objects(POOLS), [EVERYWHERE], None).config
SETS = st.sampled_from([(), (A,), (B,), (A, B)])
SERVICES = st.lists(
    st.fixed_dictionaries(
        {
            "shown": st.sampled_from([(), (A,), (B,)]),
            "given": st.none() | SETS,
            "second": st.integers(1, 2),
            "key": st.sampled_from(["", "", "x", "y"]),
            "port": st.integers(80, 81),
            "app": st.sampled_from(["", "one", "two"]),
        }
    ),
    min_size=1,
    max_size=4,
)


def the_service(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """As the API has it. ``app``: of its selector, with the traffic policy Local; empty: Cluster."""
    message = f'{", ".join(facts["given"])} from pool "lan"' if facts["given"] else "no"
    said = [{"type": "berthlb.io/AddressAssigned", "status": "True", "message": message}]
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "creationTimestamp": f"2026-01-01T00:00:0{facts['second']}Z",
            "annotations": {"metallb.io/allow-shared-ip": facts["key"]} if facts["key"] else {},
        },
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"],
            "ports": [{"port": facts["port"]}],
            "selector": {"app": facts["app"]} if facts["app"] else {},
            "externalTrafficPolicy": "Local" if facts["app"] else "Cluster",
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": each} for each in facts["shown"]]},
            "conditions": [] if facts["given"] is None else said,
        },
    }


def together(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the two may share an address."""
    return (
        bool(one["key"]) and one["key"] == other["key"] and one["port"] != other["port"] and one["app"] == other["app"]
    )


def claim(facts: dict[str, Any], address: str) -> str:
    """In one word, what it has to say for itself."""
    shown, was_given = address in facts["shown"], address in (facts["given"] or ())
    if was_given:
        return "both" if shown else "given"
    if not shown:
        return "none"
    return "unrecorded" if facts["given"] is None else "another's"


def owners(services: dict[str, dict[str, Any]], address: str) -> list[str]:
    """Who has the address, from the best claim down: each that may share it with all before."""
    had: list[str] = []
    for word in ("both", "given", "unrecorded", "another's"):
        named = [name for name in sorted(services) if claim(services[name], address) == word]
        for name in sorted(named, key=lambda each: services[each]["second"]):
            if all(together(services[name], services[other]) for other in had):
                had.append(name)
    return had


@settings(max_examples=500, deadline=None)
@given(SERVICES, st.randoms(use_true_random=False))
def test_controller_and_speaker_judge_alike(listed: list[dict[str, Any]], order: Any) -> None:
    services = {f"s{number}": facts for number, facts in enumerate(listed)}
    names = list(services)
    order.shuffle(names)
    world = World(POOLS)
    for name in names:
        world.services[f"default/{name}"] = the_service(name, services[name])
    world.start()
    views = [decode(msgspec.json.encode(the_service(name, services[name])), Service) for name in names]
    slices = [a_slice(name, "n") for name in names]
    right = {address: owners(services, address) for address in (A, B)}
    announced = {
        f"default/{name}" for address in right for name in right[address] if address in services[name]["shown"]
    }
    for kept in (views, [kept_service(each) for each in views]):
        bundles = plan(kept, slices, [NODE], CONFIG, node=NodeName("n"), revision=1).bundles
        assert {each for bundle in bundles for each in bundle.services} == announced
    for address, owning in right.items():
        lawful = {f"default/{name}" for name in owning if claim(services[name], address) != "another's"}
        tracked = world.controller._tracked
        assert {key for key in tracked if address in {each.text for each in tracked[key].assigned}} == lawful


def test_of_two_addresses_the_one_that_is_another_s_is_not_announced() -> None:
    """The rest of the Service is; before, it lost both."""
    facts = {"second": 2, "key": "", "port": 80, "app": ""}
    thief = {**facts, "shown": (A, B), "given": (A,), "second": 1}
    services = {"thief": thief, "victim": {**facts, "shown": (B,), "given": (B,)}}
    assert [owners(services, address) for address in (A, B)] == [["thief"], ["victim"]]
    views = [decode(msgspec.json.encode(the_service(*each)), Service) for each in services.items()]
    bundles = plan(
        views, [a_slice(each, "n") for each in services], [NODE], CONFIG, node=NodeName("n"), revision=1
    ).bundles
    assert {each.services: each.addresses for each in bundles} == {
        ("default/thief",): (A,),
        ("default/victim",): (B,),
    }


def test_what_somebody_took_out_of_a_status_is_nobody_else_s() -> None:
    """The controller puts it back in a moment; until then nobody is answered for there."""
    facts = {"second": 2, "key": "", "port": 80, "app": ""}
    services = {
        "thief": {**facts, "shown": (A,), "given": None, "second": 1},
        "victim": {**facts, "shown": (), "given": (A,)},
    }
    views = [decode(msgspec.json.encode(the_service(*each)), Service) for each in services.items()]
    slices = [a_slice(each, "n") for each in services]
    assert plan(views, slices, [NODE], CONFIG, node=NodeName("n"), revision=1).bundles == ()
