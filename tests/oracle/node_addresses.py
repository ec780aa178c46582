"""What a NodeIPPool's nodes may give to Services, and when a node joins: by the documented rules, from the JSON of the
API, with the standard library alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.oracle.services import Address, Body, read_address

PAUSE_S, LONGEST_PAUSE_S, CALM_S, FRESH_S = 10.0, 300.0, 600.0, 30.0
KEPT_OUT_BY_TAINT = {"node.kubernetes.io/out-of-service", "ToBeDeletedByClusterAutoscaler"}
NEVER_SHOWN = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
        "::/128", "::1/128", "fe80::/10", "ff00::/8",
    )
]  # fmt: skip


@dataclass(frozen=True)
class NodePoolSpec:
    labels: Mapping[str, str] = field(default_factory=dict)
    """``matchLabels`` of its only node selector; empty: it has none."""
    sources: tuple[tuple[str, str], ...] = (("ExternalIP", ""), ("InternalIP", ""))
    """Type and key."""
    versions: frozenset[int] = frozenset({4, 6})
    mix: bool = False
    allowed: tuple[str, ...] = ()
    cluster_ranges: tuple[str, ...] = ()
    """Of Services and Pods."""

    def selects(self, node: Body) -> bool:
        return bool(self.labels.items() <= node["metadata"]["labels"].items())


def is_well(node: Body) -> bool:
    """Whether a Node says nothing of itself that keeps its addresses out."""
    return (
        not node["metadata"].get("deletionTimestamp")
        and "node.kubernetes.io/exclude-from-external-load-balancers" not in node["metadata"]["labels"]
        and not any(taint["key"] in KEPT_OUT_BY_TAINT for taint in node["spec"]["taints"])
        and any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
    )


def written(node: Body, source: tuple[str, str]) -> list[Address]:
    kind, key = source
    if kind == "Label":
        texts = [node["metadata"]["labels"].get(key, "")]
    elif kind == "Annotation":
        texts = node["metadata"]["annotations"].get(key, "").split(",")
    else:
        texts = [each["address"] for each in node["status"]["addresses"] if each["type"] == kind]
    return [address for text in texts if (address := read_address(text)) is not None]


def named_by(node: Body) -> set[Address]:
    """The addresses that the Node names: in its status, in a label or in an annotation."""
    meta = node["metadata"]
    values = (*meta.get("labels", {}).values(), *meta.get("annotations", {}).values())
    texts = [text for value in values for text in value.split(",")]
    return {each for each in (*_own(node), *map(read_address, texts)) if each is not None}


def is_forbidden(spec: NodePoolSpec, nodes: Mapping[str, Body], name: str, address: Address) -> bool:
    """Whether no Service may show the address for the node of that name."""
    if any(address in network for network in NEVER_SHOWN):
        return True
    if any(address in ipaddress.ip_network(text) for text in spec.cluster_ranges):
        return True
    if spec.allowed and not any(address in ipaddress.ip_network(text) for text in spec.allowed):
        return True
    having = {each for each, node in nodes.items() if address in _own(node)}
    if not having:
        having = {each for each, node in nodes.items() if any(address in written(node, one) for one in spec.sources)}
    return having != {name}


def _own(node: Body) -> list[Address | None]:
    return [read_address(each["address"]) for each in node["status"]["addresses"]]


def gives(
    spec: NodePoolSpec, nodes: Mapping[str, Body], present: Iterable[str]
) -> dict[int, dict[str, frozenset[Address]]]:
    """By IP version, what each of the nodes that are present gives."""
    result: dict[int, dict[str, frozenset[Address]]] = {4: {}, 6: {}}
    usable = [name for name in present if spec.selects(nodes[name])]
    for version in spec.versions:
        by_source = [
            {
                name: frozenset(
                    each
                    for each in written(nodes[name], source)
                    if each.version == version and not is_forbidden(spec, nodes, name, each)
                )
                for name in usable
            }
            for source in spec.sources
        ]
        if not spec.mix:
            by_source = [found for found in by_source if any(found.values())][:1]
        for found in reversed(by_source):
            result[version] |= {name: addresses for name, addresses in found.items() if addresses}
    return result


def in_order(addresses: Iterable[Address], versions: Iterable[int]) -> list[str]:
    """As a status shows them."""
    found = set(addresses)
    return [str(each) for version in versions for each in sorted((a for a in found if a.version == version), key=int)]


def unheard(said: Mapping[str, tuple[float, frozenset[str]]], now: float) -> set[str]:
    """The nodes that more than half of the speakers do not hear. ``said``: by the speaker's node when its Lease was
    last renewed, and whom it does not hear. Nobody, where no majority of the speakers would be left."""
    fresh = {speaker for speaker, (renewed_at, _) in said.items() if now - renewed_at < FRESH_S}
    accused = {node for _, nodes in said.values() for node in nodes}
    found = {node for node in accused if sum(node in said[each][1] for each in fresh if each != node) > len(fresh) / 2}
    return found if len(fresh - found) > len(fresh) / 2 else set()


class NodeHistory:
    """Everything that happened to a node, which is replayed to say whether it is shown."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, str, float]] = []

    def add(self, now: float, what: str, ready_for: float = 0.0) -> None:
        """``what``: usable, unusable, gone."""
        if self._steps and self._steps[-1][1] == "gone" and now - self._steps[-1][0] >= CALM_S:
            self._steps.clear()
        if not self._steps and what == "gone":
            return
        if not self._steps or self._steps[-1][1] != what:
            self._steps.append((now, what, ready_for))

    def is_shown(self, now: float) -> bool:
        pause, usable_since, joined_at = PAUSE_S, None, None
        first = True
        for at, what, ready_for in [*self._steps, (now, "", 0.0)]:
            if usable_since is not None and joined_at is None and at >= usable_since + pause:
                joined_at = usable_since + pause
            if what == "usable":
                usable_since = at - ready_for if first else at
            elif what:
                if joined_at is not None:
                    pause = PAUSE_S if at - joined_at >= CALM_S else min(LONGEST_PAUSE_S, 2 * pause)
                usable_since = joined_at = None
            first = False
        return joined_at is not None
