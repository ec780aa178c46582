"""What a Service asks for: its spec and annotations, read into an ``AddressRequest``.

A request that makes no sense is refused, with a reason that names the annotation or field. It never costs the Service
what it has: the ``AddressRequest`` then says only what the Service needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.addresses import Address, AddressError, Family, parse_address
from cluster.annotations import ADDRESS_POOL, ALLOCATED_FROM_POOL, LOAD_BALANCER_IPS, PREFIX, annotation
from cluster.objects import PoolName, Service, find_condition
from cluster.record import ADDRESS_ASSIGNED
from cluster.sharing import read_node_sharer, read_sharer
from controller.allocation.allocator import AddressRequest
from controller.allocation.node_allocation import NodeNeed
from controller.allocation.outcomes import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Reading:
    request: AddressRequest
    refusal: Refusal | None = None
    """What is wrong with the request; ``request`` then has no wishes."""


def is_ours(service: Service, load_balancer_class: str | None) -> bool:
    """Whether the Service wants its addresses from a controller of this class."""
    return service.spec.type == "LoadBalancer" and service.spec.load_balancer_class == load_balancer_class


def bears_our_mark(view: Service) -> bool:
    """Whether we (or MetalLB before us) gave it an address or a condition."""
    return bool(annotation(view, ALLOCATED_FROM_POOL)) or (
        find_condition(view.status.conditions, ADDRESS_ASSIGNED) is not None
    )


def read_request(service: Service, namespace_labels: Mapping[str, str]) -> Reading:
    """What the Service needs and asks for."""
    families, refusal = _wanted_families(service)
    addresses: tuple[Address, ...] = ()
    pool = None
    if refusal is None:
        try:
            addresses = _asked_addresses(service)
            pool = PoolName(annotation(service, ADDRESS_POOL)) or None
        except AddressError as error:
            refusal = Refusal(Reason.INVALID_REQUEST, str(error))
    request = AddressRequest(
        sharer=read_sharer(service),
        families=families,
        namespace=service.metadata.namespace,
        namespace_labels=namespace_labels,
        labels=service.metadata.labels,
        pool=pool,
        addresses=addresses,
        of_nodes=NodeNeed(
            read_node_sharer(service), service.metadata.uid, service.spec.external_traffic_policy == "Local"
        ),
    )
    return Reading(request, refusal)


def _wanted_families(service: Service) -> tuple[tuple[tuple[Family, ...], ...], Refusal | None]:
    """The families that would do, best first, and why the policy makes no sense; None: it does."""
    families = _cluster_families(service)
    if not families:
        return (), Refusal(Reason.NO_CLUSTER_IP, "the Service has no ClusterIP yet")
    policy = service.spec.ip_family_policy
    if policy == "RequireDualStack" and len(families) == 1:
        detail = f"spec.ipFamilyPolicy is RequireDualStack, but the Service has only an {families[0].text} ClusterIP"
        return (families,), Refusal(Reason.INVALID_REQUEST, detail)
    if policy == "PreferDualStack" and len(families) == 2:
        return (families, families[:1], families[1:]), None
    return (families,), None


def _cluster_families(service: Service) -> tuple[Family, ...]:
    """The families of the ClusterIPs, the primary one first; empty where there is none yet."""
    spec = service.spec
    families = []
    for text in spec.cluster_ips or (spec.cluster_ip,):
        try:
            families.append(parse_address(text).family)
        except AddressError:  # "" or "None"
            continue
    return tuple(dict.fromkeys(families))


def _asked_addresses(service: Service) -> tuple[Address, ...]:
    """The addresses asked for by annotation or by ``spec.loadBalancerIP``. Raises ``AddressError``."""
    listed = annotation(service, LOAD_BALANCER_IPS)
    single = service.spec.load_balancer_ip
    if listed and single:
        raise AddressError(
            f'the Service asks for "{listed}" by the annotation {PREFIX}{LOAD_BALANCER_IPS} '
            f'and for "{single}" by spec.loadBalancerIP; use one of them'
        )
    where = f"annotation {PREFIX}{LOAD_BALANCER_IPS}" if listed else "spec.loadBalancerIP"
    asked: list[Address] = []
    for text in (listed or single).split(",") if listed or single else ():
        try:
            address = parse_address(text)
        except AddressError as error:
            raise AddressError(f'{where}: "{text.strip()}" {error}') from error
        if address in asked:
            raise AddressError(f'{where}: "{text.strip()}" is there twice')
        asked.append(address)
    return tuple(asked)
