"""Many Services at once on a real API server: how long until all have an address, beside clients that only write.

    python -m bench.services [--services 10000] [--rounds 1] [--json FILE]

A round does four things, each with Services of its own:

1. A bare client sends the very writes that the controller sends (a merge patch of the status with address, condition
   and annotation), from as many threads.
2. The same client, while another process watches Services and does nothing else, as every controller has to: the API
   server spends a fifth of a write's CPU on telling one watcher of it.
3. The controller is started with all Services waiting. Its time is that from its first write to its last, by its log.
   CPU and memory (PSS) are those of its process, with the Events that it records.
4. The controller is ended with SIGTERM and started anew, then killed and started anew: how long does a Service wait
   that is created at that moment?

The ratios of the controller's time to those of the two clients are what deciding costs. A machine's speed varies, so
``--rounds`` repeats all of it.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import queue
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing.synchronize import Event
from pathlib import Path

from bench.probes import LONG_S, await_quiet, counter, cpu_in_lab_s, make_pool
from bench.report import Figures, arguments, progress, show, write
from cluster.addresses import Address, Family
from cluster.api.client import SERVICES, ApiClient, connect
from cluster.objects import Condition, Service
from cluster.record import ADDRESS_ASSIGNED
from controller.changes import Moment, service_patch
from controller.daemon.writers import WRITERS
from lab import launch
from lab.assets.gather import gather
from lab.client import Command, Lab
from lab.layout import CONTROL_PLANE, lay_out
from lab.machines.container import confined
from lab.measuring.measure import wait_for
from lab.shipped import ROOT
from lab.shipped.rights import rights_of

CREATORS = 12
SPEC = {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{"port": 80}]}
BARE_CLASS = "bench.berthlb.io/bare"
LOOK_S = 0.2
"""Between two looks at the controller's metrics. Each costs it, and the machine, some milliseconds."""


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
    spec = SPEC if load_balancer_class is None else {**SPEC, "loadBalancerClass": load_balancer_class}

    def one(number: int) -> None:
        api.create(SERVICES, "default", {"metadata": {"name": f"{prefix}-{number}"}, "spec": spec})

    return in_parallel(count, CREATORS, one)


def delete(api: ApiClient, count: int, prefix: str) -> None:
    in_parallel(count, CREATORS, lambda number: api.delete(SERVICES, "default", f"{prefix}-{number}"))


def write_bare(api: ApiClient, count: int) -> float:
    """Send the controller's writes, decided beforehand; the seconds that it took."""
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


@contextmanager
def somebody_watching(lab: Lab, api: ApiClient) -> Iterator[None]:
    """While this lasts another process follows the Services as the controller does, and ignores what it hears."""
    version = api.list_page(SERVICES, limit=1).metadata.resource_version
    processes = multiprocessing.get_context("spawn")
    watching = processes.Event()
    watcher = processes.Process(target=watch, args=(lab.kubeconfig, version, watching), daemon=True)
    watcher.start()
    try:
        if not watching.wait(30):
            raise SystemExit("the watch does not begin")
        yield
    finally:
        watcher.terminate()
        watcher.join()


def watch(kubeconfig: Path, version: str, watching: Event) -> None:
    api = connect(kubeconfig, user_agent="berthlb-bench")
    with api.watch(SERVICES, field_selector="spec.type=LoadBalancer", resource_version=version) as stream:
        watching.set()
        for _ in stream:
            pass


def updates(lab: Lab) -> int:
    """Writes of the controller so far, as its metrics tell."""
    return counter(lab, CONTROL_PLANE, "metallb_k8s_client_updates_total ")


def readable_kubeconfig(lab: Lab) -> Path:
    """The administrator's kubeconfig with the certificate in a file of its own.

    The official client writes a certificate into a file itself, which the controller's rights do not allow.
    """
    config = json.loads(Path(lab.status().kubeconfig_inside).read_text())
    cluster = config["clusters"][0]["cluster"]
    authority, kubeconfig = lab.directory / "bench-authority.crt", lab.directory / "bench-kubeconfig"
    authority.write_bytes(base64.b64decode(cluster.pop("certificate-authority-data")))
    cluster["certificate-authority"] = str(authority)
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(json.dumps(config))
    return kubeconfig


