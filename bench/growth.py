"""Services one after another, on a whole cluster: what they cost each of our processes.

    python -m bench.growth [--services 10000] [--control-plane kubernetes] [--json FILE]

Three nodes, a controller and three speakers in a lab. One client creates Services as fast as the API server takes them;
measured are the seconds until the last is announced, CPU seconds and memory (PSS) of each process, and how many claims
there were beyond one for each Service. On a real control plane kube-proxy is ended first: it would spend more than all
the others together.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from cluster.api.client import IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, SERVICES, ApiClient, connect
from lab import launch
from lab.assets.gather import gather
from lab.client import Lab
from lab.control.messages import CONTROLLER, SPEAKER, ControlPlane
from lab.layout import STATUS_PORT, lay_out
from lab.measuring.measure import wait_for
from lab.objects.workloads import start_workload

console = Console(stderr=True)
NODES = 3
POOL = "10.32.0.0/14"
LONG_S = 3600.0
LOOK_S = 1.0
OURS = (CONTROLLER, SPEAKER, "speaker watcher")


class Weight(NamedTuple):
    """Of one process."""

    host: str
    name: str
    cpu_s: float
    pss_mib: float


def create(api: ApiClient, count: int) -> float:
    """Seconds that it takes."""
    spec = {
        "type": "LoadBalancer",
        "allocateLoadBalancerNodePorts": False,
        "ports": [{"port": 80}],
        "selector": {"app": "web"},
    }
    began = time.monotonic()
    for number in range(count):
        api.create(SERVICES, "default", {"metadata": {"name": f"web-{number}"}, "spec": spec})
    return time.monotonic() - began


def claimed(lab: Lab) -> int:
    """Claims so far, as the speakers' logs tell."""
    return sum(log.read_bytes().count(b'"Claimed"') for log in (lab.directory / "logs").glob("*/speaker.log"))


def counted(lab: Lab, metric: str) -> int:
    """A counter, over all speakers."""
    total = 0.0
    for number in range(1, NODES + 1):
        shown = lab.run(f"node-{number}", ["curl", "--silent", f"http://127.0.0.1:{STATUS_PORT}/metrics"]).output
        total += sum(float(line.split()[-1]) for line in shown.splitlines() if line.startswith(metric))
    return int(total)


def weights(lab: Lab) -> Iterator[Weight]:
    for process in lab.status(memory=True).processes:
        if process.name in OURS and process.running and process.pss_kib is not None:
            stat = lab.run(process.host, ["cat", f"/proc/{process.pid}/stat"], check=True).output
            fields = stat.rpartition(")")[2].split()
            cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            yield Weight(process.host, process.name, cpu_s, process.pss_kib / 1024)


def quiet(lab: Lab) -> None:
    """Until nobody has anything to do any more."""

    def used() -> float:
        return sum(weight.cpu_s for weight in weights(lab))

    def idle() -> bool:
        before = used()
        time.sleep(5.0)
        return used() - before < 5.0 * NODES * 0.03

    wait_for(idle, LONG_S, "quiet")


def measure(count: int, control_plane: ControlPlane) -> dict[str, float]:
    assets = gather() if control_plane == "kubernetes" else None
    with launch.up(launch.Recipe("bench-growth", lay_out(NODES), assets=assets)) as lab:
        if control_plane == "kubernetes":
            for number in range(1, NODES + 1):
                lab.process(f"node-{number}", "kube-proxy", "kill")
        api = connect(lab.kubeconfig, user_agent="berthlb-bench")
        start_workload(lab, "web", replicas=1)
        body = {"metadata": {"name": "bench"}, "spec": {"addresses": [POOL], "avoidBuggyIPs": True}}
        api.create(IP_ADDRESS_POOLS, "metallb-system", body)
        api.create(L2_ADVERTISEMENTS, "metallb-system", {"metadata": {"name": "bench"}, "spec": {}})
        before = {(weight.host, weight.name): weight.cpu_s for weight in weights(lab)}
        began = time.monotonic()
        figures = {"created, s": create(api, count)}
        console.print(f"created after {figures['created, s']:.1f} s")
        wait_for(lambda: claimed(lab) >= count, LONG_S, "every claim", every=LOOK_S)
        figures["announced, s"] = time.monotonic() - began
        quiet(lab)
        figures["quiet, s"] = time.monotonic() - began
        for weight in weights(lab):
            name = f"{weight.host} {weight.name}"
            figures[f"{name}: CPU, s"] = weight.cpu_s - before[weight.host, weight.name]
            figures[f"{name}: memory, MiB"] = weight.pss_mib
        figures["claims beyond one for each Service"] = (
            counted(lab, 'berthlb_speaker_decisions_total{reason="Claimed"}') - count
        )
        figures["late loops"] = counted(lab, "berthlb_speaker_late_loops_total")
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--services", type=int, default=10_000, metavar="N")
    parser.add_argument("--control-plane", choices=["embedded", "kubernetes"], default="embedded")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    given = parser.parse_args()
    figures = measure(given.services, given.control_plane)
    table = Table("figure", "value", box=None)
    for name, value in figures.items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
