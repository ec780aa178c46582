"""The companion of a Service behind 1:1 NAT: what it should be, whose it is, and what makes it so. Pure.

**Problem.** A cloud sends to a machine's private address what clients send to its public one. A Service shows the
public addresses, since clients need those. The packets reach the node with the private address as destination, which no
Service shows, and kube-proxy leaves them alone.

**Mechanism.** Each Service that shows addresses of a NodeIPPool with ``deliveredAddresses`` has a companion: one more
Service of type LoadBalancer, whose status shows the delivered addresses. kube-proxy then takes the packets to the same
pods. The companion has

1. the name ``<name>-berthlb-delivered``; of a name that is too long for that its first 36 characters and a hash;
2. a class of our own, so that no load balancer serves it, and no NodePorts;
3. three *marks*: the class, a label and an owner reference to its Service;
4. the selector, ports, affinity, traffic policies, source ranges, families and the like of its Service (``followed``);
5. an annotation that ``kubectl describe`` shows, and a condition; both say what it is.

**Whose it is.** Two of the three marks make an object of that name the Service's companion, and what is missing is put
back; so one edit by somebody else does not lose it. Any other object of that name is somebody's own and is left alone.
A companion whose owner reference has another UID belonged to an earlier Service of the name, and is deleted.

**Steps.** ``step`` gives one request at a time, from what the API shows: make it, take addresses out of its status that
it must not show, change its specification, show the addresses, delete it. So it can be killed between any two. A
Service that is being deleted gets nothing made any more: what deletes it deletes the companion, perhaps first.

**Ahead.** A companion shows also where the addresses are delivered that its Service is to show: those that were decided
and are not written yet, and those of nodes that wait to join. So kube-proxy has its rules before a client hears of the
address.

Example: ``default/web`` shows 203.0.113.1, the ExternalIP of a node with the InternalIP 10.0.0.1. The companion
``default/web-berthlb-delivered`` shows 10.0.0.1.

Not promised: that there is no moment with one and not the other. The companion of a Service that showed nothing is
made after the Service shows its first addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, Final

from cluster.addresses import Address
from cluster.objects import Condition, OwnerReference, Service, ServicePort, to_builtins
from cluster.record import addresses_in_status
from cluster.resources import COMPANIONS
from controller.changes import NOT_DELIVERED, Deletion, EventNote, Moment, Write, shortened, with_conditions
from controller.nodeip.choice import NodesOfPool

DELIVERED_CLASS: Final = "berthlb.io/delivered"
"""``spec.loadBalancerClass`` of companions, and of nothing else."""
COMPANION_OF: Final = "berthlb.io/companion-of"
"""Label: the name of the Service."""
MADE_FOR_CLASS: Final = "berthlb.io/companion-for-class"
"""Annotation: the class of the Service, where it has one. Controllers of other classes leave the companion alone."""
DESCRIPTION: Final = "kubernetes.io/description"
DELIVERED: Final = "berthlb.io/Delivered"
"""Condition of a companion."""

_SUFFIX: Final = "-berthlb-delivered"
_LONGEST: Final = 63
"""Characters of a Service's name (RFC 1123 label)."""
_HASH: Final = 8
"""Hexadecimal digits."""
_SERVICE_PROXY_NAME: Final = "service.kubernetes.io/service-proxy-name"
"""Label of a Service that another proxy than kube-proxy serves."""

_FIXED: Final[dict[str, Any]] = {
    "type": "LoadBalancer",
    "loadBalancerClass": DELIVERED_CLASS,
    "allocateLoadBalancerNodePorts": False,
}


