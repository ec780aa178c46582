"""What a speaker writes about itself: the next write leads to the wanted object, whatever is there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.config import Problem
from cluster.l2status import EPOCH_ANNOTATION, NODE_LABEL, announced_service, announcing_node, status_name
from cluster.objects import (
    AddressText,
    Condition,
    ConfigurationState,
    NodeName,
    Object,
    ObjectMeta,
    ServiceL2Interface,
    ServiceL2Status,
    ServiceL2StatusStatus,
)
from speaker.api.announcements import Announced
from speaker.api.records import (
    MAX_SUMMARY,
    About,
    Create,
    Delete,
    Findings,
    Patch,
    WantedObject,
    Write,
    event,
    former_holder,
    next_record_write,
    next_status_write,
    next_write,
    speaker_of,
    wanted_configuration_state,
    wanted_status,
)
from speaker.api.troubles import Trouble
from speaker.link import LinkName
from speaker.plan import BundleId
from speaker.protocol.effects import AskRecord, FormerHolder, RecordAnswer

NODE = NodeName("node-1")
ANNOUNCED = Announced("default/web", "uid-web", (AddressText("192.0.2.1"),), (), 6)
NOW, LATER = "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"


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
        body[key] = {name: inner for name, inner in merged.items() if inner is not None}
    return msgspec.convert(body, kind)


def led(wanted: WantedObject[Any] | None, present: ServiceL2Status | None) -> ServiceL2Status | None:
    """Where the writes lead, which must be within four."""
    for _ in range(4):
        step = next_status_write(wanted, present, NODE)
        if step is None:
            return present
        present = applied(step, present, ServiceL2Status)
    raise AssertionError("the writes do not come to an end")


PRESENT = st.none() | st.builds(
    lambda node, label, interfaces, uid, annotations: ServiceL2Status(
        ObjectMeta(
            name=status_name("uid-web"),
            uid=uid,
            resource_version="7",
            labels={"metallb.io/node": label},
            annotations=annotations,
        ),
        ServiceL2StatusStatus(node, "web", "default", tuple(ServiceL2Interface(each) for each in interfaces)),
    ),
    st.sampled_from(["", "node-1", "node-2"]),
    st.sampled_from(["node-1", "node-2"]),
    st.lists(st.sampled_from(["eth0", "eth1"]), unique=True),
    st.sampled_from(["u1", "u2"]),
    st.sampled_from([{}, {"berthlb.io/epoch": "4"}, {"berthlb.io/epoch": "6", "their.own/note": "x"}]),
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
    assert reached.metadata.annotations["berthlb.io/epoch"] == "6"
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


def reached(findings: Findings, present: ConfigurationState | None = None, now: str = NOW) -> ConfigurationState:
    """The ConfigurationState as the writes leave it, after which there is nothing left to write."""
    wanted = wanted_configuration_state(NODE, findings, now)
    for _ in range(4):
        step = next_write(wanted, present)
        if step is None:
            break
        present = applied(step, present, ConfigurationState)
    assert present is not None
    assert next_write(wanted_configuration_state(NODE, findings, LATER), present) is None
    return present


def conditions(state: ConfigurationState) -> dict[str, Condition]:
    return {each.type: each for each in state.status.conditions}


@pytest.mark.parametrize(
    ("problems", "result", "summary"),
    [((), "Valid", ""), ((PROBLEM,), "Invalid", "IPAddressPool lan: spec.addresses[0]: starts after it ends")],
)
def test_the_verdict_on_the_configuration(problems: tuple[Problem, ...], result: str, summary: str) -> None:
    state = reached(Findings(problems))
    assert (state.metadata.name, state.status.result) == ("speaker-node-1", result)
    assert state.status.error_summary == summary
    assert conditions(state)["configReconcilerValid"].message == summary


def test_troubles_are_a_condition_and_no_fault_of_the_configuration() -> None:
    troubles = (Trouble("NoUsableInterface", "no interface", serious=True), Trouble("NobodyHeard", "nobody"))
    state = reached(Findings((), troubles=troubles))
    assert state.status.result == "Valid"
    health = conditions(state)["announcerHealthy"]
    assert (health.status, health.reason, health.message) == ("False", "NoUsableInterface", "no interface; nobody")
    assert conditions(reached(Findings(())))["announcerHealthy"].status == "True"


def test_before_the_configuration_is_known_there_is_no_verdict_on_it() -> None:
    state = reached(Findings(None, troubles=(Trouble("NoNamespace", "no namespace"),)))
    assert state.status.result == "Unknown"
    assert conditions(state).keys() == {"announcerHealthy"}


def test_a_condition_says_since_when_its_status_is_what_it_is() -> None:
    before = reached(Findings(()))
    after = reached(Findings((), troubles=(Trouble("NobodyHeard", "nobody"),)), before, LATER)
    assert conditions(after)["configReconcilerValid"].last_transition_time == NOW
    assert conditions(after)["announcerHealthy"].last_transition_time == LATER


def test_what_is_said_about_interfaces_before_they_are_known_stays() -> None:
    before = reached(Findings((), without_interface=("all",)))
    assert before.status.advertisements_without_interface == ("all",)
    assert reached(Findings((PROBLEM,)), before).status.advertisements_without_interface == ("all",)
    assert reached(Findings((), without_interface=()), before).status.advertisements_without_interface == ()


def test_a_verdict_on_ten_thousand_pools_stays_readable() -> None:
    assert len(reached(Findings((PROBLEM,) * 10_000)).status.error_summary) == MAX_SUMMARY


@pytest.mark.parametrize(("key", "node"), [("ns/speaker-n.1", "n.1"), ("ns/controller", None)])
def test_a_speakers_configuration_state_tells_its_node(key: str, node: str | None) -> None:
    assert speaker_of(key) == node
    assert node is None or wanted_configuration_state(NodeName(node), Findings(), NOW).name == f"speaker-{node}"


def test_an_event_on_a_node_is_where_people_look_for_it() -> None:
    """``kubectl describe node`` looks in all namespaces, and ``kubectl get events`` in the default one. A Node's name
    may be as long as an Event's."""
    longest = ".".join(["n" * 63] * 3) + ".node-with-a-very-long-name-" + "x" * 30
    about = About("Node", "", longest, "uid-node")
    body = event(about, NODE, type_="Warning", reason="DuplicateNode", message="m" * 2000, now=NOW, suffix="1f")
    assert body["metadata"]["namespace"] == "default"
    assert len(body["metadata"]["name"]) <= 253
    assert body["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": longest, "uid": "uid-node"}
    assert len(body["message"]) == MAX_SUMMARY


