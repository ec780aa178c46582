"""What a speaker keeps of the objects of which there are thousands.

Each function takes an object as it was decoded, and returns one with the fields that the speaker reads and no others.
Values that many objects have in common are one copy (``one``), of which ``MAX_COPIES`` are remembered.

With 10,000 Services and as many EndpointSlices a watcher takes less than half of the memory for it. ``kubectl apply``
alone leaves another whole object in an annotation of each.

A Plan made of what is kept is equal to one made of whole objects.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from sys import intern
from typing import TypeVar

from msgspec.structs import replace

from cluster.annotations import ALLOW_SHARED_IP, DEPRECATED_PREFIX, PREFIX
from cluster.l2status import EPOCH_ANNOTATION
from cluster.objects import (
    Condition,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Service,
    ServiceL2Interface,
    ServiceL2Status,
    ServiceL2StatusStatus,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    find_condition,
    kept_meta,
)
from cluster.record import ADDRESS_ASSIGNED, recorded_texts
from cluster.slices import EndpointSlice, takers, with_endpoints
from cluster.taken import ADDRESS_CONFLICT, WITHHELD, is_withheld

SHARING_ANNOTATIONS = (PREFIX + ALLOW_SHARED_IP, DEPRECATED_PREFIX + ALLOW_SHARED_IP)
SPREAD_ANNOTATION = "berthlb.io/spread"
"""Of Services that are to be announced by different nodes: the name of their group."""
AS_SHOWN = (Condition(ADDRESS_ASSIGNED),)
"""Stands for a condition that says of the addresses what the status shows; so it is with nearly all."""

MAX_COPIES = 4096
"""Values of which one copy is had; beyond it they are gathered anew."""

_WITHHELD = (Condition(ADDRESS_CONFLICT, reason=WITHHELD),)
_copies: dict[Hashable, Hashable] = {}

H = TypeVar("H", bound=Hashable)


def one(value: H) -> H:
    """The same copy for all equal values. Called by several threads; at worst there are two."""
    if len(_copies) >= MAX_COPIES:
        _copies.clear()
    return _copies.setdefault(value, value)  # type: ignore[return-value]  # equal, and of the same type


def kept_service(service: Service) -> Service:
    """What ``planner`` reads. Selectors matter only where Services share an address."""
    spec, meta = service.spec, service.metadata
    sharing = {key: meta.annotations[key] for key in SHARING_ANNOTATIONS if key in meta.annotations}
    fields = ServiceSpec(
        type=spec.type,
        ports=tuple(ServicePort(port=each.port, protocol=each.protocol) for each in spec.ports),
        load_balancer_class=spec.load_balancer_class,
        external_traffic_policy=spec.external_traffic_policy,
        selector=(spec.selector or None) if sharing else None,
    )
    ingress = tuple(LoadBalancerIngress(ip=each.ip) for each in service.status.load_balancer.ingress)
    said = find_condition(service.status.conditions, ADDRESS_ASSIGNED)
    conditions: tuple[Condition, ...] = ()
    if said is not None:
        as_shown = recorded_texts(said) == tuple(each.ip for each in ingress)
        conditions = AS_SHOWN if as_shown else (Condition(ADDRESS_ASSIGNED, message=said.message),)
    if is_withheld(service):
        conditions += _WITHHELD
    status = ServiceStatus(LoadBalancerStatus(ingress), conditions)
    group = {SPREAD_ANNOTATION: meta.annotations[SPREAD_ANNOTATION]} if SPREAD_ANNOTATION in meta.annotations else {}
    return Service(
        replace(
            kept_meta(meta, meta.labels, sharing | group),
            creation_timestamp=intern(meta.creation_timestamp) if meta.creation_timestamp else None,
            deletion_timestamp=meta.deletion_timestamp,
        ),
        fields if fields.selector else one(fields),
        status if ingress else one(status),
    )


def kept_slice(endpoint_slice: EndpointSlice) -> EndpointSlice:
    """Of its endpoints those that can serve, one for each node, and of a node one that stays: no more is read."""
    return with_endpoints(endpoint_slice, one(takers(endpoint_slice)))


def kept_record(record: ServiceL2Status) -> ServiceL2Status:
    """All that we write into one."""
    meta, status = record.metadata, record.status
    return ServiceL2Status(
        kept_meta(
            meta,
            {key: intern(value) for key, value in meta.labels.items()},
            _epoch_alone(meta.annotations.get(EPOCH_ANNOTATION, "")),
        ),
        one(
            ServiceL2StatusStatus(
                node=intern(status.node),
                service_name=intern(status.service_name),
                service_namespace=intern(status.service_namespace),
                interfaces=one(tuple(ServiceL2Interface(intern(each.name)) for each in status.interfaces)),
                kept=intern(status.kept),
            )
        ),
    )


@lru_cache(MAX_COPIES)
def _epoch_alone(epoch: str) -> dict[str, str]:
    """The annotations of the records with this epoch."""
    return {EPOCH_ANNOTATION: epoch} if epoch else {}
