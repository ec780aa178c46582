"""What people are told of a NodeIPPool: why it gives a Service nothing, and which of its nodes are left out.

The first is a sentence that stays the same as long as the reason does, whichever nodes come and go meanwhile. The
second names nodes, each with the one word of ``LeftOut``, and is bounded in length.

Example: ``cannot give 22/TCP: it is for SSH on every node; spec.allowPorts of the pool allows it``, and
``n2, n3 (NotReady), n4 (PortInUse)``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cluster.addresses import Family
from cluster.objects import NodeName
from controller.nodeip.choice import NodePoolRefusal
from controller.nodeip.guards import PortKey
from controller.nodeip.reasons import LeftOut, NodePoolRefusalReason

NAMED = 4
"""Nodes of one reason that are named; the rest are counted."""
REASONS_NAMED = 6
NAME_LIMIT = 63
"""Characters of a node's name that are shown."""


def why_nothing(refusal: NodePoolRefusal, families: tuple[Family, ...], user: tuple[str, PortKey] | None = None) -> str:
    """Why a pool gives nothing; completes "pool "nodes" …". ``user``: a Service that has a port of this one, and the
    port."""
    match refusal.reason:
        case NodePoolRefusalReason.PROXY_IPVS:
            return (
                "cannot give addresses of nodes, since kube-proxy is in IPVS mode and would bind them on every node; "
                "use the mode nftables or iptables"
            )
        case NodePoolRefusalReason.PROXY_UNKNOWN:
            return (
                "cannot give addresses of nodes, since what carries traffic for Services is not known to be kube-proxy "
                "in the mode nftables or iptables; spec.allowOtherProxies of the pool allows it"
            )
        case NodePoolRefusalReason.PORT_GUARDED if refusal.port is not None:
            return (
                f"cannot give {refusal.port.key.text}: it is {refusal.port.need} on every node; "
                "spec.allowPorts of the pool allows it"
            )
        case NodePoolRefusalReason.PORT_IN_USE if user is not None:
            return f"has no node with {user[1].text} free; {user[0]} has it"
        case NodePoolRefusalReason.PORT_IN_USE:
            return "has no node on which nothing listens on the ports of the Service"
        case NodePoolRefusalReason.ADDRESS_NOT_ALLOWED:
            return "has no node with an address that may be shown"
        case NodePoolRefusalReason.NO_FAMILY:
            return f"has no node with an {' and an '.join(family.text for family in families)} address"
        case _:
            return "has no node that may be shown" if refusal.left_out else "selects no node"


def left_out_words(left_out: Mapping[NodeName, LeftOut]) -> str:
    """Which nodes are left out and why; empty: none is."""
    names: defaultdict[LeftOut, list[NodeName]] = defaultdict(list)
    for name in sorted(left_out):
        names[left_out[name]].append(name)
    found = [(why, names[why]) for why in LeftOut if why in names]
    parts = [f"{_names(these)} ({why.value})" for why, these in found[:REASONS_NAMED]]
    if more := sum(len(these) for _, these in found[REASONS_NAMED:]):
        parts.append(f"and {more} more")
    return ", ".join(parts)


def _names(names: list[NodeName]) -> str:
    shown = [each if len(each) <= NAME_LIMIT else each[: NAME_LIMIT - 1] + "…" for each in names[:NAMED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
