"""What a speaker reports of the nodes, for node-IP mode: one annotation of its Lease ``berthlb-speaker-<node>``.

``NodeReport`` is what the annotation ``berthlb.io/node-report`` says, as JSON:

    {"listening": ["22/TCP", "323/UDP"], "proxy": {"healthy": true, "mode": "nftables"}, "unheard": ["node-b"]}

1. ``unheard`` has the nodes whose speakers are silent, by the proof that failover needs too (docs/protocol.md, rule 5).
2. ``listening`` has the ports of the speaker's own node that something on it listens on.
3. ``proxy`` has what kube-proxy on the speaker's own node says of itself.

What is not known is left out. The same report is always the same text, so that only what changed is written.

**Reading** never fails. What is not understood is passed over, be it a key, an entry, or the whole text: it reports
nothing. **Bounds**: 256 nodes and 512 ports; of more than that the first by name, and the lowest, count. A text of more
than ``LONGEST_TEXT`` characters is not looked at.

Not promised: that a report is true. Whoever may write the Leases can write it, so nothing may rest on a single one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cluster.objects import NodeName
from cluster.sharing import Port

REPORT_ANNOTATION = "berthlb.io/node-report"
MAX_UNHEARD = 256
"""Nodes: as many as there may be speakers."""
MAX_LISTENING = 512
LONGEST_TEXT = 1 << 17
"""Characters. The longest report has 75,000, and all annotations of an object may have 262,144."""
LONGEST_NAME = 253
"""Of a Node (RFC 1123 subdomain)."""
LONGEST_MODE = 32

_PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})


@dataclass(frozen=True, slots=True)
class NodeReport:
    """See the module's docstring."""

    unheard: frozenset[NodeName] = frozenset()
    """Nodes whose speakers are dead to the one that reports; never its own."""
    listening: frozenset[Port] = frozenset()
    """``("TCP", 22)``: what its own node listens on at all of its addresses, or at one of the node's own."""
    proxy_mode: str | None = None
    """kube-proxy's mode, as it says it: ``iptables``, ``ipvs``, ``nftables``. None: nobody said any."""
    proxy_healthy: bool | None = None
    """Whether kube-proxy says that its rules are up to date. None: nobody said."""


def write_report(report: NodeReport) -> str:
    """The annotation's value: the same for equal reports."""
    said: dict[str, Any] = {}
    if report.listening:
        ports = sorted((port, protocol) for protocol, port in report.listening)
        said["listening"] = [f"{port}/{protocol}" for port, protocol in ports[:MAX_LISTENING]]
    proxy = {"healthy": report.proxy_healthy, "mode": report.proxy_mode}
    if known := {key: value for key, value in proxy.items() if value is not None}:
        said["proxy"] = known
    if report.unheard:
        said["unheard"] = sorted(report.unheard)[:MAX_UNHEARD]
    return msgspec.json.encode(said).decode()


def read_report(annotations: Mapping[str, str]) -> NodeReport:
    """What the annotations of a speaker's Lease report."""
    text = annotations.get(REPORT_ANNOTATION, "")
    if not text or len(text) > LONGEST_TEXT:
        return NodeReport()
    try:
        said = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return NodeReport()
    if not isinstance(said, dict):
        return NodeReport()
    proxy = said.get("proxy")
    if not isinstance(proxy, dict):
        proxy = {}
    mode, healthy = proxy.get("mode"), proxy.get("healthy")
    nodes = {name for name in _entries(said.get("unheard")) if 0 < len(name) <= LONGEST_NAME}
    ports = {port for text in _entries(said.get("listening")) if (port := _port(text)) is not None}
    return NodeReport(
        unheard=frozenset(NodeName(name) for name in sorted(nodes)[:MAX_UNHEARD]),
        listening=frozenset(sorted(ports, key=lambda each: (each[1], each[0]))[:MAX_LISTENING]),
        proxy_mode=mode if isinstance(mode, str) and 0 < len(mode) <= LONGEST_MODE else None,
        proxy_healthy=healthy if isinstance(healthy, bool) else None,
    )


def _entries(value: object) -> Iterable[str]:
    return (each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _port(text: str) -> Port | None:
    """``22/TCP``; None: it is no port."""
    number, _, protocol = text.partition("/")
    if protocol not in _PROTOCOLS or not (number.isascii() and number.isdigit()) or len(number) > 5:
        return None
    port = int(number)
    return (protocol, port) if 0 < port <= 65535 else None