class Obstacle(Enum):
    """Why what is sent to a Service's addresses does not reach it by 1:1 NAT: the reason of ``NOT_DELIVERED``."""

    NAME_TAKEN = "CompanionNameTaken"
    """Somebody's own Service has the companion's name."""
    NO_SELECTOR = "NoSelector"
    """Its endpoints are written by hand, and would have to be for the companion."""
    REFUSED = "CompanionRefused"
    """The API server does not take it: a quota, an admission webhook."""
    CONTESTED = "CompanionContested"
    """Somebody keeps changing or deleting it."""
    FORBIDDEN = "DeliveredAddressForbidden"
    """A guard refuses a delivered address."""
    IN_USE = "DeliveredAddressInUse"
    """Another Service has a delivered address and one of the ports."""


@dataclass(frozen=True, slots=True)
class NotDelivered:
    obstacle: Obstacle
    message: str

    @property
    def condition(self) -> Condition:
        """Of the Service."""
        return Condition(NOT_DELIVERED, "True", self.obstacle.value, shortened(self.message))


@dataclass(frozen=True, slots=True)
class Companion:
    """What a Service's companion should be."""

    service: Service
    addresses: tuple[Address, ...]
    """Delivered ones, in the order of the families in the Service's status, and in each in numeric order."""
    message: str
    """Which of the Service's addresses is delivered at which."""


Holder = Callable[[Address, Service], str | None]
"""Which other Service has the address and uses a port of this one, as ``namespace/name``."""


Ahead = Callable[[Service], Collection[Address]]
"""What a Service is to show, as far as that can be told."""


def companion_name(service: str) -> str:
    """Of the companion of a Service of this name."""
    if len(service) + len(_SUFFIX) <= _LONGEST:
        return service + _SUFFIX
    digest = blake2b(service.encode(), digest_size=_HASH // 2).hexdigest()
    return f"{service[: _LONGEST - len(_SUFFIX) - _HASH - 1]}-{digest}{_SUFFIX}"


# ------------------------------------------------------------------------ whose it is


def served_by_companion(view: Service) -> str | None:
    """The name of the Service whose companion this object is, by its marks; None: it is no companion."""
    named, owner = view.metadata.labels.get(COMPANION_OF), _owner(view)
    of_our_class = view.spec.load_balancer_class == DELIVERED_CLASS
    for name in (named, owner.name if owner is not None else None):
        marks = of_our_class + (named == name) + (owner is not None and owner.name == name)
        if name and marks >= 2 and view.metadata.name == companion_name(name):
            return name
    return None


def of_class(view: Service) -> str | None:
    """The class of the Services whose controller made the companion."""
    return view.metadata.annotations.get(MADE_FOR_CLASS)


def owner_uid(view: Service) -> str | None:
    """Of the Service that the companion was made for; None: somebody took the owner reference away."""
    owner = _owner(view)
    return owner.uid if owner is not None else None


def _owner(view: Service) -> OwnerReference | None:
    references = view.metadata.owner_references
    return next((each for each in references if each.controller and each.kind == "Service"), None)


# ------------------------------------------------------------------------ what it should be


def companion_of(
    service: Service, ahead: Iterable[Address], of_pool: NodesOfPool, holder: Holder
) -> tuple[Companion | None, NotDelivered | None]:
    """The companion that the Service should have, if any; and what stands in the way of a better one. ``ahead``: what
    the Service is to show; nobody is told of what stands in its way yet."""
    pairs: list[tuple[str, tuple[Address, ...]]] = []
    forbidden: list[str] = []
    taken: list[str] = []
    now = addresses_in_status(service)
    shown = dict.fromkeys((*now, *sorted(ahead)))
    for public in shown:
        delivery = of_pool.delivered.get(public)
        if delivery is None:
            continue
        if delivery.refused is not None and public in now:
            forbidden.append(f"{public.text} (node {delivery.node}: {delivery.refused.value})")
        free = []
        for address in delivery.addresses:
            if address in shown:
                continue
            if (other := holder(address, service)) is None:
                free.append(address)
            elif public in now:
                taken.append(f"{public.text}, which 1:1 NAT delivers at {address.text}: {other} has a port there")
        if free:
            pairs.append((public.text, tuple(free)))
    trouble = None
    if forbidden:
        trouble = NotDelivered(
            Obstacle.FORBIDDEN, f"what is sent to these addresses is not taken: {', '.join(forbidden)}"
        )
    elif taken:
        trouble = NotDelivered(Obstacle.IN_USE, f"what is sent to these addresses is not taken: {'; '.join(taken)}")
    if not pairs:
        return None, trouble
    if not service.spec.selector:
        why = "the Service has no selector, so its companion for 1:1 NAT would have no endpoints; give it one"
        return None, NotDelivered(Obstacle.NO_SELECTOR, why)
    families = list(dict.fromkeys(each.family for each in shown))
    addresses = {each for _, delivered in pairs for each in delivered}
    ordered = tuple(sorted(addresses, key=lambda each: (families.index(each.family), each)))
    words = ", ".join(f"{public} at {' and '.join(each.text for each in to)}" for public, to in pairs)
    message = shortened(f"1:1 NAT delivers what is sent to {service.key} at this Service's addresses: {words}")
    return Companion(service, ordered, message), trouble


def followed(view: Service) -> dict[str, Any]:
    """The part of a specification in which a companion is like its Service, as a merge patch writes it."""
    spec = view.spec
    affinity = spec.session_affinity_config
    seconds = affinity.client_ip.timeout_seconds if affinity is not None else 0
    return {
        "selector": spec.selector or {},
        "ports": [_port(each) for each in spec.ports],
        "sessionAffinity": spec.session_affinity,
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}} if seconds else None,
        "externalTrafficPolicy": spec.external_traffic_policy or "Cluster",
        "internalTrafficPolicy": spec.internal_traffic_policy,
        "trafficDistribution": spec.traffic_distribution,
        "loadBalancerSourceRanges": list(spec.load_balancer_source_ranges) or None,
        "publishNotReadyAddresses": spec.publish_not_ready_addresses or None,
        "ipFamilies": list(spec.ip_families) or None,
        "ipFamilyPolicy": spec.ip_family_policy or None,
    }


