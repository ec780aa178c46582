"""What a speaker writes about itself: the next write leads to the wanted object, whatever is there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import Problem
from cluster.objects import (
    AddressText,
    ConfigurationState,
    NodeName,
    Object,
    ObjectMeta,
    ServiceL2Interface,
    ServiceL2Status,
    ServiceL2StatusStatus,
)
from speaker.announcements import Announced
from speaker.plan import LinkName
from speaker.records import (
    MAX_SUMMARY,
    Create,
    Delete,
    Patch,
    Wanted,
    Write,
    next_status_write,
    next_write,
    status_name,
    wanted_configuration_state,
    wanted_status,
)

NODE = NodeName("node-1")
ANNOUNCED = Announced("default/web", "uid-web", (AddressText("192.0.2.1"),), ())
NOW = "2026-01-01T00:00:00Z"


def applied(step: Write, present: Object | None, kind: type[Any]) -> Any:
    """What the API has after a write: a merge patch, the status only by its subresource."""
    body = msgspec.to_builtins(present) if present else {}
    if isinstance(step, Delete):
        return None
    for key, value in step.body.items():
        if (key == "status") != (isinstance(step, Patch) and step.subresource == "status"):
            continue
        merged = dict(body.get(key, {}))
        for name, inner in value.items():
            merged[name] = {**merged.get(name, {}), **inner} if isinstance(inner, dict) else inner
        body[key] = merged
    return msgspec.convert(body, kind)


def led(wanted: Wanted[Any] | None, present: ServiceL2Status | None) -> ServiceL2Status | None:
    """Where the writes lead, which must be within four."""
    for _ in range(4):
        step = next_status_write(wanted, present, NODE)
        if step is None:
            return present
        present = applied(step, present, ServiceL2Status)
    raise AssertionError("the writes do not come to an end")


PRESENT = st.none() | st.builds(
    lambda node, label, interfaces, uid: ServiceL2Status(
        ObjectMeta(name=status_name("uid-web"), uid=uid, resource_version="7", labels={"metallb.io/node": label}),
        ServiceL2StatusStatus(node, "web", "default", tuple(ServiceL2Interface(each) for each in interfaces)),
    ),
    st.sampled_from(["", "node-1", "node-2"]),
    st.sampled_from(["node-1", "node-2"]),
    st.lists(st.sampled_from(["eth0", "eth1"]), unique=True),
    st.sampled_from(["u1", "u2"]),
)


@given(PRESENT, st.lists(st.sampled_from(["eth0", "eth1"]), unique=True))
def test_whatever_is_there_the_writes_lead_to_the_wanted_status(
    present: ServiceL2Status | None, interfaces: list[str]
) -> None:
    announced = ANNOUNCED._replace(interfaces=tuple(LinkName(each) for each in interfaces))
    reached = led(wanted_status(announced, NODE), present)
    assert reached is not None
    assert reached.metadata.name == status_name("uid-web")
    assert reached.metadata.labels["metallb.io/node"] == NODE
    assert reached.metadata.labels["metallb.io/service-name"] == "web"
    assert reached.status == ServiceL2StatusStatus(
        NODE, "web", "default", tuple(ServiceL2Interface(each) for each in interfaces)
    )


@given(PRESENT)
def test_where_nothing_is_wanted_only_what_names_this_node_goes(present: ServiceL2Status | None) -> None:
    reached = led(None, present)
    says = present and (present.status.node or present.metadata.labels["metallb.io/node"])
    assert reached == (None if says == NODE else present)


def test_a_status_is_written_only_over_the_object_that_was_read() -> None:
    """Otherwise a slow loser would write over the winner."""
    elsewhere = ServiceL2Status(
        ObjectMeta(name="l2-x", uid="u1", resource_version="7", labels={"metallb.io/node": "node-2"})
    )
    step = next_status_write(wanted_status(ANNOUNCED, NODE), elsewhere, NODE)
    assert isinstance(step, Patch)
    assert step.body["metadata"]["resourceVersion"] == "7"
    mine = ServiceL2Status(ObjectMeta(name="l2-x", uid="u1", resource_version="8"), ServiceL2StatusStatus(node=NODE))
    assert next_status_write(None, mine, NODE) == Delete("u1", "8")


def test_the_name_is_the_services_and_not_the_nodes() -> None:
    assert wanted_status(ANNOUNCED, NODE).name == wanted_status(ANNOUNCED, NodeName("node-2")).name
    assert status_name("uid-web") != status_name("uid-db")


PROBLEM = Problem("IPAddressPool", "lan", "spec.addresses[0]", "starts after it ends")


@pytest.mark.parametrize(
    ("problems", "result", "summary"),
    [((), "Valid", ""), ((PROBLEM,), "Invalid", "IPAddressPool lan: spec.addresses[0]: starts after it ends")],
)
def test_the_verdict_on_the_configuration(problems: tuple[Problem, ...], result: str, summary: str) -> None:
    wanted = wanted_configuration_state(NODE, problems, NOW)
    present: ConfigurationState | None = None
    while step := next_write(wanted, present):
        present = applied(step, present, ConfigurationState)
    assert present is not None
    assert (present.metadata.name, present.status.result) == ("speaker-node-1", result)
    assert present.status.error_summary == summary
    assert next_write(wanted_configuration_state(NODE, problems, "2027-01-01T00:00:00Z"), present) is None


def test_a_verdict_on_ten_thousand_pools_stays_readable() -> None:
    wanted = wanted_configuration_state(NODE, (PROBLEM,) * 10_000, NOW)
    assert len(wanted.status["errorSummary"]) == MAX_SUMMARY


def test_making_an_object_says_its_labels_at_once() -> None:
    """Whoever watches by label sees it from its first moment."""
    step = next_status_write(wanted_status(ANNOUNCED, NODE), None, NODE)
    assert isinstance(step, Create)
    assert step.body["metadata"]["labels"]["metallb.io/node"] == NODE
