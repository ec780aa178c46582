"""What the controller wants done in the API, as values: decisions make them, the writers carry them out.

1. A ``Read`` asks for one object, a ``Write`` patches or makes one, a ``Deletion`` deletes one, a ``Tell`` records
   Events.
2. A write is a merge patch (RFC 7386) bound to the ``resourceVersion`` that was judged. The API refuses it (409) where
   the object has changed meanwhile.
3. A Service's addresses, its condition and the annotation that names its pool travel in one patch of the status
   subresource, which takes annotations too. A kill cannot leave one without the others.

Example: ``service_patch`` of a new Service gives the body with ``status.loadBalancer.ingress`` and
``status.conditions``, and the subresource ``status``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cluster.annotations import ALLOCATED_FROM_POOL, DEPRECATED_PREFIX, PREFIX
from cluster.objects import Condition, ObjectMeta, Service
from cluster.record import ADDRESS_ASSIGNED
from cluster.resources import SERVICES, Resource
from cluster.taken import ADDRESS_CONFLICT
from cluster.timestamps import timestamp

NOT_DELIVERED = "berthlb.io/NotDelivered"
"""Condition of a Service behind 1:1 NAT: why what is sent to some of its addresses does not reach it. It is there only
while that is so."""
COMPONENT = "berthlb-controller"
"""Who the Events are from."""
MESSAGE_LIMIT = 1000
"""Characters of a condition's or Event's message. The API takes 1,024 in an Event; more than that nobody reads."""


class Moment(NamedTuple):
    """When a decision is made."""

    monotonic: float
    """Seconds; for waiting."""
    wall: float
    """Seconds since 1970; for telling people."""

    @property
    def text(self) -> str:
        """RFC 3339, as the API writes times."""
        return timestamp(self.wall)


@dataclass(frozen=True, slots=True)
class EventNote:
    """An Event to record about an object, once the write that it tells of has been made."""

    type: str
    """``Normal`` or ``Warning``."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Read:
    """Look at one object: is it really gone, what is it now?"""

    resource: Resource[Any]
    namespace: str
    name: str
    uid: str = ""
    """Of the object that the question is about; empty where any of that name will do."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Write:
    """Patch one object, or make it where ``create`` is set, then record the Events."""

    resource: Resource[Any]
    namespace: str
    name: str
    body: dict[str, Any]
    decision: str
    """What was decided, for the log."""
    uid: str = ""
    subresource: str | None = None
    create: bool = False
    events: tuple[EventNote, ...] = ()
    about: ObjectMeta | None = None
    """Of the Service that the Events are about."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Deletion:
    """Delete one object, if it still is as it was judged."""

    resource: Resource[Any]
    namespace: str
    name: str
    uid: str
    resource_version: str
    decision: str
    """What was decided, for the log."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Tell:
    """Record Events about an object to which nothing needs to be written. It is not answered."""

    events: tuple[EventNote, ...]
    about: ObjectMeta
    resource: Resource[Any] = SERVICES


Change = Read | Write | Deletion
"""What is answered, failed or superseded."""

Patch = tuple[dict[str, Any], str | None]
"""A merge patch, and the subresource that it is for."""


def shortened(message: str, limit: int = MESSAGE_LIMIT) -> str:
    """The message, cut at ``limit``."""
    return message if len(message) <= limit else message[: limit - 2] + " …"


def with_conditions(
    present: Sequence[Condition], wanted: Mapping[str, Condition | None], now: Moment
) -> list[dict[str, Any]] | None:
    """The list of conditions with these types set (None: taken out), for a patch; None where nothing would change.

    A condition's time is that of the last change of its status, not of its words.
    """
    result: list[dict[str, Any]] = []
    differs = False
    for each in present:
        if each.type not in wanted:
            result.append(_plain(each))
            continue
        new = wanted[each.type]
        differs = differs or new is None or _says(each) != _says(new)
        if new is not None:
            since = each.last_transition_time if each.status == new.status else None
            result.append(_plain(new) | {"lastTransitionTime": since or now.text})
    there = {each.type for each in present}
    for type_, new in wanted.items():
        if new is not None and type_ not in there:
            differs = True
            result.append(_plain(new) | {"lastTransitionTime": now.text})
    return result if differs else None


def _says(condition: Condition) -> tuple[str, str, str, int]:
    return (condition.status, condition.reason, condition.message, condition.observed_generation)


def _plain(condition: Condition) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.last_transition_time,
    }
    if condition.observed_generation:
        plain["observedGeneration"] = condition.observed_generation
    return plain


def service_patch(
    service: Service,
    addresses: Sequence[str],
    pool: str | None,
    condition: Condition | None,
    now: Moment,
    *,
    conflict: Condition | None = None,
    not_delivered: Condition | None = None,
    of_nodes: bool = False,
) -> Patch | None:
    """The patch that gives the Service these addresses; None: it is so already. ``conflict``: what there is to say of
    somebody else who has one of them; ``not_delivered``: of 1:1 NAT.

    What the API server itself adds (``ingress[].ipMode``) is left to it and not compared. Only where the addresses are
    ``of_nodes`` it must not be ``Proxy``: with that, kube-proxy takes nothing that is sent to them, and the node has
    nothing else that would. What is written has no ``ipMode``, and the API server makes it ``VIP``.
    """
    body: dict[str, Any] = {"metadata": {"resourceVersion": service.metadata.resource_version}}
    status: dict[str, Any] = {}
    ingress = service.status.load_balancer.ingress
    proxied = of_nodes and any(each.ip_mode == "Proxy" for each in ingress)
    if proxied or [each.ip for each in ingress] != list(addresses):
        status["loadBalancer"] = {"ingress": [{"ip": address} for address in addresses] or None}
    wanted = {ADDRESS_ASSIGNED: condition, ADDRESS_CONFLICT: conflict, NOT_DELIVERED: not_delivered}
    conditions = with_conditions(service.status.conditions, wanted, now)
    if conditions is not None:
        status["conditions"] = conditions
    annotations = _annotations(service, pool, along=bool(status))
    if annotations:
        body["metadata"]["annotations"] = annotations
    if status:
        return body | {"status": status}, "status"
    return (body, None) if annotations else None


def _annotations(service: Service, pool: str | None, *, along: bool) -> dict[str, str | None]:
    """What to change of the annotations that name the pool. The old spelling is hidden by the new one: it is taken out
    ``along`` with something else that is written, and is no reason to write, since some tool may keep it."""
    present = service.metadata.annotations
    key, old_key = PREFIX + ALLOCATED_FROM_POOL, DEPRECATED_PREFIX + ALLOCATED_FROM_POOL
    changes: dict[str, str | None] = {}
    if present.get(key) != pool:
        changes[key] = pool
    if present.get(old_key) not in {None, pool} and (along or changes):
        changes[old_key] = None
    return changes


def event_body(
    note: EventNote, about: ObjectMeta, name: str, now: Moment, resource: Resource[Any] = SERVICES
) -> dict[str, Any]:
    """The ``core/v1 Event`` of a note, to be created in the object's namespace under this name."""
    return {
        "metadata": {"name": name, "namespace": about.namespace},
        "involvedObject": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
            "resourceVersion": about.resource_version,
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": now.text,
        "lastTimestamp": now.text,
        "count": 1,
    }
