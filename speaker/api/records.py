"""The objects that a speaker writes, as they should be, and the next write that leads there.

1. A ``ServiceL2Status`` tells which node announces a Service, and with which epoch. There is one for each Service,
   named after its UID, so that the next holder finds and changes the same object. It belongs to no pod, whose end would
   take it along.
2. A ``ConfigurationState`` tells what a speaker finds wrong with the configuration and with itself.
3. An Event tells what happened.

``next_write`` compares an object as it is with the object as it should be, and gives one step: create it, set its
labels and annotations, set its status. Metadata and status are separate writes, as the API wants it. A patch or a
deletion names the version that it was made from, so that it fails where somebody else was faster.

All of it is written after the fact and read by people. Speakers read ServiceL2Status objects where nobody can be asked:
when a whole cluster starts (``former_holder``), and where something blocks datagrams (``next_record_write``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from cluster.components import COMPONENT_LABEL, NODE_NAME_LABEL
from cluster.config import Problem
from cluster.l2status import (
    EPOCH_ANNOTATION,
    NODE_LABEL,
    SERVICE_NAME_LABEL,
    SERVICE_NAMESPACE_LABEL,
    announcing_node,
    status_name,
)
from cluster.objects import (
    AddressConflict,
    Condition,
    ConfigurationState,
    NodeName,
    Object,
    ObjectMeta,
    ServiceL2Status,
)
from speaker.api.announcements import Announced
from speaker.api.troubles import Trouble
from speaker.protocol.effects import AskRecord, FormerHolder, RecordAnswer

MAX_EPOCH_DIGITS = 10
MAX_SUMMARY = 1024  # characters of what is said in one place
MAX_EVENT_NAME = 200  # characters of the object's name in that of its Event, which has more behind it and is limited

Body = Mapping[str, Any]
P = TypeVar("P", bound=Object)


@dataclass(frozen=True, slots=True)
class Create:
    body: Body


@dataclass(frozen=True, slots=True)
class Patch:
    """A merge patch, of the object or of its subresource."""

    body: Body
    subresource: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Only this very object in this very state."""

    uid: str
    resource_version: str


Write = Create | Patch | Delete


@dataclass(frozen=True, slots=True)
class WantedObject(Generic[P]):
    """An object as it should be."""

    name: str
    labels: Mapping[str, str]
    status: Callable[[P], Body]
    """What its status should be, from the object as it is."""
    holds: Callable[[P], bool]
    """Whether an object that exists already says this in its status."""
    annotations: Mapping[str, str] = field(default_factory=dict)


def next_write(wanted: WantedObject[P], present: P | None) -> Create | Patch | None:
    """The next step from the object as it is to the object as it should be; None when nothing is left to do.

    Metadata and status are separate writes: the API ignores the status when an object is made.
    """
    if present is None:
        return Create({"metadata": {"name": wanted.name, **_marks(wanted)}})
    meta = present.metadata
    guard = {"resourceVersion": meta.resource_version}
    if not (wanted.labels.items() <= meta.labels.items() and wanted.annotations.items() <= meta.annotations.items()):
        return Patch({"metadata": {**guard, **_marks(wanted)}})
    if not wanted.holds(present):
        return Patch({"metadata": guard, "status": wanted.status(present)}, "status")
    return None


def _marks(wanted: WantedObject[P]) -> dict[str, dict[str, str]]:
    """Its labels and annotations, as its metadata has them."""
    annotations = {"annotations": dict(wanted.annotations)} if wanted.annotations else {}
    return {"labels": dict(wanted.labels), **annotations}


# ------------------------------------------------------------------------ ServiceL2Status


def wanted_status(announced: Announced, node: NodeName) -> WantedObject[ServiceL2Status]:
    """The ServiceL2Status of a Service that ``node`` announces."""
    namespace, _, name = announced.service.partition("/")

    def holds(present: ServiceL2Status) -> bool:
        status = present.status
        said = (status.node, status.service_name, status.service_namespace, status.kept)
        interfaces = tuple(each.name for each in status.interfaces)
        return said == (node, name, namespace, kept) and interfaces == announced.interfaces

    def status(present: ServiceL2Status) -> Body:
        """A field that is not there any more is taken away by null (RFC 7396)."""
        return {**said_always, **({"kept": kept or None} if kept or present.status.kept else {})}

    kept = shortened(announced.kept)
    said_always = {
        "node": node,
        "serviceName": name,
        "serviceNamespace": namespace,
        "interfaces": [{"name": each} for each in announced.interfaces],
    }
    return WantedObject(
        name=status_name(announced.uid),
        labels={NODE_LABEL: node, SERVICE_NAME_LABEL: name, SERVICE_NAMESPACE_LABEL: namespace},
        status=status,
        holds=holds,
        annotations={EPOCH_ANNOTATION: str(announced.epoch)},
    )


