"""Many Services at once, on a real API server: how long until all have an address, beside a client that only writes.

``python -m bench.services --services 10000 --json FILE``. The bare client sends the very writes that the controller
sends (a merge patch of the status with address, condition and annotation), from as many threads, to Services of another
class; the ratio of the two times is what deciding costs. The controller also records its Events meanwhile. CPU is that
of the controller's process.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster.addresses import Address, Family
from cluster.client import IP_ADDRESS_POOLS, SERVICES, ApiClient, connect
from cluster.objects import Condition, Service
from controller.changes import ADDRESS_ASSIGNED, Moment, service_patch
from controller.daemon import WRITERS
from lab import launch
from lab.assets.gather import gather
from lab.client import Lab
from lab.layout import CONTROL_PLANE, lay_out
from lab.measure import wait_for

console = Console(stderr=True)
CREATORS = 12
POOL = "10.32.0.0/14"
BARE_CLASS = "bench.berthlb.io/bare"
PORT = 7472
LONG_S = 1800.0


def in_parallel(count: int, threads: int, act: Callable[[int], object]) -> float:
    """Call ``act`` with every number below ``count``; the seconds that it took."""
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        numbers.put(number)

    def work() -> None:
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                return
            act(number)

    began = time.monotonic()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.monotonic() - began


def create(api: ApiClient, count: int, prefix: str, load_balancer_class: str | None) -> float:
    spec = {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{"port": 80}]}
    if load_balancer_class is not None:
        spec["loadBalancerClass"] = load_balancer_class

    def one(number: int) -> None:
        api.create(SERVICES, "default", {"metadata": {"name": f"{prefix}-{number}"}, "spec": spec})

    return in_parallel(count, CREATORS, one)


def write_bare(api: ApiClient, count: int) -> float:
    """The controller's writes, decided beforehand."""
    views: dict[str, Service] = {}
    for page in api.list_pages(SERVICES, "default"):
        views.update((each.metadata.name, each) for each in page.items)
    now = Moment(time.monotonic(), time.time())
    bodies = []
    for number in range(count):
        text = Address(Family.IPV4, (11 << 24) + number).text
        condition = Condition(ADDRESS_ASSIGNED, "True", "Assigned", f'{text} from pool "bench"')
        patch = service_patch(views[f"bare-{number}"], [text], "bench", condition, now)
        assert patch is not None
        bodies.append(patch[0])
    return in_parallel(
        count,
        WRITERS,
        lambda number: api.patch(SERVICES, "default", f"bare-{number}", bodies[number], subresource="status"),
    )


def updates(lab: Lab) -> int:
    """Writes of the controller so far, as its metrics tell."""
    shown = lab.run(CONTROL_PLANE, ["curl", "--silent", f"http://127.0.0.1:{PORT}/metrics"]).output
    lines = [line for line in shown.splitlines() if line.startswith("metallb_k8s_client_updates_total ")]
    return int(float(lines[0].split()[1])) if lines else 0


def cpu_s(lab: Lab, pid: int) -> float:
    fields = lab.run(CONTROL_PLANE, ["cat", f"/proc/{pid}/stat"], check=True).output.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_controller(lab: Lab, count: int) -> dict[str, float]:
    """From its start with everything waiting until everything is assigned; then what it weighs and has used."""
    arguments = [sys.executable, "-m", "controller", f"--kubeconfig={lab.status().kubeconfig_inside}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with (
        (lab.directory / "bench-controller.log").open("wb") as log,
        lab.start(CONTROL_PLANE, arguments, stdout=log, stderr=log, environment=environment) as running,
    ):
        wait_for(lambda: updates(lab) > 0, LONG_S, "the first write")
        began, used = time.monotonic(), cpu_s(lab, running.pid)
        wait_for(lambda: updates(lab) >= count, LONG_S, "every address")
        seconds = time.monotonic() - began
        quiet(lab, running.pid)
        kib = lab.run(CONTROL_PLANE, ["sh", "-c", f"sed -n 's/^Pss: *//p' /proc/{running.pid}/smaps_rollup"]).output
        found = {"assigned_s": seconds, "cpu_s": cpu_s(lab, running.pid), "pss_mib": int(kib.split()[0]) / 1024}
        found["cpu_before_first_write_s"] = used
        running.terminate()
        running.wait(10)
    return found


def quiet(lab: Lab, pid: int) -> None:
    """Until its Events are recorded too: it uses next to nothing any more."""

    def idle() -> bool:
        before = cpu_s(lab, pid)
        time.sleep(2.0)
        return cpu_s(lab, pid) - before < 0.1

    wait_for(idle, LONG_S, "quiet")


def measure(count: int) -> dict[str, float]:
    held = launch.up(launch.Wanted("bench-services", lay_out(1), daemons=False, assets=gather()))
    lab = held.lab
    try:
        lab.process("node-1", "kube-proxy", "kill")  # it would spend more on so many Services than all the others
        api = connect(lab.kubeconfig, user_agent="berthlb-bench")
        body = {"metadata": {"name": "bench"}, "spec": {"addresses": [POOL], "avoidBuggyIPs": True}}
        api.create(IP_ADDRESS_POOLS, "metallb-system", body)
        console.print(f"creating 2 × {count} Services")
        result = {"services": float(count), "created_s": create(api, count, "bare", BARE_CLASS)}
        create(api, count, "ours", None)
        console.print("the bare client")
        result["bare_s"] = write_bare(api, count)
        console.print("the controller")
        result |= run_controller(lab, count)
        assigned = [
            each.status.load_balancer.ingress[0].ip
            for page in api.list_pages(SERVICES, "default")
            for each in page.items
            if each.metadata.name.startswith("ours-") and each.status.load_balancer.ingress
        ]
        if len(set(assigned)) != count:
            raise SystemExit(f"{len(set(assigned))} addresses for {count} Services")
        result["ratio"] = result["assigned_s"] / result["bare_s"]
        return result
    finally:
        lab.down()
        held.holder.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.services")
    parser.add_argument("--services", type=int, default=10_000, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    result = measure(given.services)
    table = Table("figure", "value", box=None)
    for name, value in result.items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