class Controller:
    """The only controller, on the control plane's host: started, and ended and started again."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        controller = [sys.executable, "-m", "controller", f"--kubeconfig={readable_kubeconfig(lab)}"]
        self._arguments = [*confined(rights_of("controller")), *controller]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.log = lab.directory / "bench-controller.log"
        self.log.unlink(missing_ok=True)
        self._process = self._start()

    def _start(self) -> Command:
        with self.log.open("ab") as log:
            where, environment = CONTROL_PLANE, self._environment
            return self._lab.start(where, self._arguments, stdout=log, stderr=log, environment=environment)

    def end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.wait(10)
        self._process.close()

    def restart(self, number: int) -> None:
        self.end(number)
        self._process = self._start()

    def cpu_s(self) -> float:
        return cpu_in_lab_s(self._lab, CONTROL_PLANE, self._process.pid)

    def await_quiet(self) -> None:
        """Return when it uses next to nothing any more: its Events are recorded too."""
        await_quiet(self.cpu_s, window_s=2.0, share=0.05)

    def pss_mib(self) -> float:
        ask = ["sh", "-c", f"sed -n 's/^Pss: *//p' /proc/{self._process.pid}/smaps_rollup"]
        return int(self._lab.run(CONTROL_PLANE, ask).output.split()[0]) / 1024


def run_controller(lab: Lab, api: ApiClient, count: int) -> Figures:
    """Start a controller with every Service waiting. Returns its figures, and those of its two restarts."""
    controller = Controller(lab)
    try:
        wait_for(lambda: updates(lab) >= count, LONG_S, "every address", every=LOOK_S)
        controller.await_quiet()
        written = writes(controller.log)
        found = {"assigned_s": written[-1] - written[0], "cpu_s": controller.cpu_s()}
        found["pss_mib"] = controller.pss_mib()
        for name, number in (("restarted", signal.SIGTERM), ("killed", signal.SIGKILL)):
            controller.restart(number)
            found[f"{name}_s"] = waits(api, name)
            controller.await_quiet()
            found[f"{name}_pss_mib"] = controller.pss_mib()
        return found
    finally:
        controller.end(signal.SIGTERM)


def waits(api: ApiClient, name: str) -> float:
    """How long a new Service waits for its address, in seconds."""
    began = time.monotonic()
    api.create(SERVICES, "default", {"metadata": {"name": name}, "spec": SPEC})
    wait_for(
        lambda: bool(api.get(SERVICES, "default", name).status.load_balancer.ingress), LONG_S, "an address", every=0.01
    )
    waited = time.monotonic() - began
    api.delete(SERVICES, "default", name)
    return waited


def writes(log: Path) -> list[float]:
    """When the controller had written to each Service, in seconds since 1970."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [datetime.fromisoformat(line["time"]).timestamp() for line in lines if line.get("kind") == "Service"]


def one_round(lab: Lab, api: ApiClient, count: int) -> Figures:
    """Measure the bare client, the one beside a watch, and the controller, each with Services of its own."""
    result = {"created_s": create(api, count, "bare", BARE_CLASS), "bare_s": write_bare(api, count)}
    delete(api, count, "bare")
    create(api, count, "bare", BARE_CLASS)
    with somebody_watching(lab, api):
        result["watched_s"] = write_bare(api, count)
    delete(api, count, "bare")
    create(api, count, "ours", None)
    result |= run_controller(lab, api, count)
    assigned = [
        each.status.load_balancer.ingress[0].ip
        for page in api.list_pages(SERVICES, "default")
        for each in page.items
        if each.metadata.name.startswith("ours-") and each.status.load_balancer.ingress
    ]
    if len(set(assigned)) != count:
        raise SystemExit(f"{len(set(assigned))} addresses for {count} Services")
    delete(api, count, "ours")
    result["ratio_to_bare"] = result["assigned_s"] / result["bare_s"]
    result["ratio_to_watched"] = result["assigned_s"] / result["watched_s"]
    return result


def measure(count: int, rounds: int) -> list[Figures]:
    with launch.up(launch.Recipe("bench-services", lay_out(1), daemons=False, assets=gather())) as lab:
        lab.process("node-1", "kube-proxy", "kill")  # it would spend more on so many Services than all the others
        api = connect(lab.kubeconfig, user_agent="berthlb-bench")
        make_pool(api)
        results = []
        for number in range(rounds):
            progress.print(f"round {number + 1} of {rounds}: 3 × {count} Services")
            results.append(one_round(lab, api, count))
        return results


def main() -> None:
    parser = arguments("services", __doc__)
    parser.add_argument("--services", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="a busy machine's speed varies")
    given = parser.parse_args()
    results = measure(given.services, given.rounds)
    rows: dict[str, list[float]] = {}
    for name in results[0]:
        values = [each[name] for each in results]
        rows[name] = [*values, statistics.median(values)]
    show(["figure", *(f"round {number + 1}" for number in range(given.rounds)), "median"], rows)
    write(given.json, {"services": given.services, "rounds": results})


if __name__ == "__main__":
    main()