def _port(port: ServicePort) -> dict[str, Any]:
    """Without its NodePort."""
    optional = {"name": port.name, "targetPort": port.target_port, "appProtocol": port.app_protocol}
    return {"port": port.port, "protocol": port.protocol} | {key: value for key, value in optional.items() if value}


def metadata_of(service: Service) -> dict[str, Any]:
    """The metadata by which its companion is told from others; None: to be absent."""
    meta = service.metadata
    owner = {"apiVersion": "v1", "kind": "Service", "name": meta.name, "uid": meta.uid, "controller": True}
    return {
        "labels": {COMPANION_OF: meta.name, _SERVICE_PROXY_NAME: meta.labels.get(_SERVICE_PROXY_NAME)},
        "annotations": {
            DESCRIPTION: f"Made by BerthLB for the Service {meta.name} and deleted with it. 1:1 NAT delivers what is "
            f"sent to the addresses of {meta.name} at the addresses of this Service, so that kube-proxy has to know "
            f"both. What is changed here is put right again: change {meta.name}.",
            MADE_FOR_CLASS: service.spec.load_balancer_class,
        },
        "ownerReferences": [owner | {"blockOwnerDeletion": False}],
    }


# ------------------------------------------------------------------------ what makes it so


def step(wanted: Companion | None, present: Service | None, now: Moment) -> Write | Deletion | None:
    """The next request; None: nothing is to be done, or not yet. ``wanted``: None: there is to be no companion.
    ``present``: what bears the marks of it."""
    if present is None:
        return _make(wanted) if wanted is not None and not _is_leaving(wanted.service) else None
    if _is_leaving(present):
        return None
    if wanted is None:
        return _delete(present, "there is nothing to deliver to its Service")
    service = wanted.service
    if owner_uid(present) not in {None, service.metadata.uid}:
        return _delete(present, "it was made for an earlier Service of the name")
    patch = None if _is_leaving(service) else _what_differs(present, service)
    shown = [each.ip for each in present.status.load_balancer.ingress]
    addresses = tuple(each.text for each in wanted.addresses)
    if patch is not None and set(shown) <= set(addresses):
        return _write(present, patch, f"companion made like {service.key}")
    if patch is not None:  # first without what it must not show on other ports either
        addresses = tuple(each for each in addresses if each in shown)
    return _show(present, addresses, Condition(DELIVERED, "True", "Delivered", wanted.message), now)


