"""The kinds that BerthLB reads and writes: where each is in the API, and which view reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster import node_pools, objects, pods, slices
from cluster.objects import Object, prepare

T = TypeVar("T", bound=Object)

METALLB_GROUP = "metallb.io"
"""Of MetalLB's kinds, which are ours."""
BERTHLB_GROUP = "berthlb.io"
"""Of the kinds that MetalLB does not have."""
OUR_GROUPS = frozenset({METALLB_GROUP, BERTHLB_GROUP})


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One kind. ``group`` is empty for the core API; ``plural`` is the word in the URL; ``view`` decodes an object."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    view: type[T]

    def __post_init__(self) -> None:
        prepare(self.view)

    @property
    def api_version(self) -> str:
        """As ``apiVersion`` is written in an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """``ipaddresspools.metallb.io``: also the name of a custom kind's definition."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, or with ``name`` of an object, or of its subresource ("status").

        Without ``namespace`` a namespaced kind's collection is that of every namespace.
        """
        parts = ["apis" if self.group else "api", self.api_version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/" + "/".join(parts)


SERVICES = Resource("", "v1", "services", "Service", True, objects.Service)
SERVICE_OWNERS = Resource("", "v1", "services", "Service", True, objects.ServiceOwners)
"""The same objects, for who wrote them."""
COMPANIONS = Resource("", "v1", "services", "Service", True, objects.Service)
"""The same objects once more: those that the controller makes itself, where 1:1 NAT stands before the nodes."""
NODES = Resource("", "v1", "nodes", "Node", False, objects.Node)
PODS = Resource("", "v1", "pods", "Pod", True, pods.HostPod)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, objects.Namespace)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True, objects.ConfigMap)
SECRETS = Resource("", "v1", "secrets", "Secret", True, objects.Secret)
EVENTS = Resource("", "v1", "events", "Event", True, Object)
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, slices.EndpointSlice)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True, objects.Lease)
SERVICE_CIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", False, objects.ServiceCIDR)
VALIDATING_WEBHOOK_CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    False,
    objects.ValidatingWebhookConfiguration,
)
IP_ADDRESS_POOLS = Resource(METALLB_GROUP, "v1beta1", "ipaddresspools", "IPAddressPool", True, objects.IPAddressPool)
NODE_IP_POOLS = Resource(BERTHLB_GROUP, "v1alpha1", "nodeippools", "NodeIPPool", True, node_pools.NodeIPPool)
L2_ADVERTISEMENTS = Resource(
    METALLB_GROUP, "v1beta1", "l2advertisements", "L2Advertisement", True, objects.L2Advertisement
)
SERVICE_L2_STATUSES = Resource(
    METALLB_GROUP, "v1beta1", "servicel2statuses", "ServiceL2Status", True, objects.ServiceL2Status
)
CONFIGURATION_STATES = Resource(
    METALLB_GROUP, "v1beta1", "configurationstates", "ConfigurationState", True, objects.ConfigurationState
)
