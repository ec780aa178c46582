"""Services one after another on a whole cluster: what they cost each of our processes.

    python -m bench.growth [--services 10000] [--nodes 3] [--more-nodes 47] [--control-plane kubernetes]
        [--json FILE]

A controller and a speaker on each node run in a lab. One client creates Services as fast as the API server takes them.
Measured are the seconds until the last is announced, CPU seconds and memory (PSS) of each process, and how many claims
there were beyond one for each Service; then, while nothing changes, how much of a core each process uses. On a real
control plane kube-proxy is killed first, for it would spend more than all others together. With ``--more-nodes`` the
API has so many Nodes besides, without machines: what the controller and the watchers keep of them weighs as it would.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from bench.probes import LONG_S, await_quiet, counter, cpu_in_lab_s, make_pool
from bench.report import Figures, arguments, progress, show, write
from cluster.api.client import L2_ADVERTISEMENTS, NODES, SERVICES, ApiClient, connect
from lab import launch
from lab.assets.gather import gather
from lab.client import Lab
from lab.control.messages import CONTROLLER, SPEAKER, ControlPlane
from lab.layout import lay_out
from lab.measuring.measure import wait_for
from lab.objects.workloads import start_workload

LOOK_S = 1.0
IDLE_S = 10.0
OURS = (CONTROLLER, SPEAKER, "speaker watcher")


class Weight(NamedTuple):
    """What one process has used so far, and weighs."""

    host: str
    name: str
    cpu_s: float
    pss_mib: float


def create(api: ApiClient, count: int) -> float:
    """Create so many Services, one after another; the seconds that it took."""
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


def counted(lab: Lab, nodes: int, metric: str) -> int:
    """A counter, over all speakers."""
    return sum(counter(lab, f"node-{number}", metric) for number in range(1, nodes + 1))


def weights(lab: Lab) -> Iterator[Weight]:
    for process in lab.status(memory=True).processes:
        if process.name in OURS and process.running and process.pss_kib is not None:
            cpu_s = cpu_in_lab_s(lab, process.host, process.pid)
            yield Weight(process.host, process.name, cpu_s, process.pss_kib / 1024)


def used_s(lab: Lab) -> dict[tuple[str, str], float]:
    """CPU seconds of each of our processes so far, by host and name."""
    return {(weight.host, weight.name): weight.cpu_s for weight in weights(lab)}


def measure(count: int, nodes: int, more_nodes: int, control_plane: ControlPlane) -> Figures:
    assets = gather() if control_plane == "kubernetes" else None
    with launch.up(launch.Recipe("bench-growth", lay_out(nodes), assets=assets)) as lab:
        if control_plane == "kubernetes":
            for number in range(1, nodes + 1):
                lab.process(f"node-{number}", "kube-proxy", "kill")
        api = connect(lab.kubeconfig, user_agent="berthlb-bench")
        for number in range(nodes + 1, nodes + more_nodes + 1):
            api.create(NODES, None, {"metadata": {"name": f"node-{number}"}})
        start_workload(lab, "web", replicas=1)
        make_pool(api)
        api.create(L2_ADVERTISEMENTS, "metallb-system", {"metadata": {"name": "bench"}, "spec": {}})
        before = used_s(lab)
        began = time.monotonic()
        figures = {"created, s": create(api, count)}
        progress.print(f"created after {figures['created, s']:.1f} s")
        wait_for(lambda: claimed(lab) >= count, LONG_S, "every claim", every=LOOK_S)
        figures["announced, s"] = time.monotonic() - began
        share = (0.03 + 0.001 * nodes) * nodes  # each hears all
        await_quiet(lambda: sum(used_s(lab).values()), window_s=5.0, share=share)
        figures["quiet, s"] = time.monotonic() - began
        quiet = used_s(lab)
        time.sleep(IDLE_S)
        for weight in weights(lab):
            process, name = (weight.host, weight.name), f"{weight.host} {weight.name}"
            figures[f"{name}: CPU, s"] = quiet[process] - before[process]
            figures[f"{name}: idle, % of a core"] = 100 * (weight.cpu_s - quiet[process]) / IDLE_S
            figures[f"{name}: memory, MiB"] = weight.pss_mib
        figures["claims beyond one for each Service"] = (
            counted(lab, nodes, 'berthlb_speaker_decisions_total{reason="Claimed"}') - count
        )
        figures["late loops"] = counted(lab, nodes, "berthlb_speaker_late_loops_total")
        return figures


def main() -> None:
    parser = arguments("growth", __doc__)
    parser.add_argument("--services", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--more-nodes", type=int, default=0, metavar="N", help="Nodes without machines; default: none")
    parser.add_argument("--control-plane", choices=["embedded", "kubernetes"], default="embedded")
    given = parser.parse_args()
    figures = measure(given.services, given.nodes, given.more_nodes, given.control_plane)
    show(["figure", "value"], {name: [value] for name, value in figures.items()})
    write(given.json, figures)


if __name__ == "__main__":
    main()
