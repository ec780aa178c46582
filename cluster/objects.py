"""Slim, frozen views of the Kubernetes objects that BerthLB reads and writes.

The API's JSON is decoded straight into these structs. The decoder skips fields that nothing here reads, and they cost
nothing. They are views and not models: an object is never written back from one, since that would erase what the view
leaves out. Writes are patches, built where the decision is made.

Field names follow the API (``clusterIPs`` is ``cluster_ips``), and each struct names the API type that it views. A
field that the API may leave out has the API's own default.
"""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern
from typing import Any, NewType, TypeVar

import msgspec
from msgspec import Struct, field

NodeName = NewType("NodeName", str)
PoolName = NewType("PoolName", str)
AddressText = NewType("AddressText", str)
"""An IP address in canonical text form, as ``str(ipaddress.ip_address(...))`` gives it."""


class View(Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of all views: immutable, decoded and encoded under the API's own field names."""


# ------------------------------------------------------------------------ metadata


class OwnerReference(View, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(View, frozen=True):
    """``metav1.ObjectMeta``. Times stay RFC 3339 text: only their order matters here, and that is the text's order."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def key(self) -> str:
        """``namespace/name``, or ``name`` for cluster-scoped kinds: the cache key, and how people write it. Always the
        same copy, as many tables have it."""
        return intern(f"{self.namespace}/{self.name}" if self.namespace else self.name)


_NOTHING: dict[str, str] = {}


def kept_meta(meta: ObjectMeta, labels: dict[str, str], annotations: dict[str, str] = _NOTHING) -> ObjectMeta:
    """Of the metadata what a copy of an object of which there are thousands needs, with these labels and annotations.
    All that are empty are one."""
    return ObjectMeta(
        name=meta.name,
        namespace=intern(meta.namespace),
        uid=meta.uid,
        resource_version=meta.resource_version,
        labels=labels or _NOTHING,
        annotations=annotations or _NOTHING,
    )


class Object(View, frozen=True):
    """Anything with metadata: the part that list, watch and cache need."""

    metadata: ObjectMeta

    @property
    def key(self) -> str:
        """Of its metadata."""
        return self.metadata.key


class Condition(View, frozen=True):
    """``metav1.Condition``."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int = 0


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    return next((each for each in conditions if each.type == type_), None)


class LabelSelectorRequirement(View, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(View, frozen=True):
    """``metav1.LabelSelector``. Both parts empty selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


# ------------------------------------------------------------------------ core/v1


class ServicePort(View, frozen=True):
    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    node_port: int = 0
    app_protocol: str | None = None


class ClientIPConfig(View, frozen=True):
    timeout_seconds: int = 10800


class SessionAffinityConfig(View, frozen=True):
    client_ip: ClientIPConfig = field(name="clientIP", default=ClientIPConfig())


class ServiceSpec(View, frozen=True):
    """``core/v1 ServiceSpec``."""

    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = field(name="clusterIPs", default=())
    ip_families: tuple[str, ...] = field(name="ipFamilies", default=())
    ip_family_policy: str = field(name="ipFamilyPolicy", default="")
    load_balancer_class: str | None = None
    load_balancer_ip: str = field(name="loadBalancerIP", default="")
    external_traffic_policy: str = ""
    session_affinity: str = "None"
    health_check_node_port: int = 0
    session_affinity_config: SessionAffinityConfig | None = None
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None
    load_balancer_source_ranges: tuple[str, ...] = ()
    publish_not_ready_addresses: bool = False
    allocate_load_balancer_node_ports: bool = True


class IngressPort(View, frozen=True):
    port: int
    protocol: str = "TCP"
    error: str | None = None


class LoadBalancerIngress(View, frozen=True):
    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = field(name="ipMode", default=None)
    ports: tuple[IngressPort, ...] = ()


class LoadBalancerStatus(View, frozen=True):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(View, frozen=True):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Object, frozen=True):
    """``core/v1 Service``."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class ManagedPart(View, frozen=True):
    """In ``fieldsV1``: that somebody owns something in a part of an object."""


class ManagedServiceStatus(View, frozen=True):
    """In ``fieldsV1``: the fields of ``status`` that somebody owns."""

    load_balancer: ManagedPart | None = field(name="f:loadBalancer", default=None)


class ManagedServiceFields(View, frozen=True):
    """``metav1.FieldsV1`` of a Service, as far as we read it."""

    status: ManagedServiceStatus | None = field(name="f:status", default=None)


class ManagedFields(View, frozen=True):
    """``metav1.ManagedFieldsEntry``: who wrote which fields last."""

    manager: str = ""
    time: str = ""
    fields_v1: ManagedServiceFields = field(name="fieldsV1", default=ManagedServiceFields())


class ManagedMeta(ObjectMeta, frozen=True):
    managed_fields: tuple[ManagedFields, ...] = ()


class ServiceOwners(Object, frozen=True):
    """A ``core/v1 Service``, only who wrote it: a view of its own, so that no cache keeps this bulk of an object."""

    metadata: ManagedMeta


class NodeAddress(View, frozen=True):
    type: str
    address: str


class NodeCondition(View, frozen=True):
    type: str
    status: str = "Unknown"
    last_transition_time: str | None = None


class Taint(View, frozen=True):
    key: str
    effect: str = ""


class NodeSpec(View, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    pod_cidrs: tuple[str, ...] = field(name="podCIDRs", default=())


class NodeStatus(View, frozen=True):
    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[NodeCondition, ...] = ()


class Node(Object, frozen=True):
    """``core/v1 Node``."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Namespace(Object, frozen=True):
    """``core/v1 Namespace``."""


class Secret(Object, frozen=True):
    """``core/v1 Secret``. Values are base64 text, as on the wire."""

    data: dict[str, str] = {}


class ConfigMap(Object, frozen=True):
    """``core/v1 ConfigMap``. ``binaryData`` is left out."""

    data: dict[str, str] = {}


# ------------------------------------------------------------------------ coordination.k8s.io/v1


class LeaseSpec(View, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    lease_transitions: int | None = None
    renew_time: str | None = None
    """By the writer's clock."""


class Lease(Object, frozen=True):
    """``coordination.k8s.io/v1 Lease``."""

    spec: LeaseSpec = LeaseSpec()


# ------------------------------------------------------------------------ networking.k8s.io/v1


class ServiceCIDRSpec(View, frozen=True):
    cidrs: tuple[str, ...] = ()


class ServiceCIDR(Object, frozen=True):
    """``networking.k8s.io/v1 ServiceCIDR``: where ClusterIPs come from. Served since Kubernetes 1.33."""

    spec: ServiceCIDRSpec = ServiceCIDRSpec()


# ------------------------------------------------------------------------ metallb.io


class ServiceAllocation(View, frozen=True):
    """``IPAddressPool.spec.serviceAllocation``: which Services a pool is for."""

    priority: int = 0
    namespaces: tuple[str, ...] = ()
    namespace_selectors: tuple[LabelSelector, ...] = ()
    service_selectors: tuple[LabelSelector, ...] = ()


class IPAddressPoolSpec(View, frozen=True):
    addresses: tuple[str, ...] = ()
    auto_assign: bool = True
    avoid_buggy_ips: bool = field(name="avoidBuggyIPs", default=False)
    service_allocation: ServiceAllocation | None = None


class RecentRelease(View, frozen=True):
    """A Service that is gone, and what it had."""

    service: str = ""
    """``namespace/name``."""
    addresses: tuple[str, ...] = ()
    time: str = ""


class IPAddressPoolStatus(View, frozen=True):
    assigned_ipv4: int = field(name="assignedIPv4", default=0)
    assigned_ipv6: int = field(name="assignedIPv6", default=0)
    available_ipv4: int = field(name="availableIPv4", default=0)
    available_ipv6: int = field(name="availableIPv6", default=0)
    recent_releases: tuple[RecentRelease, ...] = ()
    conditions: tuple[Condition, ...] = ()


class IPAddressPool(Object, frozen=True):
    """``metallb.io/v1beta1 IPAddressPool``."""

    spec: IPAddressPoolSpec = IPAddressPoolSpec()
    status: IPAddressPoolStatus = IPAddressPoolStatus()


class ServiceReference(View, frozen=True):
    namespace: str = ""
    name: str = ""


class WebhookClientConfig(View, frozen=True):
    service: ServiceReference | None = None


class Webhook(View, frozen=True):
    client_config: WebhookClientConfig = WebhookClientConfig()
    failure_policy: str = "Fail"


class ValidatingWebhookConfiguration(Object, frozen=True):
    """``admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration``."""

    webhooks: tuple[Webhook, ...] = ()


class PreferredNodeSelector(View, frozen=True):
    weight: int
    preference: LabelSelector = LabelSelector()


class L2AdvertisementSpec(View, frozen=True):
    ip_address_pools: tuple[str, ...] = field(name="ipAddressPools", default=())
    ip_address_pool_selectors: tuple[LabelSelector, ...] = field(name="ipAddressPoolSelectors", default=())
    node_selectors: tuple[LabelSelector, ...] = ()
    service_selectors: tuple[LabelSelector, ...] = ()
    preferred_node_selectors: tuple[PreferredNodeSelector, ...] = ()
    interfaces: tuple[str, ...] = ()


class L2AdvertisementStatus(View, frozen=True):
    conditions: tuple[Condition, ...] = ()


class L2Advertisement(Object, frozen=True):
    """``metallb.io/v1beta1 L2Advertisement``."""

    spec: L2AdvertisementSpec = L2AdvertisementSpec()
    status: L2AdvertisementStatus = L2AdvertisementStatus()


class ServiceL2Interface(View, frozen=True):
    name: str


class ServiceL2StatusStatus(View, frozen=True):
    node: str = ""
    service_name: str = ""
    service_namespace: str = ""
    interfaces: tuple[ServiceL2Interface, ...] = ()
    kept: str = ""


class ServiceL2Status(Object, frozen=True):
    """``metallb.io/v1beta1 ServiceL2Status``."""

    status: ServiceL2StatusStatus = ServiceL2StatusStatus()


class AddressConflict(View, frozen=True):
    """Somebody else on the LAN has an address of a Service."""

    address: str
    withheld: bool = False
    """It has not been announced since it was assigned."""
    message: str = ""


class ConfigurationStateStatus(View, frozen=True):
    result: str = "Unknown"
    error_summary: str = ""
    advertisements_without_interface: tuple[str, ...] | None = None
    """L2Advertisements for this node that name interfaces of which it has none; None: not said."""
    address_conflicts: tuple[AddressConflict, ...] = ()
    """Of a speaker: the addresses that somebody else has."""
    conditions: tuple[Condition, ...] = ()


class ConfigurationState(Object, frozen=True):
    """``metallb.io/v1beta1 ConfigurationState``."""

    status: ConfigurationStateStatus = ConfigurationStateStatus()


# ------------------------------------------------------------------------ lists, watches


class ListMeta(View, frozen=True):
    resource_version: str = ""
    continue_: str = field(name="continue", default="")


T = TypeVar("T")


class RawList(View, frozen=True):
    """One page of a list, its items still undecoded."""

    metadata: ListMeta = ListMeta()
    items: tuple[msgspec.Raw, ...] = ()


class RawWatchEvent(View, frozen=True):
    """One line of a watch, its object still undecoded: what it is depends on ``type``."""

    type: str
    object: msgspec.Raw


def decode(json: bytes | msgspec.Raw, into: type[T]) -> T:
    """Decode API JSON into a view.

    Raises ``msgspec.ValidationError`` when a field that the view reads has another type than the API documents.
    """
    return msgspec.json.decode(json, type=into)


def prepare(view: type[Struct]) -> None:
    """Have msgspec work a type out now, in the importing thread.

    It does so at the type's first use, and a second thread that comes in the middle crashes the interpreter (seen with
    msgspec 0.22). So whatever several threads decode is prepared where it is defined or named.
    """
    msgspec.json.Decoder(view)


class ServerVersion(View, frozen=True):
    """What ``/version`` answers."""

    git_version: str


for _shared in (Object, RawList, RawWatchEvent, ServerVersion):
    prepare(_shared)


def is_older(version: str, than: str) -> bool:
    """Whether a ``resourceVersion`` is from before another one of its kind. They are decimal numbers, comparable since
    Kubernetes 1.35; where a server has others, nothing counts as older."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)


def to_builtins(view: Struct) -> Any:
    """A view as plain dicts and lists under the API's field names, for building a patch. Defaults are left out."""
    return msgspec.to_builtins(view)
