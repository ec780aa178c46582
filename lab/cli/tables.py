"""The tables of ``lab get``, with the columns that people know from kubectl."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.resources import Resource
from lab.shipped.kinds import CRDS, Whole, custom_definitions

Body = Mapping[str, Any]
Column = tuple[str, Callable[[Body], str]]

NONE = "<none>"


def print_table(
    console: Console, resource: Resource[Whole], bodies: list[dict[str, Any]], *, wide: bool, everywhere: bool
) -> None:
    columns = columns_of(resource, wide=wide)
    with_namespace = everywhere and resource.namespaced
    titles = [*(["NAMESPACE"] if with_namespace else []), "NAME", *(title.upper() for title, _ in columns), "AGE"]
    table = Table(*titles, box=None, pad_edge=False)
    for body in bodies:
        meta = body["metadata"]
        cells = [*([meta.get("namespace", "")] if with_namespace else []), meta["name"]]
        table.add_row(*cells, *(fill(body) for _, fill in columns), age(body))
    if bodies:
        console.print(table)
    else:
        console.print(f"no {resource.plural}")


def columns_of(resource: Resource[Whole], *, wide: bool) -> list[Column]:
    """Titles and how to fill them, without namespace, name and age."""
    narrow, more = _BUILT_IN.get(resource.plural, ([], []))
    if resource.plural not in _BUILT_IN:
        narrow = [(str(c["name"]), _at(c["jsonPath"])) for c in _printer_columns(resource) if not c.get("priority")]
        more = [(str(c["name"]), _at(c["jsonPath"])) for c in _printer_columns(resource) if c.get("priority")]
    return [*narrow, *more] if wide else narrow


def _printer_columns(resource: Resource[Whole]) -> Iterable[Mapping[str, Any]]:
    for spec in custom_definitions(CRDS):
        if spec["names"]["plural"] == resource.plural and spec["group"] == resource.group:
            for version in spec["versions"]:
                if version["name"] == resource.version:
                    columns = version.get("additionalPrinterColumns", ())
                    yield from (column for column in columns if column["jsonPath"] != ".metadata.creationTimestamp")


def dig(body: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for word in path.strip(".").split("."):
        body = body.get(word) if isinstance(body, Mapping) else None
    return body


def _at(path: str) -> Callable[[Body], str]:
    return lambda body: _text(dig(body, path))


def _text(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def age(body: Body, now: datetime | None = None) -> str:
    """How old an object is: ``12s``, ``5m``, ``3h``, ``2d``."""
    made = dig(body, "metadata.creationTimestamp")
    if not made:
        return ""
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(made)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def _condition(body: Body, kind: str) -> str:
    conditions = dig(body, "status.conditions") or []
    return next((str(c.get("status")) for c in conditions if c.get("type") == kind), "Unknown")


def _node_status(body: Body) -> str:
    words = ["Ready" if _condition(body, "Ready") == "True" else "NotReady"]
    if dig(body, "spec.unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_address(kind: str) -> Callable[[Body], str]:
    """The first address of that type."""

    def fill(body: Body) -> str:
        addresses = dig(body, "status.addresses") or []
        return next((a["address"] for a in addresses if a.get("type") == kind), NONE)

    return fill


def _external_ip(body: Body) -> str:
    if dig(body, "spec.type") == "ExternalName":
        return _text(dig(body, "spec.externalName"))
    found = [i.get("ip") or i.get("hostname") for i in dig(body, "status.loadBalancer.ingress") or []]
    if found:
        return ",".join(filter(None, found))
    return "<pending>" if dig(body, "spec.type") == "LoadBalancer" else NONE


def _service_ports(body: Body) -> str:
    ports = dig(body, "spec.ports") or []
    return ",".join(
        f"{p['port']}{':' + str(p['nodePort']) if p.get('nodePort') else ''}/{p.get('protocol', 'TCP')}" for p in ports
    )


def _selector(body: Body) -> str:
    return ",".join(f"{k}={v}" for k, v in (dig(body, "spec.selector") or {}).items()) or NONE


def _endpoints(body: Body) -> str:
    shown = []
    for endpoint in body.get("endpoints") or []:
        ready = (endpoint.get("conditions") or {}).get("ready")
        shown.append(",".join(endpoint["addresses"]) + ("" if ready is not False else " (not ready)"))
    return ", ".join(shown) or NONE


def _slice_ports(body: Body) -> str:
    return ",".join(str(port.get("port")) for port in body.get("ports") or []) or NONE


def _event_object(body: Body) -> str:
    return f"{_text(dig(body, 'involvedObject.kind')).lower()}/{_text(dig(body, 'involvedObject.name'))}"


_BUILT_IN: dict[str, tuple[list[Column], list[Column]]] = {
    "namespaces": ([("STATUS", _at("status.phase"))], []),
    "nodes": (
        [("STATUS", _node_status), ("INTERNAL-IP", _node_address("InternalIP"))],
        [("EXTERNAL-IP", _node_address("ExternalIP")), ("POD-CIDR", _at("spec.podCIDR"))],
    ),
    "services": (
        [
            ("TYPE", _at("spec.type")),
            ("CLUSTER-IP", _at("spec.clusterIP")),
            ("EXTERNAL-IP", _external_ip),
            ("PORT(S)", _service_ports),
        ],
        [("SELECTOR", _selector)],
    ),
    "pods": (
        [("READY", lambda body: _condition(body, "Ready")), ("STATUS", _at("status.phase"))],
        [("IP", _at("status.podIP")), ("NODE", _at("spec.nodeName"))],
    ),
    "servicecidrs": ([("CIDRS", _at("spec.cidrs"))], []),
    "endpointslices": ([("PORTS", _slice_ports), ("ENDPOINTS", _endpoints)], []),
    "events": (
        [
            ("TYPE", _at("type")),
            ("REASON", _at("reason")),
            ("OBJECT", _event_object),
            ("MESSAGE", lambda body: _text(body.get("message") or body.get("note"))),
        ],
        [],
    ),
    "leases": ([("HOLDER", _at("spec.holderIdentity"))], []),
    "secrets": ([("TYPE", _at("type"))], []),
    "configmaps": ([], []),
    "serviceaccounts": ([], []),
}
