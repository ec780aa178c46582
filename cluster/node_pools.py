"""Pools whose addresses are those of nodes: ``berthlb.io/v1alpha1 NodeIPPool``.

``NodeIPPool`` and its parts are views of the object, as in ``cluster.objects``. ``parse_node_pool`` makes one a
``NodePool``, which is what can be in force (``cluster.config``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default

from msgspec import field

from cluster.addresses import Address, AddressError, Family, Range, parse_prefix
from cluster.objects import Condition, LabelSelector, Object, PoolName, ServiceAllocation, View
from cluster.parts import ConfigError, check_allocation, check_distinct, check_selectors
from cluster.selectors import matches_any

KEYED = frozenset({"Label", "Annotation"})
"""The types of sources that need a key, and that a kubelet can write."""


class AddressSource(View, frozen=True):
    """One place in a Node where an address stands."""

    type: str
    """Label, Annotation, ExternalIP or InternalIP."""
    key: str = ""
    """Of the label or annotation."""

    @property
    def text(self) -> str:
        """As people name it: ``ExternalIP``, ``Label node-public-ip``."""
        return f"{self.type} {self.key}" if self.key else self.type


class NodeIPPoolSpec(View, frozen=True):
    node_selectors: tuple[LabelSelector, ...] = ()
    families: tuple[str, ...] = ("IPv4", "IPv6")
    addresses: tuple[AddressSource, ...] = (AddressSource("ExternalIP"), AddressSource("InternalIP"))
    mix: bool = False
    delivered_addresses: tuple[AddressSource, ...] = ()
    allowed_cidrs: tuple[str, ...] = field(name="allowedCIDRs", default=())
    max_nodes: int | None = None
    allow_ports: tuple[int, ...] = ()
    allow_other_proxies: bool = False
    auto_assign: bool = True
    service_allocation: ServiceAllocation | None = None


class NodeIPPoolStatus(View, frozen=True):
    selected_nodes: int = 0
    usable_nodes: int = 0
    assigned_services: int = 0
    conditions: tuple[Condition, ...] = ()


class NodeIPPool(Object, frozen=True):
    """``berthlb.io/v1alpha1 NodeIPPool``."""

    spec: NodeIPPoolSpec = NodeIPPoolSpec()
    status: NodeIPPoolStatus = NodeIPPoolStatus()


# ------------------------------------------------------------------------ what is in force


@dataclass(frozen=True, slots=True)
class NodePool:
    """``berthlb.io/v1alpha1 NodeIPPool``."""

    name: PoolName
    node_selectors: tuple[LabelSelector, ...] = ()
    """Nodes that it has: any of these; none: every node."""
    families: frozenset[Family] = frozenset(Family)
    sources: tuple[AddressSource, ...] = (AddressSource("ExternalIP"), AddressSource("InternalIP"))
    """Where a node's address is read, in the order of trial."""
    mix: bool = False
    """Whether each node gives the first source that it has, instead of one source counting for all of them."""
    delivered: tuple[AddressSource, ...] = ()
    """Where 1:1 NAT delivers what is sent to the addresses, in the order of trial; none: there is no NAT."""
    allowed: tuple[Range, ...] = ()
    """Where addresses of nodes must lie; none: anywhere."""
    max_nodes: int | None = None
    """How many nodes a Service gets at most; None: all."""
    allow_ports: frozenset[int] = frozenset()
    """Guarded ports that are allowed all the same."""
    allow_other_proxies: bool = False
    """Whether a service proxy counts that is not known to take node addresses."""
    auto_assign: bool = True
    allocation: ServiceAllocation | None = None
    labels: Mapping[str, str] = default(default_factory=dict)
    created: str = ""
    """``metadata.creationTimestamp``; only its order matters."""

    @property
    def all_sources(self) -> tuple[AddressSource, ...]:
        """Where a Node is read for it, each source once."""
        return tuple(dict.fromkeys((*self.sources, *self.delivered)))

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether it has the node with these labels."""
        return not self.node_selectors or matches_any(self.node_selectors, labels)

    def allows(self, address: Address) -> bool:
        """Whether ``allowedCIDRs`` let a node have this address."""
        return not self.allowed or any(address in block for block in self.allowed)


def parse_node_pool(source: NodeIPPool) -> NodePool:
    """One pool of node addresses; raises ``ConfigError``."""
    spec = source.spec
    check_selectors(spec.node_selectors, "spec.nodeSelectors")
    if not spec.families:
        raise ConfigError("spec.families", "is empty; list IPv4, IPv6 or both")
    check_distinct(spec.families, "spec.families")
    families = {family.text: family for family in Family}
    for position, text in enumerate(spec.families):
        if text not in families:
            raise ConfigError(f"spec.families[{position}]", f'"{text}" is neither IPv4 nor IPv6')
    if not spec.addresses:
        raise ConfigError("spec.addresses", "is empty; name at least one source")
    _check_sources(spec.addresses, "spec.addresses")
    _check_sources(spec.delivered_addresses, "spec.deliveredAddresses")
    if spec.addresses == spec.delivered_addresses:
        raise ConfigError(
            "spec.deliveredAddresses", "has the sources of spec.addresses; leave it out where there is no NAT"
        )
    written = [each.text for each in (*spec.addresses, *spec.delivered_addresses) if each.type in KEYED]
    if written and not spec.allowed_cidrs:
        raise ConfigError("spec.allowedCIDRs", f"is empty; a kubelet can write {written[0]}, so say what it may hold")
    allowed: list[Range] = []
    for position, text in enumerate(spec.allowed_cidrs):
        try:
            allowed.append(parse_prefix(text))
        except AddressError as error:
            raise ConfigError(f"spec.allowedCIDRs[{position}]", f'"{text}" {error}') from error
    if spec.max_nodes is not None and spec.max_nodes < 1:
        raise ConfigError("spec.maxNodes", f"{spec.max_nodes} is less than 1")
    for position, port in enumerate(spec.allow_ports):
        if not 1 <= port <= 65535:
            raise ConfigError(f"spec.allowPorts[{position}]", f"{port} is not a port")
    if spec.service_allocation is not None:
        check_allocation(spec.service_allocation)
    meta = source.metadata
    return NodePool(
        name=PoolName(meta.name),
        node_selectors=spec.node_selectors,
        families=frozenset(families[text] for text in spec.families),
        sources=spec.addresses,
        mix=spec.mix,
        delivered=spec.delivered_addresses,
        allowed=tuple(allowed),
        max_nodes=spec.max_nodes,
        allow_ports=frozenset(spec.allow_ports),
        allow_other_proxies=spec.allow_other_proxies,
        auto_assign=spec.auto_assign,
        allocation=spec.service_allocation,
        labels=meta.labels,
        created=meta.creation_timestamp or "",
    )


def _check_sources(sources: tuple[AddressSource, ...], where: str) -> None:
    for position, source in enumerate(sources):
        if source.type not in KEYED | {"ExternalIP", "InternalIP"}:
            reason = f'"{source.type}" is none of Label, Annotation, ExternalIP, InternalIP'
            raise ConfigError(f"{where}[{position}].type", reason)
        if (source.type in KEYED) != bool(source.key):
            raise ConfigError(
                f"{where}[{position}].key", f"is {'not for' if source.key else 'missing with'} {source.type}"
            )
        if source in sources[:position]:
            raise ConfigError(f"{where}[{position}]", f'repeats "{source.text}"')