def next_status_write(
    wanted: WantedObject[ServiceL2Status] | None, present: ServiceL2Status | None, node: NodeName
) -> Write | None:
    """As ``next_write``. Where nothing is wanted, what still names ``node`` goes; another node's is its own."""
    if wanted:
        return next_write(wanted, present)
    if present and names(present, node):
        return Delete(present.metadata.uid, present.metadata.resource_version)
    return None


def names(present: ServiceL2Status, node: NodeName) -> bool:
    """Whether a ServiceL2Status says that ``node`` announces."""
    return announcing_node(present) == node


def next_record_write(
    question: AskRecord, service: str, present: ServiceL2Status | None, node: NodeName
) -> Create | Patch | RecordAnswer:
    """The next step to win a record for ``node``, or whose it is. Whose it is stands in the label, which is written
    together with the epoch, by one write that names the version before it: of two nodes one wins."""
    holder = present.metadata.labels.get(NODE_LABEL, "") if present is not None else ""
    epoch = _epoch(present)
    if holder == node:
        return RecordAnswer(question.bundle, max(question.epoch, epoch), node)
    if holder in question.blocked:
        return RecordAnswer(question.bundle, 0, NodeName(holder))
    epoch = max(question.epoch, epoch - epoch % 2 + 2)
    namespace, _, name = service.partition("/")
    labels = {NODE_LABEL: node, SERVICE_NAME_LABEL: name, SERVICE_NAMESPACE_LABEL: namespace}
    metadata = {"labels": labels, "annotations": {EPOCH_ANNOTATION: str(epoch)}}
    if present is None:
        return Create({"metadata": {"name": status_name(question.bundle), **metadata}})
    return Patch({"metadata": {"resourceVersion": present.metadata.resource_version, **metadata}})


def former_holder(record: ServiceL2Status) -> FormerHolder | None:
    """Who held the Service's bundle when the record was written, and with which epoch; None: it names nobody. The label
    names the node, since it is written together with the epoch. A record of an earlier release has no epoch."""
    node = record.metadata.labels.get(NODE_LABEL, "") or record.status.node
    return FormerHolder(NodeName(node), _epoch(record)) if node else None


def _epoch(present: ServiceL2Status | None) -> int:
    """Of the record; 0 where it has none, or something else stands there."""
    said = present.metadata.annotations.get(EPOCH_ANNOTATION, "") if present is not None else ""
    return int(said) if said.isascii() and said.isdigit() and len(said) <= MAX_EPOCH_DIGITS else 0


# ------------------------------------------------------------------------ ConfigurationState

_SPEAKERS = "speaker-"
"""Before a node's name, in that of its speaker's ConfigurationState."""
CONFIGURATION = "configReconcilerValid"
HEALTH = "announcerHealthy"
"""Types of conditions."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a speaker finds wrong with the configuration and with itself: what its ConfigurationState says."""

    problems: tuple[Problem, ...] | None = None
    """Of the configuration; None: it has not looked yet."""
    without_interface: tuple[str, ...] | None = None
    """Advertisements whose interfaces the node lacks; None: the node's interfaces are not known yet."""
    troubles: tuple[Trouble, ...] = ()
    conflicts: tuple[AddressConflict, ...] = ()
    """Addresses of Services that somebody else has, in order of address."""


