"""A lab as ``lab up``, ``status`` and ``assets`` show it, to people in tables and to programs as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab.assets.gather import Assets
from lab.control.messages import LabStatus


def as_object(status: LabStatus) -> dict[str, Any]:
    """What ``--json`` prints of a lab."""
    return {
        "name": status.name,
        "kubeconfig": status.kubeconfig,
        "kubeconfigInside": status.kubeconfig_inside,
        "apiServer": status.api_server,
        "apiServerInside": status.api_server_inside,
        "lan": status.layout.primary.lan,
        "poolRange": status.layout.primary.pool_range,
        "networks": [
            {"family": family.text, "lan": each.lan, "poolRange": each.pool_range}
            for family, each in status.layout.networks.items()
        ],
        "directory": status.directory,
        "keeperPid": status.keeper_pid,
        "controlPlane": status.control_plane,
        "daemons": status.daemons,
        "speakers": status.speakers,
        "nodeGraceSeconds": status.node_grace,
        "hosts": [
            {
                "name": each.host.name,
                "role": each.host.role,
                "namespace": each.namespace,
                "interface": each.host.interface,
                "address": each.host.address,
                "addresses": list(each.host.addresses.values()),
                "publicAddresses": list(each.host.public_addresses.values()),
                "mac": each.host.mac,
                "power": each.power,
                "link": each.link,
            }
            for each in status.hosts
        ],
        "processes": [
            {
                "host": process.host,
                "name": process.name,
                "pid": process.pid,
                "running": process.running,
                "code": process.code,
                "pssKiB": process.pss_kib,
            }
            for process in status.processes
        ],
    }


def print_lab(console: Console, status: LabStatus) -> None:
    """What ``lab up`` ends with."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("kubeconfig", status.kubeconfig)
    facts.add_row("API server", escape(f"{status.api_server} (on the lab's hosts: {status.api_server_inside})"))
    for network in status.layout.networks.values():
        facts.add_row("LAN", f"{network.lan}, free for pools: {network.pool_range}")
    console.print(facts, soft_wrap=True)
    console.print(_hosts(status))


def print_status(console: Console, status: LabStatus) -> None:
    """What ``lab status`` prints: the lab, and every process in it."""
    print_lab(console, status)
    table = Table("HOST", "PROCESS", "PID", "STATE", "MEMORY", box=None, pad_edge=False)
    for process in status.processes:
        state = "runs" if process.running else f"ended with {process.code}"
        memory = f"{process.pss_kib / 1024:.0f} MiB" if process.pss_kib is not None else ""
        table.add_row(process.host, process.name, str(process.pid), state, memory)
    console.print(table)


def _hosts(status: LabStatus) -> Table:
    public = ["PUBLIC ADDRESS"] if status.layout.public_side else []
    table = Table("HOST", "ADDRESS", *public, "MAC", "INTERFACE", "NAMESPACE", "", box=None, pad_edge=False)
    for each in status.hosts:
        trouble = "no power" if not each.power else "" if each.link else "no cable"
        host = each.host
        addresses = [", ".join(host.addresses.values())]
        if public:
            addresses.append(", ".join(host.public_addresses.values()))
        table.add_row(host.name, *addresses, host.mac, host.interface, each.namespace or "", trouble)
    return table


def assets_as_object(assets: Assets, seconds: float) -> dict[str, Any]:
    """What ``lab assets --json`` prints."""
    return {
        "programs": [
            {"program": each.program, "version": each.version, "path": str(each.path), "source": each.source}
            for each in assets.programs.values()
        ],
        "passedOver": [
            {"program": each.program, "path": str(each.path), "reason": each.reason} for each in assets.passed_over
        ],
        "seconds": round(seconds, 3),
    }


def print_assets(console: Console, assets: Assets) -> None:
    """What ``lab assets`` prints."""
    table = Table("PROGRAM", "VERSION", "FROM", "PATH", box=None, pad_edge=False)
    for each in assets.programs.values():
        source = f"${each.source}" if each.source == "KUBEBUILDER_ASSETS" else each.source
        table.add_row(each.program, each.version, source, str(each.path))
    console.print(table)
