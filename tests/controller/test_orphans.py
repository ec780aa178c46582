"""Which ServiceL2Status objects belong to nobody, and when they are looked for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.l2status import status_name
from cluster.objects import Node, Service, ServiceL2Status, decode
from controller.orphans import ABSENT_S, FIRST_LOOK_S, GRACE_S, MANY, Clear, Orphans, Sweep


def service(name: str = "web", uid: str = "uid-web", address: str | None = "10.0.0.1", **spec: Any) -> Service:
    ingress = [{"ip": address}] if address else []
    body = {
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {"type": "LoadBalancer", **spec},
        "status": {"loadBalancer": {"ingress": ingress}},
    }
    return decode(msgspec.json.encode(body), Service)


def node(name: str, ready: str | None = "True") -> Node:
    conditions = [{"type": "Ready", "status": ready}] if ready else []
    return decode(msgspec.json.encode({"metadata": {"name": name}, "status": {"conditions": conditions}}), Node)


def status(on: str, uid: str = "uid-web", name: str = "web", *, filled: bool = True) -> ServiceL2Status:
    labels = {"metallb.io/node": on, "metallb.io/service-name": name, "metallb.io/service-namespace": "default"}
    said = {"node": on, "serviceName": name, "serviceNamespace": "default"} if filled else {}
    body = {"metadata": {"name": status_name(uid), "labels": labels}, "status": said}
    return decode(msgspec.json.encode(body), ServiceL2Status)


def cluster(*names: str) -> Orphans:
    """With these nodes Ready, and the first look over."""
    orphans = Orphans(0.0)
    for name in names:
        orphans.set_node(name, node(name), 0.0)
    assert orphans.due({}, FIRST_LOOK_S) == [Sweep()]
    return orphans


SERVED = {"default/web": service()}


@pytest.mark.parametrize("filled", [True, False])
def test_whose_it_is(filled: bool) -> None:
    orphans = cluster("n1", "n2")
    orphans.set_node("n2", node("n2", "Unknown"), 10.0)
    census = orphans.census(SERVED, 10.0)
    assert not census.belongs_to_nobody(status("n1", filled=filled))
    assert not census.belongs_to_nobody(status("n2", filled=filled)), "not for so long"
    assert census.belongs_to_nobody(status("n3", filled=filled)), "no such node"
    assert census.belongs_to_nobody(status("n1", name="other", filled=filled)), "no such Service"
    assert census.belongs_to_nobody(status("n1", uid="of an earlier one", filled=filled))
    later = orphans.census(SERVED, 10.0 + ABSENT_S)
    assert later.belongs_to_nobody(status("n2", filled=filled))
    assert not later.belongs_to_nobody(status("n1", filled=filled))


@pytest.mark.parametrize("gone", [service(address=None), service(type="ClusterIP"), service(uid="another"), None])
def test_after_a_service_that_went_its_object_is_cleared_once_the_speaker_has_had_time(gone: Service | None) -> None:
    orphans = cluster("n1")
    orphans.service_changed(service(), gone, 100.0)
    assert orphans.next_deadline() == 100.0 + GRACE_S
    present = {"default/web": gone} if gone else {}
    assert orphans.due(present, 100.0 + GRACE_S - 0.1) == []
    assert orphans.due(present, 100.0 + GRACE_S) == [Clear(status_name("uid-web"))]
    assert orphans.next_deadline() is None


def test_a_service_that_came_back_meanwhile_keeps_its_object() -> None:
    orphans = cluster("n1")
    orphans.service_changed(service(), service(address=None), 100.0)
    orphans.service_changed(service(address=None), service(), 101.0)
    assert orphans.due(SERVED, 200.0) == []


def test_what_was_never_announced_leaves_nothing() -> None:
    orphans = cluster("n1")
    orphans.service_changed(None, service(), 100.0)
    orphans.service_changed(service(address=None), None, 100.0)
    orphans.service_changed(service(), service(address="10.0.0.2"), 100.0)
    assert orphans.next_deadline() is None


def test_after_many_that_went_together_all_objects_are_looked_at_once() -> None:
    orphans = cluster("n1")
    for number in range(MANY):
        orphans.service_changed(service(uid=f"uid-{number}"), None, 100.0)
    assert orphans.due({}, 100.0 + GRACE_S) == [Sweep()]
    assert orphans.next_deadline() is None


def test_a_node_that_was_deleted_is_looked_after() -> None:
    orphans = cluster("n1", "n2")
    orphans.set_node("n2", None, 100.0)
    assert orphans.next_deadline() == 100.0 + GRACE_S
    assert orphans.due({}, 100.0 + GRACE_S) == [Sweep("n2")]


def test_a_node_that_is_silent_is_looked_after_once_and_again_when_it_goes_again() -> None:
    orphans = cluster("n1", "n2")
    for began in (100.0, 1000.0):
        for moment in range(3):
            orphans.set_node("n2", node("n2", "Unknown"), began + moment)
        assert orphans.next_deadline() == began + ABSENT_S
        assert orphans.due(SERVED, began + ABSENT_S - 0.1) == []
        assert orphans.due(SERVED, began + ABSENT_S) == [Sweep("n2")]
        assert orphans.next_deadline() is None, "a speaker that lives made its objects anew"
        orphans.set_node("n2", node("n2"), began + 500.0)


def test_a_node_that_comes_back_in_time_keeps_all() -> None:
    orphans = cluster("n1", "n2")
    orphans.set_node("n2", node("n2", "False"), 100.0)
    orphans.set_node("n2", node("n2"), 120.0)
    assert orphans.next_deadline() is None
    assert not orphans.census(SERVED, 500.0).belongs_to_nobody(status("n2"))


@pytest.mark.parametrize("silence", ["Unknown", "False", None])
def test_where_no_node_is_ready_nothing_is_concluded(silence: str | None) -> None:
    """It is the API that was away; the kubelets come back one after the other."""
    orphans = cluster("n1", "n2", "n3")
    for name in ("n1", "n2", "n3"):
        orphans.set_node(name, node(name, silence), 100.0)
    assert orphans.next_deadline() is None
    assert not any(orphans.census(SERVED, 1000.0).belongs_to_nobody(status(name)) for name in ("n1", "n2", "n3"))
    orphans.set_node("n1", node("n1"), 1000.0)
    assert orphans.next_deadline() == 1000.0 + ABSENT_S
    assert not orphans.census(SERVED, 1010.0).belongs_to_nobody(status("n2"))
    orphans.set_node("n2", node("n2"), 1010.0)
    assert orphans.due(SERVED, 1000.0 + ABSENT_S) == [Sweep("n3")]
    assert orphans.census(SERVED, 1000.0 + ABSENT_S).belongs_to_nobody(status("n3"))


def test_a_term_begins_with_a_look_at_everything() -> None:
    orphans = Orphans(1000.0)
    assert orphans.next_deadline() == 1000.0 + FIRST_LOOK_S
    assert orphans.due({}, 1000.0) == []
    assert orphans.due({}, 1000.0 + FIRST_LOOK_S) == [Sweep()]
    assert orphans.next_deadline() is None