def wanted_configuration_state(node: NodeName, findings: Findings, now: str) -> WantedObject[ConfigurationState]:
    """The ConfigurationState of the speaker on ``node``. ``now`` is RFC 3339, the time of the findings."""
    conditions = _conditions(findings)
    said: dict[str, Any] = {"result": "Unknown", "errorSummary": ""}
    if findings.problems is not None:
        said["result"] = "Invalid" if findings.problems else "Valid"
        said["errorSummary"] = conditions[0].message if findings.problems else ""
    if findings.without_interface is not None:
        said["advertisementsWithoutInterface"] = list(findings.without_interface)

    def status(present: ConfigurationState) -> Body:
        before = {each.type: each for each in present.status.conditions}

        def since(condition: Condition) -> str:
            earlier = before.get(condition.type)
            return earlier.last_transition_time or now if earlier and earlier.status == condition.status else now

        if findings.conflicts or present.status.address_conflicts:
            said["addressConflicts"] = [
                {"address": each.address, "withheld": each.withheld, "message": each.message}
                for each in findings.conflicts
            ]
        fields = ("type", "status", "reason", "message")
        return {
            **said,
            "conditions": [
                {**{name: getattr(each, name) for name in fields}, "lastTransitionTime": since(each)}
                for each in conditions
            ],
        }

    def holds(present: ConfigurationState) -> bool:
        shown = present.status
        without = findings.without_interface
        return (
            (shown.result, shown.error_summary) == (said["result"], said["errorSummary"])
            and (without is None or shown.advertisements_without_interface == without)
            and shown.address_conflicts == findings.conflicts
            and [(each.type, each.status, each.reason, each.message) for each in shown.conditions]
            == [(each.type, each.status, each.reason, each.message) for each in conditions]
        )

    return WantedObject(
        name=f"{_SPEAKERS}{node}",
        labels={COMPONENT_LABEL: "speaker", NODE_NAME_LABEL: node},
        status=status,
        holds=holds,
    )


def speaker_of(key: str) -> NodeName | None:
    """The node whose speaker a ConfigurationState is of, by its ``namespace/name``; None: it is no speaker's."""
    name = key.rpartition("/")[2]
    return NodeName(name.removeprefix(_SPEAKERS)) if name.startswith(_SPEAKERS) else None


def _conditions(findings: Findings) -> list[Condition]:
    conditions = []
    if findings.problems:
        summary = shortened("; ".join(problem.text for problem in findings.problems))
        conditions.append(Condition(CONFIGURATION, "False", "ConfigurationError", summary))
    elif findings.problems is not None:
        conditions.append(Condition(CONFIGURATION, "True", "Reconciled"))
    if findings.troubles:
        summary = shortened("; ".join(trouble.text for trouble in findings.troubles))
        conditions.append(Condition(HEALTH, "False", findings.troubles[0].reason, summary))
    else:
        conditions.append(Condition(HEALTH, "True", "Healthy"))
    return conditions


def shortened(text: str) -> str:
    """Of a long text what fits into a status or an Event."""
    return text if len(text) <= MAX_SUMMARY else text[: MAX_SUMMARY - 1] + "…"


# ------------------------------------------------------------------------ Events

NODE_EVENTS_NAMESPACE = "default"
"""Where Events on objects without a namespace are; kubelets put theirs there, too."""


class About(NamedTuple):
    """The object that an Event is on."""

    kind: Literal["Service", "Node"]
    namespace: str
    """Empty for a Node."""
    name: str
    uid: str

    @property
    def events_namespace(self) -> str:
        """Where the Event goes."""
        return self.namespace or NODE_EVENTS_NAMESPACE


def about_service(meta: ObjectMeta) -> About:
    """For an Event on a Service."""
    return About("Service", meta.namespace, meta.name, meta.uid)


def event(about: About, node: NodeName, *, type_: str, reason: str, message: str, now: str, suffix: str) -> Body:
    """A core/v1 Event. ``now`` is RFC 3339, the time of the decision; ``suffix`` makes the name unique."""
    name = about.name[:MAX_EVENT_NAME].rstrip("-.")
    involved = {"apiVersion": "v1", "kind": about.kind, "name": about.name, "uid": about.uid}
    if about.namespace:
        involved["namespace"] = about.namespace
    return {
        "metadata": {"name": f"{name}.{suffix}", "namespace": about.events_namespace},
        "involvedObject": involved,
        "type": type_,
        "reason": reason,
        "message": shortened(message),
        "source": {"component": "berthlb-speaker", "host": node},
        "reportingComponent": "berthlb-speaker",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