def test_making_an_object_says_its_labels_at_once() -> None:
    """Whoever watches by label sees it from its first moment."""
    step = next_status_write(wanted_status(ANNOUNCED, NODE), None, NODE)
    assert isinstance(step, Create)
    assert step.body["metadata"]["labels"]["metallb.io/node"] == NODE


def test_holder_and_epoch_are_written_together() -> None:
    """Or somebody could read the one's node with the other's epoch."""
    step = next_status_write(wanted_status(ANNOUNCED, NODE), record("node-2", "4"), NODE)
    assert isinstance(step, Patch)
    assert step.subresource is None
    assert step.body["metadata"]["labels"][NODE_LABEL] == NODE
    assert step.body["metadata"]["annotations"] == {EPOCH_ANNOTATION: "6"}


def test_who_held_a_service_before_is_who_its_record_names() -> None:
    won = replace(record("node-2", "8"), status=ServiceL2StatusStatus(node="node-1"))
    assert former_holder(won) == FormerHolder(NodeName("node-2"), 8), "the label is written with the epoch"
    assert former_holder(record("node-1")) == FormerHolder(NodeName("node-1"), 0), "as an earlier release wrote it"
    assert former_holder(record("node-1", "-1")) == FormerHolder(NodeName("node-1"), 0)
    by_status = ServiceL2Status(ObjectMeta(name="x"), ServiceL2StatusStatus(node="node-3"))
    assert former_holder(by_status) == FormerHolder(NodeName("node-3"), 0)
    assert former_holder(record("")) is None


def record(node: str, epoch: str = "") -> ServiceL2Status:
    annotations = {EPOCH_ANNOTATION: epoch} if epoch else {}
    labels = {NODE_LABEL: node} if node else {}
    return ServiceL2Status(ObjectMeta(name="x", resource_version="7", labels=labels, annotations=annotations))


RECORDS = [
    (record("node-1", "4"), RecordAnswer(BundleId("uid"), 6, NodeName("node-1"))),
    (record("node-1", "40"), RecordAnswer(BundleId("uid"), 40, NodeName("node-1"))),
    (record("node-2", "4"), RecordAnswer(BundleId("uid"), 0, NodeName("node-2"))),
    (record("node-3", "4"), 6),
    (record("node-3", "41"), 42),
    (record("node-3", "42"), 44),
    (record("", "x"), 6),
    (record("node-3", "9" * 400), 6),
]


@pytest.mark.parametrize(("present", "expected"), RECORDS)
def test_a_record_is_won_from_nobody_who_may_hold_it(present: ServiceL2Status, expected: RecordAnswer | int) -> None:
    """node-1 asks; node-2 is blocked, and node-3 is heard or gone. The epoch is above that of the former holder."""
    question = AskRecord(BundleId("uid"), ("default/web",), 6, (NodeName("node-2"),))
    step = next_record_write(question, "default/web", present, NodeName("node-1"))
    if isinstance(expected, RecordAnswer):
        assert step == expected
        return
    assert isinstance(step, Patch)
    assert step.subresource is None, "one write, of what says whose it is"
    assert step.body["metadata"]["resourceVersion"] == "7", "and it fails where somebody was faster"
    assert step.body["metadata"]["labels"][NODE_LABEL] == "node-1"
    assert step.body["metadata"]["annotations"] == {EPOCH_ANNOTATION: str(expected)}


def test_a_record_that_is_missing_is_made_with_its_holder_and_epoch() -> None:
    question = AskRecord(BundleId("uid"), ("default/web",), 6, ())
    step = next_record_write(question, "default/web", None, NodeName("node-1"))
    assert isinstance(step, Create)
    assert step.body["metadata"]["name"] == status_name("uid")
    assert step.body["metadata"]["annotations"] == {EPOCH_ANNOTATION: "6"}
    made = ServiceL2Status(ObjectMeta(name="x", labels=step.body["metadata"]["labels"]))
    assert (announced_service(made), announcing_node(made)) == ("default/web", "node-1")


@pytest.mark.parametrize("then", [ANNOUNCED, ANNOUNCED._replace(kept="drained; no other node may announce it")])
@pytest.mark.parametrize("first", [ANNOUNCED, ANNOUNCED._replace(kept="drained; none of the others takes it: node-2")])
def test_a_status_says_why_a_drained_node_keeps_a_service_and_not_longer_than_it_does(
    first: Announced, then: Announced
) -> None:
    present = led(wanted_status(first, NODE), None)
    assert present is not None
    assert present.status.kept == first.kept
    for node in (NODE, NodeName("node-2")):  # this one, or the one that takes over
        found = led(wanted_status(then, node), present)
        assert found is not None
        assert (found.status.kept, found.status.node) == (then.kept, node)
