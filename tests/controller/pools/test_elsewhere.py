"""Pools in other namespaces are named, unless somebody else reads them there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.node_pools import NodeIPPool
from cluster.objects import IPAddressPool, L2Advertisement, decode
from controller.pools.elsewhere import AGAIN_S, MOST, PATIENCE_S, Elsewhere

VALID = {"conditions": [{"type": "Valid", "status": "True", "reason": "InForce", "message": ""}]}


def pool(name: str = "lan", namespace: str = "default", uid: str = "1", **status: Any) -> IPAddressPool:
    metadata = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}-{uid}"}
    body = {"metadata": metadata, "spec": {"addresses": ["10.0.0.0/24"]}, "status": status}
    return decode(msgspec.json.encode(body), IPAddressPool)


def advertisement(namespace: str = "default", **status: Any) -> L2Advertisement:
    body = {"metadata": {"name": "lan", "namespace": namespace, "uid": namespace}, "status": status}
    return decode(msgspec.json.encode(body), L2Advertisement)


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere("metallb-system")


def told(elsewhere: Elsewhere, now: float) -> list[tuple[str, str]]:
    return [(each.resource.kind, each.about.key) for each in elsewhere.take_due(now)]


def test_a_pool_that_nobody_reads_is_told_after_a_while_and_then_once_an_hour(elsewhere: Elsewhere) -> None:
    elsewhere.observe(pool(), 0.0)
    elsewhere.observe(advertisement(), 0.0)
    assert told(elsewhere, PATIENCE_S - 1) == []
    assert elsewhere.next_deadline() == PATIENCE_S
    (first, second) = elsewhere.take_due(PATIENCE_S)
    assert [each.resource.kind for each in (first, second)] == ["IPAddressPool", "L2Advertisement"]
    (note,) = first.events
    assert (note.type, note.reason) == ("Warning", "WrongNamespace")
    assert note.message == (
        'it does not count: the controller reads the namespace "metallb-system" only; make it there'
    )
    times = [now for now in range(11, 11_000, 10) if told(elsewhere, float(now))]
    assert 2 <= len(times) <= 3
    assert dict(elsewhere.pools) == {"lan": "default"}
    elsewhere.vanished(pool())
    assert told(elsewhere, 11_001.0) == []
    assert dict(elsewhere.pools) == {}


@pytest.mark.parametrize(
    "status",
    [{"assignedIPv4": 1}, {"availableIPv4": 256}, {"availableIPv6": 9}, VALID],
    ids=lambda each: next(iter(each)),
)
def test_where_another_installation_writes_a_status_nothing_is_said(elsewhere: Elsewhere, status: Any) -> None:
    """MetalLB writes the counters and nothing into advertisements."""
    elsewhere.observe(pool(), 0.0)
    elsewhere.observe(advertisement(), 0.0)
    elsewhere.observe(pool("other", "dev"), 0.0)
    elsewhere.observe(pool(**status), 1.0)
    assert told(elsewhere, PATIENCE_S) == [("IPAddressPool", "dev/other")]
    assert dict(elsewhere.pools) == {"other": "dev"}


def test_what_is_told_has_an_end(elsewhere: Elsewhere) -> None:
    for number in range(1000):
        elsewhere.observe(pool(f"p{number}"), 0.0)
    assert len(told(elsewhere, PATIENCE_S)) == MOST
    for number in range(1000):
        elsewhere.observe(pool(f"p{number}", changed=number), PATIENCE_S + 1)
    assert told(elsewhere, PATIENCE_S + AGAIN_S - 1) == [], (
        "a Service that is changed all the time is not told more often"
    )


def test_one_that_was_made_anew_is_told_anew(elsewhere: Elsewhere) -> None:
    elsewhere.observe(pool(), 0.0)
    assert told(elsewhere, PATIENCE_S)
    elsewhere.observe(pool(uid="2"), PATIENCE_S + 1)
    assert told(elsewhere, PATIENCE_S + 2) == []
    assert told(elsewhere, 2 * PATIENCE_S + 1)


def test_a_pool_of_nodes_elsewhere_is_told_as_any_other(elsewhere: Elsewhere) -> None:
    body = {"metadata": {"name": "nodes", "namespace": "default", "uid": "1"}, "spec": {}}
    elsewhere.observe(decode(msgspec.json.encode(body), NodeIPPool), 0.0)
    (told_of,) = elsewhere.take_due(PATIENCE_S)
    assert (told_of.resource.kind, told_of.events[0].reason) == ("NodeIPPool", "WrongNamespace")
    assert dict(elsewhere.pools) == {"nodes": "default"}
    elsewhere.observe(decode(msgspec.json.encode(body | {"status": VALID}), NodeIPPool), PATIENCE_S)
    elsewhere.take_due(PATIENCE_S)
    assert dict(elsewhere.pools) == {}
