"""What a speaker writes to the API, as values: the objects as they should be, and the next write that leads there.

``ServiceL2Status`` tells who announces a Service: one object per Service, named after its UID, so that the next holder
finds and changes the same object. It belongs to no pod, whose end would take it along. ``ConfigurationState`` tells
what is wrong with the configuration. Events tell what happened.

All of it is written after the fact and read by people; what is announced never depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from cluster.config import Problem
from cluster.objects import ConfigurationState, NodeName, Object, Service, ServiceL2Status
from speaker.announcements import Announced

NODE_LABEL = "metallb.io/node"
SERVICE_NAME_LABEL = "metallb.io/service-name"
SERVICE_NAMESPACE_LABEL = "metallb.io/service-namespace"
COMPONENT_LABEL = "metallb.io/component-type"
NODE_NAME_LABEL = "metallb.io/node-name"

MAX_SUMMARY = 1024  # characters of ConfigurationState.status.errorSummary

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
class Wanted(Generic[P]):
    """An object as it should be."""

    name: str
    labels: Mapping[str, str]
    status: Body
    holds: Callable[[P], bool]
    """Whether an object that exists already says this in its status."""


def next_write(wanted: Wanted[P], present: P | None) -> Create | Patch | None:
    """The next step from the object as it is to the object as it should be; None when nothing is left to do.

    Metadata and status are separate writes: the API ignores the status when an object is made.
    """
    if present is None:
        return Create({"metadata": {"name": wanted.name, "labels": dict(wanted.labels)}})
    meta = present.metadata
    guard = {"resourceVersion": meta.resource_version}
    if any(meta.labels.get(key) != value for key, value in wanted.labels.items()):
        return Patch({"metadata": {**guard, "labels": dict(wanted.labels)}})
    if not wanted.holds(present):
        return Patch({"metadata": guard, "status": dict(wanted.status)}, "status")
    return None


# ------------------------------------------------------------------------ ServiceL2Status


def status_name(uid: str) -> str:
    """The name of a Service's ServiceL2Status: the same on every node."""
    return f"l2-{blake2b(uid.encode(), digest_size=10).hexdigest()}"


def wanted_status(announced: Announced, node: NodeName) -> Wanted[ServiceL2Status]:
    """The ServiceL2Status of a Service that ``node`` announces."""
    namespace, _, name = announced.service.partition("/")

    def holds(present: ServiceL2Status) -> bool:
        status = present.status
        return (status.node, status.service_name, status.service_namespace) == (node, name, namespace) and tuple(
            each.name for each in status.interfaces
        ) == announced.interfaces

    return Wanted(
        name=status_name(announced.uid),
        labels={NODE_LABEL: node, SERVICE_NAME_LABEL: name, SERVICE_NAMESPACE_LABEL: namespace},
        status={
            "node": node,
            "serviceName": name,
            "serviceNamespace": namespace,
            "interfaces": [{"name": each} for each in announced.interfaces],
        },
        holds=holds,
    )


def next_status_write(
    wanted: Wanted[ServiceL2Status] | None, present: ServiceL2Status | None, node: NodeName
) -> Write | None:
    """As ``next_write``. Where nothing is wanted, what still names ``node`` goes; another node's is its own."""
    if wanted:
        return next_write(wanted, present)
    if present and names(present, node):
        return Delete(present.metadata.uid, present.metadata.resource_version)
    return None


def names(present: ServiceL2Status, node: NodeName) -> bool:
    """Whether a ServiceL2Status says that ``node`` announces. Between creation and the first status its label does."""
    return (present.status.node or present.metadata.labels.get(NODE_LABEL)) == node


# ------------------------------------------------------------------------ ConfigurationState


def wanted_configuration_state(node: NodeName, problems: tuple[Problem, ...], now: str) -> Wanted[ConfigurationState]:
    """This speaker's verdict on the configuration; ``now`` is RFC 3339, the time of the verdict."""
    result = "Invalid" if problems else "Valid"
    summary = shortened("; ".join(problem.text for problem in problems))

    def holds(present: ConfigurationState) -> bool:
        return (present.status.result, present.status.error_summary) == (result, summary)

    return Wanted(
        name=f"speaker-{node}",
        labels={COMPONENT_LABEL: "speaker", NODE_NAME_LABEL: node},
        status={
            "result": result,
            "errorSummary": summary,
            "conditions": [
                {
                    "type": "configReconcilerValid",
                    "status": "False" if problems else "True",
                    "reason": "ConfigurationError" if problems else "Reconciled",
                    "message": summary,
                    "lastTransitionTime": now,
                }
            ],
        },
        holds=holds,
    )


def wanted_interfaces(node: NodeName, without: tuple[str, ...]) -> Wanted[ConfigurationState]:
    """The part of this speaker's ConfigurationState that names the advertisements whose interfaces the node lacks."""
    return Wanted(
        name=f"speaker-{node}",
        labels={COMPONENT_LABEL: "speaker", NODE_NAME_LABEL: node},
        status={"advertisementsWithoutInterface": list(without)},
        holds=lambda present: present.status.advertisements_without_interface == without,
    )


def shortened(text: str) -> str:
    return text if len(text) <= MAX_SUMMARY else text[: MAX_SUMMARY - 1] + "…"


# ------------------------------------------------------------------------ Events


def event(service: Service, node: NodeName, *, type_: str, reason: str, message: str, now: str, suffix: str) -> Body:
    """A core/v1 Event on a Service. ``now`` is RFC 3339; ``suffix`` makes the name unique."""
    meta = service.metadata
    return {
        "metadata": {"name": f"{meta.name}.{suffix}", "namespace": meta.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        },
        "type": type_,
        "reason": reason,
        "message": message,
        "source": {"component": "berthlb-speaker", "host": node},
        "reportingComponent": "berthlb-speaker",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