def _is_leaving(view: Service) -> bool:
    return view.metadata.deletion_timestamp is not None


def _make(wanted: Companion) -> Write:
    service = wanted.service
    meta = metadata_of(service)
    for part in ("labels", "annotations"):
        meta[part] = _set(meta[part])
    name, namespace = companion_name(service.metadata.name), service.metadata.namespace
    body = {
        "metadata": {"name": name, "namespace": namespace, **meta},
        "spec": _FIXED | _set(followed(service)),
    }
    told = EventNote("Normal", "CompanionMade", shortened(f"made the Service {name}: {wanted.message}"))
    return Write(
        COMPANIONS,
        namespace,
        name,
        body,
        f"companion made of {service.key}",
        create=True,
        events=(told,),
        about=service.metadata,
    )


def _set(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are to be there."""
    return {key: value for key, value in fields.items() if value is not None}


def _what_differs(present: Service, service: Service) -> dict[str, Any] | None:
    """The merge patch that makes the companion like its Service, but for the status; None: it is."""
    has = {
        "type": present.spec.type,
        "loadBalancerClass": present.spec.load_balancer_class,
        "allocateLoadBalancerNodePorts": present.spec.allocate_load_balancer_node_ports,
        **followed(present),
    }
    want = _FIXED | followed(service)
    spec = {key: value for key, value in want.items() if value != has[key]}
    if any(port.node_port for port in present.spec.ports):
        spec["ports"] = want["ports"]
    if "selector" in spec:
        spec["selector"] = dict.fromkeys(has["selector"]) | want["selector"]
    meta: dict[str, Any] = {}
    wanted_meta = metadata_of(service)
    for part, found in (("labels", present.metadata.labels), ("annotations", present.metadata.annotations)):
        differing = {key: value for key, value in wanted_meta[part].items() if found.get(key) != value}
        if differing:
            meta[part] = differing
    if owner_uid(present) is None:
        others = [to_builtins(each) for each in present.metadata.owner_references if not each.controller]
        meta["ownerReferences"] = others + wanted_meta["ownerReferences"]
    body = ({"spec": spec} if spec else {}) | ({"metadata": meta} if meta else {})
    return body or None


def _show(present: Service, addresses: tuple[str, ...], said: Condition, now: Moment) -> Write | None:
    status: dict[str, Any] = {}
    ingress = present.status.load_balancer.ingress
    if tuple(each.ip for each in ingress) != addresses or any(each.ip_mode == "Proxy" for each in ingress):
        status["loadBalancer"] = {"ingress": [{"ip": address} for address in addresses] or None}
    if (conditions := with_conditions(present.status.conditions, {DELIVERED: said}, now)) is not None:
        status["conditions"] = conditions
    if not status:
        return None
    return _write(present, {"status": status}, said.message, "status")


def _write(present: Service, body: dict[str, Any], decision: str, subresource: str | None = None) -> Write:
    meta = present.metadata
    bound = body | {"metadata": body.get("metadata", {}) | {"resourceVersion": meta.resource_version}}
    return Write(COMPANIONS, meta.namespace, meta.name, bound, decision, uid=meta.uid, subresource=subresource)


def _delete(present: Service, why: str) -> Deletion:
    meta = present.metadata
    return Deletion(COMPANIONS, meta.namespace, meta.name, meta.uid, meta.resource_version, f"companion deleted: {why}")
